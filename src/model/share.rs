//! The share as this replica knows it: every file, every name, what the peer has of them.
//!
//! A pure state machine: [`Share::apply`] takes one journal record and is the only way to change it.
//! Invariants:
//! - `head` is the number of our last cut; a change made now is tagged `head + 1`;
//! - `fresh`, `unthanked`, `lacking` and `unsettled` are exactly the files that are so, and `totals` is what all come to.

use super::chunk::{self, ChunkSet};
use super::file::File;
use super::files::{Files, as_name};
use super::fileset::FileSet;
use super::ids::{FileId, LogPosition, ReplicaId, Seq, WriterId};
use super::message::Ack;
use super::name::Name;
use super::packed::Packed;
use super::record::{CutMark, Merge, Record, Taken, TakenBody};
use super::sabotage::{Bug, planted};
use super::totals::Totals;
use super::version::Version;
use bincode::{Decode, Encode};
use std::borrow::Cow;
use std::collections::{BTreeSet, HashMap};

#[derive(Clone, Debug)]
pub struct Share {
    header: Header,
    files: Files,
    /// Names given up that the peer may still know, and by whom.
    left: HashMap<Name, BTreeSet<FileId>>,
    bonds: HashMap<u64, BTreeSet<FileId>>,
    fresh: FileSet,
    unthanked: FileSet,
    lacking: FileSet,
    unsettled: FileSet,
    touched: FileSet,
    totals: Totals,
}

/// What the share keeps account of beside the files themselves.
#[derive(Clone, Copy, Default, PartialEq)]
struct Account {
    fresh: bool,
    unthanked: bool,
    lacking: bool,
    unsettled: bool,
    totals: Totals,
}

impl Account {
    fn of(file: &File) -> Account {
        Account {
            fresh: file.is_fresh(),
            unthanked: !file.is_thanked(),
            lacking: !file.is_whole(),
            unsettled: file.unsettled && file.name.is_some(),
            totals: Totals::of(file),
        }
    }
}

/// What is kept beside the files.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Header {
    pub replica: ReplicaId,
    pub writer: WriterId,
    pub head: Seq,
    pub next_file: u64,
    pub next_bond: u64,
    pub peer: Option<ReplicaId>,
    /// How far we have followed the peer's log.
    pub followed: Option<LogPosition>,
    /// Our last cut that told everything again; 0 for none.
    pub parted: Seq,
    /// How far the peer said it has followed ours: less, later, means that it lost something.
    pub heard: Option<LogPosition>,
    /// Writers this replica was before.
    pub past: Vec<WriterId>,
    /// The peer may have acknowledged what it does not hold: it keeps a cache only, or did, and has not all of it yet.
    pub peer_holds_less: bool,
    /// The peer knows that this host keeps a cache only, and holds everything: what it has may go from here.
    pub may_evict: bool,
}

/// A share as a checkpoint recorded it, while its files come in.
pub struct Restoring(Share);

impl Restoring {
    pub fn new(header: Header) -> Restoring {
        Restoring(Share::empty(header))
    }

    /// Each file comes once.
    pub fn file(&mut self, id: FileId, file: File) {
        let Restoring(share) = self;
        for name in &file.left {
            share.left.entry(name.clone()).or_default().insert(id);
        }
        if let Some(bond) = file.bond {
            share.bonds.entry(bond).or_default().insert(id);
        }
        share.reckon(id, Account::default(), Account::of(&file));
        share.files.restore(id, file);
    }

    pub fn finish(self) -> Share {
        let Restoring(mut share) = self;
        share.files.index();
        share
    }
}

impl Share {
    pub fn new(replica: ReplicaId, writer: WriterId) -> Share {
        let header = Header {
            replica,
            writer,
            head: 0,
            next_file: 1,
            next_bond: 1,
            peer: None,
            followed: None,
            parted: 0,
            heard: None,
            past: Vec::new(),
            peer_holds_less: false,
            may_evict: false,
        };
        Share::empty(header)
    }

