//! The peer's cuts between their arrival and their end: waiting, staged, ready.
//!
//! Invariants:
//! - cuts are applied in the order of their numbers; only one that waits for content is overtaken, and
//!   only by cuts that share no file with it and do not name it in `after`;
//! - nothing is applied before its redo record is durable, and nothing is thanked before it is durable itself.

use super::before::yet_to_come;
use super::host::Host;
use super::meeting::Meeting;
use super::node::Held;
use super::pending::{LOCK_PATIENCE, Outcome, Pending, Queue, Readiness, Redo, Staged, still_missing};
use super::pieces::{self, digest};
use super::queues::{self, Inbound, InboxEar, Turn};
use super::wants::Need;
use super::worker::Worker;
use crate::model::chunk::ChunkSet;
use crate::model::cut::{Cut, FileCut, Piece};
use crate::model::file::File;
use crate::model::ids::{FileId, Seq};
use crate::model::judge::{BodyVerdict, PlaceVerdict, Sides, Verdict, judge};
use crate::model::likeness;
use crate::model::limits::CHUNK;
use crate::model::message::{Ack, Message};
use crate::model::record::Record;
use crate::model::sabotage::{Bug, planted};
use crate::model::share::Share;
use crate::store::{self, At};
use rustix::fs::RenameFlags;
use std::collections::BTreeSet;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

/// Cuts made durable together.
const BATCH: usize = 1024;
/// After an error of the disk, changes of the peer are tried again this much later.
const RETRY: Duration = Duration::from_secs(1);
/// Files synced one by one; of more, the whole file system is.
const SYNC_EACH: usize = 16;

pub(super) struct Applier {
    ear: InboxEar,
    queue: Queue,
    meeting: Option<Meeting>,
}

impl Applier {
    pub fn new(ear: InboxEar) -> Applier {
        Applier { ear, queue: Queue::default(), meeting: None }
    }
}

impl Worker for Applier {
    fn turn(&mut self, host: &Arc<Host>, wait: bool) -> Turn {
        let first = match queues::next(&self.ear, wait, None) {
            Ok(Some(first)) => first,
            Ok(None) => return Turn::Idle,
            Err(over) => return over,
        };
        let mut events = vec![first];
        events.extend(self.ear.try_iter().take(BATCH - 1));
        for event in events {
            match event {
                Inbound::Cut(cut) if genuine(&cut) => self.queue.add(cut),
                Inbound::Cut(_) => host.distrust("the peer announced content that does not match its digest"),
                Inbound::Content { cut, file, pieces, asked } => {
                    host.stage(&mut self.queue, cut, file, &pieces, &asked)
                }
                Inbound::Same { cut, file, chunks } => {
                    if let Some(pending) = self.queue.pending.get_mut(&cut) {
                        pending.same.entry(file).or_default().extend(&chunks);
                    }
                }
                Inbound::Gone(acks) => self.queue.gone.extend(acks),
                Inbound::Unlocked(seq) => {
                    // Somebody else may have locked them since: then they are watched anew.
                    if let Some(pending) = self.queue.pending.get_mut(&seq) {
                        pending.watched = false;
                    }
                }
                Inbound::Again => {}
                Inbound::Retry => {
                    self.queue.failing = false;
                    host.meet(&mut self.meeting);
                }
                Inbound::Begin { ours, theirs } => host.begin(&mut self.meeting, ours, theirs),
                Inbound::Survey { nonce, answers } => host.surveyed(&mut self.meeting, nonce, answers),
                Inbound::Tell(file) => host.tell_again(&mut self.meeting, file),
                Inbound::Down => {
                    self.meeting = None;
                    self.queue.keep();
                }
                Inbound::Stop => return Turn::Over,
            }
        }
        host.advance(&mut self.queue);
        host.forget(&mut self.queue);
        Turn::Worked
    }
}

