//! Talking with the peer about what was told: it decides, thanks, gives up or asks anew.
//!
//! Invariant: where a flight ends (see [`flights`](super::flights)), what was frozen for it thaws.

use super::events::{Change, Told};
use super::host::Host;
use super::node::Held;
use super::queues::{Inbound, Trigger};
use crate::fs::volume::Result;
use crate::model::direction::Direction;
use crate::model::ids::{FileId, Seq};
use crate::model::message::{Ack, Message};
use crate::model::name::Name;
use crate::model::record::Record;
use crate::model::share::Share;
use crate::model::version::Version;
use crate::store::At;
use std::collections::BTreeSet;

impl Host {
    /// The peer listens in the session that was begun with `nonce`, and need not hear of `losing` files before these
    /// have changed. False where that is over.
    pub(super) fn outbound_up(&self, nonce: u64, losing: Vec<FileId>) -> bool {
        let mut outbound = self.outbound.lock();
        // What it has asked for already counts.
        outbound.up = outbound.begin.as_ref().is_some_and(|begin| begin.nonce == nonce);
        let up = outbound.up;
        outbound.announced.extend(losing.into_iter().filter(|_| up));
        drop(outbound);
        let _ = self.triggers.send(Trigger::Backlog);
        self.tell_holds_all();
        up
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
            if !seen.contains(&file) {
                // All of them: one may be forgotten before its turn comes, and nothing else brings the others.
                let together = self.share.lock().bonded(file);
                seen.extend(together.iter().copied());
                let _ = self.triggers.send(Trigger::Cut(together, None));
            }
        }
        self.make_use_of_room();
    }

    /// Cuts what waited for room, if there is any.
    pub(super) fn make_use_of_room(&self) {
        let admitted = self.outbound.lock().admit();
        admitted.into_iter().for_each(|file| _ = self.triggers.send(Trigger::Cut(vec![file], None)));
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
        let thanked: Vec<FileId> = acks.iter().map(|ack| ack.file).collect();
        let mut share = self.share.lock();
        let mut gone: BTreeSet<FileId> = acks.iter().map(|ack| ack.file).collect();
        gone.retain(|id| share.file(*id).is_some());
        // Of several acknowledgements of one file the last speaks for all.
        let mut seen = BTreeSet::new();
        let told = |ack: &Ack| gone_over(&share, ack).filter(|_| seen.insert(ack.file));
        let news: Vec<Change> = acks.iter().rev().filter_map(told).collect();
        if let Err(error) = self.commit(&mut share, Record::Thanked { acks }) {
            tracing::error!("an acknowledgement could not be journaled: {error}");
        }
        // What only this host had may go now.
        self.holding.refuses_nothing();
        // A cut that failed does not bring back what is forgotten: the peer has followed the unlink since.
        gone.retain(|id| share.file(*id).is_none());
        self.unfinished.lock().pass_over(&gone);
        drop(share);
        news.into_iter().rev().for_each(|change| self.events.tell(Told::Went(change)));
        self.drop_before(thanked.into_iter());
    }

    /// The peer could not complete a cut, because it was given up here: it is told anew.
    pub(super) fn dropped(&self, seq: Seq) {
        let files = {
            let mut outbound = self.outbound.lock();
            let files = outbound.flights.get(&seq).map(|f| f.files.clone()).unwrap_or_default();
            // Also what it had acknowledged once: it may have asked for that, being uncertain.
            files.iter().for_each(|id| outbound.tell_all(*id));
            outbound.waiting.extend(files.iter().copied());
            files
        };
        tracing::debug!("cut {seq} of {} files is announced anew", files.len());
        self.accepted(&[seq]);
    }

    /// The peer wants to hear of a file again: it refused it for what stood under its name, and that is
    /// gone; or it lost power, and is not certain of it.
    pub(super) fn tell_anew(&self, file: FileId) {
        let known = self.share.lock().file(file).map(|f| (f.unsettled, f.is_whole()));
        match known {
            None | Some((true, false)) => return self.tell(Message::Unknown { file }),
            // Neither is certain. Both see it, and one must begin.
            Some((true, true)) if self.goes_first() => self.settle(file),
            Some(_) => {}
        }
        self.outbound.lock().tell_all(file);
        let _ = self.triggers.send(Trigger::Cut(vec![file], None));
    }

    fn goes_first(&self) -> bool {
        let share = self.share.lock();
        match self.options.direction {
            Direction::Both => share.header().replica > self.peer(&share),
            Direction::Send => true,
            Direction::Receive => false,
        }
    }

    /// What lies here of `file` counts; the peer knows no better. Where nothing does, nothing is left of it:
    /// power went before it was on any disk.
    pub(super) fn settle(&self, file: FileId) {
        let state = self.share.lock().file(file).map(|f| (f.unsettled, f.holds_nothing()));
        let settled = match state {
            Some((true, true)) => self.give_up(file),
            Some((true, false)) => {
                let Some(node) = self.node(file) else { return };
                let mut data = node.data.lock();
                self.adopt_content(&node, &mut data, false)
            }
            _ => return,
        };
        if let Err(error) = settled {
            tracing::error!("a file that power loss left uncertain stays so: {error}");
        }
        // Where the peer knows nothing of it, it needs the name as well.
        self.outbound.lock().tell_all(file);
        let _ = self.triggers.send(Trigger::Cut(vec![file], None));
    }

    fn give_up(&self, file: FileId) -> Result<()> {
        let _names = self.names.write();
        let mut share = self.share.lock();
        if let Some(name) = share.name(file) {
            tracing::warn!("{name} was lost with the power: it was not yet on the disk, here or at the peer");
        }
        let together = share.bonded(file);
        self.commit(&mut share, Record::Forgotten { file })?;
        drop(share);
        // What was to move together with it moves without.
        together.into_iter().for_each(|file| drop(self.triggers.send(Trigger::Cut(vec![file], None))));
        Ok(self.backing.unlink_if_there(At::Partial(file))?)
    }

    /// Asks the peer for all files that power loss left uncertain.
    pub(super) fn ask_for_certainty(&self) {
        let unsettled: Vec<FileId> = self.share.lock().unsettled().iter().collect();
        unsettled.into_iter().for_each(|file| self.tell(Message::Tell { file }));
    }

    /// What the peer told of an uncertain file is older than what it has acknowledged: there was more on its way to it.
    /// Where it tells the same again it has lost the rest.
    pub(super) fn ask_once_more(&self, file: FileId, told: Version) {
        let before = self.told_older.lock().insert(file, told.clone());
        match before == Some(told) {
            true => self.settle(file),
            false => self.tell(Message::Tell { file }),
        }
    }

    /// Names have become free: files of the peer that were refused for them are asked for again.
    pub(super) fn names_moved(&self) {
        self.ask_refused(|_, holder| holder.is_none());
    }

    /// These have other versions now, perhaps earlier ones: what was refused because they have its name is asked for
    /// again, for the peer may have judged by these.
    pub(super) fn holders_changed(&self, files: &BTreeSet<FileId>) {
        self.ask_refused(|_, holder| holder.is_some_and(|id| files.contains(&id)));
    }

    /// These were changed here, and may have a later stamp: what was refused of them is asked for again, for the peer
    /// will judge by that.
    pub(super) fn refused_changed(&self, files: &BTreeSet<FileId>) {
        self.ask_refused(|file, _| files.contains(&file));
    }

    fn ask_refused(&self, of: impl Fn(FileId, Option<FileId>) -> bool) {
        let again: Vec<FileId> = {
            let share = self.share.lock();
            let mut refused = self.refused.lock();
            let again = |(id, name): (&FileId, &Name)| of(*id, share.named(name)).then_some(*id);
            let again: Vec<FileId> = refused.iter().filter_map(again).collect();
            again.iter().for_each(|id| drop(refused.remove(id)));
            again
        };
        again.into_iter().for_each(|file| self.tell(Message::Tell { file }));
    }

    pub(super) fn thaw(&self, seq: Seq, held: Vec<Held>) {
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

/// What the peer has of a file by `ack` that it did not have before.
fn gone_over(share: &Share, ack: &Ack) -> Option<Change> {
    let file = share.file(ack.file).filter(|f| !f.is_thanked())?;
    let (new, known) = (file.name.as_ref(), !file.base.is_empty());
    // The names it had since the peer last heard of its place; without any, it has kept its own.
    let old = file.left.first().or(new).filter(|_| known);
    match file.place_tag != 0 && file.place_tag <= ack.place {
        true => Change::of(old, new),
        false => Change::of(new, new).filter(|_| ack.body != 0 && known),
    }
}