    fn empty(header: Header) -> Share {
        Share {
            header,
            files: Files::default(),
            left: HashMap::new(),
            bonds: HashMap::new(),
            fresh: FileSet::new(),
            unthanked: FileSet::new(),
            lacking: FileSet::new(),
            unsettled: FileSet::new(),
            touched: FileSet::new(),
            totals: Totals::default(),
        }
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    pub fn writer(&self) -> WriterId {
        self.header.writer
    }

    pub fn file(&self, id: FileId) -> Option<Cow<'_, File>> {
        self.files.get(id)
    }

    /// A file as it is now, in few bytes.
    pub fn packed(&self, id: FileId) -> Option<Packed> {
        self.files.packed(id)
    }

    pub fn has(&self, id: FileId) -> bool {
        self.files.contains(id)
    }

    /// All files, in no order.
    pub fn files(&self) -> impl Iterator<Item = (FileId, Cow<'_, File>)> {
        self.files.iter()
    }

    /// The ids of all files, in no order.
    pub fn ids(&self) -> impl Iterator<Item = FileId> + '_ {
        self.files.ids()
    }

    pub fn named(&self, name: &Name) -> Option<FileId> {
        self.files.named(name)
    }

    /// The file of that name.
    pub fn find_named(&self, name: &Name) -> Option<(FileId, Cow<'_, File>)> {
        self.files.find_named(name)
    }

    /// Files whose content is not all here, in order.
    pub fn partial(&self) -> Vec<FileId> {
        in_order(self.files.partial())
    }

    /// Files of which something is kept from before they were changed, in order.
    pub fn keeping_before(&self) -> Vec<FileId> {
        in_order(self.files.keeping_before())
    }

    /// As [`Share::ids`], in order.
    pub fn ids_in_order(&self) -> Vec<FileId> {
        in_order(self.ids())
    }

    /// What a file is called, where it has a name.
    pub fn name(&self, id: FileId) -> Option<Name> {
        self.files.name(id).map(as_name)
    }

    /// All names, in no order.
    pub fn names(&self) -> impl Iterator<Item = (Name, FileId)> {
        self.files.names().map(|(name, id)| (as_name(name), id))
    }

    pub fn totals(&self) -> &Totals {
        &self.totals
    }

    /// The inode number of a file under the mount: the same after every restart.
    pub fn ino(&self, id: FileId) -> u64 {
        if let Some(ino) = self.files.ino(id) {
            return ino;
        }
        let mut ino = id.usual_ino();
        // Two files of one hash: the later one takes the next free number.
        while self.by_ino(ino).is_some_and(|other| other != id) {
            ino += 1;
        }
        ino
    }

    pub fn by_ino(&self, ino: u64) -> Option<FileId> {
        self.files.by_ino(ino)
    }

    pub fn fresh(&self) -> &FileSet {
        &self.fresh
    }

    pub fn unthanked(&self) -> &FileSet {
        &self.unthanked
    }

    pub fn lacking(&self) -> &FileSet {
        &self.lacking
    }

    /// Files to be compared with the peer; see [`File::unsettled`].
    pub fn unsettled(&self) -> &FileSet {
        &self.unsettled
    }

    /// The number of our last cut that `version` includes, whoever we were then.
    pub fn ours_in(&self, version: &Version) -> Seq {
        self.us().into_iter().map(|writer| version.get(writer)).max().unwrap_or(0)
    }

    /// All writers that this replica was or is.
    pub fn us(&self) -> Vec<WriterId> {
        self.header.past.iter().chain([&self.header.writer]).copied().collect()
    }

    /// The files that move together with `id`, itself included.
    pub fn bonded(&self, id: FileId) -> Vec<FileId> {
        match self.bond_of(id).and_then(|b| self.bonds.get(&b)) {
            Some(members) => members.iter().copied().collect(),
            None => vec![id],
        }
    }

    fn bond_of(&self, id: FileId) -> Option<u64> {
        if self.bonds.is_empty() { None } else { self.files.get(id)?.bond }
    }

    /// Whether these all move together.
    pub fn are_bonded(&self, files: &[FileId]) -> bool {
        let bond = |id: &FileId| self.bond_of(*id);
        files.len() < 2 || (bond(&files[0]).is_some() && files.iter().all(|id| bond(id) == bond(&files[0])))
    }

    /// The stamp that `files` bear when they are cut together: the latest of those whose content the peer lacks.
    /// `mtime` says when a fresh one was last modified.
    pub fn common_stamp<'a>(
        &self,
        files: impl IntoIterator<Item = &'a FileId>,
        mtime: impl Fn(FileId) -> Option<i64>,
    ) -> i64 {
        let stamp = |id: &FileId| {
            let f = self.files.get(*id).filter(|f| f.name.is_some() && f.body_tag != 0)?;
            Some(match mtime(*id) {
                Some(mtime) if f.body_is_fresh() => f.next_stamp(mtime),
                _ => f.stamp,
            })
        };
        files.into_iter().filter_map(stamp).max().unwrap_or(0)
    }

    /// The id that the next file made here takes.
    pub fn next_file(&self) -> FileId {
        FileId { writer: self.header.writer, counter: self.header.next_file }
    }

    /// The files changed since the last call, for the checkpoint.
    pub fn take_touched(&mut self) -> FileSet {
        std::mem::take(&mut self.touched)
    }

    /// Takes back what [`Share::take_touched`] gave, where the checkpoint failed.
    pub fn put_back(&mut self, touched: impl IntoIterator<Item = FileId>) {
        self.touched.extend(touched);
    }

    /// The files changed since then, without taking note.
    pub fn touched_now(&self) -> &FileSet {
        &self.touched
    }

    /// Notes when the disk's inode was last seen as it is, and its times; `None` where that is not known. Part of
    /// a checkpoint, not of the journal.
    pub fn record_times(&mut self, id: FileId, seen: Option<(u64, (i64, i64))>) {
        if let Some(file) = self.files.wake(id) {
            file.recorded = seen.map(|(_, times)| times);
            file.disk = seen.map_or(file.disk, |(disk, _)| disk);
        }
    }

    /// Changes the share as `record` says. Never fails: a record that speaks of a file that is gone
    /// does nothing.
    pub fn apply(&mut self, record: &Record) {
        let tag = self.header.head + 1;
        match record {
            Record::Began { writer } => self.begin(*writer),
            Record::Parted { seq } => self.part(*seq),
            Record::Known { files } => files.iter().for_each(|id| self.know(*id)),
            Record::Merged { files } => files.iter().for_each(|merge| self.merge(merge, tag)),
            Record::Stamped { file, stamp } => self.change(*file, |f| f.stamp = *stamp),
            Record::Met { peer, ours, theirs } => {
                self.header.peer = Some(*peer);
                (self.header.followed, self.header.heard) = (Some(*theirs), Some(*ours));
            }
            Record::Heard { since } => self.header.heard = Some(*since),
            Record::Created { file, name, size, disk } => self.create(*file, name, *size, *disk),
            Record::Moved { moves } => self.rename(moves, tag),
            Record::Wrote { file, chunks, size } => self.change(*file, |f| f.wrote(chunks, *size, tag)),
            Record::Scrapped { file, bytes, size } => self.change(*file, |f| f.scrapped(bytes, *size, tag)),
            Record::Resized { file, size } => self.change(*file, |f| f.resize(*size, tag)),
            Record::Touched { file, attrs } => self.change(*file, |f| f.touched(tag, *attrs)),
            Record::Bonded { files } => self.bond(files),
            Record::Cut { seq, marks } => self.cut(*seq, marks),
            Record::Thanked { acks } => {
                acks.iter().for_each(|ack| self.thank(ack));
                self.heard_of(acks.iter().map(|ack| ack.place.max(ack.body)).max().unwrap_or(0));
            }
            Record::Took { from, files, copies, revived } => {
                copies.iter().for_each(|copy| self.create(copy.file, &copy.name, copy.size, copy.disk));
                self.take(*from, files);
                revived.iter().for_each(|id| self.revive(*id, tag));
            }
            Record::Present { file, chunks } => {
                self.change(*file, |f| chunks.iter().for_each(|range| f.hold(&range)));
            }
            Record::Redo { .. } => {}
            Record::Forgotten { file } => self.forget(*file),
            Record::Absent { file } => self.change(*file, File::lose),
            Record::Published { file } => self.change(*file, |f| f.partial = false),
            Record::Unsettled { file, size, disk, shaky } => self.change(*file, |f| {
                f.found(*size, shaky);
                (f.disk, f.unsettled) = (*disk, true);
            }),
            Record::Adopted { file, size, apart } => self.change(*file, |f| f.adopt(*size, tag, *apart)),
            Record::Withdrawn { file } => self.change(*file, |f| f.partial = true),
            Record::Evicted { file, chunks } => {
                self.change(*file, |f| f.missing.extend(chunks));
            }
            Record::KeptBefore { file, chunks } => self.change(*file, |f| f.kept_before(chunks, tag)),
            Record::DroppedBefore { file } => self.change(*file, |f| f.before = Default::default()),
            Record::Pinned { file, pinned } => self.change(*file, |f| f.pinned = *pinned),
            Record::MayEvict { may } => self.header.may_evict = *may,
            Record::PeerHoldsLess { less } => self.header.peer_holds_less = *less,
            Record::Durable { .. } | Record::Synced { .. } => {}
            Record::Lies { file, disk } => self.change(*file, |f| f.disk = *disk),
        }
    }

    /// What of the invariants does not hold, if anything: every index says what the files say, and every
    /// file is sound in itself. Looks at everything.
    pub fn check(&self) -> Result<(), String> {
        self.files.check()?;
        let holds_member = |bond: &u64, id: &FileId| self.bonds.get(bond).is_some_and(|ids| ids.contains(id));
        let mut totals = Totals::default();
        for (id, file) in self.files() {
            file.check().map_err(|what| format!("{id}: {what}: {file:?}"))?;
            totals += Totals::of(&file);
            let indexes = [
                (self.fresh.contains(id) == file.is_fresh(), "it is fresh, or is held to be"),
                (self.unthanked.contains(id) != file.is_thanked(), "it is unthanked, or is held to be"),
                (self.lacking.contains(id) != file.is_whole(), "it lacks content, or is held to"),
                (
                    self.unsettled.contains(id) == (file.unsettled && file.name.is_some()),
                    "it is unsettled, or is held to be",
                ),
                (
                    file.left.iter().all(|n| self.left.get(n).is_some_and(|l| l.contains(&id))),
                    "a name it left is forgotten",
                ),
                (file.bond.iter().all(|b| holds_member(b, &id)), "it is not of its own bond"),
            ];
            if let Some((_, what)) = indexes.into_iter().find(|(holds, _)| !holds) {
                return Err(format!("{id}: {what}: {file:?}"));
            }
        }
        if totals != self.totals {
            return Err(format!("all come to {totals:?}, and are held to come to {:?}", self.totals));
        }
        let holds = |id: &FileId, is: &dyn Fn(&File) -> bool| self.files.get(*id).is_some_and(|f| is(&f));
        let members = self.bonds.iter().flat_map(|(bond, ids)| ids.iter().map(move |id| (bond, id)));
        let counts = [
            (
                self.left.iter().all(|(n, ids)| ids.iter().all(|id| holds(id, &|f| f.left.contains(n)))),
                "a name that was left",
            ),
            (members.into_iter().all(|(bond, id)| holds(id, &|f| f.bond == Some(*bond))), "a bond"),
            (self.fresh.iter().all(|id| self.has(id)), "a fresh file"),
            (self.unthanked.iter().all(|id| self.has(id)), "an unthanked file"),
            (self.lacking.iter().all(|id| self.has(id)), "a file that lacks content"),
            (self.unsettled.iter().all(|id| self.has(id)), "an unsettled file"),
        ];
        match counts.into_iter().find(|(holds, _)| !holds) {
            Some((_, what)) => Err(format!("{what} without its file")),
            None => Ok(()),
        }
    }

    /// The peer may have nothing of ours any more.
    fn part(&mut self, seq: Seq) {
        (self.header.head, self.header.parted) = (seq, seq);
        (self.header.followed, self.header.heard) = (None, None);
        let ids: Vec<FileId> = self.files.ids().collect();
        ids.into_iter().for_each(|id| self.change(id, |f| f.retell(seq)));
    }

    /// The peer has it after all.
    fn know(&mut self, id: FileId) {
        let parted = self.header.parted;
        if self.files.get(id).is_some_and(|f| f.place_tag == parted) {
            self.clear_left(id);
        }
        self.change(id, |f| f.known(parted));
    }

    /// Nobody else may have this file under its old id.
    fn merge(&mut self, merge: &Merge, tag: Seq) {
        let Some(mut file) = self.files.get(merge.file).map(Cow::into_owned) else { return };
        self.forget(merge.file);
        file.merge(&Version::default().with(merge.into.writer, 1), merge.attrs, tag);
        self.insert(merge.into, file);
    }

    /// Whether a peer that has followed our log up to `since` may lack what it once had: it never met us,
    /// or it has lost something.
    pub fn must_begin_anew(&self, since: Option<LogPosition>) -> bool {
        let Some(since) = since else { return true };
        let ours = since.writer == self.header.writer || self.header.past.contains(&since.writer);
        let back = self.header.heard.is_some_and(|h| h.writer == since.writer && h.seq > since.seq);
        !ours || back
    }

    /// Every cut of the old writer that anybody heard of is known here, and stays as it was told.
    fn begin(&mut self, writer: WriterId) {
        self.header.past.push(self.header.writer);
        self.header.writer = writer;
        self.header.next_file = 1;
    }

    fn create(&mut self, id: FileId, name: &Name, size: u64, disk: u64) {
        let tag = self.header.head + 1;
        if id.writer == self.header.writer {
            self.header.next_file = self.header.next_file.max(id.counter + 1);
        }
        let mut file = File { disk, size, body_tag: tag, ..File::default() };
        file.dirty.mark(0..chunk::count(size), tag);
        self.insert(id, file);
        self.rename(&[(id, Some(name.clone()))], tag);
    }

    fn rename(&mut self, moves: &[(FileId, Option<Name>)], tag: Seq) {
        for &(id, _) in moves {
            let Some(name) = self.set_name(id, None) else { continue };
            let leaves = |f: &File| !f.is_untold() && !f.left.contains(&name);
            if self.files.get(id).is_some_and(|f| leaves(&f)) && !planted(Bug::ForgetLeft) {
                self.change(id, |f| f.left.push(name.clone()));
                self.left.entry(name).or_default().insert(id);
            }
        }
        for (id, name) in moves {
            self.set_name(*id, name.clone());
            let mut untold = false;
            self.change(*id, |f| {
                f.place_tag = tag;
                untold = f.is_untold();
                if name.is_none() {
                    f.body_tag = 0;
                    f.dirty = Default::default();
                }
            });
            match name {
                // The peer may still see other files here: it must hear of all at once.
                Some(name) => {
                    if let Some(others) = self.left.get(name).filter(|_| self.has(*id)) {
                        let others = others.iter().filter(|other| *other != id);
                        let all: Vec<FileId> = others.chain([id]).copied().collect();
                        self.bond(&all);
                    }
                }
                None if untold => self.forget(*id),
                None => {}
            }
        }
        if moves.len() > 1 {
            let alive: Vec<FileId> = moves.iter().map(|m| m.0).filter(|id| self.has(*id)).collect();
            self.bond(&alive);
        }
    }

    fn bond(&mut self, files: &[FileId]) {
        let known: Vec<FileId> = files.iter().copied().filter(|id| self.has(*id)).collect();
        if known.len() < 2 {
            return;
        }
        let bond = known.iter().find_map(|id| self.bond_of(*id)).unwrap_or_else(|| {
            self.header.next_bond += 1;
            self.header.next_bond - 1
        });
        for id in known {
            let members = match self.bond_of(id) {
                Some(old) if old == bond => continue,
                Some(old) => self.bonds.remove(&old).unwrap_or_default(),
                None => BTreeSet::from([id]),
            };
            for member in members {
                self.change(member, |f| f.bond = Some(bond));
                self.bonds.entry(bond).or_default().insert(member);
            }
        }
    }

    /// A bond is over when the peer has everything of all its files.
    fn unbond(&mut self, bond: u64) {
        let Some(members) = self.bonds.get(&bond) else { return };
        if members.iter().all(|id| !self.unthanked.contains(*id)) {
            for id in self.bonds.remove(&bond).expect("just seen") {
                self.change(id, |f| f.bond = None);
            }
        }
    }

    fn cut(&mut self, seq: Seq, marks: &[CutMark]) {
        self.header.head = seq;
        let writer = self.header.writer;
        for mark in marks {
            self.change(mark.file, |f| {
                if mark.place {
                    f.place = f.place.with(writer, seq);
                    f.place_cut = seq;
                }
                if mark.body {
                    f.body = f.body.with(writer, seq);
                    f.body_cut = seq;
                    (f.stamp, f.mtime) = (mark.stamp, Some(mark.mtime));
                } else if f.body_tag != 0 {
                    // Told once more, with what it belongs to: the same version under a later stamp.
                    f.stamp = f.stamp.max(mark.stamp);
                }
            });
        }
    }

    fn thank(&mut self, ack: &Ack) {
        let (us, parted) = (self.us(), self.header.parted);
        let (mut arrived, mut gone, mut bond) = (false, false, None);
        self.change(ack.file, |file| {
            bond = file.bond;
            if ack.body != 0 {
                // What was told again bore the number of that cut, not of the version.
                let acked = match ack.body == parted {
                    true if file.body_cut == ack.body => {
                        us.iter().map(|w| file.body.get(*w)).max().unwrap_or(0)
                    }
                    true => 0,
                    false => ack.body,
                };
                file.thank_body(ack.body, acked);
            }
            if file.place_tag != 0 && file.place_tag <= ack.place {
                (file.place_tag, arrived) = (0, true);
            }
            gone = file.name.is_none() && file.place_tag == 0;
        });
        if arrived {
            self.clear_left(ack.file);
        }
        if gone {
            self.forget(ack.file);
        }
        if let Some(bond) = bond {
            self.unbond(bond);
        }
    }

    /// The peer has followed our log up to `seq` at least.
    fn heard_of(&mut self, seq: Seq) {
        let writer = self.header.writer;
        if self.header.heard.is_none_or(|h| h.writer != writer || h.seq < seq) && seq > 0 {
            self.header.heard = Some(LogPosition { writer, seq });
        }
    }

    fn clear_left(&mut self, id: FileId) {
        if self.left.is_empty() {
            return;
        }
        let mut left = Vec::new();
        self.change(id, |f| left = std::mem::take(&mut f.left));
        self.unleave(id, &left);
    }

    /// The peer no longer sees `id` under `names`.
    fn unleave(&mut self, id: FileId, names: &[Name]) {
        for name in names {
            if let Some(ids) = self.left.get_mut(name) {
                ids.remove(&id);
                if ids.is_empty() {
                    self.left.remove(name);
                }
            }
        }
    }

    fn take(&mut self, from: LogPosition, files: &[Taken]) {
        let tag = self.header.head + 1;
        self.header.followed = match self.header.followed {
            Some(old) if old.writer == from.writer && old.seq > from.seq => Some(old),
            _ => Some(from),
        };
        for taken in files.iter().filter(|t| t.place.is_some()) {
            self.set_name(taken.file, None);
        }
        for taken in files {
            if !self.has(taken.file) {
                match (&taken.place, &taken.body) {
                    (Some(place), Some(_)) if place.name.is_some() => {}
                    _ => continue,
                }
                self.insert(taken.file, File::default());
            }
            if let Some(place) = &taken.place {
                self.clear_left(taken.file);
                self.set_name(taken.file, place.name.clone());
                self.change(taken.file, |f| {
                    f.place = place.version.clone();
                    f.place_tag = 0;
                });
                if place.name.is_none() {
                    self.forget(taken.file);
                    continue;
                }
            }
            if let Some(body) = &taken.body {
                let ours = self.ours_in(&body.version);
                self.change(taken.file, |f| take_body(f, body, ours, tag));
            }
            self.touched.insert(taken.file);
            if let Some(bond) = self.bond_of(taken.file) {
                self.unbond(bond);
            }
        }
    }

    /// The peer unlinked it, and is told that it is there all the same.
    fn revive(&mut self, id: FileId, tag: Seq) {
        let Some(file) = self.files.get(id) else { return };
        let (name, size) = (file.name.clone(), file.size);
        let held: ChunkSet = file.missing.gaps(&(0..chunk::count(size))).into_iter().collect();
        drop(file);
        self.rename(&[(id, name)], tag);
        self.change(id, |f| {
            f.wrote(&held, size, tag);
            // Nobody else has it any more.
            f.unsettled = false;
        });
    }

    fn forget(&mut self, id: FileId) {
        let Some(file) = self.files.remove(id) else { return };
        self.unleave(id, &file.left);
        self.account(id, Account::of(&file), Account::default());
        if let Some(bond) = file.bond {
            if let Some(members) = self.bonds.get_mut(&bond) {
                members.remove(&id);
            }
            self.unbond(bond);
        }
    }

    fn insert(&mut self, id: FileId, file: File) {
        self.put(id, file);
        self.touched.insert(id);
    }

    fn put(&mut self, id: FileId, mut file: File) {
        if file.ino == 0 {
            file.ino = self.ino(id);
        }
        let before = self.files.get(id).map(|f| Account::of(&f)).unwrap_or_default();
        let after = Account::of(&file);
        self.files.insert(id, file);
        self.reckon(id, before, after);
    }

    /// Changes a file, but for its name.
    fn change(&mut self, id: FileId, change: impl FnOnce(&mut File)) {
        let Some(file) = self.files.wake(id) else { return };
        let before = Account::of(file);
        change(file);
        debug_assert!(file.dirty.since(0).all(|r| r.end <= chunk::count(file.size)), "{file:?}");
        let after = Account::of(file);
        self.account(id, before, after);
    }

    /// Gives a file another name, or none; returns the one that it had.
    fn set_name(&mut self, id: FileId, name: Option<Name>) -> Option<Name> {
        let before = Account::of(self.files.wake(id)?);
        let had = self.files.rename(id, name);
        let after = Account::of(self.files.wake(id)?);
        self.account(id, before, after);
        had
    }

    /// Notes that a file was changed.
    fn account(&mut self, id: FileId, before: Account, after: Account) {
        self.touched.insert(id);
        self.reckon(id, before, after);
    }

    fn reckon(&mut self, id: FileId, before: Account, after: Account) {
        if before != after {
            self.fresh.set(id, after.fresh);
            self.unthanked.set(id, after.unthanked);
            self.lacking.set(id, after.lacking);
            self.unsettled.set(id, after.unsettled);
            self.totals -= before.totals;
            self.totals += after.totals;
        }
    }
}

