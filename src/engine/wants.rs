//! What is wanted of the peer: which chunks are asked for, and which come next.
//!
//! Invariants:
//! - `bytes` is the sum of what open requests take of the window;
//! - what is flying or stalled is not asked for again in bulk.

use super::bases::{Bases, Job, Key, Request, Target, Way};
use super::queues::Filling;
use crate::model::chunk::{self, ChunkSet};
use crate::model::cut::Piece;
use crate::model::file::File;
use crate::model::ids::{FileId, Seq};
use crate::model::likeness;
use crate::model::limits::{ASKED, CHUNK};
use crate::model::message::Message;
use crate::model::share::Share;
use crate::model::version::Version;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::{Bound, Range};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;
use tokio::time::Instant;

/// Content that a large cut of the peer needs.
pub(super) struct Need {
    pub cut: Seq,
    pub file: FileId,
    pub version: Version,
    pub chunks: ChunkSet,
    /// What lies in the file may be the same.
    pub compare: bool,
    /// Bytes of the file over there.
    pub size: u64,
    /// A file here that may be like it.
    pub basis: Option<FileId>,
}

/// The ears of the filler, of the finisher and of the matcher.
type Ears = (Receiver<Filling>, Receiver<Option<FileId>>, Receiver<Job>);

/// What chunks are asked of.
pub(super) struct Wish {
    pub target: Target,
    pub file: FileId,
    pub version: Version,
    /// Bytes of the file over there.
    pub size: u64,
}

/// What is wanted, and the queues of the threads that take what comes.
pub struct Fetch {
    pub(super) state: Mutex<State>,
    /// Wakes readers that wait for chunks.
    pub(super) arrived: tokio::sync::Notify,
    pub(super) fillings: Sender<Filling>,
    pub(super) finished: Sender<Option<FileId>>,
    pub(super) jobs: Sender<Job>,
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
    /// Files of which all is wanted, though this host need not hold them.
    pub whole: BTreeSet<FileId>,
    pub needs: VecDeque<Need>,
    pub bases: Bases,
}

