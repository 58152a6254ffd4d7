//! From what lies on the disk to a share that can be served: after a clean end, a crash, or a life
//! without syncfs.
//!
//! Order: metadata, journal, the directory brought into line with them, what changed behind our back
//! adopted. Cuts whose apply was cut short are handed back to be applied again.
//!
//! Invariants: nothing is deleted because something is missing; a name that is missing here comes back
//! from the peer; content that is found changed is an edit.

use super::error::Error;
use super::location::location;
use super::metadata::Stored;
use super::pending::Redo;
use super::pieces;
use crate::model::chunk::{self, ChunkSet};
use crate::model::codec;
use crate::model::file::File;
use crate::model::ids::{FileId, Seq, WriterId};
use crate::model::name::Name;
use crate::model::record::{Record, Taken};
use crate::model::sabotage::{Bug, planted};
use crate::model::share::Share;
use crate::store::{self, At, Backing, Identity, Journal, Lsn, MetaStore, Opened, Random, Site, Stamp};
use rustix::fs::RenameFlags;
use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Recovered {
    pub backing: Backing,
    pub journal: Journal,
    pub meta: Box<dyn MetaStore>,
    pub identity: Identity,
    pub machine_boot: String,
    pub random: Random,
    pub share: Share,
    /// Cuts to be applied again.
    pub redo: Vec<Redo>,
    /// Names under which these may have left something that nobody knows.
    pub half_done: BTreeSet<Name>,
    pub left_alone: usize,
}

/// A writer that nobody was before.
pub(super) fn new_writer(random: &mut Random) -> WriterId {
    WriterId(random() as u64)
}

/// How the last daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Never,
    Clean,
    /// Killed: the page cache, and with it every write, is intact.
    Killed,
    /// The machine went down: only what was synced is certain.
    Lost,
}

pub(super) fn open(site: Site) -> Result<Recovered, Error> {
    let Site { disk, mut meta, opened, boot: machine_boot, mut random } = site;
    let identity = store::load_or_create(&*disk, &mut random)?;
    let backing = Backing::new(disk.clone());
    let (journal, records) = Journal::open(disk)?;

    let stored = meta.load()?;
    let header: Option<Stored> = match &stored.header {
        Some(bytes) => Some(codec::decode_own(bytes).map_err(|_| Error::Unreadable("the metadata store"))?),
        None => None,
    };
    let end = match &header {
        None => End::Never,
        Some(h) if h.clean => End::Clean,
        Some(h) if h.machine_boot == machine_boot => End::Killed,
        Some(_) => End::Lost,
    };
    if matches!(opened, Opened::Rebuilt) {
        tracing::warn!("the metadata store was damaged and is built anew; nothing is deleted for it");
    }
    let mut share = match header {
        Some(stored_header) => {
            let mut files = Vec::with_capacity(stored.files.len());
            for (id, bytes) in &stored.files {
                let file: File =
                    codec::decode_own(bytes).map_err(|_| Error::Unreadable("the metadata store"))?;
                files.push((*id, file));
            }
            Share::restore(stored_header.header, files)
        }
        // Without metadata the journal's tail would be applied to nothing: all is adopted anew.
        None if planted(Bug::ReuseWriter) => {
            Share::new(identity.replica, WriterId(identity.replica.0 as u64))
        }
        None => Share::new(identity.replica, new_writer(&mut random)),
    };
    let replayed = match end {
        End::Never => Replayed::default(),
        _ => replay(&mut share, &records, stored.lsn, end)?,
    };

    // What the journal tells of a file since the checkpoint explains why it looks different now.
    let explained: BTreeSet<FileId> = share.touched_now().into_iter().collect();
    let suspects = replayed.suspects;
    let mut work = Work { backing: &backing, journal: &journal, share: &mut share, end, explained, suspects };
    if end == End::Lost {
        // What the old writer counted last may be forgotten; its numbers are never used again.
        work.commit(Record::Began { writer: new_writer(&mut random) })?;
    }
    let redo = replayed.redo;
    let mut redone: BTreeSet<FileId> = redo.iter().flat_map(|r| r.cut.files.iter().map(|f| f.file)).collect();
    // New files of theirs may be on the disk already. What somebody here had made under such a name is in the
    // journal, but for a file whose creation was under way when all ended.
    let half_done: BTreeSet<Name> =
        redo.iter().flat_map(|r| &r.cut.files).filter_map(|f| f.place.as_ref()?.name.clone()).collect();
    redone.extend(work.rewrite(&replayed.undurable)?);
    let left_alone = work.line_up(&redone, &half_done)?;
    Ok(Recovered {
        backing,
        journal,
        meta,
        identity,
        machine_boot,
        random,
        share,
        redo,
        half_done,
        left_alone,
    })
}

