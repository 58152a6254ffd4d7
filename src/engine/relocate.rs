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
use crate::store::{At, Stamp};
use rustix::fs::RenameFlags;
use std::collections::BTreeMap;

/// Where, in staging, a file that was unlinked here lies until its record is durable.
pub(super) fn grave(file: FileId) -> String {
    format!("gone-{file}")
}

type Moves = Vec<(FileId, Option<Name>)>;

impl Reconciler<'_> {
    pub fn find_names(&mut self) -> Result<(), Error> {
        if matches!(self.end, End::Killed | End::Lost) && !planted(Bug::LeaveNames) {
            let listing = self.backing.list()?.files;
            if self.end == End::Lost {
                let moves = self.moves_of_the_disk(&listing);
                self.explained.extend(moves.iter().map(|m| m.0));
                if !moves.is_empty() {
                    self.commit(Record::Moved { moves })?;
                }
            }
            self.finish_names(&listing)?;
        }
        self.publish()
    }

    /// Moves that reached the disk before their records did.
    fn moves_of_the_disk(&self, listing: &[(Name, Stamp)]) -> Moves {
        let inodes: BTreeMap<u64, &Name> = listing.iter().map(|(name, stamp)| (stamp.ino, name)).collect();
        let lies = |id: FileId| {
            let file = self.share.file(id)?;
            let known = file.name.is_some() && !file.partial && file.disk != 0 && !self.redone.contains(&id);
            inodes.get(&file.disk).copied().filter(|_| known)
        };
        let gone = |id: FileId| lies(id).is_none() && !self.redone.contains(&id);
        let had = |id: FileId, name: &Name| {
            self.share.file(id).and_then(|f| f.name.as_ref()) == Some(name)
                || self.former.get(&id).is_some_and(|names| names.contains(name))
        };
        let mut moved: BTreeMap<FileId, &Name> = (self.share.files())
            .filter_map(|(id, _)| Some((id, lies(id)?)))
            .filter(|(id, name)| !had(*id, name))
            .collect();
        // Who stood there has gone elsewhere, or is gone.
        loop {
            let fits = |(_, name): &(&FileId, &&Name)| match self.share.named(name) {
                Some(owner) => moved.contains_key(&owner) || gone(owner),
                None => true,
            };
            let Some(misfit) = moved.iter().find(|entry| !fits(entry)).map(|(id, _)| *id) else { break };
            moved.remove(&misfit);
        }
        let replaced = moved.values().filter_map(|name| self.share.named(name));
        let replaced = replaced.filter(|owner| !moved.contains_key(owner)).map(|owner| (owner, None));
        let dead = (self.share.files().map(|(id, _)| id))
            .filter(|id| self.share.file(*id).is_some_and(|f| f.name.is_some()) && gone(*id))
            .filter(|id| self.backing.stat(At::Staging(&grave(*id))).is_ok())
            .map(|id| (id, None));
        let unlinked: BTreeMap<FileId, Option<Name>> = replaced.chain(dead).collect();
        moved.iter().map(|(id, name)| (*id, Some((*name).clone()))).chain(unlinked).collect()
    }

    /// Names that were changed in the journal but not yet on the disk.
    fn finish_names(&mut self, listing: &[(Name, Stamp)]) -> Result<(), Error> {
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
        for (name, stamp) in listing {
            let Some((id, want)) = wanted.get(&stamp.ino) else { continue };
            if want.as_ref() == Some(name) {
                continue;
            }
            match want {
                // Inodes are used again: only what still lies where it was given up is that file.
                None if self.share.named(name).is_some() => {}
                None if !self.share.file(*id).is_some_and(|f| f.left.contains(name)) => {}
                None => self.backing.unlink(At::Name(name))?,
                Some(to) => {
                    let staging = format!("mv-{id}");
                    self.backing.rename(At::Name(name), At::Staging(&staging), RenameFlags::empty())?;
                    aside.push((staging, to.clone()));
                }
            }
        }
        // Moves that a crash left half-way, and copies that were kept and not shown yet.
        for (staging, inode) in self.backing.list_staging()? {
            if let Some((_, Some(to))) = wanted.get(&inode)
                && !aside.iter().any(|(s, _)| *s == staging)
            {
                aside.push((staging, to.clone()));
            }
        }
        for (staging, to) in &aside {
            self.backing.rename(At::Staging(staging), At::Name(to), RenameFlags::empty())?;
        }
        Ok(())
    }

    /// Files that have become whole, but were not yet moved under their names, or lie there without the journal
    /// saying so: one is synced as a whole before it goes there.
    fn publish(&mut self) -> Result<(), Error> {
        let partial = self.share.files().filter(|(_, f)| f.partial);
        let partial: BTreeMap<FileId, File> = partial.map(|(id, f)| (id, f.clone())).collect();
        for (id, file) in partial {
            let Some(name) = file.name.as_ref().map(At::Name) else { continue };
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
        Ok(())
    }
}
