//! Processor time that replicating takes: of all programs on both hosts, from the first byte written until all is durable on B, over
//! loopback. Who writes is not counted, but syncfs is in its way, and what that takes is.

use super::bulk::{Load, alone, pool};
use super::group::Group;
use super::ours::Syncfs;
use super::turns::{Sample, Turn, note, turns};
use crate::figure::{Figure, Goal, Unit};
use crate::options::Options;
use crate::peers::{Ends, Peer, RsyncOverSsh, Side, wanted};
use std::rc::Rc;

const GIB: u64 = 1 << 30;

pub fn measure(options: &Options) -> Vec<Figure> {
    if !options.wants("cpu") {
        return Vec::new();
    }
    let load = Load { files: 1, size: options.size(GIB, GIB / 4) };
    let goal = Goal::Against("rsync-ssh".into(), 1.0);
    let title = "processor time of both hosts for 1 GiB replicated";
    let figure = alone(Figure::new("cpu", title, Unit::Seconds, [goal]), |figures| {
        let mut takers = vec![
            Turn::new("syncfs", sample("syncfs", load, |ends| Box::new(Syncfs::start(ends)))),
            Turn::new("rsync-ssh", sample("rsync-ssh", load, |ends| Box::new(RsyncOverSsh::start(ends)))),
        ];
        for kind in wanted(options) {
            takers.push(Turn::of(kind, sample(kind.name, load, |ends| kind.need(ends))));
            note(figures, &kind.note());
        }
        note(figures, "rsync-ssh: rsync over ssh with aes256-gcm, the cipher of syncfs");
        turns(options, figures, takers);
    });
    vec![figure]
}

fn sample(
    who: &'static str,
    load: Load,
    start: impl Fn(Rc<Ends>) -> Box<dyn Peer>,
) -> impl FnMut() -> Vec<Sample> {
    let mut seeds = 1..;
    move || {
        let group = Group::new();
        let ends = Rc::new(Ends::new(None, 2 * load.bytes() + GIB).with_around(group.around()));
        let mut peer = start(ends);
        let (pool, before) = (pool(seeds.next().expect("endless")), group.seconds());
        load.write(peer.dir(Side::A), &pool);
        peer.durable("bulk", load.files as usize, load.bytes());
        let spent = group.seconds() - before;
        vec![(0, who, spent * GIB as f64 / load.bytes() as f64)]
    }
}