/// What the journal's tail came to, beside the share.
#[derive(Default)]
struct Replayed {
    /// Cuts of the peer whose apply was cut short.
    redo: Vec<Redo>,
    /// After power loss: cuts that were applied, but perhaps not to the disk.
    undurable: Vec<(Redo, Vec<Taken>)>,
    /// After power loss: files that were being changed here.
    suspects: BTreeSet<FileId>,
}

/// Applies the journal's records that the metadata store has not seen.
fn replay(share: &mut Share, records: &[(Lsn, Vec<u8>)], after: Lsn, end: End) -> Result<Replayed, Error> {
    // Cuts of the peer, with what they did where that is known.
    type Taking = (Redo, Option<Vec<Taken>>);
    let mut redo: BTreeMap<(WriterId, Seq), Taking> = BTreeMap::new();
    // Who was dirty could be written to without a record.
    let mut suspects: BTreeSet<FileId> =
        share.files().filter(|(_, f)| f.body_tag != 0).map(|f| f.0).collect();
    for (_, bytes) in records.iter().filter(|r| r.0 > after) {
        let record: Record = codec::decode_own(bytes).map_err(|_| Error::Unreadable("the journal"))?;
        tracing::debug!(?record, "replaying");
        match &record {
            Record::Wrote { file, .. }
            | Record::Scrapped { file, .. }
            | Record::Resized { file, .. }
            | Record::Touched { file }
            | Record::Adopted { file, .. }
            | Record::Created { file, .. } => drop(suspects.insert(*file)),
            _ => {}
        }
        if let Record::Wrote { file, chunks, .. } = &record {
            // What was changed here since must not be written over.
            let bodies = redo.values_mut().filter_map(|r| r.1.as_mut()).flatten().filter(|t| t.file == *file);
            bodies.filter_map(|t| t.body.as_mut()).for_each(|b| b.changed.subtract(chunks));
        }
        match record {
            Record::Redo { cut, staged } => {
                let key = (cut.writer, cut.seq);
                redo.insert(key, (Redo { cut: *cut, staged }, None));
            }
            Record::Took { from, ref files } => {
                share.apply(&record);
                if let Some(redo) = redo.get_mut(&(from.writer, from.seq)) {
                    redo.1 = Some(files.clone());
                }
            }
            Record::Durable { ref cuts } => {
                let done = redo.extract_if(.., |key, redo| cuts.contains(&key.1) && redo.1.is_some());
                let taken: Vec<Taken> = done.filter_map(|(_, redo)| redo.1).flatten().collect();
                for taken in taken.iter().filter(|t| t.body.is_some()) {
                    // Synced as a whole; changed again, it has a durable record.
                    if share.file(taken.file).is_some_and(|f| f.body_tag == 0) {
                        suspects.remove(&taken.file);
                    }
                }
            }
            // After a loss the delivered bytes themselves may be gone: they are fetched again, ...
            Record::Present { .. } if end == End::Lost => {}
            // ... but for those that were synced to be put under their name.
            Record::Published { file } if end == End::Lost => {
                let size = share.file(file).map_or(0, |f| f.size);
                share.apply(&Record::Present { file, chunks: ChunkSet::of(0..chunk::count(size)) });
                share.apply(&record);
            }
            record => share.apply(&record),
        }
    }
    let mut replayed = Replayed { suspects, ..Replayed::default() };
    for (redo, taken) in redo.into_values() {
        match taken {
            None => replayed.redo.push(redo),
            Some(taken) if end == End::Lost => replayed.undurable.push((redo, taken)),
            Some(_) => {}
        }
    }
    if end != End::Lost {
        replayed.suspects.clear();
    }
    Ok(replayed)
}

