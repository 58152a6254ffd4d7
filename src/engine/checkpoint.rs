//! Bringing the metadata store level with the journal, after which old journal segments go.
//!
//! Invariant: a journal record goes only after the metadata it led to and the data it speaks of are on
//! the disk.

use super::error::Error;
use super::host::Host;
use super::metadata::Stored;
use super::pending::Redo;
use super::queues::Turn;
use super::worker::Worker;
use crate::model::codec;
use crate::model::record::Record;
use crate::model::sabotage::{Bug, planted};
use crate::model::share::Share;
use crate::store::{self, Lsn};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// A journal this large is worth a checkpoint at once, bytes.
const LARGE: u64 = 32 << 20;
/// How often the journal's size is looked at, and how old it may grow otherwise.
const LOOK: Duration = Duration::from_secs(5);
const OLD: Duration = Duration::from_secs(60);

/// When the last checkpoint was, and how far the journal went then.
pub(super) struct Keeper {
    looked: Instant,
    last: Instant,
    end: Lsn,
}

impl Keeper {
    pub fn new(host: &Host) -> Keeper {
        let now = Instant::now();
        Keeper { looked: now, last: now, end: host.journal.end() }
    }
}

impl Worker for Keeper {
    fn turn(&mut self, host: &Arc<Host>, wait: bool) -> Turn {
        {
            let mut stop = host.checkpointer.stop.lock();
            if wait && !*stop {
                // Nothing new: nothing to wake up for but the occasional look.
                host.checkpointer.stopped.wait_for(&mut stop, LOOK);
            }
            if *stop {
                return Turn::Over;
            }
        }
        if self.looked.elapsed() < LOOK {
            return Turn::Idle;
        }
        self.looked = Instant::now();
        host.graves.tidy();
        host.clean_trash();
        // Nobody tells when a disk has room again.
        host.pump();
        let new = host.journal.end() > self.end;
        if !new || (host.journal.bytes() <= LARGE && self.last.elapsed() <= OLD) {
            return Turn::Idle;
        }
        if let Err(error) = host.checkpoint(false) {
            tracing::error!("the metadata could not be brought level and is tried again: {error}");
        }
        (self.last, self.end) = (Instant::now(), host.journal.end());
        Turn::Worked
    }
}

impl Host {
    /// Writes all that changed since the last checkpoint to the metadata store and trims the journal.
    /// With `clean`, notes that nothing will change any more.
    pub(super) fn checkpoint(&self, clean: bool) -> Result<(), Error> {
        self.be_sure_of_all();
        let mut meta = self.checkpointer.meta.lock();
        let mut touched = self.share.lock().take_touched();
        for id in touched.iter() {
            let stamp = self.stat(id).map(|stat| store::stamp(&stat));
            self.share.lock().record_times(id, stamp.map(|s| (s.ino, (s.mtime, s.ctime))));
        }
        let (lsn, retold, stored, puts, gone) = {
            let _gate = self.applying.write();
            let mut share = self.share.lock();
            // What changed while the times were looked at is in this checkpoint as well; its times go into the next.
            let meanwhile = share.take_touched();
            meanwhile.iter().for_each(|id| share.record_times(id, None));
            share.put_back(meanwhile.iter());
            touched.extend(meanwhile.iter());
            let (mut puts, mut gone) = (Vec::new(), Vec::new());
            for id in touched.iter() {
                match share.packed(id) {
                    Some(file) => puts.push(file),
                    None => gone.push(id),
                }
            }
            let stored = Stored {
                header: share.header().clone(),
                // What shows by half is for recovery to finish, however this ends.
                clean: clean && self.unfinished.lock().is_empty(),
                machine_boot: self.checkpointer.machine_boot.clone(),
            };
            let lsn = self.journal.end();
            (lsn, self.retell_unfinished(&mut share), stored, puts, gone)
        };
        let write = || -> store::Result<()> {
            retold?;
            // The data that records up to `lsn` speak of.
            if !planted(Bug::CheckpointUnsynced) {
                self.backing.sync_all()?;
            }
            self.journal.sync(self.journal.end())?;
            let mut puts = puts.iter().map(|file| (file.id(), codec::encode(&file.unpack())));
            meta.commit(lsn, &codec::encode(&stored), &mut puts, &gone)?;
            if planted(Bug::TrimBeforeMeta) { Ok(()) } else { meta.sync() }
        };
        if let Err(error) = write() {
            // The next checkpoint must not trim the journal without these.
            self.share.lock().put_back(touched.iter());
            return Err(error.into());
        }
        self.journal.trim(lsn + 1)?;
        self.holding.save(&self.backing);
        Ok(())
    }

    /// Cuts that failed in the middle are still to be repeated after a crash, when the records of their
    /// beginnings are gone.
    fn retell_unfinished(&self, share: &mut Share) -> store::Result<()> {
        let unfinished = self.unfinished.lock().all();
        for Redo { cut, staged } in unfinished.into_iter().filter(|_| !planted(Bug::ForgetUnfinished)) {
            self.commit(share, Record::Redo { cut: Box::new(cut), staged })?;
        }
        Ok(())
    }
}
