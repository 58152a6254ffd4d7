//! What waits for the next tick of `--interval`: files that changed here and are not announced yet.
//!
//! Invariants: a file is in it once, however often it changes, and files that are gone do not pile up in it; files that
//! belong together are bonded when they come in, so they leave in one cut; they leave in the order in which they first came.

use crate::model::ids::FileId;
use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;
use tokio::time::Instant;

/// So many may be gone before they are looked for.
const SLACK: usize = 1024;

#[derive(Default)]
pub(super) struct Gathered {
    order: VecDeque<(FileId, Option<u32>)>,
    known: BTreeSet<FileId>,
    /// When they are cut.
    until: Option<Instant>,
    /// As many as were left when it was looked last.
    left: usize,
}

impl Gathered {
    /// Notes that `files` changed; the tick comes `interval` after the first change since the last one.
    pub fn add(&mut self, files: &[FileId], process: Option<u32>, interval: Duration) {
        let new = files.iter().filter(|file| self.known.insert(**file));
        self.order.extend(new.map(|file| (*file, process)));
        if !self.order.is_empty() {
            self.until.get_or_insert_with(|| Instant::now() + interval);
        }
    }

    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Whether it is worth looking for files that are gone.
    pub fn is_long(&self) -> bool {
        self.order.len() > 2 * self.left + SLACK
    }

    /// Forgets the files that are not `there` any more.
    pub fn retain(&mut self, there: impl Fn(FileId) -> bool) {
        self.order.retain(|(file, _)| there(*file));
        self.known.retain(|file| there(*file));
        self.left = self.order.len();
    }

    /// The tick: all of them, each with the process that changed it first, where known.
    pub fn take(&mut self) -> VecDeque<(FileId, Option<u32>)> {
        std::mem::take(self).order
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::WriterId;

    #[test]
    fn a_file_that_changes_often_waits_once_and_those_that_are_gone_do_not() {
        let file = |counter| FileId { writer: WriterId(1), counter };
        let mut gathered = Gathered::default();
        for n in 0..100_000 {
            gathered.add(&[file(n), file(7)], None, Duration::from_secs(60));
            if gathered.is_long() {
                gathered.retain(|id| id == file(7));
            }
        }
        assert!(gathered.order.len() <= SLACK + 4, "{}", gathered.order.len());
        assert_eq!(gathered.take().iter().filter(|(id, _)| *id == file(7)).count(), 1);
        assert_eq!(gathered.until(), None);
    }
}
