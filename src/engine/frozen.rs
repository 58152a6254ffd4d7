//! A large cut as it stood when it was taken, while the peer is retrieving it.
//!
//! Invariant: a chunk of the cut that is about to change is copied aside first; so every chunk of the
//! cut is either aside or still in the file, unchanged.

use crate::model::chunk::{self, ChunkSet};
use crate::model::dirty::Dirty;
use crate::model::ids::{FileId, Seq};
use crate::model::version::Version;
use crate::store::{self, At, Backing, Content};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

pub struct Frozen {
    id: FileId,
    pub seq: Seq,
    pub version: Version,
    size: u64,
    /// When each chunk that the peer may ask for was last changed.
    tags: Dirty,
    /// Chunks of the cut that are still only in the file.
    wanted: ChunkSet,
    saved: ChunkSet,
    aside: Option<Content>,
    /// Keeps the content alive when the file is unlinked.
    pub file: Content,
}

/// Bytes copied aside by all frozen cuts together.
#[derive(Default)]
pub struct Budget(AtomicU64);

impl Frozen {
    pub fn new(id: FileId, seq: Seq, version: Version, size: u64, tags: Dirty, file: Content) -> Frozen {
        let wanted = tags.since(0).collect();
        Frozen { id, seq, version, size, tags, wanted, saved: ChunkSet::new(), aside: None, file }
    }

    /// Copies aside what of `chunks` the cut still needs. On an error (no space, budget spent) the caller
    /// thaws the cut.
    pub fn save(&mut self, chunks: &Range<u64>, backing: &Backing, budget: &Budget) -> store::Result<()> {
        for range in self.wanted.within(chunks) {
            let bytes = chunk::bytes(&range, self.size);
            if !budget.claim(bytes.end - bytes.start) {
                return Err(store::Error::Io {
                    what: "copying a frozen cut aside".into(),
                    source: io::Error::from_raw_os_error(libc::ENOSPC),
                });
            }
            if self.aside.is_none() {
                // Nameless from the start: it goes with the daemon.
                let name = format!("aside-{}-{}", self.seq, self.id);
                self.aside = Some(backing.create(At::Staging(&name), 0o600)?);
                backing.unlink(At::Staging(&name))?;
            }
            let aside = self.aside.as_ref().expect("just made");
            let len = bytes.end - bytes.start;
            store::copy_range(&self.file, bytes.start, aside, bytes.start, len)
                .map_err(|source| store::Error::Io { what: "copying a frozen cut aside".into(), source })?;
            self.wanted.remove(range.clone());
            self.saved.insert(range);
        }
        Ok(())
    }

    /// The parts of `chunks` that the cut can give for `version`, which includes our cuts up to `since`: those that
    /// did not change between the two. Read with [`Frozen::read`].
    pub fn has(&self, chunks: &Range<u64>, version: &Version, since: Seq) -> Vec<Range<u64>> {
        if !self.version.includes(version) {
            return Vec::new();
        }
        let mut all: ChunkSet = self.wanted.within(chunks).into_iter().collect();
        self.saved.within(chunks).into_iter().for_each(|r| all.insert(r));
        all.iter().flat_map(|range| self.tags.unchanged_since(since, &range)).collect()
    }

    /// The bytes of `chunks` as they stood at the cut.
    pub fn read(&self, chunks: &Range<u64>) -> io::Result<Vec<u8>> {
        let bytes = chunk::bytes(chunks, self.size);
        let mut buffer = vec![0; (bytes.end - bytes.start) as usize];
        let mut fill = |file: &Content, range: Range<u64>| {
            let at = chunk::bytes(&range, self.size);
            let part = &mut buffer[(at.start - bytes.start) as usize..(at.end - bytes.start) as usize];
            file.read_exact_at(part, at.start)
        };
        for range in self.wanted.within(chunks) {
            fill(&self.file, range)?;
        }
        for range in self.saved.within(chunks) {
            fill(self.aside.as_ref().expect("saved chunks lie aside"), range)?;
        }
        Ok(buffer)
    }

    /// Gives the space back.
    pub fn thaw(self, budget: &Budget) {
        let bytes = self.saved.iter().map(|r| chunk::bytes(&r, self.size));
        budget.0.fetch_sub(bytes.map(|b| b.end - b.start).sum(), Ordering::Relaxed);
    }
}

impl Budget {
    fn claim(&self, bytes: u64) -> bool {
        let fits =
            |used: u64| used.checked_add(bytes).filter(|sum| *sum <= crate::model::limits::STAGING_BYTES);
        self.0.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).is_ok()
    }
}