fn genuine(cut: &Cut) -> bool {
    cut.files.iter().filter_map(|f| f.body.as_ref()).all(|b| digest(&b.pieces) == b.sha256)
}

impl Host {
    /// Stages delivered content; a cut whose content the peer can't give any more is dropped, for a later
    /// one is on its way.
    fn stage(&self, queue: &mut Queue, seq: Seq, file: FileId, pieces: &[Piece], asked: &ChunkSet) {
        let Some(pending) = queue.pending.get_mut(&seq) else { return };
        let mut absent = asked.clone();
        pieces.iter().for_each(|p| absent.remove(p.chunks()));
        if !absent.is_empty() {
            tracing::debug!(seq, %file, ?absent, "not delivered");
        }
        let staged = absent.is_empty() && {
            let content = match pending.content.entry(file) {
                Entry::Occupied(e) => Ok(e.into_mut()),
                Entry::Vacant(e) => {
                    let name = pieces::staging_name(seq, file);
                    let file = self.backing.create(At::Staging(&name), 0o600);
                    file.map(|file| e.insert(Staged { file, name, have: ChunkSet::new() }))
                }
            };
            let written = content.and_then(|content| {
                pieces::write_pieces(&content.file, pieces)?;
                pieces.iter().for_each(|p| content.have.insert(p.chunks()));
                Ok(())
            });
            if let Err(error) = &written {
                // It is asked for once more, and may find room then.
                self.makes_room(error);
                tracing::error!("a change of the peer can't be stored here and waits: {error}");
            }
            written.is_ok()
        };
        if !staged && let Some(pending) = queue.pending.remove(&seq) {
            self.drop_pending(pending);
        }
    }

    /// Forgets the unlinked files that no cut in the queue speaks of: one that does was announced before
    /// the peer knew, and must find them unlinked, not unknown.
    fn forget(&self, queue: &mut Queue) {
        if queue.gone.is_empty() {
            return;
        }
        let named: BTreeSet<FileId> =
            queue.pending.values().flat_map(|p| p.cut.files.iter().map(|f| f.file)).collect();
        let waits = |ack: &Ack| named.contains(&ack.file) && !planted(Bug::ForgetUnlinked);
        let (later, now) = std::mem::take(&mut queue.gone).into_iter().partition(waits);
        queue.gone = later;
        self.acknowledge(now);
        self.moved();
    }

    fn drop_pending(&self, pending: Pending) {
        self.drop_staging(&pending);
        for file in &pending.cut.files {
            let lacks = self.share.lock().file(file.file).map_or(0, |f| f.missing.len());
            self.fetch.unstall(file.file, lacks);
        }
        tracing::debug!("cut {} can't be completed and is asked for anew", pending.cut.seq);
        self.tell(Message::Dropped { seq: pending.cut.seq });
    }

    pub(super) fn drop_staging(&self, pending: &Pending) {
        for content in pending.content.values() {
            if let Err(error) = self.backing.unlink(At::Staging(&content.name)) {
                tracing::debug!("staging file: {error}");
            }
        }
    }

