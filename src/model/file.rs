//! One file's state on this replica: two registers (place and body), what of them the peer lacks, and
//! which chunks are held here.
//!
//! Invariants:
//! - `place_tag` and `body_tag` are 0 exactly when the peer has acknowledged the register; a register
//!   is *fresh* while its tag is above its last cut;
//! - `missing` and `scraps` lie within `size`; scraps (bytes written into chunks that are not held) lie
//!   within missing chunks;
//! - `dirty` is complete for every version that includes `base`.

use super::chunk::{self, ChunkSet};
use super::dirty::Dirty;
use super::ids::{Seq, WriterId};
use super::ignore::is_ignore_file;
use super::limits::CHUNK;
use super::name::Name;
use super::sabotage::{Bug, planted};
use super::version::Version;
use bincode::{Decode, Encode};
use std::ops::Range;

#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct File {
    /// `None`: unlinked here, and the peer has not acknowledged it yet.
    pub name: Option<Name>,
    pub place: Version,
    pub place_cut: Seq,
    pub place_tag: Seq,
    /// Names this file gave up that the peer may still see it under.
    pub left: Vec<Name>,

    pub body: Version,
    /// What the peer is known to have had, and its size in bytes.
    pub base: Version,
    pub base_size: u64,
    pub body_cut: Seq,
    pub body_tag: Seq,
    /// Our last cut of the body that the peer has acknowledged.
    pub body_acked: Seq,
    /// Nanoseconds since 1970; never goes back between two acknowledgements.
    pub stamp: i64,
    pub size: u64,
    /// As `body_tag`, of the last change of the size.
    pub size_tag: Seq,
    /// As `body_tag`, of the last time that attributes were set.
    pub attrs_tag: Seq,
    pub dirty: Dirty,
    pub missing: ChunkSet,
    /// The content lies in `.syncfs/partial`, not under the file's name.
    pub partial: bool,
    pub scraps: ChunkSet,
    /// Chunks that were cut off since the last acknowledgement: if the file grows again, they changed.
    pub shed: u64,
    /// The peer's cut to thank for once nothing is missing; 0 for none.
    pub owed: Seq,

    /// Power was lost while it was being changed: what lies here may be older than what the peer
    /// acknowledged, and is compared with the peer before anything is told of it.
    pub unsettled: bool,

    /// All of it is to be held here, whatever the host is to hold.
    pub pinned: bool,
    /// Chunks that are kept as they were in `base`, for the peer does not hold all of that: each with the number of the
    /// first cut that can include what became of it.
    pub before: Dirty,

    /// Files that share a bond move together.
    pub bond: Option<u64>,
    /// The inode number under the mount: the same for ever, whatever else changes.
    pub ino: u64,
    /// The inode on the disk, its mtime at the last cut or at the peer's last change, and its times when last
    /// recorded: how edits behind our back are found.
    pub disk: u64,
    pub mtime: Option<i64>,
    pub recorded: Option<(i64, i64)>,
}

/// What of a file the peer had made durable when power was lost, and this disk perhaps not: where it was changed
/// after that, what lies here may be older than both.
#[derive(Clone, Debug, Default, PartialEq, Encode, Decode)]
pub struct Shaky {
    pub chunks: ChunkSet,
    pub attrs: bool,
}

impl File {
    pub fn is_fresh(&self) -> bool {
        self.place_is_fresh() || self.body_is_fresh()
    }

    pub fn place_is_fresh(&self) -> bool {
        self.place_tag > self.place_cut
    }

    pub fn body_is_fresh(&self) -> bool {
        self.body_tag > self.body_cut
    }

    pub fn is_thanked(&self) -> bool {
        self.place_tag == 0 && self.body_tag == 0
    }

    /// Whether it is as it was at our last cut or the peer's last change, if it is now `size` bytes long and has this
    /// `mtime`.
    pub fn is_as_cut(&self, size: u64, mtime: i64) -> bool {
        !self.body_is_fresh() && self.size == size && self.mtime == Some(mtime)
    }

    /// Whether somebody has edited it behind our back, where it is now `size` bytes long and has this `mtime`: the
    /// peer has it as it was cut, so nobody has changed it here since.
    pub fn is_edited_unseen(&self, size: u64, mtime: i64) -> bool {
        let known = self.is_thanked() && !self.partial && !self.unsettled;
        known && (self.size != size || self.mtime.is_some_and(|was| was != mtime))
    }

    /// Whether every chunk is held here.
    pub fn is_whole(&self) -> bool {
        self.missing.is_empty()
    }

    /// Whether all of it is here, under its own name, and certain.
    pub fn is_plain(&self) -> bool {
        self.is_whole() && !self.partial && !self.unsettled
    }

