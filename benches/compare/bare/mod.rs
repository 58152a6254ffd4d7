//! The bare FUSE daemon: a flat directory passed through, with the options, the time-outs and the ways to open that
//! `src/fs/adapter.rs` has, and nothing else: no log, no replication. What interception itself costs.
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
        std::fs::create_dir_all(&dir).expect("a directory");
        let program = std::env::current_exe().expect("this program");
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "TERM"]).arg(program).arg(WORD).arg(source).arg(&dir);
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

/// What to serve and where, if this process is to be the daemon.
pub fn asked_for() -> Option<(PathBuf, PathBuf)> {
    let mut words = std::env::args_os().skip(1);
    (words.next()? == WORD).then_some(())?;
    Some((words.next()?.into(), words.next()?.into()))
}

/// Serves until it is unmounted.
pub fn run(source: &Path, target: &Path) {
    let dir = File::open(source).expect("the directory");
    // As root mounts a share.
    let options = MountOptions { allow_other: true, default_permissions: true, ..MountOptions::default() };
    let connection = mount(target, &options).expect("mounted");
    let mut config = Config::default();
    config.n_threads = Some(THREADS);
    config.clone_fd = true;
    let session = Session::from_fd(serve::Serve::new(dir), connection, SessionACL::All, config);
    println!("mounted");
    session.and_then(Session::run).expect("served to the end");
}
