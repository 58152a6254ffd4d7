//! What is kept for the peer of files that changed or went: how much, and files in their graves.
//!
//! Invariant: all of it is within [`STAGING_BYTES`].

use crate::model::chunk::ChunkSet;
use crate::model::ids::FileId;
use crate::model::limits::{CHUNK, STAGING_BYTES};
use crate::model::share::Share;
use crate::model::version::Version;
use crate::store::{self, At, Backing};
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::atomic::AtomicU64;

/// A file that was unlinked here, in staging until the journal that says so is durable.
pub struct Buried {
    pub grave: String,
    pub file: FileId,
    pub known: Acknowledged,
}

/// What of a file is here as the peer knows it, which has the version `base` of it.
#[derive(Default)]
pub struct Acknowledged {
    pub chunks: ChunkSet,
    pub base: Version,
}

/// Bytes that are kept of each file.
#[derive(Default)]
pub struct Before {
    kept: Mutex<BTreeMap<FileId, u64>>,
    /// How often there was no room for something.
    pub given_up: AtomicU64,
}

impl Before {
    /// What the last life kept and is still wanted; the rest goes.
    pub fn open(backing: &Backing, share: &Share) -> store::Result<Before> {
        let mut kept = BTreeMap::new();
        for id in backing.list_before()? {
            match share.file(id).map_or(0, |f| f.before.len()) {
                0 => backing.unlink(At::Before(id))?,
                chunks => _ = kept.insert(id, chunks * CHUNK),
            }
        }
        Ok(Before { kept: Mutex::new(kept), given_up: AtomicU64::new(0) })
    }

    /// Bytes that are kept of all files.
    pub fn bytes(&self) -> u64 {
        self.kept.lock().values().sum()
    }

    /// Counts `bytes` more of a file; false where there is no room for them.
    pub fn claim(&self, file: FileId, bytes: u64) -> bool {
        let mut kept = self.kept.lock();
        let fits = kept.values().sum::<u64>() + bytes <= STAGING_BYTES;
        if fits {
            *kept.entry(file).or_default() += bytes;
        }
        fits
    }

    /// What was claimed was not taken.
    pub fn give_back(&self, file: FileId, bytes: u64) {
        let mut kept = self.kept.lock();
        if let Entry::Occupied(mut entry) = kept.entry(file) {
            *entry.get_mut() -= bytes;
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }

    pub fn has(&self, file: FileId) -> bool {
        self.kept.lock().contains_key(&file)
    }

    pub fn drop(&self, file: FileId) {
        self.kept.lock().remove(&file);
    }
}