    /// The chunks that were changed here in part, written or cut off, and of which the rest is missing.
    pub fn torn(&self) -> ChunkSet {
        self.dirty.since(0).flat_map(|range| self.missing.within(&range)).collect()
    }

    /// Whether there is nothing of the content here, though there should be.
    pub fn holds_nothing(&self) -> bool {
        self.missing.len() == chunk::count(self.size) && self.partial && self.scraps.is_empty()
    }

    /// Whether its size counts against that of a peer's version, `theirs` bytes, which includes our cuts up to `told`. A
    /// file that only grew here since has at least what the peer has: where it is shorter, that is power's doing.
    pub fn size_is_ours(&self, told: Seq, theirs: u64) -> bool {
        self.size_tag > told && (self.shed > 0 || self.size >= theirs)
    }

    /// The peer has never been told of this file.
    pub fn is_untold(&self) -> bool {
        self.place.is_empty()
    }

    /// The chunks that are held here.
    pub fn held(&self) -> Vec<Range<u64>> {
        self.missing.gaps(&(0..chunk::count(self.size)))
    }

    /// How many bytes of it are missing here.
    pub fn missing_bytes(&self) -> u64 {
        let last = chunk::count(self.size).saturating_sub(1);
        let short = if self.missing.contains(last) { chunk::count(self.size) * CHUNK - self.size } else { 0 };
        self.missing.len() * CHUNK - short
    }

    /// What of it may go from this disk: the peer has it, and nobody here has said that it is to stay.
    pub fn can_go(&self, chunks: &Range<u64>) -> Vec<Range<u64>> {
        let named = self.name.as_ref().is_some_and(|name| !is_ignore_file(name));
        let settled = named && self.is_thanked() && !self.unsettled && !self.pinned;
        match settled || planted(Bug::EvictDirty) {
            true => {
                self.missing.gaps(&(chunks.start..chunks.end.min(chunk::count(self.size)).max(chunks.start)))
            }
            false => Vec::new(),
        }
    }

    /// Its version as the peer may know it: `us` are the writers that this replica was or is, whose numbers the peer may
    /// not have heard of. What is missing here was changed by none of them.
    pub fn peers_version(&self, us: &[WriterId]) -> Version {
        self.body.of_others(us, &self.base)
    }

