//! Applying a cut of the peer: one instant for everything it speaks of.
//!
//! Under the directory lock and the locks of all its files: what changed here since is cut first, the
//! verdicts fall, content and names change, and one `Took` record says what became of it. A crash in
//! between repeats the whole from its redo record.
//!
//! Invariant: nobody gets a lock on a file between the last look at its locks and the kernel's forgetting it.

use super::before::yet_to_come;
use super::bodies::door;
use super::copies::Copy;
use super::events::Told;
use super::host::Host;
use super::location::location;
use super::moves::Move;
use super::node::{Data, Held, Locked};
use super::pending::{Outcome, Pending, Readiness};
use super::queues::{Sweep, Trigger};
use crate::fs::replayer::Change;
use crate::model::chunk::{self, ChunkSet};
use crate::model::cut::FileCut;
use crate::model::file::File;
use crate::model::ids::{FileId, LogPosition};
use crate::model::ignore::IGNORE_FILE;
use crate::model::judge::{BodyVerdict, PlaceVerdict, Verdict, judge, judge_again};
use crate::model::message::{Ack, Message};
use crate::model::name::Name;
use crate::model::record::{Record, Taken};
use crate::model::sabotage::{Bug, planted};
use crate::model::share::Share;
use crate::model::version::Version;
use crate::store;
use std::collections::{BTreeMap, BTreeSet};

/// What an apply leaves to be done once the locks are free.
#[derive(Default)]
struct After {
    /// Names that lead elsewhere now.
    names: Vec<Name>,
    /// What was done, for programs that watch the mount.
    seen: Vec<Change>,
    /// Inodes whose content or attributes changed.
    stale: Vec<u64>,
    /// Files whose old content is remembered until the kernel has forgotten its pages.
    shadowed: Vec<Held>,
    /// What anybody who looks is told.
    news: Vec<Told>,
    /// Files that have a version of the peer's now.
    taken: BTreeSet<FileId>,
    /// Files that are wholly held now.
    whole: Vec<FileId>,
    /// Files that are certain now, and whose cuts have waited for this.
    settled: Vec<FileId>,
    /// Files that may have waited together with these.
    waited: BTreeSet<FileId>,
    /// Files that the peer unlinked and that stay.
    revived: Vec<FileId>,
    /// Files of which the peer is asked to tell everything.
    asked: Vec<FileId>,
    /// Uncertain files of which the peer told something that is older than what it has acknowledged.
    older: Vec<(FileId, Version)>,
}

/// What became of our own before a cut is applied.
struct Beside<'a> {
    copies: &'a [Copy],
    /// Files whose content is already what is coming.
    same: &'a BTreeSet<FileId>,
    /// Files that lose their name to one of the same content.
    absorbed: &'a [FileId],
}

impl Verdict {
    /// Whether anything here changes.
    pub(super) fn touches(&self) -> bool {
        matches!(self.place, PlaceVerdict::Take | PlaceVerdict::TakeFrom(_) | PlaceVerdict::Revive)
            || self.body.takes().is_some()
    }
}

impl Host {
    pub(super) fn apply(&self, pending: &Pending) -> store::Result<Outcome> {
        let mut after = After::default();
        let (acks, hold) = {
            let _names = self.names.write();
            let nodes = self.nodes_of(&pending.cut);
            let mut locked = Locked::all(&nodes);
            if !pending.again {
                self.look_behind_cut(&mut locked)?;
            }
            self.cut_silently(&pending.cut, &mut locked)?;
            let Some(verdicts) = self.verdicts(pending) else { return Ok(Outcome::NotReady) };
            let touched = verdicts.iter().filter(|v| v.touches());
            let inos: Vec<u64> = touched.filter_map(|v| Some(locked.get(v.file)?.0.ino)).collect();
            let hold = self.locks.try_hold(&inos);
            if hold.is_none() && pending.is_patient() {
                return Ok(Outcome::NotReady);
            }
            let mut absorbed = Vec::new();
            for (cut, verdict) in pending.cut.files.iter().zip(&verdicts) {
                let PlaceVerdict::TakeFrom(ours) = verdict.place else { continue };
                match self.is_the_same(pending, cut, ours, &mut locked)? {
                    true => absorbed.push(ours),
                    false => after.names.extend(self.step_aside(ours, &pending.cut)?),
                }
            }
            let (copies, same) = self.keep_copies(pending, &verdicts, &mut locked)?;
            self.keep_rewritten(pending, &verdicts, &mut locked);
            self.withdraw_lacking(pending, &verdicts, &mut locked)?;
            // Once they are recorded others know of them: they wait until they lie under their names.
            let unshown = self.nodes_of_copies(&copies);
            let _unshown = Locked::all(&unshown);
            let beside = Beside { copies: &copies, same: &same, absorbed: &absorbed };
            let taken = self.bring_about(pending, &verdicts, &mut locked, beside, &mut after)?;
            let acks = self.conclude(pending, &verdicts, &taken, &mut after)?;
            let copies = self.publish(copies)?;
            after.seen.extend(copies.iter().map(|name| Change::Created(name.as_bytes().to_vec())));
            after.names.extend(copies);
            (acks, hold)
        };
        self.follow_up(after);
        // Who locks a file now sees nothing of what it was: the kernel has forgotten it.
        self.kernel.afterwards(move || drop(hold));
        Ok(Outcome::Applied(acks))
    }

