//! What an apply moves on the disk: files out of sight while they change, and to their new names afterwards.
//!
//! Invariant: under its name a file is seen as it was or as it will be, never in between.

use super::bodies::door;
use super::host::Host;
use super::node::Locked;
use super::relocate::changing;
use crate::model::cut::FileCut;
use crate::model::file;
use crate::model::ids::FileId;
use crate::model::judge::{PlaceVerdict, Verdict};
use crate::model::name::Name;
use crate::model::record::{TakenBody, TakenPlace};
use crate::model::sabotage::{Bug, planted};
use crate::store::{self, At, Content, Time};
use rustix::fs::RenameFlags;
use std::collections::{BTreeMap, BTreeSet};

/// A file whose name or existence changes.
pub(super) struct Move {
    pub file: FileId,
    /// Where its content lies now; `None` for one that lies in `.syncfs/partial` and stays there.
    from: Option<Lies>,
    pub old: Option<Name>,
    pub new: Option<Name>,
    partial: bool,
    /// The inode that it has as far as anybody knows.
    disk: u64,
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

/// Files that are out of everybody's sight while they change: so whoever looks into the directory after a crash finds
/// no half of anything, and recovery can tell what was edited by hand. Where the change fails they go back.
pub(super) struct Aside<'a> {
    host: &'a Host,
    files: BTreeMap<FileId, Hidden>,
}

/// One of them, with the mtime that it had.
struct Hidden {
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
        self.files.insert(id, Hidden { name, file, mtime });
        Ok(())
    }

    /// They have changed: from here on recovery brings them where they belong.
    pub fn done(&mut self) {
        self.files.clear();
    }

    fn has(&self, id: FileId) -> bool {
        self.files.contains_key(&id)
    }
}

impl Drop for Aside<'_> {
    fn drop(&mut self) {
        for (id, Hidden { name, file, mtime }) in &self.files {
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
        self.host.share.lock().put_back(self.files.keys().copied());
    }
}

impl Host {
    /// Puts the files out of sight that lie under their names and will change.
    pub(super) fn hide(&self, verdicts: &[Verdict], locked: &mut Locked) -> store::Result<Aside<'_>> {
        let mut aside = Aside { host: self, files: BTreeMap::new() };
        let shown = planted(Bug::ChangeInSight);
        for verdict in verdicts.iter().filter(|v| v.body.takes().is_some() && !shown) {
            let whole = |f: &file::File| if f.partial { None } else { f.name.clone() };
            let name = self.share.lock().file(verdict.file).and_then(|f| whole(&f));
            let (Some(name), Some((node, data))) = (name, locked.get(verdict.file)) else { continue };
            let file = self.data_file(node, data, true).map_err(door)?;
            aside.put(verdict.file, name, file)?;
        }
        Ok(aside)
    }

    /// What becomes of the file's place; its move on the disk is added to `moves`.
    pub(super) fn take_place(
        &self,
        cut: &FileCut,
        verdict: &Verdict,
        body: Option<&TakenBody>,
        aside: &Aside,
        moves: &mut Vec<Move>,
    ) -> Option<TakenPlace> {
        let share = self.share.lock();
        let ours = share.file(cut.file).filter(|f| f.name.is_some());
        let ours = ours.as_deref();
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
                disk: 0,
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
                let disk = ours.map_or(0, |f| f.disk);
                moves.push(Move { file: cut.file, from, old, new: place.name.clone(), partial, disk });
                Some(TakenPlace { name: place.name.clone(), version: place.version.clone() })
            }
            PlaceVerdict::Revive => {
                let f = ours?;
                Some(TakenPlace { name: f.name.clone(), version: f.place.join(&place.version) })
            }
            _ => None,
        }
    }

    /// Renames and unlinks on the disk: swaps and chains included. `again`: after a crash, which may have come when some
    /// of it was done.
    pub(super) fn carry_out(&self, moves: &[Move], again: bool) -> store::Result<()> {
        let arriving: BTreeSet<&Name> =
            moves.iter().filter(|m| m.from.is_some()).filter_map(|m| m.new.as_ref()).collect();
        // Files that stand where another one of this cut will be go out of the way first.
        let mut aside: BTreeMap<FileId, String> = BTreeMap::new();
        let mut replaced: BTreeMap<&Name, FileId> = BTreeMap::new();
        for m in moves {
            match (&m.from, &m.new) {
                (Some(Lies::Name(from)), Some(to)) if from != to && arriving.contains(from) => {
                    let name = format!("mv-{}", m.file);
                    self.backing.rename(At::Name(from), At::Staging(&name), RenameFlags::empty())?;
                    aside.insert(m.file, name);
                }
                (Some(Lies::Name(from)), None) => {
                    let is_other = |stat: store::Stat| again && stat.ino != m.disk;
                    match self.backing.stat(At::Name(from)).is_ok_and(is_other) {
                        // It has gone already, and who comes in its place is there.
                        true if arriving.contains(from) => {}
                        true => self.backing.unlink_if_there(At::Name(from))?,
                        // It stays until the other one comes: a name is never without a file for that.
                        false if arriving.contains(from) => _ = replaced.insert(from, m.file),
                        false => self.trash.take(&self.backing, At::Name(from), m.file, from)?,
                    }
                }
                (None, None) if m.partial => self.backing.unlink_if_there(At::Partial(m.file))?,
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
            let kept = replaced.get(to).and_then(|old| self.trash.keep(&self.backing, *old, to));
            if let Err(error) = self.backing.rename(from, At::Name(to), RenameFlags::empty()) {
                kept.iter().for_each(|entry| self.trash.give_back(&self.backing, entry, to));
                return Err(error);
            }
        }
        Ok(())
    }
}
