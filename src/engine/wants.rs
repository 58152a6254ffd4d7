//! What is wanted of the peer: which chunks are asked for, and which come next.
//!
//! Invariants:
//! - `bytes` is the sum of what open requests take of the window;
//! - what is flying or stalled is not asked for again in bulk.

use super::queues::Filling;
use crate::model::chunk::{self, ChunkSet};
use crate::model::cut::Piece;
use crate::model::ids::{FileId, Seq};
use crate::model::limits::CHUNK;
use crate::model::message::Message;
use crate::model::share::Share;
use crate::model::version::Version;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use tokio::time::Instant;

/// Where delivered chunks go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// Into the file, which lacks them.
    Missing,
    /// To the applier, for the peer's cut of this number.
    Staged(Seq),
}

/// What was asked for and is not answered yet.
pub(super) struct Request {
    pub target: Target,
    pub file: FileId,
    /// Chunks asked for and still wanted.
    pub expect: ChunkSet,
    /// What it takes of the window; nothing where a reader waits for it.
    pub bytes: u64,
}

/// Content that a large cut of the peer needs.
pub(super) struct Need {
    pub cut: Seq,
    pub file: FileId,
    pub version: Version,
    pub chunks: ChunkSet,
    /// What lies in the file may be the same.
    pub compare: bool,
}

/// The ears of the filler and of the finisher.
type Ears = (Receiver<Filling>, Receiver<Option<FileId>>);

/// What is wanted, and the queues of the threads that take what comes.
pub struct Fetch {
    pub(super) state: Mutex<State>,
    /// Wakes readers that wait for chunks.
    pub(super) arrived: tokio::sync::Notify,
    pub(super) fillings: Sender<Filling>,
    pub(super) finished: Sender<Option<FileId>>,
    ears: Mutex<Option<Ears>>,
}

/// What is wanted and what is on its way.
#[derive(Default)]
pub(super) struct State {
    pub up: bool,
    /// The number of the last request; it goes on from session to session.
    pub next: u64,
    pub bytes: u64,
    pub requests: BTreeMap<u64, Request>,
    /// Since when requests are open and none has been answered.
    pub silent_since: Option<Instant>,
    pub flying: BTreeMap<FileId, ChunkSet>,
    /// Chunks the peer could not give at our version: a cut that brings them is on its way.
    pub stalled: BTreeMap<FileId, ChunkSet>,
    /// Files that were told anew while they were being asked for, with the last request before that: what is absent
    /// from an answer up to there is worth asking for once more.
    pub renewed: BTreeMap<FileId, u64>,
    /// Files with chunks to ask for, smallest first.
    pub queue: BTreeSet<(u64, FileId)>,
    pub needs: VecDeque<Need>,
}

impl Default for Fetch {
    fn default() -> Fetch {
        let (fillings, filling_ear) = channel();
        let (finished, finished_ear) = channel();
        Fetch {
            state: Mutex::default(),
            arrived: tokio::sync::Notify::new(),
            fillings,
            finished,
            ears: Mutex::new(Some((filling_ear, finished_ear))),
        }
    }
}

impl Fetch {
    pub(super) fn take_ears(&self) -> Ears {
        self.ears.lock().take().expect("the threads start once")
    }

    pub(super) fn is_up(&self) -> bool {
        self.state.lock().up
    }

    /// For how long the peer has answered no request that is open.
    pub(super) fn silence(&self) -> Duration {
        self.state.lock().silent_since.map_or(Duration::ZERO, |since| since.elapsed())
    }

    /// Whether the peer could not give some of `missing` of `file` at the version we have of it.
    pub(super) fn is_stalled(&self, file: FileId, missing: &ChunkSet) -> bool {
        let state = self.state.lock();
        state.stalled.get(&file).is_some_and(|stalled| missing.iter().any(|r| stalled.overlaps(&r)))
    }

    /// A cut of `file` was dropped and comes anew: what the peer could not give it may then give.
    pub(super) fn unstall(&self, file: FileId, lacks: u64) {
        let mut state = self.state.lock();
        state.renew(file);
        if state.stalled.remove(&file).is_some() {
            state.queue.insert((lacks, file));
        }
    }

    pub(super) fn has_stalled(&self, file: FileId) -> bool {
        self.state.lock().stalled.contains_key(&file)
    }