fn in_order(ids: impl Iterator<Item = FileId>) -> Vec<FileId> {
    let mut ids: Vec<FileId> = ids.collect();
    ids.sort_unstable();
    ids
}

/// The body is the peer's now, which includes our cuts up to `ours`; what stays ours counts as changed at `tag`.
fn take_body(file: &mut File, body: &TakenBody, ours: Seq, tag: Seq) {
    file.mtime = Some(body.mtime);
    if let Some(agreed) = body.agreed {
        file.set_size(body.size);
        body.changed.iter().for_each(|range| file.hold(&range));
        file.missing.extend(&body.missing);
        file.partial = body.partial;
        file.agree(&body.version, agreed.size, agreed.seq, tag);
        return;
    }
    let unsettled = std::mem::take(&mut file.unsettled);
    (file.size_tag, file.attrs_tag) = (0, 0);
    file.body = body.version.clone();
    file.stamp = body.stamp;
    file.owed = body.owed;
    file.disk = body.disk;
    file.partial = body.partial;
    for range in body.changed.iter() {
        file.dirty.clear(range.clone());
        file.before.clear(range.clone());
        file.hold(&range);
    }
    file.set_size(body.size);
    file.missing.extend(&body.missing);
    if body.yielded {
        file.dirty = Default::default();
    }
    if file.dirty.is_empty() && (body.yielded || unsettled || file.body_tag <= ours) {
        file.settle();
        // A cut of ours that gave way is none of it: who is told of it later on would acknowledge that as well.
        file.body_cut = file.body_cut.min(ours);
    }
}

