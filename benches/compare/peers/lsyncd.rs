//! lsyncd, which watches A's directory and calls rsync a second after a change; left alone it would gather changes for 15.

use super::{Ends, Peer, Side, rsync, works};
use crate::rig::Program;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub struct Lsyncd {
    dirs: [PathBuf; 2],
    _watcher: Program,
    _daemon: Program,
    _ends: Rc<Ends>,
}

impl Lsyncd {
    pub fn start(ends: Rc<Ends>) -> Lsyncd {
        let (daemon, target) = rsync::daemon(&ends);
        let dirs = [Side::A, Side::B].map(|side| ends.dir(side).to_owned());
        let config = ends.at("lsyncd.lua");
        let text = format!(
            "settings {{ nodaemon = true }}\n\
             sync {{ default.rsync, source = {:?}, target = {target:?}, delay = 1,\n\
             rsync = {{ archive = true, _extra = {{ \"--modify-window=-1\" }} }} }}\n",
            dirs[0],
        );
        std::fs::write(&config, text).expect("written");
        let words = ["lsyncd", config.to_str().expect("text")];
        let watcher = ends.spawn(Side::A, &words, "lsyncd.log");
        let lsyncd = Lsyncd { dirs, _watcher: watcher, _daemon: daemon, _ends: ends };
        works(&lsyncd);
        lsyncd
    }
}

impl Peer for Lsyncd {
    fn dir(&self, side: Side) -> &Path {
        &self.dirs[side as usize]
    }
}
