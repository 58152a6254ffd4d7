//! Files that changed and may stay open: when each is cut all the same.
//!
//! Invariant: they are in the order of their times. So who waits for the first one need not be woken for another.

use crate::model::ids::FileId;
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::time::Duration;
use tokio::time::Instant;

/// A file that stays open is cut this long after its first uncut write at the latest.
pub(super) const CUT_AFTER: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(super) struct Due(Mutex<VecDeque<(Instant, FileId)>>);

impl Due {
    /// A file has changed for the first time since its last cut. True where nothing was due before.
    pub fn add(&self, file: FileId) -> bool {
        let mut due = self.0.lock();
        due.push_back((Instant::now() + CUT_AFTER, file));
        due.len() == 1
    }

    /// When the first one is due.
    pub fn until(&self) -> Option<Instant> {
        self.0.lock().front().map(|due| due.0)
    }

    /// All of them, due or not.
    pub fn take(&self) -> impl Iterator<Item = FileId> + use<> {
        std::mem::take(&mut *self.0.lock()).into_iter().map(|due| due.1)
    }

    /// One that is due by `now`.
    pub fn pop(&self, now: Instant) -> Option<FileId> {
        self.0.lock().pop_front_if(|due| due.0 <= now).map(|due| due.1)
    }
}