    /// The verdicts over a cut, where everything is there that they ask for.
    fn verdicts(&self, pending: &Pending) -> Option<Vec<Verdict>> {
        let share = self.share.lock();
        let judge = if pending.again { judge_again } else { judge };
        let verdicts = judge(&share, self.sides(&share), &pending.cut);
        if !matches!(self.readiness(&share, pending, &verdicts), Readiness::Ready) {
            return None;
        }
        for (cut, verdict) in pending.cut.files.iter().zip(&verdicts) {
            tracing::debug!(
                seq = pending.cut.seq,
                file = %cut.file,
                place = ?verdict.place,
                name = ?cut.place.as_ref().map(|p| &p.name),
                body = ?verdict.body,
                version = ?cut.body.as_ref().map(|b| &b.version),
                "applying"
            );
        }
        Some(verdicts)
    }

    /// Brings content, attributes and names to what the verdicts say, and records it in between: content before the
    /// record, names after it.
    fn bring_about(
        &self,
        pending: &Pending,
        verdicts: &[Verdict],
        locked: &mut Locked,
        beside: Beside,
        after: &mut After,
    ) -> store::Result<Vec<Taken>> {
        let mut aside = self.hide(verdicts, locked)?;
        self.reserve(pending, verdicts, locked)?;
        let (mut taken, mut moves) = (Vec::new(), Vec::new());
        let all = if planted(Bug::HalfCut) { 1 } else { usize::MAX };
        // New files first: they show only once all is well, and what there is no room for fails before
        // anything that shows has changed.
        let (new, held): (Vec<_>, Vec<_>) =
            pending.cut.files.iter().zip(verdicts).take(all).partition(|(cut, _)| !locked.has(cut.file));
        for (cut, verdict) in new.into_iter().chain(held) {
            let body = match &cut.body {
                Some(body) if verdict.body.takes().is_some() => {
                    let (ours, same) = (locked.get(cut.file), beside.same.contains(&cut.file));
                    let taken = self.take_body(pending, cut.file, body, &verdict.body, ours, same)?;
                    if let Some((node, data)) = locked.get(cut.file) {
                        after.changed(node, data);
                    }
                    Some(taken)
                }
                _ => None,
            };
            let place = self.take_place(cut, verdict, body.as_ref(), &aside, &mut moves);
            if verdict.place == PlaceVerdict::Revive {
                after.revived.push(cut.file);
            }
            if place.is_some() || body.is_some() {
                taken.push(Taken { file: cut.file, place, body });
            }
        }
        let gone = self.keep_open(&moves, locked, after);
        let reborn = self.nodes_of_returning(&taken, after);
        let _reborn = Locked::all(&reborn);
        reborn.iter().for_each(|node| self.nodes.install(node));
        let mut share = self.share.lock();
        after.seen.extend(changes(&share, &moves, &taken));
        if !beside.absorbed.is_empty() {
            // The peer's file takes their place on the disk, and is the same.
            let moves: Vec<(FileId, Option<Name>)> = beside.absorbed.iter().map(|id| (*id, None)).collect();
            self.commit(&mut share, Record::Moved { moves })?;
            let _ = self.triggers.send(Trigger::Cut(beside.absorbed.to_vec(), None));
        }
        let was_unsettled = |t: &&Taken| share.file(t.file).is_some_and(|f| f.unsettled);
        after.settled.extend(taken.iter().filter(was_unsettled).map(|t| t.file));
        // One that goes by this leaves others that have waited with it.
        after.waited = after.settled.iter().flat_map(|id| share.bonded(*id)).collect();
        let record = Record::Took {
            from: LogPosition { writer: pending.cut.writer, seq: pending.cut.seq },
            files: taken.clone(),
            copies: beside.copies.iter().map(|copy| copy.kept.clone()).collect(),
            revived: after.revived.clone(),
        };
        self.commit(&mut share, record)?;
        self.unfinished.lock().applied(&pending.cut);
        drop(share);
        for (file, missing) in gone {
            locked.get(file).expect("it was just found").1.orphan = Some(missing);
        }
        // As all names, in the journal first: what a crash leaves undone recovery does.
        aside.done();
        self.must(self.carry_out(&moves, pending.again))?;
        after.news = self.news(&taken, &moves);
        after.names.extend(
            moves.iter().filter(|m| m.old != m.new).flat_map(|m| m.old.iter().chain(&m.new).cloned()),
        );
        Ok(taken)
    }

