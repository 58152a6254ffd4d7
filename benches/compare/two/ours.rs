//! syncfs on two hosts, mounted and connected, as one of those who are measured.

use crate::peers::{Ends, PATIENCE, Peer, Side, patiently};
use crate::rig::Pair;
use std::path::Path;
use std::rc::Rc;

pub struct Syncfs {
    pub pair: Pair,
    // Its file systems go after it.
    _ends: Rc<Ends>,
}

impl Syncfs {
    pub fn start(ends: Rc<Ends>) -> Syncfs {
        Syncfs::mounted(ends, |_| ())
    }

    /// B holds only what is read there, up to so many bytes.
    pub fn with_cache(ends: Rc<Ends>, bytes: u64) -> Syncfs {
        Syncfs::mounted(ends, |pair| pair.b.option("--cache-size", Path::new(&bytes.to_string())))
    }

    fn mounted(ends: Rc<Ends>, change: impl FnOnce(&mut Pair)) -> Syncfs {
        let root = tempfile::tempdir().expect("a directory");
        let mut pair = Pair::of([Side::A, Side::B].map(|side| ends.dir(side).to_owned()), root);
        if let Some(link) = &ends.link {
            link.join(&mut pair);
        }
        change(&mut pair);
        for (host, side) in [(&mut pair.a, Side::A), (&mut pair.b, Side::B)] {
            host.around = ends.around(side).into_iter().map(Into::into).collect();
            host.start();
        }
        let mut syncfs = Syncfs { pair, _ends: ends };
        syncfs.durable("", 0, 0);
        syncfs
    }
}

impl Peer for Syncfs {
    fn dir(&self, side: Side) -> &Path {
        match side {
            Side::A => &self.pair.a.dir,
            Side::B => &self.pair.b.dir,
        }
    }

    fn changes_in_place(&self) -> bool {
        true
    }

    fn durable(&mut self, _: &str, _: usize, _: u64) {
        let timeout = PATIENCE.as_secs().to_string();
        // At first the two have yet to find each other.
        patiently("both sides are level", || {
            self.pair.a.syncfs(&["flush", "--timeout", &timeout]).status.success().then_some(())
        });
    }
}