    /// Applies every cut that is ready, in order.
    fn advance(self: &Arc<Self>, queue: &mut Queue) {
        while !queue.failing {
            if let Err(error) = self.give_thanks(queue) {
                self.put_off(queue, &error);
                continue;
            }
            let hold = self.weigh(queue);
            let held = |seq: Seq| hold.is_some_and(|from| seq >= from);
            let mut blocked: BTreeSet<FileId> = BTreeSet::new();
            let mut waiting: BTreeSet<Seq> = BTreeSet::new();
            let mut ready: Vec<Seq> = Vec::new();
            for (&seq, pending) in queue.pending.iter_mut().take_while(|p| !held(*p.0)) {
                let files = || pending.cut.files.iter().map(|f| f.file);
                let held_up = files().any(|f| blocked.contains(&f))
                    || pending.cut.after.iter().any(|s| waiting.contains(s));
                if (held_up && !planted(Bug::Overtake)) || !self.prepare(pending) {
                    blocked.extend(pending.cut.files.iter().map(|f| f.file));
                    waiting.insert(seq);
                } else {
                    ready.push(seq);
                    // What failed before is tried alone.
                    if ready.len() == BATCH || pending.journaled {
                        break;
                    }
                }
            }
            let hopeless: Vec<Seq> = queue.pending.iter().filter(|p| p.1.hopeless).map(|p| *p.0).collect();
            for seq in &hopeless {
                queue.pending.remove(seq).into_iter().for_each(|p| self.drop_pending(p));
            }
            if ready.is_empty() && hopeless.is_empty() {
                return;
            }
            let names = |seq: &Seq| Some((*seq, queue.pending.get(seq)?.names.clone()?));
            let (names, files): (Vec<_>, _) = (ready.iter().filter_map(names).collect(), self.named_files());
            let result = self.apply_batch(queue, &ready);
            let passed = names.into_iter().filter(|(seq, _)| !queue.pending.contains_key(seq));
            self.count_deletes(passed.map(|(_, names)| names), files);
            if let Err(error) = result {
                self.put_off(queue, &error);
            }
        }
    }

    /// The disk has refused something of what the peer tells: there is room now, or it waits.
    fn put_off(self: &Arc<Self>, queue: &mut Queue, error: &store::Error) {
        if self.makes_room(error) {
            return;
        }
        tracing::error!("changes of the peer wait: {error}");
        if !self.gives_way(queue, error) {
            queue.failing = true;
            self.try_again_later();
        }
    }

    /// What finds no room a second time lets others by, which may make some: it is asked for anew, and comes after
    /// them.
    fn gives_way(&self, queue: &mut Queue, error: &store::Error) -> bool {
        let full = matches!(error.errno(), libc::ENOSPC | libc::EDQUOT);
        let Some((&seq, _)) = queue.pending.iter().find(|(_, p)| full && p.failures > 1) else {
            return false;
        };
        queue.pending.remove(&seq).into_iter().for_each(|pending| self.drop_pending(pending));
        true
    }

    /// Nobody tells when a disk has room again.
    pub(super) fn try_again_later(self: &Arc<Self>) {
        let host = self.clone();
        self.runtime.spawn(async move {
            tokio::time::sleep(RETRY).await;
            host.inbox.send(Inbound::Retry);
        });
    }

    /// Whether a cut can be applied now; if not, sees to it that it will be.
    fn prepare(self: &Arc<Self>, pending: &mut Pending) -> bool {
        let readiness = {
            let share = self.share.lock();
            let verdicts = judge(&share, self.sides(&share), &pending.cut);
            self.readiness(&share, pending, &verdicts)
        };
        match readiness {
            Readiness::Ready => return true,
            Readiness::Wait(files) => {
                let share = self.share.lock();
                let stalled =
                    |id: &FileId| share.file(*id).is_some_and(|f| self.fetch.is_stalled(*id, &f.missing));
                pending.hopeless = files.iter().any(stalled);
                tracing::debug!(seq = pending.cut.seq, ?files, hopeless = pending.hopeless, "waiting");
                for id in files.iter().filter(|_| self.holding.is_cache()) {
                    self.fetch.want_whole(*id, share.file(*id).map_or(0, |f| f.missing.len()));
                }
                drop(share);
                self.pump();
            }
            Readiness::Complete(files) => {
                let lacks = |id: &FileId| {
                    let share = self.share.lock();
                    share
                        .file(*id)
                        .map_or((0, false), |f| (f.missing.len(), self.fetch.is_stalled(*id, &f.missing)))
                };
                for file in files {
                    let (missing, stalled) = lacks(&file);
                    if stalled {
                        pending.incomplete = true;
                        return self.prepare(pending);
                    }
                    self.fetch.want_whole(file, missing);
                }
                self.pump();
            }
            Readiness::Fetch(needs) => {
                for mut need in needs {
                    let asked = pending.asked.entry(need.file).or_default();
                    need.chunks.subtract(asked);
                    asked.extend(&need.chunks);
                    if !need.chunks.is_empty() {
                        self.fetch.need(need);
                    }
                }
                self.pump();
            }
            Readiness::Locked(inos) => {
                let left = LOCK_PATIENCE.saturating_sub(pending.since.elapsed());
                if left.is_zero() {
                    return true;
                }
                if !std::mem::replace(&mut pending.watched, true) {
                    let (host, seq) = (self.clone(), pending.cut.seq);
                    self.runtime.spawn(async move {
                        let _ = tokio::time::timeout(left, host.locks.until_free(&inos)).await;
                        host.inbox.send(Inbound::Unlocked(seq));
                    });
                }
            }
        }
        false
    }