    /// A cut changed `chunks` of `file`: what was asked for of them is of no use. Called under the
    /// file's `data` lock, as deliveries are written.
    pub(super) fn changed(&self, file: FileId, chunks: &ChunkSet) {
        let mut state = self.state.lock();
        for request in state.requests.values_mut() {
            if request.file == file && request.target == Target::Missing {
                request.expect.subtract(chunks);
            }
        }
        for set in [state.flying.get_mut(&file)].into_iter().flatten() {
            set.subtract(chunks);
        }
        state.renew(file);
        state.stalled.remove(&file);
    }

    /// `file` has chunks to be fetched; `lacks` bytes or so.
    pub(super) fn enqueue(&self, file: FileId, lacks: u64) {
        self.state.lock().queue.insert((lacks, file));
    }

    /// Asks for content of a large cut.
    pub(super) fn need(&self, need: Need) {
        self.state.lock().needs.push_back(need);
    }
}

impl State {
    fn renew(&mut self, file: FileId) {
        if self.requests.values().any(|r| r.file == file) {
            self.renewed.insert(file, self.next);
        }
    }

    /// Notes a request; the message says it to the peer.
    pub fn ask(
        &mut self,
        target: Target,
        file: FileId,
        version: Version,
        chunks: Range<u64>,
        urgent: bool,
    ) -> Message {
        self.next += 1;
        let bytes = if urgent { 0 } else { (chunks.end - chunks.start) * CHUNK };
        self.bytes += bytes;
        let expect = ChunkSet::of(chunks.clone());
        if target == Target::Missing {
            self.flying.entry(file).or_default().insert(chunks.clone());
        }
        self.requests.insert(self.next, Request { target, file, expect, bytes });
        self.silent_since.get_or_insert_with(Instant::now);
        let urgent = urgent || matches!(target, Target::Staged(_));
        let (start, end) = (chunks.start, chunks.end);
        Message::Retrieve { request: self.next, file, version, start, end, urgent, digest: None }
    }

    /// The next part of what large cuts need, and whether what lies in the file may be the same.
    pub fn next_need(&mut self) -> Option<(Message, bool)> {
        loop {
            let need = self.needs.front_mut()?;
            let Some(range) = need.chunks.iter().next() else {
                self.needs.pop_front();
                continue;
            };
            let part = chunk::groups(range).next()?;
            need.chunks.remove(part.clone());
            let (cut, file, version, compare) = (need.cut, need.file, need.version.clone(), need.compare);
            return Some((self.ask(Target::Staged(cut), file, version, part, false), compare));
        }
    }

    /// The next missing part of the smallest file that has one.
    pub fn next_missing(&mut self, share: &Share) -> Option<Message> {
        loop {
            let &(lacks, id) = self.queue.first()?;
            let part = share.file(id).filter(|f| f.name.is_some()).and_then(|f| {
                let none = ChunkSet::new();
                let flying = self.flying.get(&id).unwrap_or(&none);
                let stalled = self.stalled.get(&id).unwrap_or(&none);
                let free = |range: Range<u64>| {
                    let here = flying.gaps(&range).into_iter().flat_map(|r| stalled.gaps(&r));
                    here.flat_map(chunk::groups).next()
                };
                f.missing.iter().find_map(free).map(|part| (part, f.body.clone()))
            });
            match part {
                Some((part, version)) => return Some(self.ask(Target::Missing, id, version, part, false)),
                None => self.queue.remove(&(lacks, id)),
            };
        }
    }

    /// A request was answered with `pieces`.
    pub fn done(&mut self, id: u64, pieces: &[Piece]) -> Option<Request> {
        let request = self.requests.remove(&id)?;
        self.bytes -= request.bytes;
        self.silent_since = (!self.requests.is_empty()).then(Instant::now);
        if request.target == Target::Missing {
            if let Some(flying) = self.flying.get_mut(&request.file) {
                flying.subtract(&request.expect);
                if flying.is_empty() {
                    self.flying.remove(&request.file);
                }
            }
            let mut absent = request.expect.clone();
            pieces.iter().for_each(|p| absent.remove(p.chunks()));
            if self.renewed.get(&request.file).is_some_and(|last| id <= *last) {
                self.queue.insert((absent.len(), request.file));
            } else if !absent.is_empty() {
                self.stalled.entry(request.file).or_default().extend(&absent);
            }
            if !self.requests.values().any(|r| r.file == request.file) {
                self.renewed.remove(&request.file);
            }
        }
        Some(request)
    }
}
