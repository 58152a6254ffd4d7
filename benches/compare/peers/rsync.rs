//! rsync, called after each change: to a daemon on B, unencrypted, or over ssh.

use super::ssh::Ssh;
use super::{Ends, Peer, Side, sync};
use crate::rig::Program;
use std::path::{Path, PathBuf};
use std::rc::Rc;

/// Times are compared to the nanosecond: else an edit that leaves the size alone is not noticed within a second.
const OPTIONS: [&str; 2] = ["-a", "--modify-window=-1"];

pub struct Rsync {
    dirs: [PathBuf; 2],
    target: String,
    _daemon: Program,
    ends: Rc<Ends>,
}

impl Rsync {
    pub fn start(ends: Rc<Ends>) -> Rsync {
        let (daemon, target) = daemon(&ends);
        Rsync {
            dirs: [Side::A, Side::B].map(|side| ends.dir(side).to_owned()),
            target,
            _daemon: daemon,
            ends,
        }
    }
}

/// A daemon on B, and what its directory is called on A.
pub fn daemon(ends: &Ends) -> (Program, String) {
    let port = ends.port();
    let config = ends.at("rsyncd.conf");
    let text = format!(
        "use chroot = no\nuid = 0\ngid = 0\nreverse lookup = no\n[share]\npath = {}\nread only = no\n",
        ends.dir(Side::B).display(),
    );
    std::fs::write(&config, text).expect("written");
    let (address, number) = (ends.address(Side::B).to_string(), port.to_string());
    let words = ["rsync", "--daemon", "--no-detach", "--config", config.to_str().expect("text")];
    let words = [&words[..], &["--address", &address, "--port", &number]].concat();
    let daemon = ends.spawn(Side::B, &words, "rsyncd.log");
    ends.listens(Side::B, port);
    (daemon, format!("rsync://{address}:{port}/share/"))
}

impl Peer for Rsync {
    fn dir(&self, side: Side) -> &Path {
        &self.dirs[side as usize]
    }

    fn push(&mut self) {
        let from = format!("{}/", self.dirs[0].display());
        self.ends.run(Side::A, &[&["rsync"], &OPTIONS[..], &[&from, &self.target]].concat());
    }

    fn durable(&mut self, _: &str, _: usize, _: u64) {
        self.push();
        sync(&self.dirs[1]);
    }
}

pub struct RsyncOverSsh {
    dirs: [PathBuf; 2],
    ssh: Ssh,
    ends: Rc<Ends>,
}

impl RsyncOverSsh {
    pub fn start(ends: Rc<Ends>) -> RsyncOverSsh {
        let dirs = [Side::A, Side::B].map(|side| ends.dir(side).to_owned());
        RsyncOverSsh { dirs, ssh: Ssh::start(&ends, Side::B), ends }
    }
}

impl Peer for RsyncOverSsh {
    fn dir(&self, side: Side) -> &Path {
        &self.dirs[side as usize]
    }

    fn push(&mut self) {
        let [from, to] = [&self.dirs[0], &self.dirs[1]].map(|dir| format!("{}/", dir.display()));
        let shell = format!("ssh -F {}", self.ssh.config.display());
        let to = format!("{}:{to}", self.ssh.destination);
        self.ends.run(Side::A, &[&["rsync"], &OPTIONS[..], &["-e", &shell, &from, &to]].concat());
    }

    fn durable(&mut self, _: &str, _: usize, _: u64) {
        self.push();
        sync(&self.dirs[1]);
    }
}
