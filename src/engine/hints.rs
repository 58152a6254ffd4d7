//! Which of our files may be like which: what was copied from what, and what a program read beside what it wrote.
//!
//! Kept in memory, and told to the peer before the file is announced. Nothing depends on a hint but what is compared
//! first. Invariant: only the latest are kept.

use crate::model::ids::FileId;
use crate::model::limits::HINTS;
use std::collections::VecDeque;

/// Programs that are remembered with what they read or write last.
const PROGRAMS: usize = 64;

#[derive(Default)]
pub(super) struct Hints {
    alike: VecDeque<(FileId, FileId)>,
    /// By process group, for a file is often read by one process of a pipe and written by another.
    read: VecDeque<(u32, FileId)>,
    written: VecDeque<(u32, FileId)>,
}

impl Hints {
    /// `file` gets content of `source`.
    pub fn copied(&mut self, file: FileId, source: FileId) {
        if file == source || self.of(file) == Some(source) {
            return;
        }
        put(&mut self.alike, HINTS, (file, source));
    }

    /// Programs of `group` have opened `file`: to write it, and it is empty, or to read it.
    pub fn opened(&mut self, group: u32, file: FileId, writes: bool) {
        let (own, other) = match writes {
            true => (&mut self.written, &self.read),
            false => (&mut self.read, &self.written),
        };
        put(own, PROGRAMS, (group, file));
        let Some(other) = get(other, group) else { return };
        let (new, source) = if writes { (file, other) } else { (other, file) };
        if self.of(new).is_none() {
            self.copied(new, source);
        }
    }

    pub fn of(&self, file: FileId) -> Option<FileId> {
        get(&self.alike, file)
    }
}

fn put<K: PartialEq>(list: &mut VecDeque<(K, FileId)>, most: usize, entry: (K, FileId)) {
    list.retain(|e| e.0 != entry.0);
    list.push_back(entry);
    if list.len() > most {
        list.pop_front();
    }
}

fn get<K: PartialEq>(list: &VecDeque<(K, FileId)>, key: K) -> Option<FileId> {
    list.iter().rev().find(|e| e.0 == key).map(|e| e.1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::WriterId;

    #[test]
    fn what_a_program_reads_and_what_it_writes_are_alike_in_either_order() {
        let id = |counter| FileId { writer: WriterId(1), counter };
        let mut hints = Hints::default();
        hints.opened(7, id(1), false);
        hints.opened(7, id(2), true);
        hints.opened(8, id(3), true);
        hints.opened(8, id(4), false);
        hints.opened(8, id(5), false);
        assert_eq!([2, 3, 4, 5].map(|n| hints.of(id(n))), [Some(id(1)), Some(id(4)), None, None]);
        hints.copied(id(3), id(5));
        assert_eq!(hints.of(id(3)), Some(id(5)), "what was copied is known for certain");
    }
}