    /// Applies the cuts of `ready`. What fails in the middle keeps its redo record, and is tried again.
    fn apply_batch(self: &Arc<Self>, queue: &mut Queue, ready: &[Seq]) -> store::Result<()> {
        // No checkpoint falls between a redo record and what it led to.
        let _gate = self.applying.read();
        let result = self.try_batch(queue, ready);
        for seq in ready {
            let Some(pending) = queue.pending.get_mut(seq).filter(|p| p.journaled) else { continue };
            match result {
                Ok(()) => pending.journaled = false,
                Err(_) => self.unfinished.lock().failed(pending.redo()),
            }
        }
        result
    }

    /// Journals the redo records of `ready`, makes them durable at once, applies and thanks.
    fn try_batch(self: &Arc<Self>, queue: &mut Queue, ready: &[Seq]) -> store::Result<()> {
        let mut batch = Vec::new();
        let mut any_staged = false;
        for seq in ready {
            let pending = queue.pending.get_mut(seq).expect("it was just found ready");
            for (file, content) in &mut pending.content {
                // Content that came in an earlier session bears that session's number.
                let name = pieces::staging_name(*seq, *file);
                if content.name != name {
                    let (from, to) = (At::Staging(&content.name), At::Staging(&name));
                    self.backing.rename(from, to, RenameFlags::empty())?;
                    content.name = name;
                }
                self.backing.sync_file(&content.file)?;
                any_staged = true;
            }
            if !planted(Bug::SkipRedo) && !pending.journaled {
                let Redo { cut, staged } = pending.redo();
                self.commit(&mut self.share.lock(), Record::Redo { cut: Box::new(cut), staged })?;
                pending.journaled = true;
            }
            batch.push(*seq);
        }
        if any_staged {
            self.backing.sync_names()?;
        }
        self.journal.sync(self.journal.end())?;
        let (mut applied, mut acks, mut failed) = (Vec::new(), Vec::new(), None);
        for seq in batch {
            let mut pending = queue.pending.remove(&seq).expect("as above");
            match self.apply(&pending) {
                Ok(Outcome::Applied(more)) => {
                    acks.extend(more);
                    applied.push(pending);
                }
                // What it met has changed since it was judged: once more from the start, and all that came after it.
                Ok(Outcome::NotReady) => {
                    queue.pending.insert(seq, pending);
                    break;
                }
                Err(error) => {
                    pending.failures += 1;
                    queue.pending.insert(seq, pending);
                    failed = Some(error);
                    break;
                }
            }
        }
        self.moved();
        queue.thanks.0.extend(applied.iter().map(|pending| pending.cut.seq));
        queue.thanks.1.extend(acks);
        queue.applied.extend(applied);
        let thanked = self.give_thanks(queue);
        failed.map_or(thanked, Err)
    }

