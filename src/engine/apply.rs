//! Applying a cut of the peer: one instant for everything it speaks of.
//!
//! Under the directory lock and the locks of all its files: what changed here since is cut first, the
//! verdicts fall, content and names change, and one `Took` record says what became of it. A crash in
//! between repeats the whole from its redo record.

use super::host::Host;
use super::location::location;
use super::node::{Data, Held};
use super::pending::{Outcome, Pending, Readiness, Redo, Staged};
use super::pieces;
use super::queues::Trigger;
use super::relocate::changing;
use crate::model::chunk::{self, ChunkSet};
use crate::model::cut::{BodyCut, Cut, FileCut};
use crate::model::file::{self, Shaky};
use crate::model::ids::{FileId, LogPosition, Seq};
use crate::model::judge::{BodyVerdict, PlaceVerdict, Verdict, conflict_name, judge};
use crate::model::limits::CHUNK;
use crate::model::message::Ack;
use crate::model::name::Name;
use crate::model::record::{Agreed, CutMark, Kept, Record, Taken, TakenBody, TakenPlace};
use crate::model::sabotage::{Bug, planted};
use crate::model::version::Version;
use crate::store::{self, At, Content, Time};
use parking_lot::MutexGuard;
use rustix::fs::RenameFlags;
use std::collections::{BTreeMap, BTreeSet};

/// Bytes of old content kept per file so that pages of a mapping can be told from changes.
const SHADOW_BYTES: usize = 4 << 20;

/// A file whose name or existence changes.
struct Move {
    file: FileId,
    /// Where its content lies now; `None` for one that lies in `.syncfs/partial` and stays there.
    from: Option<Lies>,
    old: Option<Name>,
    new: Option<Name>,
    partial: bool,
}

/// Files that are out of everybody's sight while they change: so whoever looks into the directory after a crash finds
/// no half of anything, and recovery can tell what was edited by hand. Where the change fails they go back.
struct Aside<'a> {
    host: &'a Host,
    files: Vec<Hidden>,
}

/// One of them, with the mtime that it had.
struct Hidden {
    id: FileId,
    name: Name,
    file: Content,
    mtime: Time,
}

impl Aside<'_> {
    fn put(&mut self, id: FileId, name: Name, file: Content) -> store::Result<()> {
        let wrap = |source| store::Error::Io { what: format!("looking at {name}"), source };
        let mtime = file.stat().map_err(wrap)?.mtime;
        let staging = changing(id);
        self.host.backing.rename(At::Name(&name), At::Staging(&staging), RenameFlags::empty())?;
        self.files.push(Hidden { id, name, file, mtime });
        Ok(())
    }

    fn has(&self, id: FileId) -> bool {
        self.files.iter().any(|f| f.id == id)
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        for Hidden { id, name, file, mtime } in &self.files {
            let staging = changing(*id);
            let _ = file.set_times(None, Some(*mtime));
            let (from, to) = (At::Staging(&staging), At::Name(name));
            match self.host.backing.rename(from, to, RenameFlags::NOREPLACE) {
                // It has gone on to its new name already.
                Err(error) if error.is_not_found() => {}
                Err(error) => tracing::error!("{name} is in .syncfs/staging until the next mount: {error}"),
                Ok(()) => {}
            }
        }
        // The next checkpoint looks at their times again.
        self.host.share.lock().put_back(self.files.iter().map(|f| f.id).collect());
    }
}

/// Our version of a file that lost, on its way out of staging.
struct Copy {
    staging: String,
    kept: Kept,
}

enum Lies {
    Name(Name),
    Staging(String),
}

impl Lies {
    fn at(&self) -> At<'_> {
        match self {
            Lies::Name(name) => At::Name(name),
            Lies::Staging(name) => At::Staging(name),
        }
    }
}

impl Verdict {
    /// Whether anything here changes.
    pub(super) fn touches(&self) -> bool {
        matches!(self.place, PlaceVerdict::Take | PlaceVerdict::TakeFrom(_) | PlaceVerdict::Revive)
            || self.body.takes().is_some()
    }
}

