//! Taking cuts: what of which files is told to the peer, and when.
//!
//! A cut freezes a whole consistency group at one instant: the `data` of all its files is locked while
//! versions are given and small content is read. Invariants:
//! - cuts are announced in the order of their numbers, and once they are durable here: what the peer knows
//!   of us, we know too, whatever dies;
//! - a small cut carries its content; a large one is frozen (see [`frozen`](super::frozen)) and its files
//!   are in no other cut until the peer has decided it;
//! - files that share a bond are cut together or not at all.

use super::due::CUT_AFTER;
use super::flights::Flight;
use super::frozen::Frozen;
use super::gathered::Gathered;
use super::host::Host;
use super::node::{Data, Held};
use super::pieces::{digest, read_pieces};
use super::queues::{self, Trigger, Turn};
use super::worker::Worker;
use crate::model::chunk::{self, ChunkSet};
use crate::model::cut::{BodyCut, Changed, Cut, FileCut, Place};
use crate::model::file::File as FileState;
use crate::model::ids::FileId;
use crate::model::ignore::is_ignore_file;
use crate::model::likeness;
use crate::model::limits::{CHUNK, CUT_RANGES};
use crate::model::message::Message;
use crate::model::name::Name;
use crate::model::record::{CutMark, Record};
use crate::model::sabotage::{Bug, planted};
use crate::model::share::Share;
use crate::store::{self, Content};
use parking_lot::MutexGuard;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;
use tokio::time::Instant;

/// Cuts made durable together.
const BATCH: usize = 1024;
/// Where so many changes came while the last ones were announced, ...
const CROWD: usize = 3;
/// ... more are about to: these are waited for, so that all share what an announcement costs here and over there.
const GATHERING: Duration = Duration::from_millis(10);

pub(super) struct Cutter {
    triggers: Receiver<Trigger>,
    /// Whether what was cut last was a crowd.
    crowded: bool,
    /// With `--interval`, what is cut at the next tick.
    gathered: Gathered,
    /// Whether the peer has listened since the mount.
    begun: bool,
    /// When the pages of mappings are written back next.
    mapped_at: Option<Instant>,
}

impl Cutter {
    pub fn new(triggers: Receiver<Trigger>) -> Cutter {
        Cutter { triggers, crowded: false, gathered: Gathered::default(), begun: false, mapped_at: None }
    }

    /// All that is to be done now, `first` of all. Of a crowd, what comes within a moment is part of it.
    fn all(&mut self, first: Option<Trigger>, wait: bool) -> Vec<Trigger> {
        let changes = |all: &[Trigger]| all.iter().filter(|t| matches!(t, Trigger::Changed(..))).count();
        let mut all: Vec<Trigger> =
            first.into_iter().chain(self.triggers.try_iter().take(BATCH - 1)).collect();
        let found = changes(&all);
        // What is no change has somebody who waits for it.
        if wait && found > 0 && found == all.len() && (self.crowded || found >= CROWD) {
            // Not by the queue, where each that comes would wake this thread.
            std::thread::sleep(GATHERING);
            all.extend(self.triggers.try_iter().take(BATCH - all.len()));
        }
        self.crowded = changes(&all) >= CROWD;
        all
    }

    /// These changed, and belong together: they are cut now, or with the tick.
    fn changed(&mut self, host: &Host, files: &[FileId], process: Option<u32>) {
        let Some(interval) = host.options.interval else { return host.cut(files, process) };
        // What opens others later belongs to these all the same.
        if let Err(error) = host.bind(&mut host.share.lock(), files) {
            tracing::error!("files that belong together may be announced apart: {error}");
        }
        self.gathered.add(files, process, interval);
        if self.gathered.is_long() {
            let share = host.share.lock();
            self.gathered.retain(|id| share.file(id).is_some());
        }
    }

    /// All that waits for its time is cut.
    fn tick(&mut self, host: &Host) {
        for (file, process) in self.gathered.take() {
            host.cut(&[file], process);
        }
        host.due.take().for_each(|file| host.cut(&[file], None));
    }
}

