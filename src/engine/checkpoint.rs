//! Bringing the metadata store level with the journal, after which old journal segments go.
//!
//! Invariant: a journal record goes only after the metadata it led to and the data it speaks of are on
//! the disk.

use super::error::Error;
use super::host::Host;
use super::metadata::Stored;
use super::queues::Turn;
use super::worker::Worker;
use crate::model::codec;
use crate::model::ids::FileId;
use crate::model::sabotage::{Bug, planted};
use crate::store::{self, Lsn};
use std::collections::BTreeSet;
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
        let mut meta = self.checkpointer.meta.lock();
        let mut touched: BTreeSet<FileId> = self.share.lock().take_touched();
        for &id in &touched {
            if let Some(stat) = self.stat(id) {
                let stamp = store::stamp(&stat);
                self.share.lock().record_times(id, stamp.ino, (stamp.mtime, stamp.ctime));
            }
        }
        let (lsn, stored, puts, gone) = {
            let _gate = self.applying.write();
            let mut share = self.share.lock();
            // What changed while the times were looked at is in this checkpoint as well.
            touched.extend(share.take_touched());
            let (mut puts, mut gone) = (Vec::new(), Vec::new());
            for id in &touched {
                match share.file(*id) {
                    Some(file) => puts.push((*id, codec::encode(file))),
                    None => gone.push(*id),
                }
            }
            let stored = Stored {
                header: share.header().clone(),
                clean,
                machine_boot: self.checkpointer.machine_boot.clone(),
            };
            (self.journal.end(), stored, puts, gone)
        };
        let mut write = || -> store::Result<()> {
            // The data that records up to `lsn` speak of.
            if !planted(Bug::CheckpointUnsynced) {
                self.backing.sync_all()?;
            }
            self.journal.sync(lsn)?;
            meta.commit(lsn, &codec::encode(&stored), &puts, &gone)?;
            if planted(Bug::TrimBeforeMeta) { Ok(()) } else { meta.sync() }
        };
        if let Err(error) = write() {
            // The next checkpoint must not trim the journal without these.
            self.share.lock().put_back(touched);
            return Err(error.into());
        }
        self.journal.trim(lsn + 1)?;
        Ok(())
    }
}
