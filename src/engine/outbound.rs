//! Talking with the peer about what was told: it decides, thanks, gives up or asks anew.
//!
//! Invariant: where a flight ends (see [`flights`](super::flights)), what was frozen for it thaws.

use super::flights::Outbound;
use super::host::Host;
use super::node::Held;
use super::queues::{Inbound, Trigger};
use crate::model::ids::{FileId, Seq};
use crate::model::message::{Ack, Message};
use crate::model::record::Record;
use std::collections::BTreeSet;

impl Host {
    /// The peer listens and has everything up to what it said, or (with `everything`) nothing.
    pub(super) fn outbound_up(&self, everything: bool) {
        *self.outbound.lock() = Outbound::up(everything);
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
        let (gone, acks): (Vec<Ack>, Vec<Ack>) = {
            let share = self.share.lock();
            acks.into_iter().partition(|ack| share.file(ack.file).is_some_and(|f| f.name.is_none()))
        };
        if !gone.is_empty() {
            // What the peer announced before may speak of them as alive: the applier forgets them in turn.
            self.inbox.send(Inbound::Gone(gone));
        }
        self.acknowledge(acks);
        self.accepted(cuts);
        self.moved();
    }

    pub(super) fn acknowledge(&self, acks: Vec<Ack>) {
        if acks.is_empty() {
            return;
        }
        let committed = self.commit(&mut self.share.lock(), Record::Thanked { acks });
        if let Err(error) = committed {
            tracing::error!("an acknowledgement could not be journaled: {error}");
        }
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