impl Host {
    pub(super) fn apply(&self, pending: &mut Pending) -> store::Result<Outcome> {
        let mut stale: Vec<u64> = Vec::new();
        let mut names: Vec<Name> = Vec::new();
        let mut revived: Vec<FileId> = Vec::new();
        let mut settled: Vec<FileId> = Vec::new();
        let mut whole: Vec<FileId> = Vec::new();
        let mut shadowed: Vec<Held> = Vec::new();
        let mut older: Vec<(FileId, Version)> = Vec::new();
        let acks;
        {
            let _names = self.names.write();
            let nodes = self.nodes_of(&pending.cut);
            let mut datas: Vec<MutexGuard<'_, Data>> = nodes.iter().map(|n| n.data.lock()).collect();
            let index: BTreeMap<FileId, usize> = nodes.iter().enumerate().map(|(i, n)| (n.id, i)).collect();

            if !pending.again {
                self.look_behind_cut(&nodes, &mut datas)?;
            }
            self.cut_silently(&nodes, &mut datas)?;
            let verdicts = {
                let share = self.share.lock();
                let verdicts = judge(&share, self.peer(&share), &pending.cut);
                match self.readiness(&share, pending, &verdicts) {
                    Readiness::Ready => verdicts,
                    _ => return Ok(Outcome::NotReady),
                }
            };

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
            for verdict in &verdicts {
                if let PlaceVerdict::TakeFrom(ours) = verdict.place {
                    names.extend(self.step_aside(ours, &pending.cut)?);
                }
            }
            let (mut copies, mut same) = (Vec::new(), BTreeSet::new());
            for (cut, verdict) in pending.cut.files.iter().zip(&verdicts) {
                if let (BodyVerdict::Yield { copy: true, changed }, Some(&at), Some(body)) =
                    (&verdict.body, index.get(&verdict.file), &cut.body)
                    && !planted(Bug::LastWriterWins)
                {
                    let coming = (body, changed);
                    if self.keep_copy(&nodes[at], &mut datas[at], pending, coming, &mut copies)? {
                        same.insert(cut.file);
                    }
                }
            }
            if !copies.is_empty() {
                // From here on they may be all that is left of what was here.
                self.backing.sync_names()?;
            }
            let mut aside = self.hide(&verdicts, &nodes, &mut datas)?;
            self.reserve(pending, &verdicts, &nodes, &mut datas)?;
            let mut taken = Vec::new();
            let mut moves = Vec::new();
            let all = if planted(Bug::HalfCut) { 1 } else { usize::MAX };
            // New files first: they show only once all is well, and what there is no room for fails before
            // anything that shows has changed.
            let (new, held): (Vec<_>, Vec<_>) = (pending.cut.files.iter().zip(&verdicts).take(all))
                .partition(|(cut, _)| !index.contains_key(&cut.file));
            for (cut, verdict) in new.into_iter().chain(held) {
                let at = index.get(&cut.file).copied();
                let body = match &cut.body {
                    Some(body) if verdict.body.takes().is_some() => {
                        let pair = at.map(|at| (&nodes[at], &mut *datas[at]));
                        let same = same.contains(&cut.file);
                        let taken = self.take_body(pending, cut.file, body, &verdict.body, pair, same)?;
                        if let Some(at) = at {
                            stale.push(nodes[at].ino);
                            let data = &mut *datas[at];
                            if let (Some(known), Some(file)) = (data.unseen, data.open()) {
                                data.unseen = Some(file.stat().map_or(known, |s| s.mtime));
                            }
                            if !datas[at].shadows.is_empty() {
                                shadowed.push(nodes[at].clone());
                            }
                        }
                        Some(taken)
                    }
                    _ => None,
                };
                let place = self.take_place(cut, verdict, body.as_ref(), &aside, &mut moves);
                if verdict.place == PlaceVerdict::Revive {
                    revived.push(cut.file);
                }
                if place.is_some() || body.is_some() {
                    taken.push(Taken { file: cut.file, place, body });
                }
            }
            for m in &moves {
                if m.new.is_none()
                    && let Some(&at) = index.get(&m.file)
                {
                    if let Ok(file) = self.data_file(&nodes[at], &mut datas[at], false) {
                        self.graves.keep(file, nodes[at].clone());
                    }
                    datas[at].orphan = self.share.lock().file(m.file).map(|f| f.missing.clone());
                    stale.push(nodes[at].ino);
                }
                if m.old != m.new {
                    names.extend(m.old.iter().chain(&m.new).cloned());
                }
            }
            let mut share = self.share.lock();
            let from = LogPosition { writer: pending.cut.writer, seq: pending.cut.seq };
            let changed: Vec<(FileId, ChunkSet)> =
                taken.iter().filter_map(|t| t.body.as_ref().map(|b| (t.file, b.changed.clone()))).collect();
            let was_unsettled = |t: &&Taken| share.file(t.file).is_some_and(|f| f.unsettled);
            settled.extend(taken.iter().filter(was_unsettled).map(|t| t.file));
            let record = Record::Took {
                from,
                files: taken,
                copies: copies.iter().map(|copy| copy.kept.clone()).collect(),
                revived: revived.clone(),
            };
            self.commit(&mut share, record)?;
            self.unfinished.lock().applied(&pending.cut);
            drop(share);
            // As all names, in the journal first: what a crash leaves undone recovery does.
            aside.files.clear();
            self.carry_out(&moves)?;
            let mut share = self.share.lock();
            for (cut, verdict) in pending.cut.files.iter().zip(&verdicts) {
                let Some((unsettled, thanked)) = share.file(cut.file).map(|f| (f.unsettled, f.is_thanked()))
                else {
                    continue;
                };
                // Unlinked over there, it has no content but what lies here.
                let only_here = unsettled && cut.place.as_ref().is_some_and(|p| p.name.is_none());
                if !only_here && (verdict.body != BodyVerdict::Keep || !(unsettled || thanked)) {
                    continue;
                }
                settled.push(cut.file);
                if !unsettled {
                    // The peer had our version and has forgotten it: it must hear of it again.
                    self.outbound.lock().tell_all(cut.file);
                } else {
                    let stat =
                        share.file(cut.file).and_then(|f| self.backing.stat(location(cut.file, f)?).ok());
                    let size = stat.map_or(0, |s| s.size);
                    self.commit(&mut share, Record::Adopted { file: cut.file, size, apart: false })?;
                    whole.push(cut.file);
                }
            }
            for (cut, verdict) in pending.cut.files.iter().zip(&verdicts) {
                let unsettled = share.file(cut.file).is_some_and(|f| f.unsettled);
                if let (BodyVerdict::Nothing, Some(body), true) = (&verdict.body, &cut.body, unsettled) {
                    older.push((cut.file, body.version.clone()));
                }
            }
            let mut all = Vec::new();
            for (cut, verdict) in pending.cut.files.iter().zip(&verdicts) {
                if verdict.place == PlaceVerdict::Keep
                    && let Some(name) = cut.place.as_ref().and_then(|p| p.name.clone())
                {
                    self.refused.lock().insert(cut.file, name);
                }
            }
            for (cut, verdict) in pending.cut.files.iter().zip(&verdicts) {
                let have = matches!(
                    verdict.place,
                    PlaceVerdict::Have | PlaceVerdict::Take | PlaceVerdict::TakeFrom(_)
                );
                let place = cut.place.as_ref().filter(|_| have).map_or(0, |p| p.told);
                let has = matches!(
                    verdict.body,
                    BodyVerdict::Have
                        | BodyVerdict::Take(_)
                        | BodyVerdict::Agree(_)
                        | BodyVerdict::Yield { .. }
                );
                let durable = share.file(cut.file).is_some_and(|f| f.is_whole() && !f.partial)
                    || planted(Bug::ThankPartial);
                let body = cut.body.as_ref().filter(|_| has && durable).map_or(0, |b| b.told);
                if place != 0 || body != 0 {
                    all.push(Ack { file: cut.file, place, body });
                }
            }
            acks = all;
            // What could not be given before may be there now.
            let told_again = verdicts.iter().filter(|v| v.body == BodyVerdict::Have);
            for (id, f) in told_again.filter_map(|v| Some((v.file, share.file(v.file)?))) {
                self.fetch.unstall(id, f.missing.len());
            }
            for (id, changed) in &changed {
                self.fetch.changed(*id, changed);
                if let Some(f) = share.file(*id) {
                    if !f.is_whole() {
                        self.fetch.enqueue(*id, f.missing.len());
                    } else if f.partial {
                        whole.push(*id);
                    }
                }
            }
            drop(share);
            if !copies.is_empty() {
                // Seen under its name without a record, a copy would be somebody's new file.
                self.journal.sync(self.journal.end())?;
            }
            for Copy { staging, kept } in copies {
                self.backing.rename(At::Staging(&staging), At::Name(&kept.name), RenameFlags::NOREPLACE)?;
                names.push(kept.name);
                let _ = self.triggers.send(Trigger::Cut(vec![kept.file], None));
            }
        }
        if !names.is_empty() {
            self.names_moved();
        }
        for name in &names {
            self.kernel.inval_entry(name.as_bytes());
        }
        for ino in &stale {
            self.kernel.inval_inode(*ino);
        }
        for id in whole {
            let _ = self.fetch.finished.send(Some(id));
        }
        for (file, version) in older {
            self.ask_once_more(file, version);
        }
        // Cuts have waited for these.
        for file in settled {
            let _ = self.triggers.send(Trigger::Cut(vec![file], None));
        }
        if !revived.is_empty() {
            let _ = self.triggers.send(Trigger::Cut(revived, None));
        }
        if !shadowed.is_empty() {
            // Once the kernel has dropped its pages, whatever it writes back is somebody's change.
            self.kernel.drain();
            shadowed.iter().for_each(|node| node.data.lock().shadows.clear());
        }
        Ok(Outcome::Applied(acks))
    }

