//! What one byte costs on the wire, written anywhere into a large file that both hosts hold. Counted by the link, both ways, with
//! the headers of TCP and IP, until the link is quiet again. Each contender has a link of its own.

use super::bulk::alone;
use super::ours::Syncfs;
use super::turns::{Sample, Turn, left_out, note, turns};
use crate::figure::{Figure, Goal, Unit};
use crate::link::{Link, Terms};
use crate::options::Options;
use crate::peers::{Ends, PATIENCE, Peer, Side, patiently, sync, wanted};
use crate::rig::noise;
use std::fs::{File, FileTimes};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

const MIB: u64 = 1 << 20;
const NAME: &str = "large";
/// Nothing has crossed for so long: the change and all answers to it have.
const QUIET: Duration = Duration::from_millis(700);

pub fn measure(options: &Options) -> Vec<Figure> {
    if !options.wants("wire") {
        return Vec::new();
    }
    let size = options.size(1024, 128) * MIB;
    let title = format!("bytes on the wire for an edit of one byte in {} MiB", size / MIB);
    vec![alone(Figure::new("wire", &title, Unit::Bytes, [Goal::AtMost(2500.0)]), |figures| {
        let ends = || Rc::new(level(size));
        let ours = ends();
        let syncfs = Box::new(Syncfs::start(ours.clone()));
        let mut takers = vec![Turn::new("syncfs", sample("syncfs", ours, syncfs, size))];
        for kind in wanted(options) {
            let ends = ends();
            match kind.started(|| ends.clone()) {
                Ok(peer) => takers.push(Turn::of(kind, sample(kind.name, ends, peer, size))),
                Err(why) => left_out(figures, kind.name, &why),
            }
            note(figures, &kind.note());
        }
        turns(options, figures, takers);
    })]
}

fn sample(
    who: &'static str,
    ends: Rc<Ends>,
    mut peer: Box<dyn Peer>,
    size: u64,
) -> impl FnMut() -> Vec<Sample> {
    peer.push();
    let mut edits = 1..;
    move || {
        let link = ends.link.as_deref().expect("there is one");
        quiet(link);
        let before = link.carried();
        edit(&mut *peer, edits.next().expect("endless"), size);
        quiet(link);
        vec![(0, who, (link.carried() - before) as f64)]
    }
}

/// Two hosts that hold the same file already, of the same age.
fn level(size: u64) -> Ends {
    let link = Rc::new(Link::new(Terms { delay: Duration::from_millis(1), rate: 1e9 }));
    let ends = Ends::new(Some(&link), 3 * size + (1 << 30));
    let times = FileTimes::new().set_modified(SystemTime::now() - Duration::from_secs(3600));
    for side in [Side::A, Side::B] {
        let mut file = File::create_new(ends.dir(side).join(NAME)).expect("created");
        (0..size / MIB).for_each(|n| file.write_all(&noise(n + 1, MIB as usize)).expect("written"));
        file.set_times(times).expect("a time");
        sync(ends.dir(side));
    }
    ends
}

/// One byte becomes another; returns when B has it.
fn edit(peer: &mut dyn Peer, n: u64, size: u64) {
    let at = u64::from_le_bytes(noise(n, 8).try_into().expect("eight")) % size;
    let byte = |path: &Path| {
        let mut byte = [0];
        File::open(path)?.read_exact_at(&mut byte, at)?;
        Ok::<u8, std::io::Error>(byte[0])
    };
    let [here, there] = [Side::A, Side::B].map(|side| peer.dir(side).join(NAME));
    let wanted = !byte(&here).expect("it is there");
    File::options()
        .write(true)
        .open(&here)
        .and_then(|file| file.write_all_at(&[wanted], at))
        .expect("written");
    peer.push();
    patiently("the byte is on B", || byte(&there).is_ok_and(|found| found == wanted).then_some(()));
}

fn quiet(link: &Link) {
    let begun = Instant::now();
    let mut last = (link.carried(), begun);
    while last.1.elapsed() < QUIET {
        assert!(begun.elapsed() < PATIENCE, "the link is never quiet");
        std::thread::sleep(Duration::from_millis(20));
        if link.carried() != last.0 {
            last = (link.carried(), Instant::now());
        }
    }
}