    /// Files that lie under their names and will lack something go where such files lie. Where the change fails after that,
    /// the finisher brings them back.
    fn withdraw_lacking(
        &self,
        pending: &Pending,
        verdicts: &[Verdict],
        locked: &mut Locked,
    ) -> store::Result<()> {
        let lacking: Vec<FileId> = {
            let share = self.share.lock();
            let shown = |id: FileId| share.file(id).is_some_and(|f| f.name.is_some() && !f.partial);
            let lacks = |(cut, verdict): &(&FileCut, &Verdict)| {
                shown(cut.file) && !yet_to_come(&share, pending, cut, verdict).is_empty()
            };
            let each = pending.cut.files.iter().zip(verdicts).filter(lacks);
            each.map(|(_, v)| v.file).filter(|id| locked.has(*id)).collect()
        };
        if lacking.is_empty() {
            return Ok(());
        }
        // Their descriptors, where they are open, go with them.
        for id in &lacking {
            if let Some((node, data)) = locked.get(*id) {
                self.data_file(node, data, true).map_err(door)?;
            }
        }
        let withdrawn = self.withdraw(&lacking);
        for id in lacking {
            let _ = self.fetch.finished.send(Some(id));
        }
        withdrawn?;
        self.backing.sync_names()?;
        Ok(())
    }

    /// Nodes for files that come back under the number of one that is unlinked here and still in use, in lock order;
    /// nobody else has them yet.
    fn nodes_of_returning(&self, taken: &[Taken], after: &mut After) -> Vec<Held> {
        let share = self.share.lock();
        let comes = |t: &&Taken| t.place.as_ref().is_some_and(|place| place.name.is_some());
        let new = |id: &FileId| share.file(*id).is_none_or(|f| f.name.is_none());
        let mut ids: Vec<FileId> = taken.iter().filter(comes).map(|t| t.file).filter(new).collect();
        ids.retain(|id| self.nodes.find(*id).is_some());
        ids.sort_unstable();
        after.stale.extend(ids.iter().map(|id| share.ino(*id)));
        ids.into_iter().map(|id| self.nodes.another(id, share.ino(id))).collect()
    }

    /// Files that go stay open to who has just looked them up. Returns what of each will never come.
    fn keep_open(&self, moves: &[Move], locked: &mut Locked, after: &mut After) -> Vec<(FileId, ChunkSet)> {
        let mut orphans = Vec::new();
        for gone in moves.iter().filter(|m| m.new.is_none()) {
            let Some((node, data)) = locked.get(gone.file) else { continue };
            if let Ok(file) = self.data_file(node, data, false) {
                self.graves.keep(file, node.clone());
            }
            let missing = self.share.lock().file(gone.file).map(|f| f.missing.clone());
            orphans.push((gone.file, missing.unwrap_or_default()));
            after.stale.push(node.ino);
        }
        orphans
    }

    /// What a cut that was applied comes to, file by file.
    fn news(&self, taken: &[Taken], moves: &[Move]) -> Vec<Told> {
        let moves: BTreeMap<FileId, &Move> = moves.iter().map(|m| (m.file, m)).collect();
        let share = self.share.lock();
        let told = |t: &Taken| match moves.get(&t.file) {
            Some(moved) => Told::came(moved.old.as_ref(), moved.new.as_ref()),
            None => {
                // Where ours stays on top of the peer's, nothing has changed here.
                t.body.as_ref().filter(|body| body.agreed.is_none())?;
                let name = share.name(t.file);
                share.has(t.file).then(|| Told::came(name.as_ref(), name.as_ref()))?
            }
        };
        taken.iter().filter_map(told).collect()
    }

