//! What users would take instead of syncfs for two hosts, each behind one trait: started between two directories, on
//! this machine or at the ends of a link, as its own manual has it.
//!
//! Invariants: who can't be started here says why, and the others go on; whatever is started ends with its `Peer`.

mod ends;
mod gluster;
mod lsyncd;
mod rsync;
mod ssh;
mod sshfs;
mod syncthing;
mod unison;

use crate::figure::attempt;
use crate::options::Options;
use crate::rig::wait_for;
pub use ends::{Ends, Side};
pub use rsync::{Rsync, RsyncOverSsh};
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// Longest that anything may take to cross; who takes longer is left out.
pub const PATIENCE: Duration = Duration::from_secs(180);

pub trait Peer {
    /// Where a user works on that host.
    fn dir(&self, side: Side) -> &Path;

    /// After each change on A, for who does not notice by itself; returns when it is done.
    fn push(&mut self) {}

    /// Whether who has a file open on B sees it change: else it is replaced by another.
    fn changes_in_place(&self) -> bool {
        false
    }

    /// Returns when what was written on A is durable on B: so many files `name*` in all, of so many bytes together.
    fn durable(&mut self, name: &str, files: usize, bytes: u64) {
        self.push();
        patiently("everything is on B", || {
            let found = sizes(self.dir(Side::B), name);
            (found.len() >= files && found.iter().sum::<u64>() >= bytes).then_some(())
        });
        sync(self.dir(Side::B));
    }
}

/// Of one tool: what it is called here, the programs that it takes, and how it is started; that panics where it can't be.
pub struct Kind {
    pub name: &'static str,
    /// How it is used here.
    what: &'static str,
    programs: &'static [&'static str],
    /// Says its version.
    version: &'static [&'static str],
    start: fn(Rc<Ends>) -> Box<dyn Peer>,
}

/// The first of them takes part also without `--peers`.
const KINDS: &[Kind] = &[
    Kind {
        name: "rsync",
        what: "called after each change, to a daemon, unencrypted",
        programs: &["rsync"],
        version: &["rsync", "--version"],
        start: |ends| Box::new(Rsync::start(ends)),
    },
    Kind {
        name: "sshfs",
        what: "B's directory, mounted on A",
        programs: &["sshfs", ssh::SSHD],
        version: &["sshfs", "--version"],
        start: |ends| Box::new(sshfs::Sshfs::start(ends)),
    },
    Kind {
        name: "unison",
        what: "with -repeat 1, over a socket, unencrypted",
        programs: &["unison"],
        version: &["unison", "-version"],
        start: |ends| Box::new(unison::Unison::start(ends)),
    },
    Kind {
        name: "lsyncd",
        what: "with a delay of 1 s (15 s unless told), to rsync's daemon, unencrypted",
        programs: &["lsyncd", "rsync"],
        version: &["lsyncd", "--version"],
        start: |ends| Box::new(lsyncd::Lsyncd::start(ends)),
    },
    Kind {
        name: "syncthing",
        what: "as it is by default",
        programs: &["syncthing"],
        version: &["syncthing", "--version"],
        start: |ends| Box::new(syncthing::Syncthing::start(ends)),
    },
    Kind {
        name: "gluster",
        what: "a volume of two replicas, mounted twice, over loopback only",
        programs: &["glusterd", "gluster"],
        version: &["glusterfs", "--version"],
        start: |ends| Box::new(gluster::Gluster::start(ends)),
    },
];

/// Rounds for those who may take minutes for what takes others a second.
const FEW_ROUNDS: usize = 1;

/// Those who take part.
pub fn wanted(options: &Options) -> &'static [Kind] {
    if options.peers { KINDS } else { &KINDS[..1] }
}

impl Kind {
    /// The peer at work, or why it is left out.
    pub fn started(&self, ends: impl FnOnce() -> Rc<Ends>) -> Result<Box<dyn Peer>, String> {
        match self.programs.iter().find(|program| !installed(program)) {
            Some(program) => Err(format!("{program} is not installed")),
            None => attempt(|| (self.start)(ends())),
        }
    }

    /// The peer at work; it panics where there can't be one.
    pub fn need(&self, ends: Rc<Ends>) -> Box<dyn Peer> {
        self.started(|| ends).unwrap_or_else(|why| panic!("{why}"))
    }

    /// In how many rounds it takes part at most.
    pub fn rounds(&self) -> usize {
        if self.name == "rsync" { usize::MAX } else { FEW_ROUNDS }
    }

    /// For who reads the figures.
    pub fn note(&self) -> String {
        let said = Command::new(self.version[0]).args(&self.version[1..]).output();
        let said = said.map_or(String::new(), |said| String::from_utf8_lossy(&said.stdout).into_owned());
        let of_it = said.lines().find(|line| line.to_lowercase().contains(self.name));
        let version = of_it.or(said.lines().next()).unwrap_or("of an unknown version");
        format!("{}: {} ({})", self.name, self.what, version.split_whitespace().collect::<Vec<_>>().join(" "))
    }
}

fn installed(program: &str) -> bool {
    let shown = Command::new("sh").args(["-c", "command -v \"$0\"", program]).output();
    shown.is_ok_and(|shown| shown.status.success())
}

/// Sizes of the files in a directory whose names begin so.
fn sizes(dir: &Path, name: &str) -> Vec<u64> {
    let entries = dir.read_dir().into_iter().flatten().flatten();
    let named = entries.filter(|entry| entry.file_name().as_encoded_bytes().starts_with(name.as_bytes()));
    named.filter_map(|entry| Some(entry.metadata().ok()?.len())).collect()
}

/// `sync -f`: the whole file system that it lies on.
pub fn sync(dir: &Path) {
    let dir = std::fs::File::open(dir).expect("a directory");
    rustix::fs::syncfs(dir).expect("synced");
}

/// Waits until `look` finds something, longer than a test would.
pub fn patiently<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        let looked = Instant::now();
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "waited in vain: {what}");
        // Looking is work for those who are waited for.
        std::thread::sleep(Duration::from_millis(5).max(2 * looked.elapsed()));
    }
}

/// Waits until one who notices by itself does so: a file written on A is seen on B.
fn works(peer: &dyn Peer) {
    std::fs::write(peer.dir(Side::A).join("first"), b"seen").expect("written");
    wait_for("the first file is seen on B", || {
        (std::fs::read(peer.dir(Side::B).join("first")).ok()? == b"seen").then_some(())
    });
}
