//! The bare FUSE daemon: a flat directory passed through, with the options, the time-outs and the ways to open that
//! `src/fs/adapter.rs` has, and nothing else: no log, no replication. What interception itself costs.
//!
//! Told to log, it does before each change what none can do without who tells others of changes: it reads what is written over,
//! and appends a few bytes to a file, for a name, too.
//!
//! It is a process of its own: this program, called with a first argument that nobody types.

mod inodes;
mod serve;

use crate::rig::{Program, mounted};
use fuser::{Config, Session, SessionACL};
use rustix::mount::UnmountFlags;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use syncfs::fs::mount::{MountOptions, mount};

const WORD: &str = "serve-bare";
/// A third argument.
const LOGGED: &str = "logged";
/// As many as syncfs has.
const THREADS: usize = 2;

/// One at work.
pub struct Bare {
    pub dir: PathBuf,
    _daemon: Program,
}

impl Bare {
    /// Passes `source` through, at `dir`.
    pub fn mount(source: &Path, dir: PathBuf) -> Bare {
        Bare::mounted(source, dir, &[])
    }

    /// As [`Bare::mount`], and it logs.
    pub fn mount_logged(source: &Path, dir: PathBuf) -> Bare {
        Bare::mounted(source, dir, &[LOGGED])
    }

    fn mounted(source: &Path, dir: PathBuf, words: &[&str]) -> Bare {
        std::fs::create_dir_all(&dir).expect("a directory");
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(program).arg(WORD).arg(source).arg(&dir).args(words);
        let daemon = Program::spawn(command.stdin(Stdio::null()));
        assert_eq!(daemon.line(), "mounted");
        Bare { dir, _daemon: daemon }
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        while mounted(&self.dir) && rustix::mount::unmount(&self.dir, UnmountFlags::DETACH).is_ok() {}
    }
}

/// What to serve.
pub struct Task {
    source: PathBuf,
    target: PathBuf,
    logged: bool,
}

/// What to serve, if this process is to be the daemon.
pub fn asked_for() -> Option<Task> {
    let mut words = std::env::args_os().skip(1);
    (words.next()? == WORD).then_some(())?;
    let (source, target) = (words.next()?.into(), words.next()?.into());
    Some(Task { source, target, logged: words.next().is_some_and(|word| word == LOGGED) })
}

/// Serves until it is unmounted.
pub fn run(Task { source, target, logged }: &Task) {
    let dir = File::open(source).expect("the directory");
    let log = logged.then(|| File::create(source.with_extension("log")).expect("a log"));
    // As root mounts a share.
    let options = MountOptions { allow_other: true, default_permissions: true, ..MountOptions::default() };
    let connection = mount(target, &options).expect("mounted");
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    let session = Session::from_fd(serve::Serve::new(dir, log), connection, SessionACL::All, config);
    println!("mounted");
    session.and_then(Session::run).expect("served to the end");
}
