//! The verification under way, and what the last one that was asked for here came to.
//!
//! Invariants: there is one at a time; what the peer says beyond what a verification can have open ends the session; once
//! the session is over nothing is waited for any more.

use super::error::VerifyError;
use crate::model::name::Name;
use crate::model::verify::{Difference, Word};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use tokio::sync::watch;

/// Words of the peer that wait: it is one round ahead at most.
const AHEAD: usize = 4;

/// A file that is not the same on both sides.
#[derive(Clone, Debug, PartialEq)]
pub struct Differs {
    pub name: Name,
    pub how: Difference,
    /// Whether it will be the same: both versions are kept, or it is told again.
    pub repaired: bool,
    /// A version was put beside the other, under a conflict name.
    pub copied: bool,
}

/// What a verification came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Files that are here, and bytes in them.
    pub files: u64,
    pub bytes: u64,
    pub differences: Vec<Differs>,
}

/// A verification.
pub struct Run {
    pub nonce: u64,
    /// It was asked for here.
    pub asked: bool,
    pub repair: bool,
    /// Bytes that were read here, and that are to be.
    pub read: AtomicU64,
    pub bytes: AtomicU64,
    ended: AtomicBool,
    outcome: Mutex<Option<Result<Arc<Report>, VerifyError>>>,
    over: watch::Sender<bool>,
}

/// What became of a word of the peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Taken,
    /// No verification has that number.
    Unknown,
    /// More than it can have to say.
    TooMuch,
}

/// A run, and where what the peer says of it goes.
type Present = (Arc<Run>, Option<SyncSender<Word>>);

/// Where the verification of a host has its place.
#[derive(Default)]
pub struct Verifying {
    present: Mutex<Option<Present>>,
    /// The last one that was asked for here.
    last: Mutex<Option<Arc<Run>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Verifying {
    /// Takes the place; `None` where it is taken.
    pub(super) fn begin(&self, nonce: u64, asked: bool, repair: bool) -> Option<(Arc<Run>, Receiver<Word>)> {
        let mut present = self.present.lock();
        if present.is_some() {
            return None;
        }
        let run = Arc::new(Run {
            nonce,
            asked,
            repair,
            read: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            ended: AtomicBool::new(false),
            outcome: Mutex::new(None),
            over: watch::channel(false).0,
        });
        let (sender, ear) = sync_channel(AHEAD);
        *present = Some((run.clone(), Some(sender)));
        if asked {
            *self.last.lock() = Some(run.clone());
        }
        Some((run, ear))
    }

    pub(super) fn hear(&self, nonce: u64, word: Word) -> Heard {
        let present = self.present.lock();
        let Some((_, Some(sender))) = present.as_ref().filter(|p| p.0.nonce == nonce) else {
            return Heard::Unknown;
        };
        match sender.try_send(word) {
            Err(TrySendError::Full(_)) => Heard::TooMuch,
            _ => Heard::Taken,
        }
    }

    /// The session is over.
    pub(super) fn end(&self) {
        if let Some((run, sender)) = &mut *self.present.lock() {
            run.ended.store(true, Ordering::Relaxed);
            *sender = None;
        }
    }

    /// The daemon ends: so does the verification, and nothing of it is left.
    pub(super) fn stop(&self) {
        self.end();
        let thread = self.thread.lock().take();
        if thread.is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("a thread of the engine panicked");
        }
    }

    /// The thread that does it. The one before has finished.
    pub(super) fn done_by(&self, thread: JoinHandle<()>) {
        *self.thread.lock() = Some(thread);
    }

    pub(super) fn finish(&self, run: &Run, outcome: Result<Report, VerifyError>) {
        *run.outcome.lock() = Some(outcome.map(Arc::new));
        *self.present.lock() = None;
        run.over.send_replace(true);
    }

    /// The last verification that was asked for here.
    pub fn last(&self) -> Option<Arc<Run>> {
        self.last.lock().clone()
    }
}

impl Run {
    /// The session that it was begun in is over.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Relaxed)
    }

    /// What it came to; `None` while it is under way.
    pub fn outcome(&self) -> Option<Result<Arc<Report>, VerifyError>> {
        self.outcome.lock().clone()
    }

    /// Returns when it is over.
    pub async fn wait(&self) {
        // An error would mean that it is gone itself.
        let _ = self.over.subscribe().wait_for(|over| *over).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::verify::Refusal;

    #[test]
    fn there_is_one_at_a_time_and_its_peer_has_little_to_say_at_once() {
        let verifying = Verifying::default();
        let (run, ear) = verifying.begin(5, true, false).unwrap();
        assert!(verifying.begin(6, true, false).is_none());
        let word = Word::Refused(Refusal::Busy);
        assert_eq!(verifying.hear(6, word.clone()), Heard::Unknown);
        assert!((0..AHEAD).all(|_| verifying.hear(5, word.clone()) == Heard::Taken));
        assert_eq!(verifying.hear(5, word.clone()), Heard::TooMuch);
        verifying.end();
        assert!(run.has_ended() && ear.iter().count() == AHEAD);
        assert_eq!(verifying.hear(5, word), Heard::Unknown);
        verifying.finish(&run, Err(VerifyError::Disconnected));
        assert!(verifying.last().unwrap().outcome().unwrap().is_err());
        assert!(verifying.begin(7, false, false).is_some());
    }
}
