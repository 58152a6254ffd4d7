//! What a user can see of the state.

use super::error::FlushError;
use super::host::Host;
use super::residency::ignore_file;
use crate::model::message::Message;
use crate::model::share::Share;
use crate::model::totals::Totals;
use crate::store;
use serde::Serialize;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::sync::watch;

/// `status --json`. Byte figures are bytes; sent and received count the wire, frames included.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    pub mount: String,
    pub store: String,
    /// Where this host waits for the peer.
    pub listen: String,
    pub replica: String,
    pub peer: Peer,
    pub files: u64,
    pub bytes: u64,
    pub pending_files: u64,
    /// Bytes in the chunks that the peer lacks.
    pub pending_bytes: u64,
    /// Which way changes go: `both`, `send` or `receive`.
    pub direction: String,
    /// Files that differ from the peer's because they were changed here, where changes only come.
    pub held_back: Option<u64>,
    /// Seconds between announcements of what changes here; `null`: at once.
    pub interval: Option<u64>,
    pub dirty_chunks: u64,
    pub missing_chunks: u64,
    /// Bytes that only the peer holds; and those of them that are to come by themselves.
    pub missing_bytes: u64,
    pub awaited_bytes: u64,
    pub conflicts: u64,
    /// Files that the peer does not hear of, because `.syncfsignore` says so.
    pub ignored: u64,
    pub left_alone: u64,
    /// Files that were missing from the directory when it was mounted, and come back from the peer.
    pub missing_at_mount: u64,
    /// The peer deletes so much that somebody is asked first; so many deletes wait.
    pub paused: Option<u64>,
    pub trash: Trash,
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// What would have been sent or received beside, had nothing been compressed.
    pub saved_bytes: u64,
    /// Bytes a second that this host sends at most; `null`: as many as go.
    pub bwlimit: Option<u64>,
    pub cache: Cache,
    /// What the peer acknowledged and does not hold, as it was before it changed here.
    pub kept_for_peer: Kept,
}

#[derive(Clone, Debug, Serialize)]
pub struct Kept {
    /// Bytes on the disk.
    pub bytes: u64,
    /// How often since the mount there was no room for something.
    pub given_up: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Peer {
    pub address: String,
    pub replica: Option<String>,
    pub connected: bool,
    pub rtt_ms: Option<f64>,
    pub clock_skew_ms: Option<i64>,
    pub last_error: Option<String>,
}

/// What the peer deleted or wrote over, and is kept here for a while.
#[derive(Clone, Debug, Serialize)]
pub struct Trash {
    pub entries: u64,
    /// Bytes that they take on the disk.
    pub bytes: u64,
}

#[derive(Clone, Debug, Serialize)]
pub struct Cache {
    /// Bytes; `null` where everything is held.
    pub limit: Option<u64>,
    /// Bytes held; with a limit, as they lie on the disk.
    pub used: u64,
    /// Bytes of pinned files.
    pub pinned: u64,
    /// The peer has said that it holds everything: until then nothing goes from here.
    pub may_evict: bool,
    /// What the peer acknowledged it may not hold.
    pub peer_holds_less: bool,
}

impl Host {
    /// Changes when something moved that [`Host::status`] may show; ends with the host.
    pub fn progress(&self) -> watch::Receiver<u64> {
        self.progress.subscribe()
    }

