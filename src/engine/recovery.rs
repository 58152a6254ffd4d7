//! From what lies on the disk to a share that can be served: after a clean end, a crash, or a life
//! without syncfs.
//!
//! Order: metadata, journal, the directory brought into line with them, what changed behind our back
//! adopted. Cuts whose apply was cut short are handed back to be applied again.
//!
//! Invariants: nothing is deleted because something is missing; a name that is missing here comes back
//! from the peer; content that is found changed is an edit.

use super::error::Error;
use super::metadata::Stored;
use crate::model::chunk::{self, ChunkSet};
use crate::model::codec;
use crate::model::cut::Cut;
use crate::model::file::File;
use crate::model::ids::{FileId, Seq};
use crate::model::name::Name;
use crate::model::record::Record;
use crate::model::share::Share;
use crate::store::{self, At, Backing, Identity, Journal, Lsn, Meta, Opened, RealDisk, Stamp};
use rustix::fs::RenameFlags;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

pub(super) struct Recovered {
    pub backing: Backing,
    pub journal: Journal,
    pub meta: Meta,
    pub identity: Identity,
    pub machine_boot: String,
    pub share: Share,
    /// Cuts to be applied again, and whether part of their content is staged.
    pub redo: Vec<(Cut, bool)>,
    pub left_alone: usize,
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

pub(super) fn open(dir: &Path) -> Result<Recovered, Error> {
    let backing = Backing::open(dir)?;
    let identity = store::load_or_create(&backing)?;
    let machine_boot = store::machine_boot();
    let (mut meta, opened) = Meta::open(&backing)?;
    let disk = RealDisk::new(backing.journal_dir())?;
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
        None => Share::new(identity.replica, store::random_writer()),
    };
    let replayed = end != End::Never;
    let redo = if replayed { replay(&mut share, &records, stored.lsn, end)? } else { Vec::new() };

    // What the journal tells of a file since the checkpoint explains why it looks different now.
    let explained: HashSet<FileId> = share.touched_now().into_iter().collect();
    let mut work = Work { backing: &backing, journal: &journal, share: &mut share, end, explained };
    if end == End::Lost {
        // What the old writer counted last may be forgotten; its numbers are never used again.
        work.commit(Record::Began { writer: store::random_writer() })?;
    }
    let redone: HashSet<FileId> = redo.iter().flat_map(|(cut, _)| cut.files.iter().map(|f| f.file)).collect();
    // New files of theirs may be on the disk already, as the peer had them.
    let half_done: HashMap<&Name, (u64, i64)> = redo
        .iter()
        .flat_map(|(cut, _)| &cut.files)
        .filter_map(|f| Some((f.place.as_ref()?.name.as_ref()?, f.body.as_ref()?)))
        .map(|(name, body)| (name, (body.attrs.size, body.attrs.mtime)))
        .collect();
    let left_alone = work.line_up(&redone, &half_done)?;
    Ok(Recovered { backing, journal, meta, identity, machine_boot, share, redo, left_alone })
}

/// Applies the journal's records that the metadata store has not seen.
fn replay(
    share: &mut Share,
    records: &[(Lsn, Vec<u8>)],
    after: Lsn,
    end: End,
) -> Result<Vec<(Cut, bool)>, Error> {
    let mut redo: BTreeMap<Seq, (Cut, bool)> = BTreeMap::new();
    for (_, bytes) in records.iter().filter(|r| r.0 > after) {
        let record: Record = codec::decode_own(bytes).map_err(|_| Error::Unreadable("the journal"))?;
        match record {
            Record::Redo { cut, staged } => drop(redo.insert(cut.seq, (*cut, staged))),
            Record::Took { ref from, .. } => {
                redo.remove(&from.seq);
                share.apply(&record);
            }
            // After a loss the delivered bytes themselves may be gone: they are fetched again.
            Record::Present { .. } if end == End::Lost => {}
            record => share.apply(&record),
        }
    }
    Ok(redo.into_values().collect())
}

struct Work<'a> {
    backing: &'a Backing,
    journal: &'a Journal,
    share: &'a mut Share,
    end: End,
    explained: HashSet<FileId>,
}

impl Work<'_> {
    fn commit(&mut self, record: Record) -> store::Result<()> {
        self.journal.append(&codec::encode(&record))?;
        self.share.apply(&record);
        Ok(())
    }

    /// Brings directory and share into line. Returns how many entries of the directory are not ours.
    fn line_up(
        &mut self,
        redone: &HashSet<FileId>,
        half_done: &HashMap<&Name, (u64, i64)>,
    ) -> Result<usize, Error> {
        let mut listing = self.backing.list()?;
        if matches!(self.end, End::Killed | End::Lost) && self.finish_names(&listing.files)? {
            listing = self.backing.list()?;
        }
        let disk: HashMap<&Name, Stamp> = listing.files.iter().map(|(n, s)| (n, *s)).collect();
        let partial: HashSet<FileId> = self.backing.list_partial()?.into_iter().collect();
        let files: Vec<(FileId, File)> = self.share.files().map(|(id, f)| (id, f.clone())).collect();
        for (id, file) in files {
            let Some(name) = &file.name else { continue };
            match disk.get(name) {
                _ if redone.contains(&id) => {}
                Some(stamp) if !file.partial => self.check(id, &file, *stamp)?,
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
            if half_done.get(name) == Some(&(stamp.size, stamp.mtime)) {
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
        let wanted: HashMap<u64, (FileId, Option<Name>)> = self
            .share
            .files()
            .filter(|(_, f)| f.disk != 0 && !f.partial)
            .map(|(id, f)| (f.disk, (id, f.name.clone())))
            .collect();
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
        let ready: Vec<(FileId, Name)> = self
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

    /// A file lies where it should: has anybody changed it meanwhile?
    fn check(&mut self, id: FileId, file: &File, stamp: Stamp) -> store::Result<()> {
        let same = file.recorded == Some((stamp.mtime, stamp.ctime)) && file.disk == stamp.ino;
        if same && file.size == stamp.size {
            return Ok(());
        }
        // Killed in mid-work: what we wrote ourselves is in the journal, and the dead mount kept others
        // away. Only the size may lag behind a record.
        let known = !file.is_thanked() || self.explained.contains(&id);
        let ours = self.end == End::Killed && file.disk == stamp.ino && known;
        if ours {
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
        let size = self.backing.stat(At::Partial(id)).map_or(0, |s| s.st_size as u64);
        if size != file.size {
            self.set_partial_size(id, file.size)?;
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
        self.commit(Record::Absent { file: id })
    }

    /// A raw file whose name belongs to a file only partly held: somebody made it while we were away.
    /// It is a new file, and the name is contested.
    fn stranger(&mut self, id: FileId, name: &Name, disk: &HashMap<&Name, Stamp>) -> store::Result<()> {
        let stamp = disk[name].mtime;
        let replica = self.share.header().replica;
        let taken = |n: &Name| self.share.named(n).is_some() || disk.contains_key(n);
        let aside = crate::model::judge::conflict_name(name, stamp, replica, taken);
        tracing::warn!("{name} was made while the share was not mounted; the share's own is now {aside}");
        self.commit(Record::Moved { moves: vec![(id, Some(aside))] })
    }
}
