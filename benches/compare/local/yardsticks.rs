//! What syncfs stands beside in each row: the file system under it, a daemon that only passes that on, one that also logs,
//! and sshfs; each on a file system of its own.

use super::place::Dirs;
use crate::bare::Bare;
use crate::figure::attempt;
use crate::ground::Ground;
use crate::sshfs::Sshfs;
use std::path::Path;

/// The daemon that also logs. It takes part where the calls of a change count.
pub const LOGGED: &str = "logged";

pub struct Yardsticks {
    bare: Bare,
    logged: Bare,
    sshfs: Result<Option<Sshfs>, String>,
    // What they stand on goes last.
    native: Ground,
    below_bare: Ground,
    below_logged: Ground,
    below_sshfs: Ground,
}

impl Yardsticks {
    /// `fill` puts into each directory what is there from the beginning.
    pub fn new(ground: impl Fn() -> Ground, fill: impl Fn(&Path)) -> Yardsticks {
        let filled = || {
            let ground = ground();
            fill(&ground.dir);
            ground
        };
        let [native, below_bare, below_logged, below_sshfs] = [(); 4].map(|()| filled());
        let bare = Bare::mount(&below_bare.dir, below_bare.path().join("bare"));
        let logged = Bare::mount_logged(&below_logged.dir, below_logged.path().join("logged"));
        let sshfs = attempt(|| Sshfs::mount(None, &below_sshfs.dir));
        Yardsticks { bare, logged, sshfs, native, below_bare, below_logged, below_sshfs }
    }

    pub fn dirs(&self) -> Dirs {
        let mut dirs = vec![("native", self.native.dir.clone()), ("bare", self.bare.dir.clone())];
        dirs.push((LOGGED, self.logged.dir.clone()));
        if let Ok(Some(sshfs)) = &self.sshfs {
            dirs.push(("sshfs", sshfs.dir.clone()));
        }
        dirs
    }

    /// Who is not there, and why.
    pub fn note(&self) -> Option<String> {
        match &self.sshfs {
            Ok(Some(_)) => None,
            Ok(None) => Some("sshfs left out: it or sshd is not installed".into()),
            Err(why) => Some(format!("sshfs left out: {why}")),
        }
    }

    pub fn sync(&self) {
        [&self.native, &self.below_bare, &self.below_logged, &self.below_sshfs]
            .into_iter()
            .for_each(Ground::sync);
    }
}
