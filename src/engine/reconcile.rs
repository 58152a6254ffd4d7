//! The directory and the share brought into line, file by file, once every file lies under its name.
//!
//! Invariants: nothing is deleted because something is missing; a name that is missing here comes back
//! from the peer; content that is found changed is an edit, and after power loss the peer is asked first.

use super::error::Error;
use super::location::location;
use super::pending::Redo;
use super::pieces;
use super::trash::Trash;
use crate::model::chunk::{self, ChunkSet};
use crate::model::codec;
use crate::model::conflict::conflict_name;
use crate::model::cut::BodyCut;
use crate::model::file::{File, Shaky};
use crate::model::fileset::FileSet;
use crate::model::ids::FileId;
use crate::model::name::Name;
use crate::model::record::{Record, Taken};
use crate::model::sabotage::{Bug, planted};
use crate::model::share::Share;
use crate::store::{self, At, Backing, Journal, Listing, Stamp, Time};
use rustix::fs::RenameFlags;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};

/// How the last daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Never,
    Clean,
    /// Killed: the page cache, and with it every write, is intact.
    Killed,
    /// As killed, but the journal's end can't be read: what that told of is here, and nobody knows of it.
    Forgot,
    /// The machine went down: only what was synced is certain.
    Lost,
}

/// The directory and the share, while they are brought into line.
pub(super) struct Reconciler<'a> {
    pub backing: &'a Backing,
    pub journal: &'a Journal,
    pub trash: &'a Trash,
    pub share: &'a mut Share,
    pub end: End,
    /// Files that the journal speaks of since the last checkpoint.
    pub explained: BTreeSet<FileId>,
    /// Files that power loss may have left otherwise than the journal says, ...
    pub suspects: BTreeSet<FileId>,
    /// ... what the peer had of them, ...
    pub shaky: BTreeMap<FileId, Shaky>,
    /// ... and those of them that were made shorter, to how many bytes.
    pub shrunk: BTreeMap<FileId, u64>,
    /// Inodes of files that the journal has forgotten.
    pub gone: BTreeMap<u64, FileId>,
    /// Those of them that the peer unlinked.
    pub thrown: BTreeSet<u64>,
    /// Names that files had at the checkpoint or since, and gave up.
    pub former: BTreeMap<FileId, BTreeSet<Name>>,
    /// Files whose state a cut of the peer decides: one that is applied again, or was written again.
    pub redone: BTreeSet<FileId>,
    /// Files that a cut was changing when the daemon died.
    pub midway: BTreeSet<FileId>,
    /// Cuts that are applied again.
    pub redo: &'a [Redo],
    /// What was removed while the share was not mounted is deleted, up to so many files where that is said.
    pub adopt_deletes: bool,
    pub max_delete: Option<u64>,
}

/// What lining up came to.
pub(super) struct LinedUp {
    /// Entries of the directory that are not ours.
    pub left_alone: usize,
    /// Files that were missing and come back from the peer.
    pub missing: u64,
}

