//! What all files come to, kept up with every change so that nobody has to look at all of them.

use super::conflict::is_conflict_copy;
use super::file::File;
use super::limits::CHUNK;
use std::ops::{AddAssign, SubAssign};

/// Sums over the files that have a name.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    pub files: u64,
    /// Their sizes.
    pub bytes: u64,
    pub dirty_chunks: u64,
    /// Bytes in the chunks that the peer lacks.
    pub pending_bytes: u64,
    pub missing_chunks: u64,
    /// Bytes that are not here.
    pub missing_bytes: u64,
    /// The sizes of the pinned files, and what of them is not here.
    pub pinned_bytes: u64,
    pub pinned_missing: u64,
    /// Bytes that are here and can't go: pinned, or the peer may lack them.
    pub fixed_bytes: u64,
    pub conflicts: u64,
}

impl Totals {
    /// What one file adds.
    pub fn of(file: &File) -> Totals {
        let Some(name) = &file.name else { return Totals::default() };
        let (missing, of_pinned) = (file.missing_bytes(), u64::from(file.pinned));
        Totals {
            files: 1,
            bytes: file.size,
            dirty_chunks: file.dirty.len(),
            pending_bytes: (file.dirty.len() * CHUNK).min(file.size),
            missing_chunks: file.missing.len(),
            missing_bytes: missing,
            pinned_bytes: file.size * of_pinned,
            pinned_missing: missing * of_pinned,
            fixed_bytes: if file.pinned || !file.is_thanked() { file.size - missing } else { 0 },
            conflicts: u64::from(is_conflict_copy(name)),
        }
    }

    fn each(&mut self, other: &Totals, change: impl Fn(&mut u64, u64)) {
        change(&mut self.files, other.files);
        change(&mut self.bytes, other.bytes);
        change(&mut self.dirty_chunks, other.dirty_chunks);
        change(&mut self.pending_bytes, other.pending_bytes);
        change(&mut self.missing_chunks, other.missing_chunks);
        change(&mut self.missing_bytes, other.missing_bytes);
        change(&mut self.pinned_bytes, other.pinned_bytes);
        change(&mut self.pinned_missing, other.pinned_missing);
        change(&mut self.fixed_bytes, other.fixed_bytes);
        change(&mut self.conflicts, other.conflicts);
    }
}

impl AddAssign for Totals {
    fn add_assign(&mut self, other: Totals) {
        self.each(&other, |sum, more| *sum = sum.wrapping_add(more));
    }
}

impl SubAssign for Totals {
    fn sub_assign(&mut self, other: Totals) {
        self.each(&other, |sum, less| *sum = sum.wrapping_sub(less));
    }
}
