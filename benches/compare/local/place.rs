//! Where everybody works: each contender on a file system of its own, and syncfs with a peer on one more.
//!
//! Invariant: once settled, nobody has anything to do.

use crate::bare::Bare;
use crate::figure::attempt;
use crate::ground::Ground;
use crate::options::Options;
use crate::rig::Pair;
use crate::sshfs::Sshfs;
use std::path::{Path, PathBuf};

/// On each file system; sparse.
const ROOM: u64 = 12 << 30;
/// Rows delete what they made, and nobody is to be asked.
const STORM: &str = "1000000000";

/// Who works where, by the names that figures have for them.
type Dirs = Vec<(&'static str, PathBuf)>;

pub struct Place {
    pub dirs: Dirs,
    /// Who is not there, and why.
    pub notes: Vec<String>,
    pair: Pair,
    // Ended in this order, and what they stand on last.
    _apart: Pair,
    _bare: Bare,
    _sshfs: Option<Sshfs>,
    grounds: Vec<Ground>,
}

impl Place {
    pub fn new(_: &Options) -> Place {
        let ground = || Ground::new(ROOM);
        let (native, below_bare, below_sshfs, a, b, alone) =
            (ground(), ground(), ground(), ground(), ground(), ground());
        let bare = Bare::mount(&below_bare.dir, below_bare.path().join("bare"));
        let sshfs = attempt(|| Sshfs::mount(None, &below_sshfs.dir));
        let pair = met([&a.dir, &b.dir]);
        // It knew a peer, which has gone.
        let gone = tempfile::tempdir_in(b.path()).expect("a directory");
        let mut apart = met([&alone.dir, gone.path()]);
        assert!(apart.b.unmount().success(), "{}", apart.b.log_text());
        let mut dirs: Dirs = vec![("native", native.dir.clone()), ("bare", bare.dir.clone())];
        let mut notes = Vec::new();
        match &sshfs {
            Ok(Some(sshfs)) => dirs.push(("sshfs", sshfs.dir.clone())),
            Ok(None) => notes.push("sshfs left out: it or sshd is not installed".into()),
            Err(why) => notes.push(format!("sshfs left out: {why}")),
        }
        dirs.push(("offline", apart.a.dir.clone()));
        dirs.push(("syncfs", pair.a.dir.clone()));
        let grounds = vec![native, below_bare, below_sshfs, a, b, alone];
        Place { dirs, notes, pair, _apart: apart, _bare: bare, _sshfs: sshfs.ok().flatten(), grounds }
    }

    /// Returns when the peer has everything, and all disks have.
    pub fn settle(&self) {
        self.pair.a.flush();
        self.grounds.iter().for_each(Ground::sync);
    }
}

/// Two hosts over loopback, connected.
fn met([a, b]: [&Path; 2]) -> Pair {
    let root = tempfile::tempdir().expect("a directory");
    let mut pair = Pair::of([a.to_owned(), b.to_owned()], root);
    for host in [&mut pair.a, &mut pair.b] {
        host.option("--max-delete", Path::new(STORM));
        host.start();
    }
    pair.a.flush();
    pair
}
