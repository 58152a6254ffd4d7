//! sshfs: B's directory, mounted on A. What is written there is on B at the latest when `close` returns.

use super::ssh::Ssh;
use super::{Ends, Peer, Side};
use crate::rig::{Program, mounted, until};
use rustix::mount::UnmountFlags;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub struct Sshfs {
    mount: PathBuf,
    dir: PathBuf,
    _client: Program,
    _ssh: Ssh,
    _ends: Rc<Ends>,
}

impl Sshfs {
    pub fn start(ends: Rc<Ends>) -> Sshfs {
        let ssh = Ssh::start(&ends, Side::B);
        let (mount, dir) = (ends.at("mount"), ends.dir(Side::B).to_owned());
        std::fs::create_dir(&mount).expect("a directory");
        let from = format!("{}:{}", ssh.destination, dir.display());
        let [config, to] = [&ssh.config, &mount].map(|path| path.to_str().expect("text"));
        let client = ends.spawn(Side::A, &["sshfs", "-f", "-F", config, &from, to], "sshfs.log");
        let sshfs = Sshfs { mount, dir, _client: client, _ssh: ssh, _ends: ends };
        until("sshfs is mounted", || mounted(&sshfs.mount));
        sshfs
    }
}

impl Peer for Sshfs {
    fn dir(&self, side: Side) -> &Path {
        match side {
            Side::A => &self.mount,
            Side::B => &self.dir,
        }
    }

    fn changes_in_place(&self) -> bool {
        true
    }
}

impl Drop for Sshfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.mount, UnmountFlags::DETACH);
    }
}