    /// What was applied becomes durable, and the peer is thanked for it. Where the disk refuses that it is for later.
    fn give_thanks(&self, queue: &mut Queue) -> store::Result<()> {
        if queue.applied.is_empty() {
            return Ok(());
        }
        if !planted(Bug::ThankBeforeSync) {
            self.endure(&queue.applied)?;
        }
        std::mem::take(&mut queue.applied).iter().for_each(|pending| self.drop_staging(pending));
        let (cuts, acks) = std::mem::take(&mut queue.thanks);
        self.thank(cuts, acks);
        Ok(())
    }

    /// Makes durable what these cuts did: from here on the peer need not keep it for us.
    fn endure(&self, applied: &[Pending]) -> store::Result<()> {
        let files: BTreeSet<FileId> = {
            let share = self.share.lock();
            let bodies = applied.iter().flat_map(|p| &p.cut.files).filter(|f| f.body.is_some());
            bodies.map(|f| f.file).filter(|id| share.file(*id).is_some_and(|f| f.name.is_some())).collect()
        };
        if files.len() > SYNC_EACH {
            self.backing.sync_all()?;
        } else {
            for node in files.into_iter().filter_map(|id| self.node(id)) {
                let file = self.data_file(&node, &mut node.data.lock(), false);
                if let Ok(file) = file {
                    self.backing.sync_file(&file)?;
                }
            }
            self.backing.sync_names()?;
        }
        let cuts = applied.iter().map(|p| p.cut.seq).collect();
        let lsn = self.commit(&mut self.share.lock(), Record::Durable { cuts })?;
        self.journal.sync(lsn)
    }

    fn thank(&self, cuts: Vec<Seq>, acks: Vec<Ack>) {
        if !cuts.is_empty() {
            // What was cut before these were applied may speak of files that they unlinked: it goes out
            // first, for after these thanks the peer forgets that they ever were.
            let _cutting = self.cutting.lock();
            if let Err(error) = self.announce() {
                tracing::error!("changes can't be announced: {error}");
                return;
            }
            self.tell(Message::Thanks { cuts, acks });
        }
        self.moved();
        self.tell_holds_all();
        self.pump();
    }

    pub(super) fn tell(&self, message: Message) {
        if let Some(link) = self.link.get() {
            link.send(message);
        }
    }

    /// Ends a session whose peer does what no peer would.
    pub(super) fn distrust(&self, why: &str) {
        if let Some(link) = self.link.get() {
            link.drop_session(why);
        }
    }

    pub(super) fn sides(&self, share: &Share) -> Sides {
        Sides { peer: self.peer(share), direction: self.options.direction }
    }

    pub(super) fn peer(&self, share: &Share) -> crate::model::ids::ReplicaId {
        share.header().peer.unwrap_or(crate::model::ids::ReplicaId(0))
    }