    /// What the share knows now that the cut is applied: returns what to thank for.
    fn conclude(
        &self,
        pending: &Pending,
        verdicts: &[Verdict],
        taken: &[Taken],
        after: &mut After,
    ) -> store::Result<Vec<Ack>> {
        let each = || pending.cut.files.iter().zip(verdicts);
        let mut share = self.share.lock();
        for (cut, verdict) in each() {
            let Some((unsettled, thanked)) = share.file(cut.file).map(|f| (f.unsettled, f.is_thanked()))
            else {
                continue;
            };
            // Unlinked over there, it has no content but what lies here.
            let only_here = unsettled && cut.place.as_ref().is_some_and(|p| p.name.is_none());
            if !only_here && (verdict.body != BodyVerdict::Keep || !(unsettled || thanked)) {
                continue;
            }
            after.settled.push(cut.file);
            if !unsettled {
                // The peer had our version and has forgotten it: it must hear of it again.
                self.outbound.lock().tell_all(cut.file);
            } else {
                let stat = share.file(cut.file).and_then(|f| self.backing.stat(location(cut.file, &f)?).ok());
                let size = stat.map_or(0, |s| s.size);
                self.commit(&mut share, Record::Adopted { file: cut.file, size, apart: false })?;
                after.whole.push(cut.file);
            }
        }
        for (cut, verdict) in each() {
            let unsettled = share.file(cut.file).is_some_and(|f| f.unsettled);
            if let (BodyVerdict::Nothing, Some(body), true) =
                (&verdict.body, &cut.body, unsettled && !pending.again)
            {
                after.older.push((cut.file, body.version.clone()));
            }
            if let (PlaceVerdict::Keep, Some(place)) = (&verdict.place, &cut.place) {
                self.refused.lock().extend(place.name.clone().map(|name| (cut.file, name)));
            }
            // What it asked for while the file was uncertain here was refused: told anew, it asks again.
            let lacks = cut.body.as_ref().is_some_and(|body| !body.lacks.is_empty());
            if lacks && !unsettled && after.settled.contains(&cut.file) {
                self.outbound.lock().tell_all(cut.file);
            }
            if verdict.body == BodyVerdict::Ask {
                after.asked.push(cut.file);
            }
            // What could not be given before may be there now.
            if let (BodyVerdict::Have, Some(f)) = (&verdict.body, share.file(cut.file)) {
                self.fetch.unstall(cut.file, f.missing.len());
            }
        }
        for gone in taken.iter().filter(|t| t.place.as_ref().is_some_and(|place| place.name.is_none())) {
            self.holding.gone(gone.file);
        }
        for (id, body) in taken.iter().filter_map(|t| Some((t.file, t.body.as_ref()?))) {
            after.taken.insert(id);
            body.changed
                .iter()
                .flat_map(|range| body.missing.gaps(&range))
                .for_each(|range| self.holding.used(id, &range));
            self.fetch.changed(id, &body.changed);
            match share.file(id) {
                Some(f) if !f.is_whole() => self.fetch.enqueue(id, f.missing.len()),
                Some(f) if f.partial => after.whole.push(id),
                _ => {}
            }
        }
        Ok(acks(&share, pending, verdicts, self.holding.is_cache()))
    }

    /// What is done without locks: the kernel is told, and the threads that waited for this.
    fn follow_up(&self, after: After) {
        if !after.names.is_empty() {
            self.names_moved();
        }
        self.holders_changed(&after.taken);
        self.drop_before(after.taken.iter().copied());
        if self.holding.is_cache() && self.holding.excess(&self.backing, 0) > 0 {
            self.holding.sweep(Sweep::Room(0));
        }
        after.news.into_iter().for_each(|told| self.events.tell(told));
        after.names.iter().for_each(|name| self.kernel.inval_entry(name.as_bytes()));
        after.stale.iter().for_each(|ino| self.kernel.inval_inode(*ino));
        if self.patterns.read().1.is_none() || after.seen.iter().any(is_about_patterns) {
            let _ = self.triggers.send(Trigger::Look);
        }
        after.seen.into_iter().for_each(|change| self.kernel.changed(change));
        for id in after.whole {
            let _ = self.fetch.finished.send(Some(id));
        }
        after.asked.into_iter().for_each(|file| self.tell(Message::Tell { file }));
        for (file, version) in after.older {
            self.ask_once_more(file, version);
        }
        let mut waited = after.waited;
        waited.extend(after.settled);
        for file in waited {
            let _ = self.triggers.send(Trigger::Cut(vec![file], None));
        }
        if !after.revived.is_empty() {
            let _ = self.triggers.send(Trigger::Cut(after.revived, None));
        }
        if !after.shadowed.is_empty() {
            // Once the kernel has dropped its pages, whatever it writes back is somebody's change.
            self.kernel.drain();
            after.shadowed.iter().for_each(|node| node.data.lock().shadows.clear());
        }
    }

