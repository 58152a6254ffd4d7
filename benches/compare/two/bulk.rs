//! How long much new content takes, from its first byte written on A until all of it is durable on B: one large file, and many
//! small ones. Over loopback beside rsync's daemon, and far away beside what the link gives.
//!
//! Each sample has two hosts and file systems of its own. `rsync` writes, too, and is called then; `rsync-run` is that call alone.

use super::ours::Syncfs;
use super::turns::{Sample, Turn, note, taken, turns};
use crate::figure::{Figure, Goal, Unit};
use crate::link::{Link, Terms, Yardstick};
use crate::options::Options;
use crate::peers::{Ends, Peer, Side, sync, wanted};
use crate::rig::noise;
use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};

const GIB: u64 = 1 << 30;
const PIECE: usize = 1 << 20;
/// So much content before it comes again.
const POOL: usize = 64 << 20;

/// So many files of that size.
#[derive(Clone, Copy)]
pub struct Load {
    pub files: u64,
    pub size: u64,
}

/// Content that nobody had before.
pub fn pool(seed: u64) -> Vec<u8> {
    noise(seed, POOL)
}

pub fn measure(options: &Options) -> Vec<Figure> {
    let large = |full, quick| Load { files: 1, size: options.size(full, quick) };
    let small = |full, quick| Load { files: options.size(full, quick), size: 4096 };
    let mut figures = Vec::new();
    for (name, load, unit) in [
        ("bulk-large", large(4 * GIB, GIB / 2), Unit::Throughput),
        ("bulk-small", small(20_000, 5_000), Unit::Rate),
    ] {
        if options.wants(name) {
            figures.push(over_loopback(options, name, load, unit));
        }
    }
    for (name, load) in
        [("bulk-far-large", large(GIB / 2, GIB / 8)), ("bulk-far-small", small(10_000, 2_000))]
    {
        if options.wants(name) {
            figures.push(far_away(options, name, load));
        }
    }
    figures
}

fn over_loopback(options: &Options, name: &str, load: Load, unit: Unit) -> Figure {
    let title = format!("{}, until durable on B, over loopback", load.title());
    let goals = ["rsync", "rsync-run"].map(|who| Goal::Against(who.into(), 1.0));
    let amount = if unit == Unit::Rate { load.files } else { load.bytes() } as f64;
    alone(Figure::new(name, &title, unit, goals), |figures| {
        let ours = sample("syncfs", None, load, amount, |ends| Box::new(Syncfs::start(ends)));
        let mut takers = vec![Turn::new("syncfs", ours)];
        for kind in wanted(options) {
            takers.push(Turn::of(kind, sample(kind.name, None, load, amount, |ends| kind.need(ends))));
            note(figures, &kind.note());
        }
        turns(options, figures, takers);
    })
}

fn far_away(options: &Options, name: &str, load: Load) -> Figure {
    let title = format!("{}, until durable on B, 25 ms and 1 Gbit/s away", load.title());
    let figure = Figure::new(name, &title, Unit::Throughput, [Goal::Against("link".into(), 0.8)]);
    alone(figure, |figures| {
        let link = Rc::new(Link::new(Terms { delay: Duration::from_millis(25), rate: 1e9 }));
        let bytes = load.bytes();
        let plain = || vec![(0, "link", Yardstick::of(&link, bytes).throughput)];
        let ours = sample("syncfs", Some(&link), load, bytes as f64, |ends| Box::new(Syncfs::start(ends)));
        let mut takers = vec![Turn::new("link", plain), Turn::new("syncfs", ours)];
        // Others would take an hour for many files, with some round trips for each.
        for kind in wanted(options).iter().filter(|kind| kind.name == "rsync") {
            let theirs = sample(kind.name, Some(&link), load, bytes as f64, |ends| kind.need(ends));
            takers.push(Turn::of(kind, theirs));
            note(figures, &kind.note());
        }
        note(figures, "link: one plain TCP connection, from connecting to the last byte");
        turns(options, figures, takers);
    })
}

/// One figure, taken by itself.
pub fn alone(mut figure: Figure, take: impl FnOnce(&mut [Figure])) -> Figure {
    taken(std::slice::from_mut(&mut figure), take);
    figure
}

/// `amount` is what crosses, in what the figure counts.
fn sample<'a>(
    who: &'static str,
    link: Option<&'a Rc<Link>>,
    load: Load,
    amount: f64,
    start: impl Fn(Rc<Ends>) -> Box<dyn Peer> + 'a,
) -> impl FnMut() -> Vec<Sample> + 'a {
    let mut seeds = 1..;
    move || {
        let ends = Rc::new(Ends::new(link, 2 * load.bytes() + GIB));
        let mut peer = start(ends.clone());
        let pool = pool(seeds.next().expect("endless"));
        for side in [Side::A, Side::B] {
            sync(ends.dir(side));
        }
        let begun = Instant::now();
        load.write(peer.dir(Side::A), &pool);
        let written = Instant::now();
        peer.durable("bulk", load.files as usize, load.bytes());
        let mut samples = vec![(0, who, amount / begun.elapsed().as_secs_f64())];
        if who == "rsync" {
            samples.push((0, "rsync-run", amount / written.elapsed().as_secs_f64()));
        }
        samples
    }
}

impl Load {
    fn title(self) -> String {
        match self {
            Load { files: 1, size } => format!("one file of {:.2} GiB", size as f64 / GIB as f64),
            Load { files, size } => format!("{files} files of {} KiB", size >> 10),
        }
    }

    pub fn bytes(self) -> u64 {
        self.files * self.size
    }

    /// Files `bulk *`.
    pub fn write(self, dir: &Path, pool: &[u8]) {
        let mut pieces = pool.chunks_exact(PIECE.min(self.size as usize)).cycle();
        for n in 0..self.files {
            let mut file = File::create_new(dir.join(format!("bulk {n}"))).expect("created");
            let mut left = self.size as usize;
            while left > 0 {
                let piece = pieces.next().expect("endless");
                let length = left.min(piece.len());
                file.write_all(&piece[..length]).expect("written");
                left -= length;
            }
        }
    }
}
