//! How soon a reader on B has what was closed on A: a new file of 4 KiB, and such a file written anew in place.
//!
//! One thread writes, and then looks for it on B each 50 µs; where it has waited long, less often. Time begins before `close` is
//! called. `native` does both in one directory: what the method itself costs. `floor` does only what must be done.

use super::floor::Floor;
use super::ours::Syncfs;
use super::turns::{Sample, Turn, left_out, note, taken, turns};
use crate::figure::{Figure, Goal, Unit};
use crate::link::{Link, Terms, Yardstick};
use crate::options::Options;
use crate::peers::{Ends, Peer, Side, wanted};
use crate::rig::noise;
use std::fs::File;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

pub const SIZE: usize = 4096;
const ROOM: u64 = 1 << 30;
/// Between two looks.
const LOOK: Duration = Duration::from_micros(50);
/// Between two changes; and as long again as the last one took, at random, for who looks for changes now and then.
const REST: Duration = Duration::from_millis(2);
/// Who has not crossed by then is left out.
const PATIENCE: Duration = Duration::from_secs(60);
/// Changes in a round for who takes very long.
const LEAST: usize = 2;

#[derive(Clone, Copy, PartialEq)]
pub enum Kind {
    New,
    Edit,
}

pub fn measure(options: &Options) -> Vec<Figure> {
    // Sleeping takes no longer than it is told to.
    let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
    [false, true].into_iter().flat_map(|far| at(options, far)).collect()
}

/// The figures of one place: over loopback, or at the ends of a link.
fn at(options: &Options, far: bool) -> Vec<Figure> {
    let (group, place) = if far { ("latency-far", "25 ms away") } else { ("latency", "over loopback") };
    let of_kind = |(kind, name, what): (Kind, &str, &str)| {
        let mut figures = [("", "median"), ("-p99", "99th percentile")].map(|(tail, of)| {
            let title = format!("{what} of 4 KiB, close on A to read on B, {place}, {of}");
            Figure::new(&format!("{group}-{name}{tail}"), &title, Unit::Seconds, [])
        });
        if options.wants_of(&figures[0].name) {
            taken(&mut figures, |figures| measured(options, far, kind, figures));
        }
        figures
    };
    let kinds = [(Kind::New, "new", "new file"), (Kind::Edit, "edit", "edit")];
    kinds.into_iter().flat_map(of_kind).filter(|figure| options.wants(&figure.name)).collect()
}

/// The median and the 99th percentile.
fn measured(options: &Options, far: bool, kind: Kind, figures: &mut [Figure]) {
    let link = far.then(|| Rc::new(Link::new(Terms { delay: Duration::from_millis(25), rate: 1e9 })));
    let way = link.as_ref().map_or(0.0, |link| Yardstick::of(link, 1 << 20).rtt.as_secs_f64() / 2.0);
    for (figure, allowed) in figures.iter_mut().zip([1e-3, 10e-3]) {
        figure.goals = vec![Goal::AtMost(way + allowed)];
    }
    let ends = || Rc::new(Ends::new(link.as_ref(), ROOM));
    let count = options.size(200, 100) as usize;
    let most = Duration::from_secs(options.size(8, 3));
    let sample = |who: &'static str, peer: Box<dyn Peer>| {
        let mut user = User::new(peer);
        move || figures_of(who, times(count, most, || user.change(kind)))
    };
    let mut takers = Vec::new();
    if !far {
        takers.push(Turn::new("native", sample("native", Box::new(Native(ends())))));
    }
    let mut floor = Floor::start(link.as_deref());
    let least = move || figures_of("floor", times(count, most, || floor.crossing(kind)));
    takers.push(Turn::new("floor", least));
    note(figures, "floor: two logs synced one after the other, and plain TCP between two threads");
    takers.push(Turn::new("syncfs", sample("syncfs", Box::new(Syncfs::start(ends())))));
    for kind in wanted(options) {
        match kind.started(ends) {
            Ok(peer) => takers.push(Turn::of(kind, sample(kind.name, peer))),
            Err(why) => left_out(figures, kind.name, &why),
        }
        note(figures, &kind.note());
    }
    let seconds = most.as_secs();
    note(
        figures,
        &format!("{count} changes in each round; fewer of who takes more than {seconds} s for them"),
    );
    turns(options, figures, takers);
}