    pub fn status(&self) -> Status {
        let counters = self.link.get().map(|l| l.counters());
        let session = self.session.lock().as_ref().map(|s| (s.peer.replica, s.clock_skew_ms));
        let (entries, trash_bytes) = self.trash.total();
        let share = self.share.lock();
        let Totals { files, bytes, .. } = *share.totals();
        let (staying, stay) = self.what_stays(&share);
        let mut told = *share.totals();
        told -= stay;
        let receives = self.options.direction.receives();
        let address = counters.as_ref().and_then(|c| c.address).map(|a| a.to_string());
        Status {
            mount: self.options.mount.display().to_string(),
            store: self.options.store.display().to_string(),
            listen: self.options.listen.to_string(),
            replica: self.identity.replica.to_string(),
            peer: Peer {
                address: address.unwrap_or_else(|| self.options.peer.clone()),
                replica: share.header().peer.map(|p| p.to_string()),
                connected: counters.as_ref().is_some_and(|c| c.connected),
                rtt_ms: counters.as_ref().and_then(|c| c.rtt).map(|r| r.as_secs_f64() * 1000.0),
                clock_skew_ms: session.map(|s| s.1),
                last_error: counters.as_ref().and_then(|c| c.last_error.clone()),
            },
            files,
            bytes,
            pending_files: if receives { 0 } else { share.unthanked().len() as u64 - staying },
            pending_bytes: if receives { 0 } else { told.pending_bytes },
            direction: self.options.direction.word().to_owned(),
            held_back: receives.then(|| share.unthanked().len() as u64 - staying),
            interval: self.options.interval.map(|interval| interval.as_secs()),
            dirty_chunks: if receives { 0 } else { told.dirty_chunks },
            missing_chunks: told.missing_chunks,
            missing_bytes: told.missing_bytes,
            awaited_bytes: self.awaited_bytes(&share, &told),
            conflicts: told.conflicts,
            ignored: staying,
            left_alone: self.left_alone as u64,
            missing_at_mount: self.missing,
            paused: self.brake.lock().held(),
            trash: Trash { entries, bytes: trash_bytes },
            sent_bytes: counters.as_ref().map_or(0, |c| c.sent_bytes),
            received_bytes: counters.as_ref().map_or(0, |c| c.received_bytes),
            saved_bytes: counters.as_ref().map_or(0, |c| c.saved_bytes),
            bwlimit: self.bwlimit(),
            cache: Cache {
                limit: self.holding.cache(|cache| cache.limit()),
                used: self.holding.cache(|cache| cache.used()).unwrap_or(bytes - told.missing_bytes),
                pinned: told.pinned_bytes,
                may_evict: share.header().may_evict,
                peer_holds_less: share.header().peer_holds_less,
            },
            kept_for_peer: Kept {
                bytes: self.before.bytes(),
                given_up: self.before.given_up.load(Ordering::Relaxed),
            },
        }
    }

    /// How many files the peer does not hear of, and what they come to.
    fn what_stays(&self, share: &Share) -> (u64, Totals) {
        let mut stay = Totals::default();
        // What stays here was never told, and so it was never acknowledged.
        if self.patterns.read().0.match_anything() {
            let files = share.unthanked().iter().filter_map(|id| share.file(id));
            files.filter(|f| self.stays_here(f)).for_each(|f| stay += Totals::of(&f));
        }
        (stay.files, stay)
    }

    /// Bytes that are to come by themselves, where files that are told come to `told`.
    fn awaited_bytes(&self, share: &Share, told: &Totals) -> u64 {
        if !self.holding.is_cache() {
            return told.missing_bytes;
        }
        let patterns = ignore_file(share).and_then(|id| share.file(id));
        let patterns = patterns.filter(|f| !f.pinned && !self.stays_here(f));
        told.pinned_missing + patterns.map_or(0, |f| f.missing_bytes())
    }

    /// Returns when both sides are level and durable.
    pub async fn flush(&self, timeout: Duration) -> Result<(), FlushError> {
        if !self.link.get().is_some_and(|l| l.counters().connected) {
            return Err(FlushError::NotConnected);
        }
        let both = async {
            tokio::select! {
                () = self.flush_both() => Ok(()),
                held = self.held() => Err(FlushError::Paused(held)),
            }
        };
        tokio::time::timeout(timeout, both).await.map_err(|_| FlushError::TimedOut)??;
        self.flush_disk().await.map_err(FlushError::Disk)
    }

    /// What the peer has is not durable here for that, and what was made and unlinked between two cuts it never heard
    /// of.
    pub(super) async fn flush_disk(&self) -> store::Result<()> {
        let host = self.me.upgrade().expect("it is asked right now");
        let sync = move || host.backing.sync_all().and_then(|()| host.journal.sync(host.journal.end()));
        let stopped =
            |error| store::Error::Io { what: "syncing".into(), source: std::io::Error::other(error) };
        tokio::task::spawn_blocking(sync).await.map_err(stopped)?
    }

    /// Returns when deletes of the peer wait for somebody: how many.
    async fn held(&self) -> u64 {
        let mut progress = self.progress.subscribe();
        loop {
            progress.borrow_and_update();
            let held = self.brake.lock().held();
            if let Some(held) = held.filter(|n| *n > 0) {
                return held;
            }
            if progress.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    async fn flush_both(&self) {
        let mut flushed = self.flushes.subscribe();
        loop {
            self.level().await;
            let request = self.next_flush.fetch_add(1, Ordering::Relaxed);
            self.tell(Message::Flush { request });
            // An answer that got lost with its session is asked for again.
            let answer = async {
                while *flushed.borrow_and_update() < request {
                    if flushed.changed().await.is_err() {
                        return;
                    }
                }
            };
            if tokio::time::timeout(Duration::from_secs(5), answer).await.is_ok() && self.is_level() {
                return;
            }
        }
    }

    pub(super) fn flushed(&self, request: u64) {
        self.flushes.send_modify(|n| *n = (*n).max(request));
    }
}
