//! What we have told the peer in this session and it has not yet decided.
//!
//! Invariants: a flight is here from its announcement until the peer accepts or thanks it, or the
//! session ends; `busy` are exactly the files of large flights, and each is in one; there is no more content on its way, and no
//! more is frozen for it, than the limits say and one cut.

use super::node::Held;
use crate::model::cut::{Cut, Place};
use crate::model::ids::{FileId, Seq};
use crate::model::limits::{FROZEN_FILES, INFLIGHT_BYTES};
use crate::model::message::Begin;
use crate::model::version::Version;
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
    /// Files to be cut as soon as something of them has come, or has landed.
    pub waiting: BTreeSet<FileId>,
    /// Files to be cut as soon as there is room.
    crowd: BTreeSet<FileId>,
    /// Cuts taken and not yet announced: first they must be durable here.
    pub ready: Vec<Cut>,
    pub flights: BTreeMap<Seq, Flight>,
    busy: BTreeSet<FileId>,
    /// The large ones, by the process that made them.
    large: BTreeSet<(u32, Seq)>,
    bytes: u64,
}

impl Outbound {
    /// The session in which a cut of `members` may be taken now. Where there is none they are told when there is; where
    /// it is for others to come first, they wait.
    pub fn may_cut(&mut self, members: &BTreeSet<FileId>) -> Option<u64> {
        let session = self.session()?;
        if members.iter().any(|m| self.busy.contains(m)) {
            self.waiting.extend(members);
            return None;
        }
        if self.room() == 0 {
            self.crowd.extend(members);
            return None;
        }
        Some(session)
    }

    /// Files that may be frozen now.
    fn room(&self) -> usize {
        if self.bytes > INFLIGHT_BYTES { 0 } else { FROZEN_FILES.saturating_sub(self.busy.len()) }
    }

    /// Those that waited for room, as many as there is room for.
    pub fn admit(&mut self) -> Vec<FileId> {
        let room = self.room();
        std::iter::from_fn(|| self.crowd.pop_first()).take(room).collect()
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
        let same = |process: u32| self.large.range((process, 0)..=(process, Seq::MAX)).map(|(_, seq)| *seq);
        let after = flight.process.into_iter().flat_map(same).collect();
        for &file in &flight.files {
            self.waiting.remove(&file);
            self.crowd.remove(&file);
            self.asked.remove(&file);
            if flight.large {
                self.busy.insert(file);
            }
        }
        self.large.extend(flight.process.filter(|_| flight.large).map(|process| (process, seq)));
        self.bytes += flight.bytes;
        self.flights.insert(seq, flight);
        after
    }

    /// The peer has decided cut `seq`; returns what was frozen for it.
    pub fn land(&mut self, seq: Seq) -> Vec<Held> {
        let Some(flight) = self.flights.remove(&seq) else { return Vec::new() };
        self.bytes -= flight.bytes;
        flight.process.into_iter().for_each(|process| _ = self.large.remove(&(process, seq)));
        for file in flight.files.iter().filter(|_| flight.large) {
            self.busy.remove(file);
        }
        flight.held
    }

    /// Whether names must be durable before what is ready is announced. Not where it brings nothing but new files, and all
    /// of them: such a one comes back from the peer.
    pub fn tells_of_names(&self) -> bool {
        let leaves_content = |cut: &Cut| self.flights.get(&cut.seq).is_none_or(|flight| flight.large);
        let is_new = |cut: &Cut, place: &Place| {
            place.name.is_some() && place.version == Version::default().with(cut.writer, cut.seq)
        };
        let moves = |cut: &Cut| cut.files.iter().any(|f| f.place.as_ref().is_some_and(|p| !is_new(cut, p)));
        self.ready.iter().any(|cut| leaves_content(cut) || moves(cut))
    }

    pub fn in_flight(&self) -> usize {
        self.flights.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::first::FirstSync;
    use crate::model::ids::{LogPosition, WriterId};

    fn file(counter: u64) -> FileId {
        FileId { writer: WriterId(1), counter }
    }

    fn flight(large: bool, process: Option<u32>, counter: u64) -> Flight {
        Flight { bytes: 10, large, process, files: vec![file(counter)], held: Vec::new() }
    }

    fn may_cut(outbound: &mut Outbound, counter: u64) -> bool {
        let head = LogPosition { writer: WriterId(1), seq: 0 };
        let first = FirstSync::Newest;
        outbound.begin = Some(Begin { anew: false, met: true, first, owner: true, nonce: 1, head });
        outbound.up = true;
        outbound.may_cut(&BTreeSet::from([file(counter)])).is_some()
    }

    #[test]
    fn a_cut_does_not_overtake_the_large_ones_of_its_process() {
        let mut outbound = Outbound::default();
        assert!(outbound.take_off(1, flight(true, Some(7), 1)).is_empty());
        assert_eq!(outbound.take_off(2, flight(false, Some(7), 2)), [1]);
        assert!(outbound.take_off(3, flight(true, Some(8), 3)).is_empty());
        assert!(outbound.take_off(4, flight(true, None, 4)).is_empty());
        assert!(outbound.take_off(5, flight(true, None, 5)).is_empty());
        assert_eq!(outbound.take_off(6, flight(true, Some(7), 6)), [1]);
        outbound.land(1);
        assert_eq!(outbound.take_off(7, flight(true, Some(7), 7)), [6]);
    }

    #[test]
    fn no_more_is_frozen_than_there_is_room_for_and_the_rest_comes_in_turn() {
        let mut outbound = Outbound::default();
        for n in 0..FROZEN_FILES as u64 {
            assert!(may_cut(&mut outbound, n));
            outbound.take_off(n + 1, flight(true, None, n));
        }
        let late = FROZEN_FILES as u64..FROZEN_FILES as u64 + 3;
        assert!(late.clone().rev().all(|n| !may_cut(&mut outbound, n)));
        assert_eq!(outbound.admit(), []);
        outbound.land(1);
        outbound.land(2);
        assert_eq!(outbound.admit(), [file(late.start), file(late.start + 1)]);
        assert!(may_cut(&mut outbound, late.start));
        outbound.land(3);
        assert_eq!(outbound.admit(), [file(late.start + 2)]);
        assert_eq!(outbound.admit(), []);
    }

    #[test]
    fn a_file_waits_for_its_large_cut_and_for_no_small_one() {
        let mut outbound = Outbound::default();
        outbound.take_off(1, flight(false, None, 1));
        assert!(may_cut(&mut outbound, 1));
        outbound.take_off(2, flight(true, None, 1));
        outbound.land(1);
        assert!(!may_cut(&mut outbound, 1));
        outbound.land(2);
        assert!(may_cut(&mut outbound, 1) && outbound.in_flight() == 0);
    }
}