    /// Whoever has edited a file of this cut behind our back has made a version of their own.
    fn look_behind_cut(&self, locked: &mut Locked) -> store::Result<()> {
        // What a cut that failed in the middle has left is nobody's edit.
        let midway = self.unfinished.lock().files();
        for (node, data) in locked.iter_mut().filter(|(node, _)| !midway.contains(&node.id)) {
            let Some(stat) = self.data_file(node, data, false).ok().and_then(|file| file.stat().ok()) else {
                continue;
            };
            let mut share = self.share.lock();
            let edited = |f: &File| f.is_edited_unseen(stat.size, stat.mtime.nanoseconds());
            if share.file(node.id).is_some_and(|f| edited(&f)) {
                tracing::info!("{} was edited behind our back", node.id);
                let (chunks, size) = (ChunkSet::of(0..chunk::count(stat.size)), stat.size);
                self.commit(&mut share, Record::Wrote { file: node.id, chunks, size })?;
            }
        }
        Ok(())
    }
}

impl After {
    /// A file that was here has another body now.
    fn changed(&mut self, node: &Held, data: &mut Data) {
        self.stale.push(node.ino);
        if let (Some(known), Some(file)) = (data.unseen, data.open()) {
            data.unseen = Some(file.stat().map_or(known, |s| s.mtime));
        }
        if !data.shadows.is_empty() {
            self.shadowed.push(node.clone());
        }
    }
}

fn is_about_patterns(change: &Change) -> bool {
    let is = |name: &[u8]| name == IGNORE_FILE.as_bytes();
    match change {
        Change::Created(name) | Change::Modified(name) | Change::Deleted(name, _) => is(name),
        Change::Renamed(from, to) => is(from) || is(to),
        Change::Attributes(_) => false,
    }
}

/// What is about to move and to be taken, as programs that watch the mount would see it done here: what frees a name first.
fn changes(share: &Share, moves: &[Move], taken: &[Taken]) -> Vec<Change> {
    let bytes = |name: &Name| name.as_bytes().to_vec();
    let (mut changes, mut made) = (Vec::new(), Vec::new());
    for Move { file, old, new, .. } in moves.iter().filter(|m| m.old != m.new) {
        match (old, new) {
            // What another is renamed over goes without a word.
            (Some(old), None) if moves.iter().any(|m| m.old.is_some() && m.new.as_ref() == Some(old)) => {}
            (Some(old), None) => changes.push(Change::Deleted(bytes(old), share.ino(*file))),
            (Some(old), Some(new)) => made.push(Change::Renamed(bytes(old), bytes(new))),
            (None, Some(new)) => made.push(Change::Created(bytes(new))),
            (None, None) => {}
        }
    }
    for (id, body) in taken.iter().filter_map(|t| Some((t.file, t.body.as_ref()?))) {
        let moved = moves.iter().find(|m| m.file == id);
        let Some(old) = share.file(id).filter(|f| f.name.is_some()) else { continue };
        let Some(name) = moved.map_or(old.name.as_ref(), |m| m.new.as_ref()) else { continue };
        made.push(match body.changed.is_empty() && body.size == old.size {
            true => Change::Attributes(bytes(name)),
            false => Change::Modified(bytes(name)),
        });
    }
    changes.extend(made);
    changes
}

/// What is here now of a cut that was applied, and certain to stay.
/// Who keeps a `cache` holds what was changed only where it is used; that it knows of it is all that is certain.
fn acks(share: &Share, pending: &Pending, verdicts: &[Verdict], cache: bool) -> Vec<Ack> {
    let ack = |(cut, verdict): (&FileCut, &Verdict)| {
        let have =
            matches!(verdict.place, PlaceVerdict::Have | PlaceVerdict::Take | PlaceVerdict::TakeFrom(_));
        let has = verdict.body == BodyVerdict::Have || verdict.body.takes().is_some();
        let durable = share.file(cut.file).is_some_and(|f| f.name.is_none() || f.is_whole() && !f.partial)
            || cache
            || planted(Bug::ThankPartial);
        let place = cut.place.as_ref().filter(|_| have).map_or(0, |p| p.told);
        let body = cut.body.as_ref().filter(|_| has && durable).map_or(0, |b| b.told);
        Ack { file: cut.file, place, body }
    };
    pending.cut.files.iter().zip(verdicts).map(ack).filter(|ack| ack.place != 0 || ack.body != 0).collect()
}