impl Reconciler<'_> {
    pub fn commit(&mut self, record: Record) -> store::Result<()> {
        tracing::debug!(?record, "recovery");
        self.journal.append(&codec::encode(&record))?;
        self.share.apply(&record);
        Ok(())
    }

    /// Writes once more what cuts of the peer brought shortly before the power went: their records are
    /// there, their bytes may not be.
    pub fn rewrite(&mut self, cuts: &[(Redo, Vec<Taken>)]) -> Result<(), Error> {
        let mut mended = BTreeSet::new();
        for (redo, taken) in cuts {
            for taken in taken {
                let cut = redo.cut.files.iter().find(|f| f.file == taken.file).and_then(|f| f.body.as_ref());
                let (Some(body), Some(cut)) = (&taken.body, cut) else { continue };
                let Some(file) = self.share.file(taken.file).filter(|f| f.name.is_some()) else { continue };
                let Some(content) = location(taken.file, &file)
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
        self.redone.extend(mended.difference(&self.suspects));
        Ok(())
    }

    /// Puts our own versions back that were kept before cuts of the peer wrote over them, where power loss may have torn
    /// what they wrote: these cuts come anew, and find the files as they were.
    pub fn restore_kept(&mut self) -> Result<(), Error> {
        let mut kept: BTreeMap<FileId, String> = BTreeMap::new();
        let mut names: Vec<String> = self.backing.list_staging()?.into_iter().map(|(name, _)| name).collect();
        names.sort_unstable();
        // The last one of a file is the latest.
        kept.extend(names.into_iter().filter_map(|name| Some((pieces::kept_of(&name)?, name))));
        for (id, staging) in kept {
            let torn = self.end == End::Lost && self.redone.contains(&id) && self.suspects.contains(&id);
            let file = self.share.file(id).filter(|f| torn && !f.partial);
            let Some(name) = file.and_then(|f| f.name.clone()) else { continue };
            self.backing.rename(At::Staging(&staging), At::Name(&name), RenameFlags::empty())?;
            let disk = self.backing.stat(At::Name(&name)).map_or(0, |stat| stat.ino);
            self.commit(Record::Lies { file: id, disk })?;
        }
        Ok(())
    }

    /// What was kept for the peer of files that changed: after power loss nobody knows whether it is as the journal says.
    pub fn drop_before(&mut self) -> store::Result<()> {
        let there: BTreeSet<FileId> = self.backing.list_before()?.into_iter().collect();
        for file in self.share.keeping_before() {
            if self.end == End::Lost || !there.contains(&file) {
                self.commit(Record::DroppedBefore { file })?;
            }
        }
        Ok(())
    }

    /// Brings directory and share into line; the directory is as `listing` says.
    pub fn line_up(&mut self, listing: Listing) -> Result<LinedUp, Error> {
        // By the files that have these names; without a stamp where there is nothing more to be looked at.
        let mut lying: Vec<(FileId, Option<Stamp>)> = Vec::with_capacity(listing.files.len());
        let mut others = Vec::new();
        for (name, stamp) in listing.files {
            let found = self.share.find_named(&name);
            match found.map(|(id, file)| (id, self.is_at_rest(id, &file, &stamp))) {
                Some((id, true)) => lying.push((id, None)),
                found => {
                    lying.extend(found.map(|(id, _)| (id, Some(stamp))));
                    others.push((name, stamp));
                }
            }
        }
        lying.sort_unstable_by_key(|(id, _)| *id);
        let missing = self.find_missing(&lying.iter().map(|(id, _)| *id).collect())?;
        let partial: FileSet = self.backing.list_partial()?.into_iter().collect();
        let mut lying = lying.into_iter().peekable();
        for id in self.share.ids_in_order() {
            let stamp = match lying.next_if(|(of, _)| *of == id) {
                Some((_, None)) => continue,
                other => other.and_then(|(_, stamp)| stamp),
            };
            let Some(file) = self.share.file(id).map(Cow::into_owned) else { continue };
            let Some(name) = &file.name else { continue };
            let redone = self.redone.contains(&id) && !self.suspects.contains(&id);
            match &stamp {
                Some(stamp) if redone && self.is_edited(id, &file, name, stamp) => {
                    self.redone.remove(&id);
                    self.take_over(id, *stamp)?;
                }
                _ if redone => {}
                Some(stamp) if !file.partial && self.is_uncertain(id, &file, stamp) => {
                    self.doubt(id, &file, *stamp)?
                }
                Some(stamp) if !file.partial => self.check(id, &file, *stamp)?,
                None if !file.partial && planted(Bug::MissingIsDeleted) => {
                    self.commit(Record::Moved { moves: vec![(id, None)] })?
                }
                None if missing.adopted.contains(&id) => self.adopt_delete(id)?,
                None if !file.partial => self.bring_back(id, &file)?,
                Some(stamp) if partial.contains(id) && !file.is_whole() => {
                    self.contested(id, name, stamp.mtime)?;
                }
                _ if partial.contains(id) => self.check_partial(id, &file)?,
                _ => self.bring_back(id, &file)?,
            }
        }
        for id in partial.iter() {
            if self.share.file(id).is_none_or(|f| !f.partial) && !self.redone.contains(&id) {
                self.backing.unlink(At::Partial(id))?;
            }
        }
        for (name, stamp) in others {
            if self.share.named(&name).is_none() && !self.is_of_a_cut(&name, stamp.size, stamp.mtime) {
                let file = self.share.next_file();
                self.commit(Record::Created { file, name, size: stamp.size, disk: stamp.ino })?;
            }
        }
        Ok(LinedUp { left_alone: listing.left_alone, missing: missing.returning })
    }

    /// Whether a file lies under its name just as it was left, after an end in order: nearly all do.
    fn is_at_rest(&self, id: FileId, file: &File, stamp: &Stamp) -> bool {
        self.end == End::Clean && !file.partial && !self.redone.contains(&id) && is_as_recorded(file, stamp)
    }

    /// Whether what lies under `name`, of this size and mtime, came with a cut whose apply was cut short.
    pub fn is_of_a_cut(&self, name: &Name, size: u64, mtime: i64) -> bool {
        let files = self.redo.iter().flat_map(|redo| &redo.cut.files);
        let mut named = files.filter(|f| f.place.as_ref().and_then(|p| p.name.as_ref()) == Some(name));
        // After power loss it need not be as it was.
        let is =
            |body: &BodyCut| self.end == End::Lost || (body.attrs.size, body.attrs.mtime) == (size, mtime);
        named.any(|f| f.body.as_ref().is_some_and(is))
    }

    /// Whether somebody has edited a file by hand since the daemon was killed that was about to apply a cut to it, or
    /// had just done so.
    fn is_edited(&self, id: FileId, file: &File, name: &Name, stamp: &Stamp) -> bool {
        let done = |body: &BodyCut| (body.attrs.size, body.attrs.mtime) == (stamp.size, stamp.mtime);
        let files = self.redo.iter().flat_map(|redo| &redo.cut.files).filter(|f| f.file == id);
        let applied = files.filter_map(|f| f.body.as_ref()).any(done);
        // Another file of the cut may stand there already.
        let applied = applied || self.is_of_a_cut(name, stamp.size, stamp.mtime);
        let other = file.disk != stamp.ino || file.is_edited_unseen(stamp.size, stamp.mtime);
        let intact = matches!(self.end, End::Killed | End::Forgot);
        intact && !file.partial && !self.midway.contains(&id) && !applied && other
    }

    /// What lies here is an edit, every byte of it.
    fn take_over(&mut self, id: FileId, stamp: Stamp) -> store::Result<()> {
        let chunks = ChunkSet::of(0..chunk::count(stamp.size));
        self.commit(Record::Wrote { file: id, chunks, size: stamp.size })?;
        self.commit(Record::Lies { file: id, disk: stamp.ino })
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
            return self.take_over(id, stamp);
        }
        let size = match self.shrunk.get(&id) {
            // A cut was about to be applied, and nobody here had changed it.
            _ if self.redone.contains(&id) && !file.is_edited() => file.size,
            // The journal knows that it was made shorter, the disk does not yet.
            Some(shorter) if stamp.size > file.size => *shorter,
            _ => stamp.size,
        };
        if size != stamp.size
            && let Some(at) = location(id, file)
        {
            self.set_size(at, size, Some(stamp.mtime))?;
        }
        let shaky = self.shaky.get(&id).cloned().unwrap_or_default();
        self.commit(Record::Unsettled { file: id, size, disk: stamp.ino, shaky })
    }

    /// A file lies where it should: has anybody changed it meanwhile?
    fn check(&mut self, id: FileId, file: &File, stamp: Stamp) -> store::Result<()> {
        if is_as_recorded(file, &stamp) {
            return Ok(());
        }
        // Ended in mid-work: what we wrote ourselves is in the journal. Only the size may lag behind a record.
        let known = !file.is_thanked() || self.explained.contains(&id) || file.recorded.is_none();
        let edited = self.end == End::Killed && file.is_edited_unseen(stamp.size, stamp.mtime);
        let ours = matches!(self.end, End::Killed | End::Lost) && file.disk == stamp.ino && known && !edited;
        // Where it did not end in order the inode's own time may have moved without anybody's doing.
        let as_it_was = file.disk == stamp.ino && file.is_as_cut(stamp.size, stamp.mtime);
        if as_it_was && self.end != End::Clean {
            return Ok(());
        }
        if ours {
            if file.size != stamp.size && self.end == End::Lost {
                return self.doubt(id, file, stamp);
            }
            if file.size != stamp.size {
                self.commit(Record::Resized { file: id, size: stamp.size })?;
            }
            return Ok(());
        }
        self.take_over(id, stamp)
    }

    fn check_partial(&mut self, id: FileId, file: &File) -> store::Result<()> {
        let Ok(stat) = self.backing.stat(At::Partial(id)) else { return Ok(()) };
        if stat.size != file.size {
            self.set_size(At::Partial(id), file.size, file.mtime)?;
        } else if let Some(mtime) =
            file.mtime.filter(|mtime| file.is_thanked() && stat.mtime.nanoseconds() != *mtime)
        {
            // Content came or went just before the end; nobody has modified it for that.
            self.set_size(At::Partial(id), file.size, Some(mtime))?;
        }
        if self.end == End::Lost && self.suspects.contains(&id) {
            let shaky = self.shaky.get(&id).cloned().unwrap_or_default();
            return self.commit(Record::Unsettled { file: id, size: file.size, disk: stat.ino, shaky });
        }
        Ok(())
    }

    /// Nobody has modified it for that: its `mtime` stays, where that is known.
    fn set_size(&mut self, at: At, size: u64, mtime: Option<i64>) -> store::Result<()> {
        let wrap = |source| store::Error::Io { what: format!("sizing {at}"), source };
        let file = self.backing.open_file(at, true)?;
        file.set_len(size).map_err(wrap)?;
        match mtime {
            Some(mtime) => file.set_times(None, Some(Time::from_nanoseconds(mtime))).map_err(wrap),
            None => Ok(()),
        }
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
        let size = file.size_when_lost();
        self.set_size(At::Partial(id), size, file.mtime)?;
        self.commit(Record::Absent { file: id })?;
        let disk = self.backing.stat(At::Partial(id)).map_or(0, |s| s.ino);
        self.commit(Record::Unsettled { file: id, size, disk, shaky: Shaky::default() })
    }

    /// A raw file, last modified at `mtime`, has the name of a file that does not lie there: somebody made it while
    /// we were away. It is a new file, and the name is contested; returns the one that the file of the share takes.
    pub fn contested(&mut self, id: FileId, name: &Name, mtime: i64) -> store::Result<Name> {
        let taken = |n: &Name| self.share.named(n).is_some() || self.backing.stat(At::Name(n)).is_ok();
        let other = conflict_name(name, mtime, self.share.header().replica, taken);
        tracing::warn!("{name} was made while the share was not mounted; the share's own is now {other}");
        self.commit(Record::Moved { moves: vec![(id, Some(other.clone()))] })?;
        Ok(other)
    }
}

/// Whether nobody has touched a file since its times were recorded.
fn is_as_recorded(file: &File, stamp: &Stamp) -> bool {
    file.recorded == Some((stamp.mtime, stamp.ctime)) && file.disk == stamp.ino && file.size == stamp.size
}
