//! Names after a crash: every file back under the name it has.
//!
//! A name changes in the journal first and on the disk second. After a mere kill the journal is therefore ahead,
//! and what it says is finished on the disk. After power loss either may have reached the disk without the
//! other: a file that lies under a name which it has never had, as far as the journal goes, was moved there by a
//! rename whose record is lost. Then the disk is ahead, and what it says is taken over.
//!
//! Invariants: a file is known by its inode; one is held to be unlinked only where something shows that it was:
//! another file stands in its place, or it lies in its grave (see [`grave`]). What is merely missing is not.

use super::error::Error;
use super::reconcile::{End, Reconciler};
use crate::model::file::File;
use crate::model::ids::FileId;
use crate::model::name::Name;
use crate::model::record::Record;
use crate::model::sabotage::{Bug, planted};
use crate::store::{self, At, Stamp};
use rustix::fs::RenameFlags;
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use xxhash_rust::xxh3::xxh3_64;

/// Who replaces a file, and where that one comes from: the hash of its name.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Heir {
    file: FileId,
    from: u64,
}

impl Heir {
    pub fn new(file: FileId, from: &Name) -> Heir {
        Heir { file, from: xxh3_64(from.as_bytes()) }
    }
}

/// Where, in staging, a file that was unlinked here lies until its record is durable; with an heir it is being replaced.
pub(super) fn grave(file: FileId, heir: Option<Heir>) -> String {
    match heir {
        Some(heir) => format!("gone-{file}+{}+{:016x}", heir.file, heir.from),
        None => format!("gone-{file}"),
    }
}

/// Whose grave it is, and who replaces that file.
fn buried(staging: &str) -> Option<(FileId, Option<Heir>)> {
    let mut parts = staging.strip_prefix("gone-")?.split('+');
    let file = parts.next()?.parse().ok()?;
    let Some(heir) = parts.next() else { return Some((file, None)) };
    let from = u64::from_str_radix(parts.next()?, 16).ok()?;
    Some((file, Some(Heir { file: heir.parse().ok()?, from })))
}

/// Where, in staging, a file lies while a cut of the peer changes it.
pub(super) fn changing(file: FileId) -> String {
    format!("changing-{file}")
}

/// A mark in staging: the file has been put back since as it was found there, inode, size in bytes and mtime in ns, and
/// may be half of a change. It stays until that change is applied again, though recovery die before.
fn midway(file: FileId, stamp: (u64, u64, i64)) -> String {
    format!("midway-{file}+{}+{}+{}", stamp.0, stamp.1, stamp.2)
}

type Moves = Vec<(FileId, Option<Name>)>;

