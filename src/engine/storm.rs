//! The brake on the peer's deletes (see [`brake`](crate::model::brake)), between the queue and those who let them through.
//!
//! Invariant: what was held stays in the queue, not thanked for and not dropped, and all that came after it; also after a
//! remount.

use super::events::Told;
use super::host::Host;
use super::pending::Queue;
use super::queues::Inbound;
use crate::model::brake::Names;
use crate::model::ids::Seq;
use crate::model::judge::judge;
use crate::model::name::Name;
use crate::store;
use std::collections::BTreeSet;
use std::time::Duration;

impl Host {
    fn since_begin(&self) -> Duration {
        self.began.elapsed()
    }

    /// How many files have a name.
    pub(super) fn named_files(&self) -> u64 {
        self.share.lock().totals().files
    }

    /// Looks at the deletes that wait in `queue`. From the cut that is returned on all wait for somebody.
    pub(super) fn weigh(&self, queue: &mut Queue) -> Option<Seq> {
        // Without a session nothing has come: what waited before will come again.
        if queue.pending.is_empty() && self.session.lock().is_none() {
            return None;
        }
        {
            let share = self.share.lock();
            for pending in queue.pending.values_mut().filter(|p| p.names.is_none()) {
                let moves = pending.cut.files.iter().any(|f| f.place.is_some());
                let judged = || judge(&share, self.sides(&share), &pending.cut);
                let names = if moves { Names::of(&share, &pending.cut, &judged()) } else { Names::default() };
                pending.names = Some(names);
            }
        }
        // What has begun to be applied can't be held up half-way.
        let cuts = || queue.pending.iter().filter(|p| !p.1.journaled);
        let names = || cuts().filter_map(|(seq, pending)| Some((*seq, pending.names.as_ref()?)));
        let mut gone: BTreeSet<&Name> = BTreeSet::new();
        for (_, names) in names() {
            gone.extend(&names.gone);
            for name in &names.given {
                gone.remove(name);
            }
        }
        let (waiting, files) = (gone.len() as u64, self.named_files());
        let mut brake = self.brake.lock();
        let was_paused = brake.held().is_some();
        if brake.may_pass(self.since_begin(), files, waiting) {
            return None;
        }
        drop(brake);
        if !was_paused {
            self.pause(waiting, files);
        }
        names().find(|(_, names)| !names.gone.is_empty()).map(|(seq, _)| seq)
    }

    fn pause(&self, waiting: u64, files: u64) {
        tracing::warn!(
            "paused: the peer deletes {waiting} of the {files} files here; nothing more of what it says is done until somebody \
             types: syncfs resume {}",
            self.options.mount.display()
        );
        if let Err(error) = self.backing.set_paused(true) {
            tracing::error!("the pause will not outlive this daemon: {error}");
        }
        self.events.tell(Told::Paused { deletes: waiting });
        self.moved();
    }

    /// These cuts were applied where there were `files` before.
    pub(super) fn count_deletes(&self, passed: impl IntoIterator<Item = Names>, files: u64) {
        let now = self.since_begin();
        let mut brake = self.brake.lock();
        passed.into_iter().for_each(|names| brake.passed(now, files, names));
    }

    /// Lets the deletes through that wait. Returns how many these are; `None` where it was not paused.
    ///
    /// # Errors
    /// As the disk's; then it will be paused again after a remount.
    pub fn resume(&self) -> store::Result<Option<u64>> {
        let resumed = self.brake.lock().resume(self.since_begin());
        if let Some(deletes) = resumed {
            tracing::info!("resumed: {deletes} deletes of the peer pass");
            self.events.tell(Told::Resumed { deletes });
            self.inbox.send(Inbound::Again);
            self.moved();
            self.backing.set_paused(false)?;
        }
        Ok(resumed)
    }
}