/// A set of whole chunks for a file of `size` bytes.
pub fn all_chunks(size: u64) -> ChunkSet {
    ChunkSet::of(0..chunk::count(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    /// A new file of that name.
    fn made(share: &mut Share, text: &str) -> FileId {
        let file = share.next_file();
        share.apply(&Record::Created { file, name: name(text), size: 0, disk: 1 });
        file
    }

    fn told(share: &mut Share) {
        let mark = |file| CutMark { file, place: true, body: true, stamp: 0, mtime: 0 };
        let marks = share.fresh().iter().map(mark).collect();
        share.apply(&Record::Cut { seq: share.header().head + 1, marks });
    }

    fn renamed(share: &mut Share, file: FileId, to: &str) {
        share.apply(&Record::Moved { moves: vec![(file, Some(name(to)))] });
    }

    #[test]
    fn a_new_file_moves_together_with_all_that_the_peer_may_still_see_under_its_name() {
        let mut share = Share::new(ReplicaId(1), WriterId(1));
        let first = made(&mut share, "a");
        told(&mut share);
        renamed(&mut share, first, "b");
        let second = made(&mut share, "a");
        told(&mut share);
        renamed(&mut share, second, "c");
        told(&mut share);
        // The peer has the second file where it is now, and not yet the first.
        let seq = share.header().head;
        share.apply(&Record::Thanked { acks: vec![Ack { file: second, place: seq, body: seq }] });
        let third = made(&mut share, "a");
        assert!(share.bonded(third).contains(&first));
        assert_eq!(share.check(), Ok(()));
    }

    #[test]
    fn what_gave_way_is_not_acknowledged_with_what_took_its_place() {
        let mut share = Share::new(ReplicaId(1), WriterId(1));
        let file = made(&mut share, "a");
        told(&mut share);
        let first = share.header().head;
        share.apply(&Record::Thanked { acks: vec![Ack { file, place: first, body: first }] });
        share.apply(&Record::Wrote { file, chunks: ChunkSet::of(0..1), size: 500 });
        told(&mut share);
        let theirs = share.file(file).unwrap().base.with(WriterId(2), 7);
        let body = TakenBody {
            version: theirs.clone(),
            stamp: 1,
            mtime: 1,
            size: 500,
            changed: ChunkSet::of(0..1),
            missing: ChunkSet::new(),
            owed: 0,
            yielded: true,
            agreed: None,
            partial: false,
            disk: 1,
        };
        let files = vec![Taken { file, place: None, body: Some(body) }];
        let from = LogPosition { writer: WriterId(2), seq: 7 };
        share.apply(&Record::Took { from, files, copies: Vec::new(), revived: Vec::new() });
        // Told once more, with its name, and acknowledged.
        let told = share.file(file).unwrap().body_cut;
        share.apply(&Record::Thanked { acks: vec![Ack { file, place: 0, body: told }] });
        let file = share.file(file).unwrap();
        assert_eq!((&file.body, file.is_thanked()), (&theirs, true));
        assert_eq!(
            file.body_acked,
            share.ours_in(&file.body),
            "what it now is has been acknowledged, and no more"
        );
    }

    #[test]
    fn what_a_restart_restores_is_sound() {
        let mut share = Share::new(ReplicaId(1), WriterId(1));
        let file = made(&mut share, "a");
        told(&mut share);
        renamed(&mut share, file, "b");
        made(&mut share, "a");
        let mut restored = Restoring::new(share.header().clone());
        share.files().for_each(|(id, file)| restored.file(id, file.into_owned()));
        let restored = restored.finish();
        assert_eq!(restored.check(), Ok(()));
        assert_eq!((restored.file(file), restored.totals()), (share.file(file), share.totals()));
    }
}