impl Worker for Cutter {
    fn turn(&mut self, host: &Arc<Host>, wait: bool) -> Turn {
        if self.mapped_at.is_none() && !host.mapped.lock().is_empty() {
            self.mapped_at = Some(Instant::now() + CUT_AFTER);
        }
        let until = host.due.until().into_iter().chain(self.mapped_at).chain(self.gathered.until()).min();
        let mut turn = Turn::Worked;
        let first = match queues::next(&self.triggers, wait, until) {
            Ok(first) => first,
            Err(over) => return over,
        };
        if first.is_none() {
            turn = Turn::Idle;
        }
        let all = self.all(first, wait);
        if !all.is_empty() {
            host.look_at_patterns();
        }
        for trigger in all {
            match trigger {
                Trigger::Cut(files, process) => host.cut(&files, process),
                Trigger::Changed(files, process) => self.changed(host, &files, process),
                // The patterns, and what is due, are looked at whatever comes.
                Trigger::Look => {}
                Trigger::Tick => self.tick(host),
                Trigger::Backlog => {
                    let waits = host.cut_backlog(std::mem::replace(&mut self.begun, true));
                    waits.iter().for_each(|files| self.changed(host, files, None));
                }
                Trigger::Stop => return Turn::Over,
            }
        }
        let now = Instant::now();
        if self.mapped_at.is_some_and(|at| at <= now) {
            self.mapped_at = None;
            turn = Turn::Worked;
            // Stores through mappings reach us only when the kernel writes its pages back.
            host.kernel.write_back();
            host.look_behind_all();
        }
        if host.due.until().is_some_and(|at| at <= now) {
            host.look_at_patterns();
        }
        while let Some(file) = host.due.pop(now) {
            turn = Turn::Worked;
            host.cut(&[file], None);
        }
        if self.gathered.until().is_some_and(|at| at <= now) {
            turn = Turn::Worked;
            self.tick(host);
        }
        host.announce_now();
        // Those for whom there was room may have had nothing to tell.
        host.make_use_of_room();
        turn
    }
}

impl Host {
    /// The file holds what no cut has told of: one is due within a second, or with `--interval`'s tick.
    pub(super) fn fresh(&self, file: FileId) {
        // The cutter is gone only while the daemon ends; then the next start announces it.
        let _ = match self.options.interval {
            Some(_) => self.triggers.send(Trigger::Changed(vec![file], None)),
            // Who waits for something else that is due wakes up in time for this.
            None if self.due.add(file) => self.triggers.send(Trigger::Look),
            None => Ok(()),
        };
        self.moved();
    }

    /// A cut of `file` and all that is open for writing together with it is due.
    pub(super) fn cut_soon(&self, file: FileId, process: Option<u32>) {
        let group = self.writers.lock().group(file);
        self.cut_together(group, process);
    }

    /// These changed, and belong together: a cut is due. Where nobody listens there is none to take, and the next session
    /// begins with all that is fresh.
    pub(super) fn cut_together(&self, files: Vec<FileId>, process: Option<u32>) {
        if self.options.interval.is_some() || self.outbound.lock().session().is_some() {
            let _ = self.triggers.send(Trigger::Changed(files, process));
        }
    }