impl Default for Fetch {
    fn default() -> Fetch {
        let (fillings, filling_ear) = channel();
        let (finished, finished_ear) = channel();
        let (jobs, jobs_ear) = channel();
        Fetch {
            state: Mutex::default(),
            arrived: tokio::sync::Notify::new(),
            fillings,
            finished,
            jobs,
            ears: Mutex::new(Some((filling_ear, finished_ear, jobs_ear))),
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

    /// All of `file` is wanted once, whatever this host is to hold; `lacks` chunks or so.
    pub(super) fn want_whole(&self, file: FileId, lacks: u64) {
        let mut state = self.state.lock();
        if state.whole.insert(file) {
            state.queue.insert((lacks, file));
        }
    }

    /// Bytes of content that are under way into files.
    pub(super) fn coming(&self) -> u64 {
        self.state.lock().coming()
    }

    /// Bytes that come once `chunks` of `file` are asked for, with all that are under way; 0 where these are already.
    pub(super) fn room_for(&self, file: FileId, chunks: &ChunkSet) -> u64 {
        let state = self.state.lock();
        let mut new = chunks.clone();
        let flying = state.requests.values().filter(|r| r.file == file && r.target == Target::Missing);
        flying.for_each(|r| new.subtract(&r.expect));
        if new.is_empty() { 0 } else { state.coming() + new.len() * CHUNK }
    }

    /// Whether what that asks for may be the same as something here.
    pub(super) fn is_comparing(&self, request: u64) -> bool {
        self.state.lock().requests.get(&request).is_some_and(|r| matches!(r.way, Way::Compare(_)))
    }

    /// The content of `file` may be like that of `basis`.
    pub(super) fn hint(&self, file: FileId, basis: FileId) {
        self.state.lock().bases.hint(file, basis);
    }

    pub(super) fn hinted(&self, file: FileId) -> Option<FileId> {
        self.state.lock().bases.hinted(file)
    }

    /// Gives the matcher something to do.
    pub(super) fn job(&self, job: Job) {
        // It is gone only while the daemon ends.
        let _ = self.jobs.send(job);
    }

    /// Asks for content of a large cut.
    pub(super) fn need(&self, need: Need) {
        self.state.lock().needs.push_back(need);
    }
}

impl State {
    /// Whether the peer is to be asked for more that no reader waits for. What is wanted in many small parts fills no
    /// window of bytes.
    pub fn may_ask(&self) -> bool {
        self.requests.len() < ASKED
    }

    pub fn coming(&self) -> u64 {
        let into_files = self.requests.values().filter(|r| r.target == Target::Missing);
        into_files.map(|r| r.expect.len() * CHUNK).sum()
    }

    fn renew(&mut self, file: FileId) {
        if self.requests.values().any(|r| r.file == file) {
            self.renewed.insert(file, self.next);
        }
    }

    /// Notes a request; the message says it to the peer. A `Compare` still lacks its digest.
    pub fn ask(&mut self, wish: Wish, chunks: Range<u64>, urgent: bool) -> Message {
        self.next += 1;
        let Wish { target, file, version, size } = wish;
        let bytes = if urgent { 0 } else { (chunks.end - chunks.start) * CHUNK };
        self.bytes += bytes;
        let (request, start, end) = (self.next, chunks.start, chunks.end);
        if target == Target::Missing {
            self.flying.entry(file).or_default().insert(chunks.clone());
        }
        let way = self.bases.way(&(target, file)).unwrap_or(Way::Plain);
        let (expect, asked) = (ChunkSet::of(chunks.clone()), chunks);
        let noted = Request { target, file, version: version.clone(), expect, asked, size, way, bytes };
        self.requests.insert(request, noted);
        self.silent_since.get_or_insert_with(Instant::now);
        let urgent = urgent || matches!(target, Target::Staged(_));
        match way {
            Way::Plain => Message::Retrieve { request, file, version, start, end, urgent, digest: None },
            Way::Compare(_) => {
                Message::Compare { request, file, version, start, end, urgent, digest: [0; 32] }
            }
            Way::Match { basis, .. } => Message::Match { request, file, version, start, end, urgent, basis },
        }
    }

    /// As much of `range` as may be asked for at once; nothing while the basis is being signed.
    pub fn part(&self, key: &Key, range: Range<u64>) -> Option<Range<u64>> {
        self.bases.way(key)?;
        chunk::spans(range, self.bases.span(key)).next()
    }

    /// The next part of what large cuts need, and whether what lies in the file may be the same.
    pub fn next_need(&mut self) -> Option<(Message, bool)> {
        self.needs.retain(|need| !need.chunks.is_empty());
        for at in 0..self.needs.len() {
            let need = &self.needs[at];
            let key = (Target::Staged(need.cut), need.file);
            if let Some(source) = need.basis {
                self.bases.begin(key, source);
            }
            let range = need.chunks.iter().next()?;
            let Some(part) = self.part(&key, range) else { continue };
            let need = &mut self.needs[at];
            need.chunks.remove(part.clone());
            let (version, compare) = (need.version.clone(), need.compare);
            let wish = Wish { target: key.0, file: key.1, version, size: need.size };
            return Some((self.ask(wish, part, false), compare));
        }
        None
    }

    /// The next missing part of the smallest file that has one and is `wanted`, of at most `room` bytes. Less than `least`
    /// bytes are not worth comparing.
    pub fn next_missing(
        &mut self,
        share: &Share,
        (least, room): (u64, u64),
        wanted: impl Fn(&File) -> bool,
    ) -> Option<Message> {
        let (us, mut last) = (share.us(), None);
        loop {
            // Those before it wait for their bases.
            let after = last.map_or(Bound::Unbounded, Bound::Excluded);
            let &(lacks, id) = self.queue.range((after, Bound::Unbounded)).next()?;
            last = Some((lacks, id));
            let key = (Target::Missing, id);
            let ours = share.file(id).filter(|f| f.name.is_some() && (wanted(f) || self.whole.contains(&id)));
            let found = ours.and_then(|f| {
                let none = ChunkSet::new();
                let flying = self.flying.get(&id).unwrap_or(&none);
                let stalled = self.stalled.get(&id).unwrap_or(&none);
                let free =
                    |range: Range<u64>| flying.gaps(&range).into_iter().flat_map(|r| stalled.gaps(&r)).next();
                let range = f.missing.iter().find_map(free)?;
                Some((range, f))
            });
            let Some((range, file)) = found else {
                self.queue.remove(&(lacks, id));
                continue;
            };
            if file.size >= least && file.missing.len() * CHUNK >= least {
                let (hint, name) = (self.bases.hinted(id), file.name.as_ref());
                let basis = likeness::basis_for(share, id, (file.size, least), hint, name);
                basis.into_iter().for_each(|source| self.bases.begin(key, source));
            }
            let fits = range.start + room / CHUNK;
            if room < CHUNK {
                return None;
            }
            if let Some(part) = self.part(&key, range.start..range.end.min(fits)) {
                let wish = Wish {
                    target: Target::Missing,
                    file: id,
                    version: file.peers_version(&us),
                    size: file.size,
                };
                return Some(self.ask(wish, part, false));
            }
        }
    }

    /// A request led to nothing in the way it was asked: its chunks from `from` on are to be asked for anew.
    pub fn again(&mut self, id: u64, from: u64) {
        let Some(request) = self.requests.get_mut(&id) else { return };
        let chunks: ChunkSet = request.expect.within(&(from..u64::MAX)).into_iter().collect();
        request.expect.subtract(&chunks);
        if chunks.is_empty() {
            return;
        }
        let (file, version, size) = (request.file, request.version.clone(), request.size);
        match request.target {
            Target::Missing => {
                self.flying.entry(file).or_default().subtract(&chunks);
                self.queue.insert((chunks.len(), file));
            }
            Target::Staged(cut) => {
                let need = Need { cut, file, version, chunks, compare: false, size, basis: None };
                self.needs.push_front(need);
            }
        }
    }

    /// The whole of a request is to be asked for anew.
    pub fn all_again(&mut self, id: u64) {
        self.again(id, 0);
        self.done(id, &[]);
    }

    /// A request was answered with `pieces`.
    pub fn done(&mut self, id: u64, pieces: &[Piece]) -> Option<Request> {
        let request = self.requests.remove(&id)?;
        self.bytes -= request.bytes;
        let (requests, needs, queue) = (&self.requests, &self.needs, &self.queue);
        self.bases.retain(|key| {
            requests.values().any(|r| r.key() == *key)
                || needs.iter().any(|n| (Target::Staged(n.cut), n.file) == *key)
                || (key.0 == Target::Missing && queue.iter().any(|q| q.1 == key.1))
        });
        if !queue.iter().any(|q| q.1 == request.file) && !requests.values().any(|r| r.file == request.file) {
            self.whole.remove(&request.file);
        }
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
