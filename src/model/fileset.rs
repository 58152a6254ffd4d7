//! A set of files.
//!
//! Numbers of files lie close together: they are kept as ranges, so that a set of very many files, or of nearly all, takes no
//! more room than one of few.

use super::ids::{FileId, WriterId};
use rangemap::RangeInclusiveSet;
use std::collections::BTreeMap;

/// Files, in the order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FileSet {
    counters: BTreeMap<WriterId, RangeInclusiveSet<u64>>,
    len: usize,
}

impl FileSet {
    pub fn new() -> FileSet {
        FileSet::default()
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub fn contains(&self, id: FileId) -> bool {
        self.counters.get(&id.writer).is_some_and(|counters| counters.contains(&id.counter))
    }

    pub fn insert(&mut self, id: FileId) {
        if !self.contains(id) {
            self.counters.entry(id.writer).or_default().insert(id.counter..=id.counter);
            self.len += 1;
        }
    }

    pub fn remove(&mut self, id: FileId) {
        let Some(counters) = self.counters.get_mut(&id.writer) else { return };
        if counters.contains(&id.counter) {
            counters.remove(id.counter..=id.counter);
            self.len -= 1;
            if counters.is_empty() {
                self.counters.remove(&id.writer);
            }
        }
    }

    /// Whether `id` is in it, from now on.
    pub fn set(&mut self, id: FileId, is: bool) {
        if is { self.insert(id) } else { self.remove(id) }
    }

    pub fn iter(&self) -> impl Iterator<Item = FileId> + '_ {
        self.counters.iter().flat_map(|(writer, counters)| {
            counters.iter().cloned().flatten().map(|counter| FileId { writer: *writer, counter })
        })
    }
}

impl Extend<FileId> for FileSet {
    fn extend<I: IntoIterator<Item = FileId>>(&mut self, files: I) {
        files.into_iter().for_each(|id| self.insert(id));
    }
}

impl FromIterator<FileId> for FileSet {
    fn from_iter<I: IntoIterator<Item = FileId>>(files: I) -> FileSet {
        let mut set = FileSet::new();
        set.extend(files);
        set
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn it_is_as_a_plain_set(ops in prop::collection::vec((any::<bool>(), 0u64..3, 0u64..20), 0..200)) {
            let (mut set, mut plain) = (FileSet::new(), BTreeSet::new());
            for (is, writer, counter) in ops {
                // The last number there is must be no harm.
                let counter = if counter == 19 { u64::MAX } else { counter };
                let id = FileId { writer: WriterId(writer), counter };
                set.set(id, is);
                if is { plain.insert(id) } else { plain.remove(&id) };
                prop_assert_eq!((set.len(), set.contains(id)), (plain.len(), is));
            }
            prop_assert!(set.iter().eq(plain.iter().copied()));
            prop_assert_eq!(plain.into_iter().collect::<FileSet>(), set);
        }
    }
}
