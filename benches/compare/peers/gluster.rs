//! GlusterFS, a volume of two replicas: both bricks in one glusterd, mounted once for each host. Over loopback only.

use super::{Ends, Peer, Side};
use crate::rig::{Program, mounted, until};
use rustix::mount::UnmountFlags;
use std::path::{Path, PathBuf};
use std::rc::Rc;

const LIST: [&str; 3] = ["gluster", "volume", "list"];

pub struct Gluster {
    mounts: [PathBuf; 2],
    _clients: Vec<Program>,
    ends: Rc<Ends>,
    _daemon: Program,
}

impl Gluster {
    pub fn start(ends: Rc<Ends>) -> Gluster {
        assert!(ends.link.is_none(), "two of its daemons on one machine would share their directories");
        let answers = || ends.command(Side::A, &LIST).output().is_ok_and(|output| output.status.success());
        assert!(!answers(), "a glusterd of somebody else is at work here");
        let daemon = ends.spawn(Side::A, &["glusterd", "--no-daemon"], "glusterd.log");
        let mounts = ["mount-a", "mount-b"].map(|name| ends.at(name));
        let mut gluster = Gluster { mounts, _clients: Vec::new(), ends: ends.clone(), _daemon: daemon };
        until("glusterd answers", answers);
        let host = ends.run(Side::A, &["hostname", "-I"]);
        let host = host.split_whitespace().next().expect("an address").to_owned();
        let bricks = [Side::A, Side::B].map(|side| format!("{host}:{}/brick", ends.dir(side).display()));
        let create = ["gluster", "--mode=script", "volume", "create", "share", "replica", "2"];
        ends.run(Side::A, &[&create[..], &[&bricks[0], &bricks[1], "force"]].concat());
        ends.run(Side::A, &["gluster", "--mode=script", "volume", "start", "share"]);
        for (n, mount) in gluster.mounts.clone().iter().enumerate() {
            std::fs::create_dir(mount).expect("a directory");
            let to = mount.to_str().expect("text");
            let words = ["glusterfs", "--no-daemon", "-s", &host, "--volfile-id=share", to];
            gluster._clients.push(ends.spawn(Side::A, &words, ["gluster-a.log", "gluster-b.log"][n]));
            until("the volume is mounted", || mounted(mount));
        }
        gluster
    }
}

impl Peer for Gluster {
    fn dir(&self, side: Side) -> &Path {
        &self.mounts[side as usize]
    }

    fn changes_in_place(&self) -> bool {
        true
    }
}

impl Drop for Gluster {
    fn drop(&mut self) {
        for mount in &self.mounts {
            let _ = rustix::mount::unmount(mount, UnmountFlags::DETACH);
        }
        for words in [["stop", "share", "force"], ["delete", "share", ""]] {
            let words = words.iter().filter(|word| !word.is_empty()).copied();
            let words: Vec<&str> = ["gluster", "--mode=script", "volume"].into_iter().chain(words).collect();
            let _ = self.ends.command(Side::A, &words).output();
        }
    }
}
