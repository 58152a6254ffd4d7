//! Two hosts at the ends of the link: A has files, B holds of them what fits its cache.

use crate::link::Link;
use crate::pattern::Pattern;
use crate::rig::{Pair, until};
use std::fmt::{Display, Formatter};
use std::ops::{Deref, DerefMut};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub struct Hosts {
    pair: Pair,
    /// Where B's files and state lie; not under the mount, so that it can be looked into.
    pub store: PathBuf,
}

impl Hosts {
    /// Not yet running.
    pub fn new(link: &Link, cache: u64) -> Hosts {
        let mut pair = Pair::new();
        let store = pair.root.path().join("store");
        std::fs::create_dir(&store).unwrap();
        link.join(&mut pair);
        pair.b.option("--store", &store);
        pair.b.option("--cache-size", Path::new(&cache.to_string()));
        Hosts { pair, store }
    }

    /// Both at work, with one file of `size` bytes on A, `large`, which is returned.
    pub fn with_large(link: &Link, size: u64, cache: u64) -> (Pattern, Hosts) {
        let large = Pattern::dense(1, size);
        let mut hosts = Hosts::new(link, cache);
        large.write(&hosts.a.path("large"));
        hosts.start(1);
        (large, hosts)
    }

    /// Starts both, and waits until B shows all of A's files, `count` of them.
    pub fn start(&mut self, count: usize) {
        self.a.start();
        self.b.start();
        until("B shows all files", || self.b.dir.read_dir().unwrap().count() >= count);
    }

    /// Bytes that B has received since its start.
    pub fn received(&self) -> u64 {
        self.b.status()["received_bytes"].as_u64().unwrap()
    }

    /// The end of a row: the daemons end well.
    pub fn end(mut self) {
        for host in [&mut self.pair.b, &mut self.pair.a] {
            let status = host.unmount();
            assert!(status.success(), "{status}: {}", host.log_text());
        }
    }
}

impl Deref for Hosts {
    type Target = Pair;
    fn deref(&self) -> &Pair {
        &self.pair
    }
}

impl DerefMut for Hosts {
    fn deref_mut(&mut self) -> &mut Pair {
        &mut self.pair
    }
}

/// Bytes that a replica takes on the disk: content, and all that there is to know about it.
#[derive(Clone, Copy, Default)]
pub struct DiskUse {
    pub content: u64,
    pub state: u64,
}

impl DiskUse {
    pub fn of(store: &Path) -> DiskUse {
        let own = store.join(".syncfs");
        let state = taken(&own).saturating_sub(taken(&own.join("partial")));
        DiskUse { content: taken(store).saturating_sub(state), state }
    }

    pub fn most(self, other: DiskUse) -> DiskUse {
        DiskUse { content: self.content.max(other.content), state: self.state.max(other.state) }
    }
}

impl Display for DiskUse {
    fn fmt(&self, f: &mut Formatter) -> std::fmt::Result {
        write!(
            f,
            "{:.1} MB of content, {:.1} MB of state",
            self.content as f64 / 1e6,
            self.state as f64 / 1e6
        )
    }
}

/// Bytes that a directory takes on the disk. What goes away meanwhile does not count.
fn taken(dir: &Path) -> u64 {
    let entries = dir.read_dir().into_iter().flatten().flatten();
    let sizes = entries.filter_map(|entry| {
        let meta = entry.metadata().ok()?;
        Some(512 * meta.blocks() + if meta.is_dir() { taken(&entry.path()) } else { 0 })
    });
    sizes.sum()
}