impl Reconciler<'_> {
    /// Whether anything in the directory was moved for it after an end in order.
    pub fn find_names(&mut self) -> Result<bool, Error> {
        if matches!(self.end, End::Killed | End::Forgot | End::Lost) && !planted(Bug::LeaveNames) {
            let listing = self.backing.list()?.files;
            let staging = self.backing.list_staging()?;
            tracing::debug!(?listing, ?staging, "what lies there");
            if matches!(self.end, End::Forgot | End::Lost) {
                let moves = self.moves_of_the_disk(&listing, &staging);
                self.explained.extend(moves.iter().map(|m| m.0));
                if !moves.is_empty() {
                    self.commit(Record::Moved { moves })?;
                }
            }
            self.finish_names(&listing, &staging)?;
        }
        self.publish()
    }

    /// Moves that reached the disk before their records did.
    fn moves_of_the_disk(&self, listing: &[(Name, Stamp)], staging: &[(String, u64)]) -> Moves {
        let inodes: BTreeMap<u64, &Name> = listing.iter().map(|(name, stamp)| (stamp.ino, name)).collect();
        let lies = |id: FileId| {
            let file = self.share.file(id)?;
            let known = file.name.is_some() && !file.partial && file.disk != 0 && !self.redone.contains(&id);
            inodes.get(&file.disk).copied().filter(|_| known)
        };
        let named = |id: FileId| self.share.name(id);
        let gone = |id: FileId| lies(id).is_none() && !self.redone.contains(&id);
        let had = |id: FileId, name: &Name| {
            named(id).as_ref() == Some(name) || self.former.get(&id).is_some_and(|names| names.contains(name))
        };
        let graves: BTreeMap<FileId, Option<Heir>> = staging.iter().filter_map(|s| buried(&s.0)).collect();
        // Where who replaced a file lies in its place, that is how it came there.
        let replaced = |id: FileId, name: &Name| {
            let by = |heir: &Option<Heir>| heir.is_some_and(|heir| heir.file == id);
            graves.iter().any(|(old, heir)| by(heir) && named(*old).as_ref() == Some(name))
        };
        // Where something stands in a file's place that no record speaks of, the file has left since.
        let known: BTreeSet<u64> =
            self.share.files().map(|(_, f)| f.disk).chain(self.gone.keys().copied()).collect();
        let strange = |(name, stamp): &&(Name, Stamp)| {
            !known.contains(&stamp.ino) && !self.is_of_a_cut(name, stamp.size, stamp.mtime)
        };
        let strangers: BTreeSet<&Name> = listing.iter().filter(strange).map(|(name, _)| name).collect();
        let left = |id: FileId| named(id).is_some_and(|name| strangers.contains(&name));
        let has_moved = |(id, name): &(FileId, &Name)| {
            !had(*id, name) || (named(*id).as_ref() != Some(*name) && (replaced(*id, name) || left(*id)))
        };
        let mut moved: BTreeMap<FileId, &Name> =
            self.share.files().filter_map(|(id, _)| Some((id, lies(id)?))).filter(has_moved).collect();
        // Who stood there has gone elsewhere, or is gone.
        while let Some((id, at)) = moved.values().find_map(|name| {
            let owner = self.share.named(name).filter(|owner| !moved.contains_key(owner))?;
            Some((owner, lies(owner)?))
        }) {
            moved.insert(id, at);
        }
        loop {
            let fits = |(_, name): &(&FileId, &&Name)| match self.share.named(name) {
                Some(owner) => moved.contains_key(&owner) || gone(owner),
                None => true,
            };
            let Some(misfit) = moved.iter().find(|entry| !fits(entry)).map(|(id, _)| *id) else { break };
            moved.remove(&misfit);
        }
        let alive = |id: &FileId| named(*id).is_some() && gone(*id);
        // A file that makes room for its heir goes first: where that has not left its place, it did not go.
        let came = |heir: Heir| lies(heir.file).is_none_or(|name| heir != Heir::new(heir.file, name));
        // Whoever stands in its place has come by an exchange, if it only made room elsewhere after that.
        let waits = |id: FileId| graves.get(&id).is_some_and(|heir| heir.is_some_and(|heir| !came(heir)));
        let over = moved.iter().filter_map(|(by, name)| Some((*by, self.share.named(name)?)));
        let over = over.filter(|(_, owner)| !moved.contains_key(owner));
        let over = over.map(|(by, owner)| (owner, named(by).filter(|_| waits(owner))));
        // Where something new stands in its place by now, its heir has been there, too.
        let dead = |(id, heir): &(&FileId, &Option<Heir>)| alive(id) && (heir.is_none_or(came) || left(**id));
        let dead = graves.iter().filter(dead).map(|(id, _)| (*id, None));
        let unlinked: BTreeMap<FileId, Option<Name>> = over.chain(dead).collect();
        moved.iter().map(|(id, name)| (*id, Some((*name).clone()))).chain(unlinked).collect()
    }

    /// Whether it is a file that was unlinked, and still lies under a name that it had.
    fn is_forgotten(&self, name: &Name, stamp: &Stamp) -> bool {
        let had = |id: &FileId| self.former.get(id).is_some_and(|names| names.contains(name));
        let is_its_owner = |id: FileId| self.share.file(id).is_some_and(|f| f.disk == stamp.ino);
        !self.share.named(name).is_some_and(is_its_owner) && self.gone.get(&stamp.ino).is_some_and(had)
    }

    /// Finishes an unlink: of the peer's, as it does while both run.
    fn remove_forgotten(&self, name: &Name, stamp: &Stamp) -> store::Result<()> {
        match self.gone.get(&stamp.ino).filter(|_| self.thrown.contains(&stamp.ino)) {
            Some(id) => self.trash.take(self.backing, At::Name(name), *id, name),
            None => self.backing.unlink(At::Name(name)),
        }
    }

    /// Names that were changed in the journal but not yet on the disk.
    fn finish_names(&mut self, listing: &[(Name, Stamp)], staging: &[(String, u64)]) -> Result<(), Error> {
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
        let mut aside = Vec::new();
        let marks: BTreeSet<&str> = staging.iter().map(|(name, _)| name.as_str()).collect();
        for (name, stamp) in listing {
            if self.is_forgotten(name, stamp) {
                self.remove_forgotten(name, stamp)?;
                continue;
            }
            let Some((id, want)) = wanted.get(&stamp.ino) else { continue };
            if marks.contains(&*midway(*id, (stamp.ino, stamp.size, stamp.mtime))) {
                self.midway.insert(*id);
            }
            if want.as_ref() == Some(name) {
                continue;
            }
            match want {
                // Only what still lies where it was given up: whoever has the name now is not here yet.
                None if !self.share.file(*id).is_some_and(|f| f.left.contains(name)) => {}
                None => self.backing.unlink(At::Name(name))?,
                Some(to) => {
                    let staging = format!("mv-{id}");
                    self.backing.rename(At::Name(name), At::Staging(&staging), RenameFlags::empty())?;
                    aside.push((staging, *id, to.clone()));
                }
            }
        }
        // Moves that a crash left half-way, files that were being changed, and copies that were kept and not
        // shown yet.
        for (staging, inode) in self.backing.list_staging()? {
            if let Some((id, Some(to))) = wanted.get(&inode)
                && !aside.iter().any(|(s, _, _)| *s == staging)
            {
                aside.push((staging, *id, to.clone()));
            }
        }
        for (staging, id, to) in aside {
            if staging == changing(id) {
                self.midway.insert(id);
                let wrap = |source| store::Error::Io { what: format!("looking at {staging}"), source };
                let stat = self.backing.stat(At::Staging(&staging)).map_err(wrap)?;
                let stamp = (stat.ino, stat.size, stat.mtime.nanoseconds());
                self.backing.create_afresh(At::Staging(&midway(id, stamp)), 0o600)?;
            }
            let stands = self.backing.stat(At::Name(&to)).ok();
            let gone = |ino: u64| wanted.get(&ino).is_some_and(|(_, name)| name.is_none());
            let dies = |ino: u64| gone(ino) || self.gone.contains_key(&ino);
            let to = match stands {
                // Somebody made it while the share was not mounted: it is a file of its own.
                Some(stat)
                    if !dies(stat.ino) && !self.is_of_a_cut(&to, stat.size, stat.mtime.nanoseconds()) =>
                {
                    self.contested(id, &to, stat.mtime.nanoseconds())?
                }
                _ => to,
            };
            self.backing.rename(At::Staging(&staging), At::Name(&to), RenameFlags::empty())?;
        }
        Ok(())
    }

    /// Files that have become whole, but were not yet moved under their names, or lie there without the journal
    /// saying so: one is synced as a whole before it goes there.
    /// Returns whether there were any.
    fn publish(&mut self) -> Result<bool, Error> {
        let mut any = false;
        for id in self.share.partial() {
            // After an end in order nothing lies where the journal does not say.
            let moved = |f: &File| f.is_whole() || self.end != End::Clean;
            let Some(file) = self.share.file(id).filter(|f| moved(f)).map(Cow::into_owned) else { continue };
            let Some(name) = file.name.as_ref().map(At::Name) else { continue };
            any = true;
            if file.is_whole() {
                let _ = self.backing.rename(At::Partial(id), name, RenameFlags::NOREPLACE);
            }
            let there = self.backing.stat(name).is_ok_and(|s| file.is_whole() || s.ino == file.disk);
            if there && self.backing.stat(At::Partial(id)).is_err() {
                let chunks = file.missing;
                self.commit(Record::Present { file: id, chunks })?;
                self.commit(Record::Published { file: id })?;
            }
        }
        Ok(any)
    }
}
