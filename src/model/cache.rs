//! What a host that keeps a cache only holds, and what of it goes first.
//!
//! Chunk groups over all files stand in one order, the least recently used first. How much room each file takes is what the
//! disk says of it: chunks and blocks have different borders, and holes cost nothing.
//!
//! Invariant: `used` is the sum of `weights`. The order may name groups that are held no more, and lack some that are.

use super::chunk;
use super::ids::FileId;
use super::limits::{GROUP, GROUP_BYTES};
use lru::LruCache;
use std::collections::HashMap;
use std::ops::Range;

/// A chunk group of a file.
pub type Group = (FileId, u64);

#[derive(Debug)]
pub struct Cache {
    /// Bytes on the disk that content may take.
    limit: u64,
    used: u64,
    /// Bytes on the disk that each file takes; nothing where it takes none.
    weights: HashMap<FileId, u64>,
    order: LruCache<Group, ()>,
}

impl Cache {
    pub fn new(limit: u64) -> Cache {
        Cache { limit, used: 0, weights: HashMap::new(), order: LruCache::unbounded() }
    }

    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Bytes on the disk.
    pub fn used(&self) -> u64 {
        self.used
    }

    /// A file takes so many bytes on the disk now.
    pub fn weigh(&mut self, file: FileId, bytes: u64) {
        let before = match bytes {
            0 => self.weights.remove(&file),
            _ => self.weights.insert(file, bytes),
        };
        self.used = self.used - before.unwrap_or(0) + bytes;
    }

    /// `chunks` of a file were used just now.
    pub fn touch(&mut self, file: FileId, chunks: &Range<u64>) {
        for group in groups(chunks) {
            self.order.put((file, group), ());
        }
    }

    /// `chunks` of a file are held, and were used longer ago than all that is in the order, unless they are in it.
    pub fn admit(&mut self, file: FileId, chunks: &Range<u64>) {
        for group in groups(chunks) {
            if !self.order.contains(&(file, group)) {
                self.order.put((file, group), ());
                self.order.demote(&(file, group));
            }
        }
    }

    /// Files that are not `known` take no room.
    pub fn forget_all_but(&mut self, known: impl Fn(FileId) -> bool) {
        self.weights.retain(|id, _| known(*id));
        self.used = self.weights.values().sum();
    }

    /// A group was used after all that were said to be before.
    pub fn touch_group(&mut self, group: Group) {
        self.order.put(group, ());
    }

    /// Nothing of a group is held any more.
    pub fn drop_group(&mut self, group: Group) {
        self.order.pop(&group);
    }

    /// Every group that was ever used, the least recently used first.
    pub fn oldest(&self) -> impl Iterator<Item = Group> + '_ {
        self.order.iter().rev().map(|(group, ())| *group)
    }

    /// By how many bytes the limit is passed once `more` have come.
    pub fn excess(&self, more: u64) -> u64 {
        self.used.saturating_add(more).saturating_sub(self.limit)
    }

    /// Bytes that are made free beyond what is needed, so that not each chunk that comes has one to go before it.
    pub fn slack(&self) -> u64 {
        (self.limit / 16).clamp(GROUP_BYTES.min(self.limit / 4), 64 << 20)
    }

    /// Content of at most so many bytes is brought over before a change of the peer that needs it, where nobody has asked for
    /// it: more would drive out what somebody uses.
    pub fn eager(&self) -> u64 {
        self.limit / 8
    }
}

/// The numbers of the groups that `chunks` lie in.
pub fn groups(chunks: &Range<u64>) -> Range<u64> {
    match chunks.is_empty() {
        true => 0..0,
        false => chunks.start / GROUP..chunks.end.div_ceil(GROUP),
    }
}

/// The chunks of a group in a file of `size` bytes.
pub fn chunks_of(group: u64, size: u64) -> Range<u64> {
    let start = group.saturating_mul(GROUP);
    start..start.saturating_add(GROUP).min(chunk::count(size)).max(start)
}

#[cfg(test)]
mod tests {
    use super::super::ids::WriterId;
    use super::*;

    fn file(counter: u64) -> FileId {
        FileId { writer: WriterId(1), counter }
    }

    #[test]
    fn what_was_used_last_goes_last() {
        let mut cache = Cache::new(10_000_000);
        cache.touch(file(1), &(0..1_500));
        cache.touch(file(2), &(499..501));
        cache.touch(file(1), &(0..1));
        let order: Vec<Group> = cache.oldest().collect();
        assert_eq!(order, [(file(1), 1), (file(1), 2), (file(2), 0), (file(2), 1), (file(1), 0)]);
        cache.drop_group((file(1), 1));
        assert_eq!(cache.oldest().next(), Some((file(1), 2)));
    }

    #[test]
    fn what_is_used_is_what_the_files_take() {
        let mut cache = Cache::new(1_000);
        cache.weigh(file(1), 600);
        cache.weigh(file(2), 300);
        assert_eq!((cache.used(), cache.excess(100), cache.excess(150)), (900, 0, 50));
        cache.weigh(file(1), 200);
        cache.weigh(file(2), 0);
        cache.weigh(file(3), 0);
        assert_eq!((cache.used(), cache.weights.len()), (200, 1));
    }

    #[test]
    fn groups_end_where_the_file_does() {
        assert_eq!((groups(&(0..0)), groups(&(0..500)), groups(&(499..501))), (0..0, 0..1, 0..2));
        assert_eq!((chunks_of(1, 700_000), chunks_of(3, 700_000)), (500..700, 1_500..1_500));
    }
}