    /// What `pending` still needs before it can be applied as a whole. A cut of files that are all new or
    /// only partly held, under names that are free, needs nothing: its content comes later.
    pub(super) fn readiness(&self, share: &Share, pending: &Pending, verdicts: &[Verdict]) -> Readiness {
        let mut needs = Vec::new();
        let mut lazy = true;
        let (mut wait, mut incomplete) = (Vec::new(), Vec::new());
        let mut locked = Vec::new();
        for (cut, verdict) in pending.cut.files.iter().zip(verdicts) {
            let ours = share.file(cut.file).filter(|f| f.name.is_some());
            if ours.is_some() && verdict.touches() {
                locked.push(share.ino(cut.file));
            }
            let ours = ours.as_deref();
            let unsettled = ours.is_some_and(|f| f.unsettled);
            let mut lacks = yet_to_come(share, pending, cut, verdict);
            let yields = matches!(verdict.body, BodyVerdict::Yield { .. });
            // A cache holds no more for a change of the peer than it can bear.
            let eager = |id, f: &File, chunks: u64| self.holding.is_eager(id, f, chunks * CHUNK);
            let held = ours.is_some_and(|f| (f.is_whole() || yields) && eager(cut.file, f, lacks.len()));
            if verdict.touches() && held {
                lazy = false;
            }
            let copied = matches!(verdict.body, BodyVerdict::Yield { copy: true, .. } | BodyVerdict::Leave);
            if copied && !pending.incomplete && ours.is_some_and(|f| !f.is_whole()) {
                incomplete.push(cut.file);
            }
            let moves = matches!(verdict.place, PlaceVerdict::Take | PlaceVerdict::TakeFrom(_));
            let name = cut.place.as_ref().and_then(|p| p.name.as_ref()).filter(|_| moves);
            let holder = name.and_then(|n| share.named(n)).filter(|id| *id != cut.file);
            if holder.and_then(|id| share.file(id)).is_some_and(|f| f.is_whole()) {
                lazy &= !self.holding.fits(lacks.len() * CHUNK);
                // A name that is held moves only to content that is wholly held.
                let still = ours.map_or(0, |f| still_missing(f, cut, &verdict.body).len());
                // Where there is no room it moves to what will be fetched when it is read.
                if still > 0 && self.holding.fits(still * CHUNK) && !self.holding.refuses(still * CHUNK) {
                    holder.into_iter().for_each(|holder| self.fetch.hint(cut.file, holder));
                    wait.push(cut.file);
                }
            }
            if let Some(body) = &cut.body
                && !lacks.is_empty()
            {
                lacks.remove(crate::model::chunk::count(body.attrs.size)..u64::MAX);
                needs.push(Need {
                    cut: pending.cut.seq,
                    file: cut.file,
                    version: body.version.clone(),
                    basis: self.basis_of(share, cut, body.attrs.size, &lacks, holder),
                    chunks: lacks,
                    compare: unsettled,
                    size: body.attrs.size,
                });
            }
        }
        if !needs.is_empty() && !lazy {
            return Readiness::Fetch(needs);
        }
        if !wait.is_empty() {
            return Readiness::Wait(wait);
        }
        if !incomplete.is_empty() {
            return Readiness::Complete(incomplete);
        }
        if pending.is_patient() && locked.iter().any(|ino| self.locks.held(*ino)) {
            return Readiness::Locked(locked);
        }
        Readiness::Ready
    }

    /// What is here that may be like `chunks` of the file of `cut`, which is `size` bytes long over there: its own content, where much
    /// of that is replaced; what has the name that it gets; what it was told to be like, or what its name comes from.
    fn basis_of(
        &self,
        share: &Share,
        cut: &FileCut,
        size: u64,
        chunks: &ChunkSet,
        holder: Option<FileId>,
    ) -> Option<FileId> {
        let worth = (size, self.least());
        if chunks.len() * CHUNK < worth.1 {
            return None;
        }
        let file = cut.file;
        let old = share.file(file).filter(|f| f.name.is_some());
        let old = old.as_deref();
        // What only grew has nothing of what it gets.
        if let Some(old) = old.filter(|f| chunks.overlaps(&(0..f.size / CHUNK))) {
            let anew = likeness::is_much(chunks.len(), old.size.max(size));
            return (anew && likeness::is_worth(old, worth)).then_some(file);
        }
        let hints = holder.into_iter().chain(self.fetch.hinted(file));
        let name = cut.place.as_ref().and_then(|p| p.name.as_ref()).or(old.and_then(|f| f.name.as_ref()));
        likeness::basis_for(share, file, worth, hints, name)
    }

    /// Nodes of all files that a cut speaks of or displaces, in lock order.
    pub(super) fn nodes_of(&self, cut: &Cut) -> Vec<Held> {
        let mut ids: Vec<FileId> = {
            let share = self.share.lock();
            let names = cut.files.iter().filter_map(|f| f.place.as_ref()?.name.as_ref());
            let holders = names.filter_map(|n| share.named(n));
            cut.files.iter().map(|f| f.file).chain(holders).filter(|id| share.has(*id)).collect()
        };
        ids.sort_unstable();
        ids.dedup();
        ids.into_iter().filter_map(|id| self.node(id)).collect()
    }
}