fn figures_of(who: &'static str, times: Vec<f64>) -> Vec<Sample> {
    vec![(0, who, times[times.len() / 2]), (1, who, times[times.len() * 99 / 100])]
}

/// How long each of some changes took, in seconds, sorted.
fn times(count: usize, most: Duration, mut change: impl FnMut() -> Duration) -> Vec<f64> {
    let (begun, mut times) = (Instant::now(), Vec::new());
    while times.len() < count && (times.len() < LEAST || begun.elapsed() < most) {
        let time = change();
        times.push(time.as_secs_f64());
        let random = noise(times.len() as u64, 1)[0];
        std::thread::sleep(REST + time.min(Duration::from_secs(1)) * u32::from(random) / 256);
    }
    times.sort_by(f64::total_cmp);
    times
}

/// How long it took from `begun` until something is seen.
pub fn seen(begun: Instant, mut look: impl FnMut() -> bool) -> Duration {
    while !look() {
        assert!(begun.elapsed() < PATIENCE, "a change is not seen within {} s", PATIENCE.as_secs());
        std::thread::sleep(LOOK.max(begun.elapsed() / 200));
    }
    begun.elapsed()
}

/// Writes on A, and reads on B.
struct User {
    /// What is edited, open on B. It is closed before the peer ends, which waits for who uses its mount.
    edited: Option<File>,
    peer: Box<dyn Peer>,
    /// Changes so far.
    changes: u64,
}

impl User {
    fn new(peer: Box<dyn Peer>) -> User {
        User { edited: None, peer, changes: 0 }
    }

    fn change(&mut self, kind: Kind) -> Duration {
        match kind {
            Kind::New => self.new_file(),
            Kind::Edit => self.edit(),
        }
    }

    fn new_file(&mut self) -> Duration {
        let (name, bytes) = (format!("new {}", self.changes), self.bytes());
        let file = File::create_new(self.peer.dir(Side::A).join(&name)).expect("created");
        let path = self.peer.dir(Side::B).join(&name);
        self.crossing(file, &bytes, |found| std::fs::read(&path).is_ok_and(|bytes| bytes == found))
    }

    fn edit(&mut self) -> Duration {
        let (path, there) = (self.path(Side::A), self.path(Side::B));
        if !path.exists() {
            let (file, bytes) = (File::create_new(&path).expect("created"), self.bytes());
            self.crossing(file, &bytes, |bytes| std::fs::read(&there).is_ok_and(|found| found == bytes));
            self.edited = self.peer.changes_in_place().then(|| File::open(&there).expect("it was read"));
        }
        let (file, bytes) = (File::options().write(true).open(&path).expect("open"), self.bytes());
        let (edited, mut found) = (self.edited.take(), [0; SIZE]);
        let time = self.crossing(file, &bytes, |bytes| match &edited {
            Some(file) => file.read_exact_at(&mut found, 0).is_ok() && found == bytes,
            None => std::fs::read(&there).is_ok_and(|found| found == bytes),
        });
        self.edited = edited;
        time
    }

    fn path(&self, side: Side) -> PathBuf {
        self.peer.dir(side).join("edited")
    }

    /// Content that nobody had before.
    fn bytes(&mut self) -> Vec<u8> {
        self.changes += 1;
        noise(self.changes, SIZE)
    }

    /// How long it takes from closing a file with these bytes until they are seen.
    fn crossing(&mut self, file: File, bytes: &[u8], mut look: impl FnMut(&[u8]) -> bool) -> Duration {
        file.write_all_at(bytes, 0).expect("written");
        let begun = Instant::now();
        drop(file);
        self.peer.push();
        seen(begun, || look(bytes))
    }
}

/// Both hosts in one directory.
struct Native(Rc<Ends>);

impl Peer for Native {
    fn dir(&self, _: Side) -> &Path {
        self.0.dir(Side::A)
    }

    fn changes_in_place(&self) -> bool {
        true
    }
}