struct Work<'a> {
    backing: &'a Backing,
    journal: &'a Journal,
    share: &'a mut Share,
    end: End,
    explained: BTreeSet<FileId>,
    suspects: BTreeSet<FileId>,
}

impl Work<'_> {
    fn commit(&mut self, record: Record) -> store::Result<()> {
        tracing::debug!(?record, "recovery");
        self.journal.append(&codec::encode(&record))?;
        self.share.apply(&record);
        Ok(())
    }

    /// Writes once more what cuts of the peer brought shortly before the power went: their records are
    /// there, their bytes may not be. Returns the files that are now as these cuts left them.
    fn rewrite(&mut self, cuts: &[(Redo, Vec<Taken>)]) -> Result<BTreeSet<FileId>, Error> {
        if cuts.is_empty() {
            return Ok(BTreeSet::new());
        }
        self.finish_names(&self.backing.list()?.files)?;
        let mut mended = BTreeSet::new();
        for (redo, taken) in cuts {
            for taken in taken {
                let cut = redo.cut.files.iter().find(|f| f.file == taken.file).and_then(|f| f.body.as_ref());
                let (Some(body), Some(cut)) = (&taken.body, cut) else { continue };
                let Some(file) = self.share.file(taken.file).filter(|f| f.name.is_some()) else { continue };
                let Some(content) = location(taken.file, file)
                    .filter(|at| self.backing.stat(*at).is_ok_and(|s| s.ino == file.disk))
                    .and_then(|at| self.backing.open_file(at, true).ok())
                else {
                    self.suspects.insert(taken.file);
                    continue;
                };
                let changed_since = ChunkSet::from_iter(file.dirty.since(0));
                let mut chunks = body.changed.clone();
                chunks.subtract(&body.missing);
                chunks.subtract(&changed_since);
                chunks.remove(chunk::count(file.size)..u64::MAX);
                let wrap = |source| store::Error::Io { what: "writing a cut once more".into(), source };
                let name = pieces::staging_name(redo.cut.seq, taken.file);
                let staged = self.backing.open_file(At::Staging(&name), false).ok();
                let have = redo.staged.iter().find(|s| s.0 == taken.file).map(|s| &s.1);
                let size = body.size.min(file.size);
                let written = pieces::put(&content, &chunks, size, &cut.pieces, staged.as_ref().zip(have));
                chunks.subtract(&written.map_err(wrap)?);
                if content.len().map_err(wrap)? != file.size {
                    content.set_len(file.size).map_err(wrap)?;
                }
                store::apply_attrs(&content, &cut.attrs, false).map_err(wrap)?;
                // What could not be written again is asked of the peer, as all that is uncertain.
                if chunks.is_empty() && !self.suspects.contains(&taken.file) {
                    mended.insert(taken.file);
                } else {
                    self.suspects.insert(taken.file);
                }
            }
        }
        mended.retain(|id| !self.suspects.contains(id));
        Ok(mended)
    }

    /// Brings directory and share into line. Returns how many entries of the directory are not ours.
    fn line_up(&mut self, redone: &BTreeSet<FileId>, half_done: &BTreeSet<Name>) -> Result<usize, Error> {
        let mut listing = self.backing.list()?;
        if matches!(self.end, End::Killed | End::Lost)
            && !planted(Bug::LeaveNames)
            && self.finish_names(&listing.files)?
        {
            listing = self.backing.list()?;
        }
        let disk: BTreeMap<&Name, Stamp> = listing.files.iter().map(|(n, s)| (n, *s)).collect();
        let partial: BTreeSet<FileId> = self.backing.list_partial()?.into_iter().collect();
        let files: BTreeMap<FileId, File> = self.share.files().map(|(id, f)| (id, f.clone())).collect();
        for (id, file) in files {
            let Some(name) = &file.name else { continue };
            match disk.get(name) {
                _ if redone.contains(&id) => {}
                Some(stamp) if !file.partial && self.is_uncertain(id, &file, stamp) => {
                    self.doubt(id, &file, *stamp)?
                }
                Some(stamp) if !file.partial => self.check(id, &file, *stamp)?,
                None if !file.partial && planted(Bug::MissingIsDeleted) => {
                    self.commit(Record::Moved { moves: vec![(id, None)] })?
                }
                None if !file.partial => self.bring_back(id, &file)?,
                Some(_) if partial.contains(&id) && !file.is_whole() => self.stranger(id, name, &disk)?,
                _ if partial.contains(&id) => self.check_partial(id, &file)?,
                _ => self.bring_back(id, &file)?,
            }
        }
        for id in partial {
            if self.share.file(id).is_none_or(|f| !f.partial) && !redone.contains(&id) {
                self.backing.unlink(At::Partial(id))?;
            }
        }
        for (name, stamp) in &listing.files {
            if half_done.contains(name) {
                continue;
            }
            if self.share.named(name).is_none() {
                let file = self.share.next_file();
                let name = name.clone();
                self.commit(Record::Created { file, name, size: stamp.size, disk: stamp.ino })?;
            }
        }
        Ok(listing.left_alone)
    }

    /// After a crash: names that were changed in the journal but not yet on the disk. A file is known by
    /// its inode.
    fn finish_names(&mut self, listing: &[(Name, Stamp)]) -> Result<bool, Error> {
        // Inode numbers are used again: a file that is there counts before one that is gone.
        let mut lying: Vec<(bool, FileId, u64, Option<Name>)> = self
            .share
            .files()
            .filter(|(_, f)| f.disk != 0 && !f.partial)
            .map(|(id, f)| (f.name.is_some(), id, f.disk, f.name.clone()))
            .collect();
        lying.sort_unstable();
        let wanted: BTreeMap<u64, (FileId, Option<Name>)> =
            lying.into_iter().map(|(_, id, disk, name)| (disk, (id, name))).collect();
        let (mut aside, mut unlinked) = (Vec::new(), false);
        for (name, stamp) in listing {
            let Some((id, want)) = wanted.get(&stamp.ino) else { continue };
            if want.as_ref() == Some(name) {
                continue;
            }
            match want {
                // Inodes are used again: only what still lies where it was given up is that file.
                None if self.share.named(name).is_some() => {}
                None if !self.share.file(*id).is_some_and(|f| f.left.contains(name)) => {}
                None => {
                    self.backing.unlink(At::Name(name))?;
                    unlinked = true;
                }
                Some(to) => {
                    let staging = format!("mv-{id}");
                    self.backing.rename(At::Name(name), At::Staging(&staging), RenameFlags::empty())?;
                    aside.push((staging, to.clone()));
                }
            }
        }
        // Moves that a crash left half-way.
        for (id, want) in wanted.values() {
            let staging = format!("mv-{id}");
            if let (Some(to), Ok(_)) = (want, self.backing.stat(At::Staging(&staging)))
                && !aside.iter().any(|(s, _)| *s == staging)
            {
                aside.push((staging, to.clone()));
            }
        }
        for (staging, to) in &aside {
            self.backing.rename(At::Staging(staging), At::Name(to), RenameFlags::empty())?;
        }
        let mut changed = unlinked || !aside.is_empty();
        // Files that had become whole but not yet moved under their names.
        let ready: BTreeMap<FileId, Name> = self
            .share
            .files()
            .filter(|(_, f)| f.partial && f.is_whole())
            .filter_map(|(id, f)| Some((id, f.name.clone()?)))
            .collect();
        for (id, name) in ready {
            if self.backing.rename(At::Partial(id), At::Name(&name), RenameFlags::NOREPLACE).is_ok() {
                changed = true;
            }
            // Either now or before the crash it went there.
            let there = self.backing.stat(At::Name(&name)).is_ok();
            if there && self.backing.stat(At::Partial(id)).is_err() {
                self.commit(Record::Published { file: id })?;
            }
        }
        Ok(changed)
    }

    /// Whether power loss may have left something else in a file than the model says.
    fn is_uncertain(&self, id: FileId, file: &File, stamp: &Stamp) -> bool {
        let replaced = file.disk != stamp.ino && self.explained.contains(&id);
        self.end == End::Lost && !planted(Bug::BelieveAfterLoss) && (self.suspects.contains(&id) || replaced)
    }

    /// What lies there may be older than what the peer acknowledged: the peer is asked first, where it may
    /// know the file.
    fn doubt(&mut self, id: FileId, file: &File, stamp: Stamp) -> store::Result<()> {
        if file.is_untold() {
            let chunks = ChunkSet::of(0..chunk::count(stamp.size));
            self.commit(Record::Wrote { file: id, chunks, size: stamp.size })?;
            return self.commit(Record::Lies { file: id, disk: stamp.ino });
        }
        self.commit(Record::Unsettled { file: id, size: stamp.size, disk: stamp.ino })
    }

    /// A file lies where it should: has anybody changed it meanwhile?
    fn check(&mut self, id: FileId, file: &File, stamp: Stamp) -> store::Result<()> {
        let same = file.recorded == Some((stamp.mtime, stamp.ctime)) && file.disk == stamp.ino;
        if same && file.size == stamp.size {
            return Ok(());
        }
        // Ended in mid-work: what we wrote ourselves is in the journal, and the dead mount kept others
        // away. Only the size may lag behind a record.
        let known = !file.is_thanked() || self.explained.contains(&id);
        let ours = matches!(self.end, End::Killed | End::Lost) && file.disk == stamp.ino && known;
        if ours {
            if file.size != stamp.size && self.end == End::Lost {
                return self.doubt(id, file, stamp);
            }
            if file.size != stamp.size {
                self.commit(Record::Resized { file: id, size: stamp.size })?;
            }
            return Ok(());
        }
        let chunks = ChunkSet::of(0..chunk::count(stamp.size));
        self.commit(Record::Wrote { file: id, chunks, size: stamp.size })?;
        self.commit(Record::Lies { file: id, disk: stamp.ino })
    }

    fn check_partial(&mut self, id: FileId, file: &File) -> store::Result<()> {
        let Ok(stat) = self.backing.stat(At::Partial(id)) else { return Ok(()) };
        if stat.size != file.size {
            self.set_partial_size(id, file.size)?;
        }
        if self.end == End::Lost && self.suspects.contains(&id) {
            return self.commit(Record::Unsettled { file: id, size: file.size, disk: stat.ino });
        }
        Ok(())
    }

    fn set_partial_size(&mut self, id: FileId, size: u64) -> store::Result<()> {
        let wrap = |source| store::Error::Io { what: format!("sizing the partial content of {id}"), source };
        self.backing.open_file(At::Partial(id), true)?.set_len(size).map_err(wrap)
    }

    /// The content of a file is not there: the file stays, and its content comes from the peer. Where
    /// the peer never had it there is nothing left to bring back.
    fn bring_back(&mut self, id: FileId, file: &File) -> store::Result<()> {
        if file.is_untold() {
            return self.commit(Record::Forgotten { file: id });
        }
        match self.backing.create(At::Partial(id), 0o600) {
            Ok(_) => {}
            Err(e) if e.errno() == libc::EEXIST => {}
            Err(e) => return Err(e),
        }
        self.set_partial_size(id, file.size)?;
        self.commit(Record::Absent { file: id })?;
        let disk = self.backing.stat(At::Partial(id)).map_or(0, |s| s.ino);
        self.commit(Record::Unsettled { file: id, size: file.size, disk })
    }

    /// A raw file whose name belongs to a file only partly held: somebody made it while we were away.
    /// It is a new file, and the name is contested.
    fn stranger(&mut self, id: FileId, name: &Name, disk: &BTreeMap<&Name, Stamp>) -> store::Result<()> {
        let stamp = disk[name].mtime;
        let replica = self.share.header().replica;
        let taken = |n: &Name| self.share.named(n).is_some() || disk.contains_key(n);
        let aside = crate::model::judge::conflict_name(name, stamp, replica, taken);
        tracing::warn!("{name} was made while the share was not mounted; the share's own is now {aside}");
        self.commit(Record::Moved { moves: vec![(id, Some(aside))] })
    }
}
