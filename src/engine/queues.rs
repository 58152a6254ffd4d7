//! What the engine's threads say to one another, and the ends they say it through.
//!
//! Invariants: every thread takes from one queue only, in the order things came, but for the server's:
//! there what a reader waits for goes first, and a peer has at most twice [`REQUESTS`] in it.

use crate::model::chunk::ChunkSet;
use crate::model::cut::{Cut, Piece};
use crate::model::ids::{FileId, Seq};
use crate::model::limits::REQUESTS;
use crate::model::message::{Ack, Begin};
use crate::model::survey::Answer;
use crate::model::version::Version;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel};
use tokio::time::Instant;

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Worked,
    /// There was nothing to do.
    Idle,
    /// There never will be again.
    Over,
}

/// The next from a queue; with `wait` waits for it, until `until` where that is given. `None` where
/// nothing came in time. Errors: nobody can send any more.
pub(super) fn next<T>(ear: &Receiver<T>, wait: bool, until: Option<Instant>) -> Result<Option<T>, Turn> {
    let heard = match (wait, until) {
        (false, _) => ear.try_recv().map_err(|e| e == TryRecvError::Disconnected),
        (true, None) => ear.recv().map_err(|_| true),
        (true, Some(at)) => ear
            .recv_timeout(at.saturating_duration_since(Instant::now()))
            .map_err(|e| e == RecvTimeoutError::Disconnected),
    };
    match heard {
        Ok(heard) => Ok(Some(heard)),
        Err(true) => Err(Turn::Over),
        Err(false) => Ok(None),
    }
}

/// Why a cut is taken.
#[derive(Debug)]
pub enum Trigger {
    /// A close, an fsync or a name operation: these files together, now or with `--interval`'s tick. With the process,
    /// where known.
    Changed(Vec<FileId>, Option<u32>),
    /// The peer waits for it, or there is room now: these files together, now.
    Cut(Vec<FileId>, Option<u32>),
    /// Something may be due, or the peer may have changed what stays on this host.
    Look,
    /// All that waits for its time is cut now.
    Tick,
    /// The peer listens: everything it does not have.
    Backlog,
    Stop,
}

/// What the sweeper hears.
pub(super) enum Sweep {
    /// So many bytes of content are about to come.
    Room(u64),
    Stop,
}

/// What the applier hears.
#[derive(Debug)]
pub(super) enum Inbound {
    Cut(Cut),
    /// Content for the staging of `cut`; of `asked`, what is not in the pieces will not come.
    Content {
        cut: Seq,
        file: FileId,
        pieces: Vec<Piece>,
        asked: ChunkSet,
    },
    /// These chunks of `cut` need not come: they lie in the file.
    Same {
        cut: Seq,
        file: FileId,
        chunks: ChunkSet,
    },
    /// The peer has made it durable that these are unlinked.
    Gone(Vec<Ack>),
    /// The locks that this cut waited for are gone, or have been held long enough.
    Unlocked(Seq),
    /// Something that a cut may have waited for has happened.
    Again,
    /// What failed is worth another try.
    Retry,
    /// Both sides have said how they begin.
    Begin {
        ours: Begin,
        theirs: Begin,
    },
    /// The peer's answers to one round of questions.
    Survey {
        nonce: u64,
        answers: Vec<Answer>,
    },
    /// The peer wants to hear of a file again. It may be one that only what was said before leads to.
    Tell(FileId),
    /// The session is over.
    Down,
    Stop,
}

pub(super) type InboxEar = Receiver<Inbound>;

/// The applier's queue.
#[derive(Clone)]
pub(super) struct Inbox(Sender<Inbound>);

impl Inbox {
    pub(super) fn send(&self, event: Inbound) {
        // The applier is gone only while the daemon ends.
        let _ = self.0.send(event);
    }
}

pub(super) fn inbox() -> (Inbox, InboxEar) {
    let (sender, ear) = channel();
    (Inbox(sender), ear)
}

/// A delivery, from the link to the filler.
pub(super) enum Filling {
    Deliver {
        request: u64,
        pieces: Vec<Piece>,
        sha256: [u8; 32],
    },
    Superseded {
        request: u64,
    },
    Same {
        request: u64,
    },
    Differs {
        request: u64,
    },
    /// Content that was put together here from what is alike, and is what its digest says.
    Made {
        request: u64,
        pieces: Vec<Piece>,
    },
    Stop,
}

/// How the peer wants to be answered.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Want {
    /// With the content, unless it has this digest.
    Content(Option<[u8; 32]>),
    /// Whether it has this digest.
    Verdict([u8; 32]),
    /// With what is not in that basis, whose signature it has sent.
    Recipes(u64),
}

/// What the peer asks for: chunks of a file at one version.
pub(super) struct Request {
    pub request: u64,
    pub file: FileId,
    pub version: Version,
    pub chunks: Range<u64>,
    pub urgent: bool,
    pub want: Want,
}

/// The server's queue.
#[derive(Default)]
pub struct Server {
    queues: Mutex<Queues>,
    some: Condvar,
}

#[derive(Default)]
struct Queues {
    urgent: VecDeque<Request>,
    bulk: VecDeque<Request>,
    stopped: bool,
}

impl Server {
    /// Queues a request; false where the peer asks for more than it should.
    pub(super) fn ask(&self, request: Request) -> bool {
        let mut queues = self.queues.lock();
        if queues.urgent.len() + queues.bulk.len() >= 2 * REQUESTS {
            return false;
        }
        match request.urgent {
            true => queues.urgent.push_back(request),
            false => queues.bulk.push_back(request),
        }
        self.some.notify_one();
        true
    }

    /// The session is over: nobody waits for these any more.
    pub(super) fn clear(&self) {
        let mut queues = self.queues.lock();
        queues.urgent.clear();
        queues.bulk.clear();
    }

    pub(super) fn stop(&self) {
        self.queues.lock().stopped = true;
        self.some.notify_all();
    }

    /// The next request, what a reader waits for first; with `wait`, once there is one.
    pub(super) fn next(&self, wait: bool) -> Result<Option<Request>, Turn> {
        let mut queues = self.queues.lock();
        loop {
            if queues.stopped {
                return Err(Turn::Over);
            }
            let request = queues.urgent.pop_front().or_else(|| queues.bulk.pop_front());
            if request.is_some() || !wait {
                return Ok(request);
            }
            self.some.wait(&mut queues);
        }
    }
}
