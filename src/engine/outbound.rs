//! What we have told the peer in this session and it has not yet decided.
//!
//! Invariants: a flight is here from its announcement until the peer accepts or thanks it, or the
//! session ends; `busy` are exactly the files of large flights.

use super::cutter::Trigger;
use super::host::Host;
use super::node::Held;
use crate::model::ids::{FileId, Seq};
use crate::model::limits::INFLIGHT_BYTES;
use crate::model::message::{Ack, Message};
use crate::model::record::Record;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// A cut on its way.
pub(super) struct Flight {
    pub bytes: u64,
    pub large: bool,
    pub process: Option<u32>,
    pub files: Vec<FileId>,
    /// The nodes of a large cut, so that what is frozen stays.
    pub held: Vec<Held>,
}

#[derive(Default)]
pub struct Outbound {
    /// The peer has said where to begin.
    pub up: bool,
    /// The peer has nothing of ours: even what it once acknowledged is told again.
    pub everything: bool,
    /// Files whose present version was told in this session.
    pub announced: HashSet<FileId>,
    /// Files to be cut as soon as there is room.
    pub waiting: BTreeSet<FileId>,
    flights: BTreeMap<Seq, Flight>,
    busy: HashMap<FileId, Seq>,
    bytes: u64,
}

impl Outbound {
    /// Whether a cut of `members` may be taken now; if not, they wait.
    pub fn may_cut(&mut self, members: &BTreeSet<FileId>) -> bool {
        if !self.up {
            return false;
        }
        let busy = members.iter().any(|m| self.busy.contains_key(m));
        if busy || self.bytes > INFLIGHT_BYTES {
            self.waiting.extend(members);
            return false;
        }
        true
    }

    /// A cut leaves; returns the large ones it must not overtake.
    pub fn take_off(&mut self, seq: Seq, flight: Flight) -> Vec<Seq> {
        let same = |f: &Flight| f.large && f.process.is_some() && f.process == flight.process;
        let after = self.flights.iter().filter(|f| same(f.1)).map(|f| *f.0).collect();
        for &file in &flight.files {
            self.waiting.remove(&file);
            if flight.large {
                self.busy.insert(file, seq);
            }
        }
        self.bytes += flight.bytes;
        self.flights.insert(seq, flight);
        after
    }

    /// The peer has decided cut `seq`; returns what was frozen for it.
    fn land(&mut self, seq: Seq) -> Vec<Held> {
        let Some(flight) = self.flights.remove(&seq) else { return Vec::new() };
        self.bytes -= flight.bytes;
        self.busy.retain(|_, s| *s != seq);
        flight.held
    }

    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }
}

impl Host {
    /// The peer listens and has everything up to what it said, or (with `everything`) nothing.
    pub(super) fn outbound_up(&self, everything: bool) {
        *self.outbound.lock() = Outbound { up: true, everything, ..Outbound::default() };
        let _ = self.triggers.send(Trigger::Backlog);
    }

    pub(super) fn outbound_down(&self) {
        let old = std::mem::take(&mut *self.outbound.lock());
        old.flights.into_iter().for_each(|(seq, flight)| self.thaw(seq, flight.held));
    }

    /// The peer has decided these cuts.
    pub(super) fn accepted(&self, cuts: &[Seq]) {
        for &seq in cuts {
            let held = self.outbound.lock().land(seq);
            self.thaw(seq, held);
        }
        let waiting = std::mem::take(&mut self.outbound.lock().waiting);
        let mut seen = BTreeSet::new();
        for file in waiting {
            if seen.insert(file) {
                let together = self.share.lock().bonded(file);
                seen.extend(together.iter().copied());
                let _ = self.triggers.send(Trigger::Cut(vec![file], None));
            }
        }
    }

    /// The peer has made these durable.
    pub(super) fn thanked(&self, cuts: &[Seq], acks: Vec<Ack>) {
        if !acks.is_empty() {
            let committed = self.commit(&mut self.share.lock(), Record::Thanked { acks });
            if let Err(error) = committed {
                tracing::error!("an acknowledgement could not be journaled: {error}");
            }
        }
        self.accepted(cuts);
        self.moved();
    }

    /// The peer could not complete a cut, because it was given up here: it is told anew.
    pub(super) fn dropped(&self, seq: Seq) {
        let files = {
            let mut outbound = self.outbound.lock();
            let files = outbound.flights.get(&seq).map(|f| f.files.clone()).unwrap_or_default();
            outbound.announced.retain(|id| !files.contains(id));
            outbound.waiting.extend(files.iter().copied());
            files
        };
        tracing::debug!("cut {seq} of {} files is announced anew", files.len());
        self.accepted(&[seq]);
    }

    /// The peer refused a file for what stood under its name, and that is gone.
    pub(super) fn tell_anew(&self, file: FileId) {
        self.outbound.lock().announced.remove(&file);
        let _ = self.triggers.send(Trigger::Cut(vec![file], None));
    }

    /// Names have become free: files of the peer that were refused for them are asked for again.
    pub(super) fn names_moved(&self) {
        let free: Vec<FileId> = {
            let share = self.share.lock();
            let mut refused = self.refused.lock();
            let free: Vec<FileId> =
                refused.iter().filter(|(_, name)| share.named(name).is_none()).map(|(id, _)| *id).collect();
            free.iter().for_each(|id| drop(refused.remove(id)));
            free
        };
        free.into_iter().for_each(|file| self.tell(Message::Tell { file }));
    }

    fn thaw(&self, seq: Seq, held: Vec<Held>) {
        for node in held {
            let mut data = node.data.lock();
            if data.frozen.as_ref().is_some_and(|f| f.seq == seq)
                && let Some(frozen) = data.frozen.take()
            {
                frozen.thaw(&self.budget);
            }
        }
    }
}
