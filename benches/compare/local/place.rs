//! Where everybody works: each contender on a file system of its own, and syncfs with a peer on one more.
//!
//! Invariant: once settled, nobody has anything to do.

use super::yardsticks::Yardsticks;
use crate::figure::attempt;
use crate::ground::Ground;
use crate::hosts;
use crate::rig::Pair;
use std::path::PathBuf;

/// On each file system; sparse.
const ROOM: u64 = 8 << 30;

/// Who works where, by the names that figures have for them.
pub type Dirs = Vec<(&'static str, PathBuf)>;

pub struct Place {
    pub dirs: Dirs,
    pub notes: Vec<String>,
    /// Its peer replicates meanwhile.
    pair: Option<Pair>,
    // Ended before what they stand on.
    _alone: Pair,
    yardsticks: Yardsticks,
    grounds: Vec<Ground>,
}

impl Place {
    /// Nobody has a file. syncfs is there twice: with a peer, and `offline`, whose peer has gone.
    pub fn empty() -> Place {
        let ground = || Ground::new(ROOM);
        let yardsticks = Yardsticks::new(ground, |_| ());
        let grounds = vec![ground(), ground(), ground()];
        let pair = hosts::connected([&grounds[0].dir, &grounds[1].dir]);
        let gone = tempfile::tempdir_in(grounds[1].path()).expect("a directory");
        let mut alone = hosts::connected([&grounds[2].dir, gone.path()]);
        assert!(alone.b.unmount().success(), "{}", alone.b.log_text());
        let mut dirs = yardsticks.dirs();
        dirs.extend([("offline", alone.a.dir.clone()), ("syncfs", pair.a.dir.clone())]);
        let notes = yardsticks.note().into_iter().collect();
        Place { dirs, notes, pair: Some(pair), _alone: alone, yardsticks, grounds }
    }

    /// Everybody has so many files, empty ones. syncfs has no peer: nothing changes.
    pub fn listed(files: u64) -> Place {
        let ground = || Ground::for_files(ROOM, files);
        let yardsticks = Yardsticks::new(ground, |dir| hosts::fill(dir, files, &[]));
        let grounds = vec![ground()];
        hosts::fill(&grounds[0].dir, files, &[]);
        let nobody = tempfile::tempdir_in(grounds[0].path()).expect("a directory");
        let mut alone = hosts::apart([&grounds[0].dir, nobody.path()]);
        alone.a.start();
        let mut dirs = yardsticks.dirs();
        dirs.push(("syncfs", alone.a.dir.clone()));
        let notes = yardsticks.note().into_iter().collect();
        Place { dirs, notes, pair: None, _alone: alone, yardsticks, grounds }
    }

    /// Returns when the peer has everything, and all disks have.
    pub fn settle(&self) {
        if let Some(Pair { a, .. }) = &self.pair
            && attempt(|| a.flush()).is_err()
        {
            let why = a.status()["peer"]["last_error"].to_string();
            panic!("the peer does not get what was written, and the last error is {why}");
        }
        self.yardsticks.sync();
        self.grounds.iter().for_each(Ground::sync);
    }

    /// syncfs with its peer.
    pub fn pair(&mut self) -> Option<&mut Pair> {
        self.pair.as_mut()
    }
}