    /// What of the invariants does not hold, if anything.
    pub fn check(&self) -> Result<(), &'static str> {
        let end = chunk::count(self.size);
        if self.dirty.since(0).chain(self.missing.iter()).any(|r| r.end > end) {
            return Err("chunks beyond the end");
        }
        let lacked = |r: Range<u64>| self.missing.gaps(&chunk::touched(r.start, r.end - r.start)).is_empty();
        if self.scraps.iter().any(|r| r.end > self.size || !lacked(r)) {
            return Err("scraps beyond the end, or in chunks that are held");
        }
        Ok(())
    }

    /// Chunks whose content was brought or changed here are `chunks`; the file is now `size` bytes.
    pub(super) fn wrote(&mut self, chunks: &ChunkSet, size: u64, tag: Seq) {
        self.resize(size, tag);
        for range in chunks.iter() {
            self.dirty.mark(range.clone(), tag);
            self.hold(&range);
        }
        self.body_tag = tag;
    }

    pub(super) fn scrapped(&mut self, bytes: &ChunkSet, size: u64, tag: Seq) {
        self.resize(size, tag);
        for range in bytes.iter() {
            self.dirty.mark(chunk::touched(range.start, range.end - range.start), tag);
            self.scraps.insert(range.clone());
            for n in chunk::touched(range.start, range.end - range.start) {
                let whole = chunk::bytes(&(n..n + 1), self.size);
                if self.missing.contains(n) && self.scraps.gaps(&whole).is_empty() {
                    self.hold(&(n..n + 1));
                }
            }
        }
        self.body_tag = tag;
    }

    /// Whether the content differs from what the peer was last known to have, and not only attributes.
    pub fn is_edited(&self) -> bool {
        !self.dirty.is_empty() || self.shed > 0 || self.size != self.base_size
    }

    /// `chunks` are kept as they were before a change at `tag`.
    pub(super) fn kept_before(&mut self, chunks: &ChunkSet, tag: Seq) {
        let new: ChunkSet = chunks.iter().flat_map(|range| self.before.unchanged_since(0, &range)).collect();
        for range in new.iter() {
            self.before.mark(range, tag);
        }
    }

    /// Rewritten with the bytes that it had; with `attrs`, its attributes were set.
    pub(super) fn touched(&mut self, tag: Seq, attrs: bool) {
        self.body_tag = tag;
        if attrs {
            self.attrs_tag = tag;
        }
    }

    /// Whether the content was changed since our last cut, or attributes set: more than that it was rewritten as it was.
    pub fn has_changed(&self) -> bool {
        let tags = [self.size_tag, self.attrs_tag];
        tags.iter().any(|tag| *tag > self.body_cut) || self.dirty.since(self.body_cut).next().is_some()
    }

    /// The peer has the file as it stands.
    pub(super) fn settle(&mut self) {
        self.before = Dirty::default();
        self.body_tag = 0;
        self.shed = 0;
        self.base = self.body.clone();
        self.base_size = self.size;
    }

    /// `chunks` are held from now on.
    pub(super) fn hold(&mut self, chunks: &Range<u64>) {
        self.missing.remove(chunks.clone());
        self.scraps.remove(chunks.start * CHUNK..chunks.end * CHUNK);
    }

    /// Sets the size as a local truncation or extension does: what is cut off is gone, what is added
    /// is zeros, and zeros where the peer may still have bytes are a change.
    pub(super) fn resize(&mut self, size: u64, tag: Seq) {
        if size < self.size {
            self.shed = self.shed.max(chunk::count(self.size));
            // The chunk that was cut through reads differently now; whole ones are just gone.
            if !size.is_multiple_of(CHUNK) && !planted(Bug::TruncateUnmarked) {
                self.dirty.mark(size / CHUNK..size / CHUNK + 1, tag);
            }
        } else if size > self.size {
            let boundary = self.size / CHUNK;
            let shed = if planted(Bug::GrowthKeepsTail) { 0 } else { self.shed };
            self.dirty.mark(boundary..chunk::count(size).min(shed).max(boundary), tag);
            if !self.size.is_multiple_of(CHUNK) && self.missing.contains(boundary) {
                self.scraps.insert(self.size..size.min((boundary + 1) * CHUNK));
            }
        }
        if size != self.size {
            (self.body_tag, self.size_tag) = (tag, tag);
        }
        self.set_size(size);
    }

    /// Sets the size and forgets everything beyond it.
    pub(super) fn set_size(&mut self, size: u64) {
        self.size = size;
        let end = chunk::count(size);
        self.dirty.clear(end..u64::MAX);
        self.missing.remove(end..u64::MAX);
        self.scraps.remove(size..u64::MAX);
    }

    /// After power loss the file is found to be `size` bytes. Where it had been cut shorter than that, what it has
    /// beyond is not what a peer has that does not know of the cutting. What is shaky is the peer's.
    pub(super) fn found(&mut self, size: u64, shaky: &Shaky) {
        if size > self.size && self.size_tag > self.body_acked {
            self.dirty.mark(chunk::count(self.size)..chunk::count(size), self.size_tag);
        }
        self.set_size(size);
        shaky.chunks.iter().for_each(|range| self.dirty.clear(range));
        if shaky.attrs {
            self.attrs_tag = 0;
        }
    }

    /// Its size, bytes, where nothing of it is here any more: as the peer was last known to have it, if it had it.
    pub fn size_when_lost(&self) -> u64 {
        if self.base.is_empty() { self.size } else { self.base_size }
    }

    /// Nothing of the content is here any more; what was changed here and not told is lost.
    pub(super) fn lose(&mut self) {
        self.size = self.size_when_lost();
        (self.size_tag, self.attrs_tag, self.shed) = (0, 0, 0);
        self.missing = ChunkSet::of(0..chunk::count(self.size));
        self.scraps = ChunkSet::new();
        (self.dirty, self.before) = (Dirty::default(), Dirty::default());
        self.body_tag = 0;
        self.partial = true;
    }

    /// What lies here counts, every byte of it, whatever the peer has.
    pub(super) fn adopt(&mut self, size: u64, tag: Seq, apart: bool) {
        if apart {
            (self.body, self.base, self.base_size) = (Version::default(), Version::default(), 0);
        }
        self.shed = self.shed.max(chunk::count(self.size));
        self.set_size(size);
        self.missing = ChunkSet::new();
        self.scraps = ChunkSet::new();
        self.dirty.mark(0..chunk::count(size), tag);
        (self.body_tag, self.size_tag) = (tag, tag);
        self.unsettled = false;
    }

    /// The peer has `theirs`, of `size` bytes, which includes our cuts up to `seq`; what is not dirty is as
    /// it is there. What stays ours is a new version: power loss may have left other bytes than our last cut told of,
    /// and the peer may still have some of those.
    pub(super) fn agree(&mut self, theirs: &Version, size: u64, seq: Seq, tag: Seq) {
        let mut ours: ChunkSet = self.dirty.since(seq).collect();
        self.body_acked = self.body_acked.max(seq);
        if self.size > size {
            // What the peer never had.
            let mut beyond = ChunkSet::of(size / CHUNK..chunk::count(self.size));
            beyond.subtract(&self.missing);
            ours.extend(&beyond);
        }
        (self.dirty, self.before) = (Dirty::default(), Dirty::default());
        ours.iter().for_each(|range| self.dirty.mark(range, tag));
        self.body_tag = tag;
        (self.base, self.base_size) = (theirs.clone(), size);
        self.unsettled = false;
    }

    /// The peer may have nothing of it any more: it is told again with our cut `seq`, as the version it is.
    pub(super) fn retell(&mut self, seq: Seq) {
        self.body_acked = 0;
        if self.place_tag == 0 {
            (self.place_cut, self.place_tag) = (seq, seq);
        }
        if self.body_tag == 0 && self.name.is_some() {
            (self.body_cut, self.body_tag) = (seq, seq);
        }
    }

    /// Takes back [`File::retell`]: the peer has it.
    pub(super) fn known(&mut self, seq: Seq) {
        if self.place_tag == seq {
            self.place_tag = 0;
        }
        if self.body_tag == seq {
            self.settle();
        }
    }

    /// It is one with a file of the peer's, of the same content, and both are at `version` now. With `attrs`, ours stay,
    /// which is a change at `tag`.
    pub(super) fn merge(&mut self, version: &Version, attrs: bool, tag: Seq) {
        let tag = if attrs { tag } else { 0 };
        *self = File {
            name: self.name.take(),
            place: version.clone(),
            body: version.clone(),
            base: version.clone(),
            base_size: self.size,
            stamp: self.stamp,
            size: self.size,
            body_tag: tag,
            attrs_tag: tag,
            pinned: self.pinned,
            ino: self.ino,
            disk: self.disk,
            mtime: self.mtime,
            recorded: self.recorded,
            ..File::default()
        };
    }

    /// The peer has made durable what our cut `seq` told of the body, which included our cuts up to `acked`.
    pub(super) fn thank_body(&mut self, seq: Seq, acked: Seq) {
        self.dirty.thank(seq);
        self.before.thank(seq);
        self.body_acked = self.body_acked.max(acked);
        if self.body_tag <= seq {
            self.settle();
        }
    }

    /// The stamp of a version cut now from a file last modified at `mtime`. It goes back only where somebody has set an
    /// older time since the peer had everything: while it knows another version or place, the file may be in dispute.
    pub fn next_stamp(&self, mtime: i64) -> i64 {
        let goes_back = self.base == self.body && self.place_tag == 0 && self.mtime != Some(mtime);
        if goes_back { mtime } else { mtime.max(self.stamp) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn held(size: u64) -> File {
        File { size, ..File::default() }
    }

    #[test]
    fn growing_over_what_was_cut_off_is_a_change() {
        let mut file = held(5_000);
        file.resize(1_500, 1);
        assert_eq!(file.dirty.since(0).collect::<Vec<_>>(), vec![1..2]);
        file.resize(3_000, 1);
        assert_eq!(file.dirty.since(0).collect::<Vec<_>>(), vec![1..3]);
    }

    #[test]
    fn growing_a_file_that_never_shrank_costs_nothing() {
        let mut file = held(1_500);
        file.resize(9_000, 1);
        assert!(file.dirty.is_empty());
        assert_eq!(file.body_tag, 1);
    }

    #[test]
    fn bytes_cut_off_from_a_missing_chunk_do_not_come_back_with_it() {
        let mut file = held(2_000);
        file.missing.insert(0..2);
        file.resize(1_200, 1);
        file.resize(1_800, 1);
        assert_eq!(file.scraps.iter().collect::<Vec<_>>(), vec![1_200..1_800]);
    }

    proptest::proptest! {
        #[test]
        fn nothing_is_ever_dirty_missing_or_scrapped_beyond_the_end(
            ops in proptest::collection::vec((0u8..4, 0u64..9_000, 1u64..4_000), 1..40),
        ) {
            let mut file = held(5_000);
            file.missing.insert(1..4);
            for (tag, (op, at, len)) in ops.into_iter().enumerate() {
                let tag = tag as u64 / 3 + 1;
                let size = file.size.max(at + len);
                match op {
                    0 => file.resize(at, tag),
                    1 => file.wrote(&ChunkSet::of(chunk::touched(at, len)), size, tag),
                    2 => file.scrapped(&ChunkSet::of(at..at + len), size, tag),
                    _ => file.thank_body(tag - 1, tag - 1),
                }
                let end = chunk::count(file.size);
                proptest::prop_assert!(file.dirty.since(0).all(|r| r.end <= end), "{file:?}");
                proptest::prop_assert!(file.missing.iter().all(|r| r.end <= end), "{file:?}");
                proptest::prop_assert!(file.scraps.iter().all(|r| r.end <= file.size), "{file:?}");
            }
        }
    }
}
