//! Reading what is not held: B keeps a cache and lies 25 ms away, A has the files. Beside sshfs, which mounts A's directory on B.
//! `benches/lazy` tells more of it.

#[path = "../../lazy/pattern.rs"]
#[allow(dead_code)]
mod pattern;

use super::ours::Syncfs;
use super::turns::{ROUNDS, Turn, left_out, taken, turns};
use crate::figure::{Figure, Goal, Unit, attempt};
use crate::link::{Link, Terms, Yardstick};
use crate::options::Options;
use crate::peers::{Ends, Side, sync};
use crate::rig::noise;
use crate::sshfs::Sshfs;
use pattern::Pattern;
use std::borrow::Borrow;
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::rc::Rc;
use std::time::{Duration, Instant};
use syncfs::model::limits::GROUP_BYTES;

const MIB: u64 = 1 << 20;
const PIECE: u64 = 4096;
/// Files that are begun in each round.
const BEGUN: u64 = 20;

struct Sizes {
    /// Of each file that is read from its beginning to its end.
    whole: u64,
    /// Of the file that is read here and there.
    scattered: u64,
    /// Reads in each round.
    reads: u64,
}

pub fn measure(options: &Options) -> Vec<Figure> {
    let goal = || Goal::Against("sshfs".into(), 1.0);
    let figure = |name, title, unit| Figure::new(name, title, unit, [goal()]);
    let mut figures = [
        figure("lazy-first", "first byte of a file that is not held, 25 ms away", Unit::Seconds),
        figure(
            "lazy-sequential",
            "a file that is not held, from its beginning to its end, 25 ms away",
            Unit::Throughput,
        ),
        figure("lazy-random", "4 KiB anywhere in a file that is not held, 25 ms away", Unit::Seconds),
    ];
    if !figures.iter().any(|figure| options.wants(&figure.name)) {
        return Vec::new();
    }
    taken(&mut figures, |figures| measured(options, figures));
    figures.into_iter().filter(|figure| options.wants(&figure.name)).collect()
}

fn measured(options: &Options, figures: &mut [Figure]) {
    let sizes = Sizes {
        whole: options.size(128, 64) * MIB,
        scattered: options.size(512, 256) * MIB,
        reads: options.size(40, 20),
    };
    let link = Rc::new(Link::new(Terms { delay: Duration::from_millis(25), rate: 1e9 }));
    let rtt = Yardstick::of(&link, MIB).rtt.as_secs_f64();
    figures[0].goals.push(Goal::AtMost(rtt + 5e-3));
    let ends = Rc::new(Ends::new(Some(&link), 4 << 30));
    sizes.fill(ends.dir(Side::A));
    let ours = Syncfs::with_cache(ends, 3 << 30);
    let sshfs = attempt(|| Sshfs::mount(Some(&link), &ours.pair.a.dir));
    let mut takers = vec![sizes.reader("syncfs", &ours.pair.b.dir, sizes.whole)];
    match &sshfs {
        // A part is enough to know its pace.
        Ok(Some(sshfs)) => takers.push(sizes.reader("sshfs", &sshfs.dir, sizes.whole / 4)),
        Ok(None) => left_out(figures, "sshfs", "it or sshd is not installed"),
        Err(why) => left_out(figures, "sshfs", why),
    }
    turns(options, figures, takers);
}

impl Sizes {
    fn begun(round: u64, n: u64) -> (String, Pattern) {
        (format!("begun {round} {n}"), Pattern::dense(1000 + round * BEGUN + n, MIB))
    }

    fn whole(&self, round: u64) -> (String, Pattern) {
        (format!("whole {round}"), Pattern::dense(1 + round, self.whole))
    }

    fn scattered(&self) -> (String, Pattern) {
        ("scattered".into(), Pattern::dense(100, self.scattered))
    }

    fn fill(&self, dir: &Path) {
        let rounds = 0..ROUNDS;
        let begun = rounds.clone().flat_map(|round| (0..BEGUN).map(move |n| Sizes::begun(round, n)));
        for (name, pattern) in begun.chain(rounds.map(|round| self.whole(round))).chain([self.scattered()]) {
            pattern.write(&dir.join(name));
        }
        sync(dir);
    }

    /// Reads in `dir`, of each whole file so many bytes.
    fn reader<'a>(&'a self, who: &'static str, dir: &'a Path, most: u64) -> Turn<'a> {
        let mut rounds = 0..;
        Turn::new(who, move || {
            let round = rounds.next().expect("endless");
            let first = (0..BEGUN).map(|n| {
                let (name, pattern) = Sizes::begun(round, n);
                read_at(|| File::open(dir.join(&name)).expect("open"), &pattern, 0, 1)
            });
            let first = median(first.collect());
            let (name, pattern) = self.whole(round);
            let begun = Instant::now();
            read_whole(&dir.join(name), &pattern, most);
            let whole = begun.elapsed().as_secs_f64();
            let (name, pattern) = self.scattered();
            let file = File::open(dir.join(name)).expect("open");
            let times = self.places(round).into_iter().map(|at| read_at(|| &file, &pattern, at, PIECE));
            let random = median(times.collect());
            vec![(0, who, first), (1, who, most as f64 / whole), (2, who, random)]
        })
    }

    /// Where to read in a round: each in another group, so that nothing of it came with an earlier one.
    fn places(&self, round: u64) -> Vec<u64> {
        let groups = self.scattered / GROUP_BYTES;
        let all = noise(7, 8 * groups as usize);
        let all = all.chunks_exact(8).map(|n| u64::from_le_bytes(n.try_into().expect("eight")) >> 8);
        let mut order: Vec<(u64, u64)> = all.zip(0..groups).collect();
        order.sort();
        let places = order.into_iter().skip((round * self.reads) as usize).take(self.reads as usize);
        places.map(|(random, group)| group * GROUP_BYTES + random % (GROUP_BYTES - PIECE)).collect()
    }
}

/// How long it takes to open and read, in seconds; and what was read is what was written.
fn read_at<F: Borrow<File>>(open: impl FnOnce() -> F, pattern: &Pattern, at: u64, length: u64) -> f64 {
    let (mut bytes, begun) = (vec![0; length as usize], Instant::now());
    open().borrow().read_exact_at(&mut bytes, at).expect("read");
    let time = begun.elapsed().as_secs_f64();
    pattern.check(at, &bytes);
    time
}

fn read_whole(path: &Path, pattern: &Pattern, most: u64) {
    let (mut file, mut bytes, mut at) =
        (File::open(path).expect("open").take(most), vec![0; MIB as usize], 0);
    while let length @ 1.. = file.read(&mut bytes).expect("read") {
        at += length as u64;
    }
    assert_eq!(at, most.min(pattern.size), "all of it");
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
