//! What we have told the peer in this session and it has not yet decided.
//!
//! Invariants: a flight is here from its announcement until the peer accepts or thanks it, or the
//! session ends; `busy` are exactly the files of large flights.

use super::node::Held;
use crate::model::cut::Cut;
use crate::model::ids::{FileId, Seq};
use crate::model::limits::INFLIGHT_BYTES;
use crate::model::message::Begin;
use std::collections::{BTreeMap, BTreeSet};

/// A cut on its way.
pub(super) struct Flight {
    pub bytes: u64,
    pub large: bool,
    pub process: Option<u32>,
    pub files: Vec<FileId>,
    /// The nodes of a large cut, so that what is frozen stays.
    pub held: Vec<Held>,
}

/// All cuts on their way, and what waits for them.
#[derive(Default)]
pub struct Outbound {
    /// How this side has begun the session.
    pub begin: Option<Begin>,
    /// Both have said so, and know what they have in common.
    pub up: bool,
    /// Files whose present version was told in this session.
    pub announced: BTreeSet<FileId>,
    /// Files that the peer asked for, acknowledged or not.
    pub asked: BTreeSet<FileId>,
    /// Files to be cut as soon as there is room.
    pub waiting: BTreeSet<FileId>,
    /// Cuts taken and not yet announced: first they must be durable here.
    pub ready: Vec<Cut>,
    pub flights: BTreeMap<Seq, Flight>,
    busy: BTreeMap<FileId, Seq>,
    bytes: u64,
}

impl Outbound {
    /// The session in which a cut of `members` may be taken now. Where there is none they are told when there is; where
    /// it is for others to come first, they wait.
    pub fn may_cut(&mut self, members: &BTreeSet<FileId>) -> Option<u64> {
        let session = self.session()?;
        let busy = members.iter().any(|m| self.busy.contains_key(m));
        if busy || self.bytes > INFLIGHT_BYTES {
            self.waiting.extend(members);
            return None;
        }
        Some(session)
    }

    /// The session in which something may be told.
    pub fn session(&self) -> Option<u64> {
        self.begin.as_ref().filter(|_| self.up).map(|begin| begin.nonce)
    }

    /// Whether `file` was told in this session, and whether all of it is to be told, acknowledged or not.
    pub fn told(&self, file: FileId) -> (bool, bool) {
        (self.announced.contains(&file), self.asked.contains(&file))
    }

    /// The peer is to hear of `file` once more, all of it.
    pub fn tell_all(&mut self, file: FileId) {
        self.announced.remove(&file);
        self.asked.insert(file);
    }

    /// A cut leaves; returns the large ones it must not overtake.
    pub fn take_off(&mut self, seq: Seq, flight: Flight) -> Vec<Seq> {
        let same = |f: &Flight| f.large && f.process.is_some() && f.process == flight.process;
        let after = self.flights.iter().filter(|f| same(f.1)).map(|f| *f.0).collect();
        for &file in &flight.files {
            self.waiting.remove(&file);
            self.asked.remove(&file);
            if flight.large {
                self.busy.insert(file, seq);
            }
        }
        self.bytes += flight.bytes;
        self.flights.insert(seq, flight);
        after
    }

    /// The peer has decided cut `seq`; returns what was frozen for it.
    pub fn land(&mut self, seq: Seq) -> Vec<Held> {
        let Some(flight) = self.flights.remove(&seq) else { return Vec::new() };
        self.bytes -= flight.bytes;
        self.busy.retain(|_, s| *s != seq);
        flight.held
    }

    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }
}