    /// Whoever listens: what `.syncfsignore` says is looked at soon, and graves are emptied.
    pub(super) fn look_after_names<'a>(&self, names: impl IntoIterator<Item = &'a Name>) {
        if names.into_iter().any(is_ignore_file) || !self.buried.lock().is_empty() {
            let _ = self.triggers.send(Trigger::Look);
        }
    }

    /// Everything that changed and waits for its time is cut now. What waits for the peer, or for room, does so still: it
    /// may be all there is, and this is asked for as often as something moves.
    pub(super) fn cut_fresh(&self) {
        let waits = self.options.interval.is_some() || self.due.until().is_some();
        if waits && !self.only_receives() {
            let _ = self.triggers.send(Trigger::Tick);
        }
    }

    fn look_behind_all(&self) {
        let files: Vec<FileId> = self.mapped.lock().iter().copied().collect();
        for node in files.into_iter().filter_map(|id| self.nodes.find(id)) {
            let mut data = node.data.lock();
            let looked = match (data.unseen, data.open()) {
                (Some(_), Some(file)) => self.look_at_stores(&node, &mut data, &file),
                _ => Ok(()),
            };
            if let Err(error) = looked {
                tracing::error!("stores into a mapping can't be announced yet: {error}");
            }
        }
    }

    /// Everything the peer does not have, one cut for each set of files that belong together; where it has listened
    /// `before`, without what waits for the tick, which is returned.
    fn cut_backlog(&self, before: bool) -> Vec<Vec<FileId>> {
        let todo: BTreeSet<FileId> = {
            let share = self.share.lock();
            let outbound = self.outbound.lock();
            self.to_tell(&share).chain(outbound.asked.iter().copied()).collect()
        };
        let mut seen = BTreeSet::new();
        let mut waits = Vec::new();
        for (n, file) in todo.into_iter().enumerate() {
            if n % BATCH == 0 {
                // The peer has something to do while the rest is cut.
                self.announce_now();
            }
            if seen.contains(&file) {
                continue;
            }
            let together = self.share.lock().bonded(file);
            let is_told = {
                let share = self.share.lock();
                let outbound = self.outbound.lock();
                together.iter().any(|id| {
                    outbound.asked.contains(id)
                        || share.file(*id).is_some_and(|f| !f.is_thanked() && !f.is_fresh())
                })
            };
            seen.extend(together.iter().copied());
            // All of them: this one may be gone by then, and the others wait for it.
            match before && self.options.interval.is_some() && !is_told {
                true => waits.push(together),
                false => self.cut(&together, None),
            }
        }
        waits
    }

    /// Files, and all that programs have open for writing together with them.
    fn open_with<'a>(&self, files: impl Iterator<Item = &'a FileId>) -> Vec<FileId> {
        let writers = self.writers.lock();
        let together: BTreeSet<FileId> = files.flat_map(|file| writers.group(*file)).collect();
        together.into_iter().collect()
    }

    /// Those of `files` that the peer is to hear of, and that are still known.
    fn without_what_stays(&self, share: &Share, files: Vec<FileId>) -> Vec<FileId> {
        let told = |id: &FileId| share.file(*id).is_some_and(|file| !self.stays_here(&file));
        files.into_iter().filter(told).collect()
    }

    /// These move together from here on.
    pub(super) fn bind(&self, share: &mut Share, files: &[FileId]) -> store::Result<()> {
        let files = self.without_what_stays(share, files.to_vec());
        if !share.are_bonded(&files) {
            self.commit(share, Record::Bonded { files })?;
        }
        Ok(())
    }

    /// Takes one cut of `seeds` and all that moves together with them, if there is anything to tell.
    pub(super) fn cut(&self, seeds: &[FileId], process: Option<u32>) {
        let _cutting = self.cutting.lock();
        if let Err(error) = self.try_cut(seeds, process) {
            tracing::error!("a change could not be announced and is tried again: {error}");
            // In its time, and without a word: who waits for it would hurry it again and again.
            seeds.iter().for_each(|seed| _ = self.due.add(*seed));
        }
    }

    fn try_cut(&self, seeds: &[FileId], process: Option<u32>) -> store::Result<()> {
        loop {
            let members = match self.only_receives() {
                true => self.answers(seeds),
                false => self.members(seeds)?,
            };
            let Some(members) = members else { return Ok(()) };
            let Some(session) = self.outbound.lock().may_cut(&members) else { return Ok(()) };
            let nodes: Vec<Held> = members.iter().filter_map(|id| self.node(*id)).collect();
            let datas: Vec<_> = nodes.iter().map(|n| n.data.lock()).collect();
            // A rename may have bonded more files to these before they were locked: then once more.
            if self.cut_locked(session, &members, &nodes, datas, process)? {
                return Ok(());
            }
        }
    }

    fn only_receives(&self) -> bool {
        self.options.direction.receives() && !planted(Bug::ReceiverTells)
    }

    /// Those of `seeds` that the peer has asked for and that are here as it has told them: a host that only receives tells of
    /// no others, and says so.
    fn answers(&self, seeds: &[FileId]) -> Option<BTreeSet<FileId>> {
        let share = self.share.lock();
        let mut outbound = self.outbound.lock();
        outbound.session()?;
        let asked = seeds.iter().copied().filter(|id| outbound.asked.contains(id));
        let (answers, others): (BTreeSet<FileId>, BTreeSet<FileId>) =
            asked.partition(|id| is_the_peers(&share, *id));
        others.iter().for_each(|file| _ = outbound.asked.remove(file));
        drop((share, outbound));
        others.into_iter().for_each(|file| self.tell(Message::Unknown { file }));
        (!answers.is_empty()).then_some(answers)
    }

    /// The files to cut when `seeds` are: those too that a program has open together with them, or that they are bonded with. `None` where there is
    /// nothing to tell of any.
    fn members(&self, seeds: &[FileId]) -> store::Result<Option<BTreeSet<FileId>>> {
        let mut share = self.share.lock();
        let mut members = BTreeSet::from_iter(self.without_what_stays(&share, seeds.to_vec()));
        // Who is bonded with one of them may be open together with others.
        loop {
            let together = self.without_what_stays(&share, self.open_with(members.iter()));
            let more: BTreeSet<FileId> = together.iter().flat_map(|s| share.bonded(*s)).collect();
            if more == members {
                break;
            }
            members = more;
        }
        if !members.iter().any(|id| self.tells(&share, *id)) {
            return Ok(None);
        }
        self.bind(&mut share, &Vec::from_iter(members.iter().copied()))?;
        Ok(Some(members))
    }

    /// Takes the cut of `members`, whose nodes are `nodes`, all locked, to be told in `session`. False where files
    /// outside have come to move together with them.
    fn cut_locked(
        &self,
        session: u64,
        members: &BTreeSet<FileId>,
        nodes: &[Held],
        mut datas: Vec<MutexGuard<'_, Data>>,
        process: Option<u32>,
    ) -> store::Result<bool> {
        // Attributes and descriptors, while nothing can change them.
        let mut bodies: BTreeMap<FileId, (Content, crate::model::cut::Attrs)> = BTreeMap::new();
        for (node, data) in nodes.iter().zip(&mut datas) {
            let wanted = {
                let share = self.share.lock();
                self.tells(&share, node.id) || share.file(node.id).is_some_and(|f| f.place_tag != 0)
            };
            if !wanted {
                continue;
            }
            let file = match self.data_file(node, data, false) {
                Ok(file) => file,
                // Gone behind our back.
                Err(error) if error.errno() == libc::ENOENT => continue,
                Err(error) => {
                    let source = std::io::Error::from_raw_os_error(error.errno());
                    return Err(store::Error::Io { what: "opening a file for a cut".into(), source });
                }
            };
            self.be_sure(node, &file).map_err(|source| store::Error::Io {
                what: "bringing the size of a file into line".into(),
                source: std::io::Error::from_raw_os_error(source.errno()),
            })?;
            let attrs = store::read_attrs(&file)
                .map_err(|source| store::Error::Io { what: "reading attributes for a cut".into(), source })?;
            bodies.insert(node.id, (file, attrs));
        }

        let mut share = self.share.lock();
        let locked: BTreeSet<FileId> = nodes.iter().map(|n| n.id).collect();
        let outside = |id: FileId| share.file(id).is_some() && !locked.contains(&id);
        // What only answers the peer is as the peer has it, each file by itself.
        let together = match self.only_receives() {
            true => members.iter().copied().collect(),
            false => self.without_what_stays(&share, self.open_with(members.iter())),
        };
        if together.iter().flat_map(|id| share.bonded(*id)).any(outside) {
            return Ok(false);
        }
        if self.only_receives() && !members.iter().all(|id| is_the_peers(&share, *id)) {
            return Ok(false);
        }
        if nodes.iter().any(|n| share.file(n.id).is_some_and(|f| f.unsettled && f.name.is_some())) {
            // First the peer is asked what it has.
            self.outbound.lock().waiting.extend(members);
            return Ok(true);
        }
        let mut parts = Vec::new();
        for node in nodes {
            let Some(f) = share.file(node.id) else { continue };
            // Places of bonded files always travel together: one without the others may clash.
            if !self.tells(&share, node.id) && f.place_tag == 0 {
                continue;
            }
            if !f.torn().is_empty() {
                // The rest has yet to come: the cut waits for it.
                drop(share);
                self.fetch_for_cut(node.id);
                self.outbound.lock().waiting.extend(members);
                return Ok(true);
            }
            let (announced, everything) = self.outbound.lock().told(node.id);
            let place = f.place_tag != 0 || (everything && !announced);
            // With a name goes the stamp by which it is disputed, and the content that the peer may still be fetching:
            // both are frozen.
            let body = f.name.is_some()
                && bodies.contains_key(&node.id)
                && (f.body_is_fresh() || (!announced && (f.body_tag != 0 || everything)) || place);
            // What a first announcement in this session carries: all the peer may lack.
            let news: ChunkSet = match (announced, f.is_thanked()) {
                (true, _) => f.dirty.since(f.body_cut).collect(),
                (false, true) => ChunkSet::of(0..chunk::count(f.size)),
                // Told again after the peer lost it, or never changed but in its attributes.
                (false, false) if f.dirty.is_empty() && f.body_tag != 0 => {
                    ChunkSet::of(0..chunk::count(f.size))
                }
                (false, false) => f.dirty.since(0).collect(),
            };
            parts.push((node.id, place, body, news));
        }
        if parts.is_empty() {
            return Ok(true);
        }
        // One stamp for all: wherever they are in conflict, they win or lose together. What was cut before and is told
        // once more takes it, too.
        let stamp = share.common_stamp(members, |id| bodies.get(&id).map(|b| b.1.mtime));
        let mark = |(id, _, told, _): &(FileId, bool, bool, ChunkSet)| {
            let f = share.file(*id)?;
            let (place, body) = (f.place_is_fresh(), f.body_is_fresh());
            let stamp = if body || (*told && f.body_tag != 0) { stamp } else { f.stamp };
            let mtime = bodies.get(id).map_or(stamp, |b| b.1.mtime);
            (place || body || f.stamp < stamp).then_some(CutMark { file: *id, place, body, stamp, mtime })
        };
        let marks: Vec<CutMark> = parts.iter().filter_map(mark).collect();
        let changed = marks.iter().map(|mark| mark.file).collect();
        let seq = share.header().head + 1;
        self.commit(&mut share, Record::Cut { seq, marks })?;
        {
            let mut outbound = self.outbound.lock();
            if outbound.session() != Some(session) {
                // Over meanwhile: the next one begins with it.
                return Ok(true);
            }
            // While the files are locked: an apply that finds it must tell one anew comes before or after.
            outbound.announced.extend(parts.iter().map(|p| p.0));
        }
        let writer = share.writer();
        let mut inline =
            parts.iter().filter(|p| p.2).map(|p| p.3.len()).sum::<u64>() * CHUNK <= self.options.inline_bytes;
        // Chunks not held can't be carried; who asks for them learns so.
        let held =
            |id, news: &ChunkSet| share.file(id).is_none_or(|f| !f.missing.iter().any(|r| news.overlaps(&r)));
        inline &= parts.iter().all(|p| held(p.0, &p.3));
        // Who keeps a cache only fetches of a new file what is read.
        let new = |id| share.file(id).is_some_and(|f| f.base.is_empty());
        inline &= !share.header().peer_holds_less || !parts.iter().any(|p| p.2 && new(p.0));
        // What the peer may have is better compared than sent.
        let alike = |id, news: &ChunkSet| {
            let much = |f: &FileState| likeness::is_much(news.len(), f.size);
            news.len() * CHUNK >= self.least()
                && share.file(id).is_some_and(|f| much(&f))
                && self.hints.lock().of(id).is_some()
        };
        inline &= !parts.iter().any(|p| p.2 && alike(p.0, &p.3));
        let told = |id, news: &ChunkSet| {
            share.file(id).is_none_or(|f| f.dirty.since(0).all(|r| news.gaps(&r).is_empty()))
        };
        let freezes = !inline || parts.iter().any(|p| p.1 && p.2 && !told(p.0, &p.3));
        let mut files = Vec::with_capacity(parts.len());
        let mut frozen = Vec::new();
        for (id, place, body, news) in parts {
            let f = share.file(id).expect("its data is locked and it was there");
            let place = place.then(|| Place {
                name: f.name.clone(),
                version: f.place.clone(),
                seen: f.body.clone(),
                told: f.place_cut,
            });
            let body = body.then(|| {
                let (_, attrs) = &bodies[&id];
                BodyCut {
                    version: f.body.clone(),
                    base: f.base.clone(),
                    attrs: attrs.clone(),
                    stamp: f.stamp,
                    changed: coarsen(f.dirty.changed()),
                    lacks: f.missing.clone(),
                    pieces: Vec::new(),
                    sha256: [0; 32],
                    told: f.body_cut,
                }
            });
            if let Some(body) = &body
                && freezes
            {
                frozen.push((id, body.version.clone(), body.attrs.size, f.dirty.clone()));
            }
            files.push((FileCut { file: id, place, body }, news));
        }
        drop(share);

        for (file, news) in &mut files {
            let Some(body) = file.body.as_mut().filter(|_| inline) else { continue };
            body.pieces = read_pieces(&bodies[&file.file].0, news, body.attrs.size)?;
        }
        for (id, version, size, tags) in frozen {
            let at = nodes.iter().position(|n| n.id == id).expect("it is of this cut");
            if let Some(old) = datas[at].frozen.take() {
                old.thaw(&self.budget);
            }
            let file = bodies[&id].0.clone();
            datas[at].frozen = Some(Frozen::new(id, seq, version, size, tags, file));
        }
        drop(datas);
        self.refused_changed(&changed);

        let mut cut = Cut { seq, writer, after: Vec::new(), files: Vec::new() };
        for (mut file, _) in files {
            if let Some(body) = &mut file.body {
                body.sha256 = digest(&body.pieces);
            }
            cut.files.push(file);
        }
        let flight = Flight {
            bytes: cut.inline_bytes(),
            large: freezes,
            process,
            files: cut.files.iter().map(|f| f.file).collect(),
            held: if freezes { nodes.to_vec() } else { Vec::new() },
        };
        for file in &cut.files {
            let body = file.body.as_ref().map(|b| (&b.version, b.stamp, b.attrs.size));
            tracing::debug!(seq, inline, file = %file.file, place = ?file.place, ?body, "announcing");
        }
        debug_assert_eq!(cut.check(), Ok(()), "{cut:?}");
        let mut outbound = self.outbound.lock();
        if outbound.session() == Some(session) {
            cut.after = outbound.take_off(seq, flight);
            outbound.ready.push(cut);
            drop(outbound);
        } else {
            drop(outbound);
            self.thaw(seq, flight.held);
        }
        self.moved();
        Ok(true)
    }

    fn announce_now(&self) {
        let _cutting = self.cutting.lock();
        if let Err(error) = self.announce() {
            tracing::error!("changes can't be announced: {error}");
        }
    }

    /// Announces the cuts that were taken, once they are durable. Called by who holds `cutting`.
    pub(super) fn announce(&self) -> store::Result<()> {
        let buried = std::mem::take(&mut *self.buried.lock());
        let (ready, names_count) = {
            let outbound = self.outbound.lock();
            (!outbound.ready.is_empty(), outbound.tells_of_names())
        };
        if names_count {
            // A file that the peer knows is here, though perhaps not yet all that was written into it.
            self.backing.sync_names()?;
        }
        if (ready || !buried.is_empty()) && !planted(Bug::AnnounceBeforeSync) {
            // A number that the peer knows is never forgotten here, nor that a file was unlinked.
            self.journal.sync(self.journal.end())?;
        }
        buried.iter().for_each(|one| self.tidy_grave(one));
        let ready = std::mem::take(&mut self.outbound.lock().ready);
        for cut in ready {
            self.tell_likeness(&cut);
            self.tell(Message::Announce(cut));
        }
        Ok(())
    }

    /// What the peer may have that is like what it will ask for.
    fn tell_likeness(&self, cut: &Cut) {
        let large = cut.files.iter().filter(|f| f.body.as_ref().is_some_and(|body| body.pieces.is_empty()));
        for file in large.map(|f| f.file) {
            let basis = self.hints.lock().of(file);
            basis.into_iter().for_each(|basis| self.tell(Message::Alike { file, basis }));
        }
    }

    /// Whether there is anything of `id` that the peer has not been told in this session.
    fn tells(&self, share: &Share, id: FileId) -> bool {
        let Some(f) = share.file(id) else { return false };
        let outbound = self.outbound.lock();
        let (announced, everything) = outbound.told(id);
        f.is_fresh() || (!announced && (!f.is_thanked() || everything))
    }
}

/// Whether nothing of a file was changed here, alone or with others.
fn is_the_peers(share: &Share, id: FileId) -> bool {
    let unchanged = |f: &FileState| f.name.is_some() && f.is_thanked() && !f.unsettled && f.bond.is_none();
    share.file(id).is_some_and(|f| unchanged(&f))
}

/// Joins neighbours until the list is within its limit; chunks between them travel too.
fn coarsen(mut changed: Vec<Changed>) -> Vec<Changed> {
    while changed.len() > CUT_RANGES {
        changed = changed
            .chunks(2)
            .map(|pair| Changed {
                start: pair[0].start,
                end: pair[pair.len() - 1].end,
                seq: pair.iter().map(|c| c.seq).max().unwrap_or(0),
            })
            .collect();
    }
    changed
}