    /// Whoever has edited a file of this cut behind our back has made a version of their own.
    fn look_behind_cut(&self, nodes: &[Held], datas: &mut [MutexGuard<'_, Data>]) -> store::Result<()> {
        for (node, data) in nodes.iter().zip(datas) {
            let Some(stat) = self.data_file(node, data, false).ok().and_then(|file| file.stat().ok()) else {
                continue;
            };
            let mut share = self.share.lock();
            let edited = |f: &file::File| f.is_edited_unseen(stat.size, stat.mtime.nanoseconds());
            if share.file(node.id).is_some_and(edited) {
                tracing::info!("{} was edited behind our back", node.id);
                let (chunks, size) = (ChunkSet::of(0..chunk::count(stat.size)), stat.size);
                self.commit(&mut share, Record::Wrote { file: node.id, chunks, size })?;
            }
        }
        Ok(())
    }

    /// Changes made here since the last cut get a number, so that the verdict compares versions. They are
    /// announced with the next cut.
    fn cut_silently(&self, nodes: &[Held], datas: &mut [MutexGuard<'_, Data>]) -> store::Result<()> {
        let mut marks = Vec::new();
        let mut fresh = Vec::new();
        for (node, data) in nodes.iter().zip(datas) {
            let mtime = match self.data_file(node, data, false) {
                Ok(file) => file.stat().map_or(0, |s| s.mtime.nanoseconds()),
                Err(_) => 0,
            };
            let share = self.share.lock();
            let Some(f) = share.file(node.id) else { continue };
            // What power loss left uncertain is a version of its own only where it was changed since the last.
            let (place, body) = (f.place_is_fresh(), f.body_is_fresh() && (!f.unsettled || f.has_changed()));
            if !place && !body {
                continue;
            }
            marks.push(CutMark { file: node.id, place, body, stamp: f.next_stamp(mtime), mtime });
            fresh.push(node.id);
        }
        if marks.is_empty() {
            return Ok(());
        }
        let mut share = self.share.lock();
        let seq = share.header().head + 1;
        self.commit(&mut share, Record::Cut { seq, marks })?;
        drop(share);
        self.outbound.lock().announced.retain(|id| !fresh.contains(id));
        let _ = self.triggers.send(Trigger::Cut(fresh, None));
        Ok(())
    }

    /// Our file loses its name to the peer's: it takes a conflict name. Returns both names.
    fn step_aside(&self, ours: FileId, cut: &Cut) -> store::Result<Vec<Name>> {
        let mut share = self.share.lock();
        let Some((Some(old), stamp, partial)) =
            share.file(ours).map(|f| (f.name.clone(), f.stamp, f.partial))
        else {
            return Ok(Vec::new());
        };
        let new = conflict_name(&old, stamp, share.header().replica, |n| self.is_taken(&share, cut, n));
        self.commit(&mut share, Record::Moved { moves: vec![(ours, Some(new.clone()))] })?;
        drop(share);
        if !partial {
            self.backing.rename(At::Name(&old), At::Name(&new), RenameFlags::NOREPLACE)?;
        }
        tracing::warn!("both hosts made {old}: this host's is now {new}");
        // The peer refused it under its old name, content and all.
        self.outbound.lock().announced.remove(&ours);
        let _ = self.triggers.send(Trigger::Cut(vec![ours], None));
        Ok(vec![old, new])
    }

    /// Whether anything has `name`, or gets it by `cut`.
    fn is_taken(&self, share: &crate::model::share::Share, cut: &Cut, name: &Name) -> bool {
        share.named(name).is_some()
            || cut.names().any(|n| n == name)
            || self.backing.stat(At::Name(name)).is_ok()
    }

    /// Puts the files out of sight that lie under their names and will change.
    fn hide(
        &self,
        verdicts: &[Verdict],
        nodes: &[Held],
        datas: &mut [MutexGuard<'_, Data>],
    ) -> store::Result<Aside<'_>> {
        let mut aside = Aside { host: self, files: Vec::new() };
        let shown = planted(Bug::ChangeInSight);
        for verdict in verdicts.iter().filter(|v| v.body.takes().is_some() && !shown) {
            let whole = |f: &file::File| if f.partial { None } else { f.name.clone() };
            let name = self.share.lock().file(verdict.file).and_then(whole);
            let at = nodes.iter().position(|n| n.id == verdict.file);
            let (Some(name), Some(at)) = (name, at) else { continue };
            let file = self.data_file(&nodes[at], &mut datas[at], true).map_err(door)?;
            aside.put(verdict.file, name, file)?;
        }
        Ok(aside)
    }

    /// Sets room aside for all that will be written into files that are here: a disk that is full refuses now, not
    /// half-way. Disks that can't do that are taken as they are.
    fn reserve(
        &self,
        pending: &Pending,
        verdicts: &[Verdict],
        nodes: &[Held],
        datas: &mut [MutexGuard<'_, Data>],
    ) -> store::Result<()> {
        for (cut, verdict) in pending.cut.files.iter().zip(verdicts) {
            let (Some(body), Some(changed)) = (&cut.body, verdict.body.takes()) else { continue };
            let Some(at) = nodes.iter().position(|n| n.id == cut.file) else { continue };
            let Ok(file) = self.data_file(&nodes[at], &mut datas[at], true) else { continue };
            let mut here: ChunkSet = body.pieces.iter().map(|p| p.chunks()).collect();
            pending.content.get(&cut.file).into_iter().for_each(|staged| here.extend(&staged.have));
            for range in here.iter().flat_map(|range| changed.within(&range)) {
                let bytes = chunk::bytes(&range, body.attrs.size);
                let (keep_size, len) = (libc::FALLOC_FL_KEEP_SIZE as u32, bytes.end - bytes.start);
                let full = |e: &std::io::Error| {
                    matches!(e.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG))
                };
                if let Err(source) = file.allocate(keep_size, bytes.start, len)
                    && full(&source)
                {
                    let what = format!("setting room aside for a change to {}", cut.file);
                    return Err(store::Error::Io { what, source });
                }
            }
        }
        Ok(())
    }

    /// Our version of a file both sides changed loses: it is kept, whole, as a file of its own, where what is coming
    /// is not the same; returns whether it is. It stays in staging until it is in the journal; who applies the cut once
    /// more finds it there.
    fn keep_copy(
        &self,
        node: &Held,
        data: &mut Data,
        pending: &Pending,
        (body, changed): (&BodyCut, &ChunkSet),
        copies: &mut Vec<Copy>,
    ) -> store::Result<bool> {
        let cut = &pending.cut;
        let (old, stamp, size, version) = {
            let share = self.share.lock();
            let f = share.file(node.id).expect("its data is locked and it was judged");
            (f.name.clone().expect("only a file with a name yields"), f.stamp, f.size, f.body_cut)
        };
        let kept = self.kept_before(pending, node.id)?;
        let staging = kept.unwrap_or_else(|| pieces::kept_name(cut.seq, node.id, version));
        let wrap = |source| store::Error::Io { what: format!("keeping a copy of {old}"), source };
        if self.backing.stat(At::Staging(&staging)).is_err() {
            let file = self.data_file(node, data, false).map_err(door)?;
            if pending.brings_the_same(node.id, body, changed, &file)? {
                return Ok(true);
            }
            let half = format!("keeping-{}", node.id);
            let copy = self.fresh_staging(&half, 0o600)?;
            store::copy_range(&file, 0, &copy, 0, size).map_err(wrap)?;
            copy.set_len(size).map_err(wrap)?;
            store::apply_attrs(&copy, &store::read_attrs(&file).map_err(wrap)?, self.owner).map_err(wrap)?;
            self.backing.sync_file(&copy)?;
            self.backing.rename(At::Staging(&half), At::Staging(&staging), RenameFlags::NOREPLACE)?;
        }
        let stat = self.backing.stat(At::Staging(&staging)).map_err(wrap)?;
        let share = self.share.lock();
        let next = share.next_file();
        let file = FileId { counter: next.counter + copies.len() as u64, ..next };
        let name = conflict_name(&old, stamp, share.header().replica, |n| {
            self.is_taken(&share, cut, n) || copies.iter().any(|copy| copy.kept.name == *n)
        });
        tracing::warn!("both hosts changed {old}: the peer's version keeps the name, this host's is {name}");
        copies.push(Copy { staging, kept: Kept { file, name, size: stat.size, disk: stat.ino } });
        Ok(false)
    }

    /// The latest version of `file` that was kept before a crash: since then nobody can have changed it.
    fn kept_before(&self, pending: &Pending, file: FileId) -> store::Result<Option<String>> {
        if !pending.again {
            return Ok(None);
        }
        let names = self.backing.list_staging()?.into_iter().map(|(name, _)| name);
        Ok(names.filter(|name| pieces::kept_of(name) == Some(file)).max())
    }

    fn fresh_staging(&self, name: &str, mode: u32) -> store::Result<Content> {
        match self.backing.create(At::Staging(name), mode) {
            Err(e) if e.errno() == libc::EEXIST => {
                self.backing.unlink(At::Staging(name))?;
                self.backing.create(At::Staging(name), mode)
            }
            other => other,
        }
    }

    /// Brings content and attributes of one file to the peer's version, as far as they are here. Content that is the
    /// `same` is left alone: nobody keeps a copy of it that could be torn.
    fn take_body(
        &self,
        pending: &Pending,
        id: FileId,
        body: &BodyCut,
        verdict: &BodyVerdict,
        ours: Option<(&Held, &mut Data)>,
        same: bool,
    ) -> store::Result<TakenBody> {
        let changed = verdict.takes().expect("only such are called for");
        let wrap = |source| store::Error::Io { what: format!("applying a change to {id}"), source };
        let (known, unsettled, told, our_size, our_attrs) = {
            let share = self.share.lock();
            let f = share.file(id).filter(|f| f.name.is_some());
            let told = share.ours_in(&body.version);
            let later = |tag: fn(&file::File) -> Seq| f.is_some_and(|f| tag(f) > told);
            let (our_size, our_attrs) = (later(|f| f.size_tag), later(|f| f.attrs_tag));
            (f.map(|f| f.partial), f.is_some_and(|f| f.unsettled), told, our_size, our_attrs)
        };
        let missing = pending.lacks(id, verdict, unsettled);
        let agrees = matches!(verdict, BodyVerdict::Agree(_));
        let keeps_size = agrees && our_size;
        let (file, partial) = match (known, ours) {
            (Some(partial), Some((node, data))) => {
                let file = self.data_file(node, data, true).map_err(door)?;
                let whole = 0..u64::MAX / CHUNK;
                for range in changed.iter() {
                    self.save_frozen(data, &range);
                }
                if !keeps_size && body.attrs.size < file.len().map_err(wrap)? {
                    self.save_frozen(data, &whole);
                }
                shadow(data, &file, changed).map_err(wrap)?;
                (file, partial || !missing.is_empty())
            }
            _ if missing.is_empty() => (self.fresh_staging(&format!("new-{id}"), 0o600)?, false),
            _ => {
                let file = match self.backing.create(At::Partial(id), 0o600) {
                    Err(e) if e.errno() == libc::EEXIST => {
                        self.backing.unlink(At::Partial(id))?;
                        self.backing.create(At::Partial(id), 0o600)?
                    }
                    other => other?,
                };
                (file, true)
            }
        };
        let before = file.stat().map_err(wrap)?;
        // Where our own size stays, what lies beyond it is not written.
        let size = if keeps_size { before.size.min(body.attrs.size) } else { body.attrs.size };
        let staged = pending.content.get(&id).map(|c| (&c.file, &c.have));
        if !same {
            pieces::put(&file, changed, size, &body.pieces, staged).map_err(wrap)?;
        }
        if !keeps_size && before.size != size && !(size < before.size && planted(Bug::IgnoreShrink)) {
            file.set_len(size).map_err(wrap)?;
        }
        if !(agrees && our_attrs) {
            store::apply_attrs(&file, &body.attrs, self.owner).map_err(wrap)?;
        }
        if agrees {
            file.set_times(None, Some(before.mtime)).map_err(wrap)?;
        }
        let mtime = file.stat().map_err(wrap)?.mtime.nanoseconds();
        Ok(TakenBody {
            version: body.version.clone(),
            stamp: body.stamp,
            mtime,
            size: if keeps_size { before.size } else { body.attrs.size },
            changed: changed.clone(),
            missing,
            owed: body.told,
            yielded: matches!(verdict, BodyVerdict::Yield { .. }),
            agreed: agrees.then_some(Agreed { seq: told, size: body.attrs.size }),
            partial,
            disk: before.ino,
        })
    }

    /// What becomes of the file's place; its move on the disk is added to `moves`.
    fn take_place(
        &self,
        cut: &FileCut,
        verdict: &Verdict,
        body: Option<&TakenBody>,
        aside: &Aside,
        moves: &mut Vec<Move>,
    ) -> Option<TakenPlace> {
        let share = self.share.lock();
        let ours = share.file(cut.file).filter(|f| f.name.is_some());
        let changed = || Some(Lies::Staging(changing(cut.file))).filter(|_| aside.has(cut.file));
        let moves_away = matches!(verdict.place, PlaceVerdict::Take | PlaceVerdict::TakeFrom(_));
        if let (Some(from), false) = (changed(), moves_away) {
            let name = ours?.name.clone();
            moves.push(Move {
                file: cut.file,
                from: Some(from),
                old: name.clone(),
                new: name,
                partial: false,
            });
        }
        let place = cut.place.as_ref()?;
        match verdict.place {
            PlaceVerdict::Take | PlaceVerdict::TakeFrom(_) => {
                if ours.is_none() && (place.name.is_none() || body.is_none()) {
                    return Some(TakenPlace { name: place.name.clone(), version: place.version.clone() });
                }
                let partial = body.map_or(ours.is_some_and(|f| f.partial), |b| b.partial);
                let old = ours.and_then(|f| f.name.clone());
                let from = match (&old, partial) {
                    (_, true) => None,
                    (Some(name), false) => changed().or_else(|| Some(Lies::Name(name.clone()))),
                    (None, false) => Some(Lies::Staging(format!("new-{}", cut.file))),
                };
                moves.push(Move { file: cut.file, from, old, new: place.name.clone(), partial });
                Some(TakenPlace { name: place.name.clone(), version: place.version.clone() })
            }
            PlaceVerdict::Revive => {
                let f = ours?;
                Some(TakenPlace { name: f.name.clone(), version: f.place.join(&place.version) })
            }
            _ => None,
        }
    }

    /// Renames and unlinks on the disk: swaps and chains included.
    fn carry_out(&self, moves: &[Move]) -> store::Result<()> {
        let arriving: BTreeSet<&Name> =
            moves.iter().filter(|m| m.from.is_some()).filter_map(|m| m.new.as_ref()).collect();
        // Files that stand where another one of this cut will be go out of the way first.
        let mut aside: BTreeMap<FileId, String> = BTreeMap::new();
        for m in moves {
            match (&m.from, &m.new) {
                (Some(Lies::Name(from)), Some(to)) if from != to && arriving.contains(from) => {
                    let name = format!("mv-{}", m.file);
                    self.backing.rename(At::Name(from), At::Staging(&name), RenameFlags::empty())?;
                    aside.insert(m.file, name);
                }
                (Some(Lies::Name(from)), None) if !arriving.contains(from) => {
                    self.unlink_if_there(At::Name(from))?;
                }
                (None, None) if m.partial => self.unlink_if_there(At::Partial(m.file))?,
                _ => {}
            }
        }
        for m in moves {
            let (Some(from), Some(to)) = (&m.from, &m.new) else { continue };
            if let Lies::Name(name) = from
                && name == to
            {
                continue;
            }
            let from = aside.get(&m.file).map_or(from.at(), |name| At::Staging(name));
            self.backing.rename(from, At::Name(to), RenameFlags::empty())?;
        }
        Ok(())
    }

    pub(super) fn unlink_if_there(&self, at: At) -> store::Result<()> {
        match self.backing.unlink(at) {
            Err(e) if e.errno() == libc::ENOENT => Ok(()),
            other => other,
        }
    }

    /// Applies again what a crash cut short. Where that fails, what it may have left under `names` goes, and of the
    /// files that it was changing (`midway`) nobody knows what they are before the peer has been asked.
    pub(super) fn redo(
        &self,
        cuts: Vec<Redo>,
        names: &BTreeSet<Name>,
        midway: &BTreeSet<FileId>,
    ) -> store::Result<()> {
        for Redo { cut, staged } in cuts {
            let mut content = BTreeMap::new();
            for (id, have) in staged {
                let name = pieces::staging_name(cut.seq, id);
                let Ok(file) = self.backing.open_file(At::Staging(&name), false) else { continue };
                content.insert(id, Staged { file, name, have });
            }
            let mut pending = Pending::again(cut, content);
            let outcome = self.apply(&mut pending);
            let seq = pending.cut.seq;
            match &outcome {
                Ok(Outcome::Applied(_)) => {
                    tracing::info!("applied again after a crash: cut {seq} of the peer")
                }
                Ok(Outcome::NotReady) => tracing::info!("cut {seq} of the peer will come anew"),
                Err(error) => tracing::error!("cut {seq} of the peer can't be applied again: {error}"),
            }
            if !matches!(outcome, Ok(Outcome::Applied(_))) {
                let half = pending.cut.files.iter().map(|f| f.file).filter(|id| midway.contains(id));
                half.into_iter().try_for_each(|id| self.doubt(id))?;
            }
        }
        for name in names {
            if self.share.lock().named(name).is_none() {
                self.unlink_if_there(At::Name(name))?;
            }
        }
        Ok(())
    }

    /// What lies here of `id` is perhaps no version of it: the peer is asked before anything is told of it.
    fn doubt(&self, file: FileId) -> store::Result<()> {
        let Some(stat) = self.stat(file) else { return Ok(()) };
        let (size, disk) = (stat.size, stat.ino);
        let record = Record::Unsettled { file, size, disk, shaky: Shaky::default() };
        self.commit(&mut self.share.lock(), record).map(drop)
    }

    /// Where `id` lies, for a stat without opening it.
    pub(super) fn stat(&self, id: FileId) -> Option<store::Stat> {
        let (partial, name) = {
            let share = self.share.lock();
            let f = share.file(id)?;
            (f.partial, f.name.clone())
        };
        let file = crate::model::file::File { partial, name, ..Default::default() };
        self.backing.stat(location(id, &file)?).ok()
    }
}

/// Remembers what `changed` chunks read now, while somebody may have them mapped.
fn shadow(data: &mut Data, file: &Content, changed: &ChunkSet) -> std::io::Result<()> {
    if data.mappable == 0 {
        return Ok(());
    }
    let mut room = SHADOW_BYTES / CHUNK as usize;
    for n in changed.iter().flatten() {
        if room == 0 {
            break;
        }
        let mut old = vec![0; CHUNK as usize];
        let len = file.read_full_at(&mut old, n * CHUNK)?;
        old.truncate(len);
        data.shadows.insert(n, old);
        room -= 1;
    }
    Ok(())
}

/// An error of the kernel's door as one of the disk's: the applier knows only these.
fn door(error: crate::fs::error::Error) -> store::Error {
    store::Error::Io {
        what: "opening a file that the peer changed".into(),
        source: std::io::Error::from_raw_os_error(error.errno()),
    }
}
