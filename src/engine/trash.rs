//! The trash: what the peer unlinked or wrote over, for a while.
//!
//! Invariants: what is moved here is under its name or here, never in both and never nowhere; the trash gives way to
//! everything else on the disk; every entry of ours is in the list, so its bounds hold for all of them.

use crate::model::ids::FileId;
use crate::model::limits::TRASH_BYTES;
use crate::model::name::Name;
use crate::model::sabotage::{Bug, planted};
use crate::model::trash::{entry_name, expired, tag, told};
use crate::store::{self, At, Backing, Kind, Stat};
use parking_lot::Mutex;
use rustix::fs::RenameFlags;
use std::collections::BTreeMap;

/// Bytes in a block as stat(2) counts them.
const BLOCK: u64 = 512;

pub(super) struct Trash {
    /// How long a file stays; 0: there is no trash.
    days: u32,
    /// A leaf among the locks; held while an entry is moved in or out.
    entries: Mutex<BTreeMap<Name, Size>>,
}

/// Bytes of an entry.
#[derive(Clone, Copy)]
pub(super) struct Size {
    pub content: u64,
    /// What it takes on the disk.
    pub disk: u64,
}

impl Size {
    pub fn of(stat: &Stat) -> Size {
        Size { content: stat.size, disk: stat.blocks.saturating_mul(BLOCK) }
    }
}

impl Trash {
    /// What lies there already counts, too.
    pub fn open(backing: &Backing, days: u32) -> store::Result<Trash> {
        let ours = backing.list_trash()?.into_iter().filter(|(name, _)| told(name).is_some());
        let entries = ours.map(|(name, stat)| (name, Size::of(&stat))).collect();
        Ok(Trash { days, entries: Mutex::new(entries) })
    }

    pub fn is_on(&self) -> bool {
        self.days > 0
    }

    /// Moves what lies at `from` here: content of `file`, which was called `name`. Without a trash, or where it can't
    /// take it, that is unlinked. What is not there is as good as moved.
    pub fn take(&self, backing: &Backing, from: At, file: FileId, name: &Name) -> store::Result<()> {
        match self.admit(backing, from, file, name) {
            Some(_) => Ok(()),
            None => backing.unlink_if_there(from),
        }
    }

    /// Moves `file` here from under its `name`, where another will lie at once; returns its name here. Where that can't
    /// be, it stays for the other one to replace.
    pub fn keep(&self, backing: &Backing, file: FileId, name: &Name) -> Option<Name> {
        self.admit(backing, At::Name(name), file, name)
    }

    /// Moves a file here, if there is a trash and room for it.
    fn admit(&self, backing: &Backing, from: At, file: FileId, name: &Name) -> Option<Name> {
        let stat = backing.stat(from).ok().filter(|stat| stat.kind == Kind::File)?;
        if !self.is_on() || planted(Bug::ForgetTrash) {
            return None;
        }
        let put = || self.put(backing, from, file, name, Size::of(&stat));
        let kept = match put() {
            Err(error) if error.is_full() && self.give_way(backing) => put(),
            other => other,
        };
        kept.inspect_err(|error| {
            tracing::warn!("{name}, which the peer has unlinked, can't be kept in the trash: {error}");
        })
        .ok()
    }

    /// Moves an entry back to where it came from, for the other one did not come.
    pub fn give_back(&self, backing: &Backing, entry: &Name, name: &Name) {
        let back = backing.rename(At::Trash(entry), At::Name(name), RenameFlags::NOREPLACE);
        match back {
            Ok(()) => _ = self.entries.lock().remove(entry),
            Err(error) => tracing::error!("{name} is in the trash as {entry}: {error}"),
        }
    }

    /// Moves a file here under a name of its own, which is returned.
    pub fn put(
        &self,
        backing: &Backing,
        from: At,
        file: FileId,
        name: &Name,
        size: Size,
    ) -> store::Result<Name> {
        let mut entries = self.entries.lock();
        let taken = |n: &Name| entries.contains_key(n) || backing.stat(At::Trash(n)).is_ok();
        let entry = entry_name(backing.now().seconds, file, name, taken);
        backing.rename(from, At::Trash(&entry), RenameFlags::NOREPLACE)?;
        entries.insert(entry.clone(), size);
        Ok(entry)
    }

    /// When the last version of `file` came here, seconds since 1970.
    pub fn last_of(&self, file: FileId) -> Option<i64> {
        let tag = tag(file);
        let entries = self.entries.lock();
        entries.keys().rev().filter_map(told).find(|told| told.file == tag).map(|told| told.at)
    }

    /// Removes what is too old or too much.
    pub fn clean(&self, backing: &Backing) -> store::Result<()> {
        if self.entries.lock().is_empty() {
            return Ok(());
        }
        let space = backing.space()?;
        let budget = TRASH_BYTES.min(space.blocks.saturating_mul(space.block) / 8);
        let now = backing.now().seconds;
        let gone = {
            let entries = self.entries.lock();
            expired(entries.iter().map(|(name, size)| (name, size.disk)), now, self.days, budget)
        };
        // Each for itself: whoever has something to put here does not wait for all.
        gone.iter().try_for_each(|entry| self.remove(backing, entry))
    }

    /// Removes everything, for the disk is full. False where there was nothing, or nothing could be removed.
    pub fn give_way(&self, backing: &Backing) -> bool {
        let all: Vec<Name> = self.entries.lock().keys().cloned().collect();
        let gone = all.iter().filter(|entry| self.remove(backing, entry).is_ok()).count();
        if gone > 0 {
            tracing::warn!("the disk is full: the trash gives way, {gone} files are gone from it");
        }
        gone > 0
    }

    pub fn remove(&self, backing: &Backing, entry: &Name) -> store::Result<()> {
        let mut entries = self.entries.lock();
        backing.unlink_if_there(At::Trash(entry))?;
        entries.remove(entry);
        Ok(())
    }

    /// All entries, oldest first, each with its content's size.
    pub fn list(&self) -> Vec<(Name, u64)> {
        self.entries.lock().iter().map(|(name, size)| (name.clone(), size.content)).collect()
    }

    /// How many entries there are, and the bytes that they take on the disk.
    pub fn total(&self) -> (u64, u64) {
        let entries = self.entries.lock();
        (entries.len() as u64, entries.values().map(|size| size.disk).sum())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::WriterId;
    use crate::store::Dir;
    use crate::store::torn::TornDisk;
    use std::sync::Arc;

    const FILE: FileId = FileId { writer: WriterId(7), counter: 1 };
    const DAY: i64 = 86_400 * 1_000_000_000;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn disk(days: u32) -> (TornDisk, Backing, Trash) {
        let disk = TornDisk::new();
        disk.set_time(20_000 * DAY);
        let backing = Backing::new(Arc::new(disk.clone()));
        let trash = Trash::open(&backing, days).unwrap();
        (disk, backing, trash)
    }

    fn throw(disk: &TornDisk, backing: &Backing, trash: &Trash, text: &str, bytes: usize) {
        disk.put(Dir::Root, text.as_bytes(), vec![1; bytes]);
        trash.take(backing, At::Name(&name(text)), FILE, &name(text)).unwrap();
        assert!(disk.bytes(Dir::Root, text.as_bytes()).is_none());
    }

    fn originals(trash: &Trash) -> Vec<String> {
        trash.list().iter().map(|(entry, _)| told(entry).unwrap().original.to_string()).collect()
    }

    #[test]
    fn what_is_thrown_away_is_there_until_its_time_is_over() {
        let (disk, backing, trash) = disk(7);
        throw(&disk, &backing, &trash, "old", 5);
        disk.set_time(20_004 * DAY);
        throw(&disk, &backing, &trash, "late", 600);
        trash.clean(&backing).unwrap();
        assert_eq!(originals(&trash), ["old", "late"]);
        assert_eq!(trash.total(), (2, 512 + 1024));
        // Somebody else's file is none of ours.
        disk.put(Dir::Trash, b"by hand", vec![1]);
        disk.set_time(20_008 * DAY);
        let trash = Trash::open(&backing, 7).unwrap();
        trash.clean(&backing).unwrap();
        assert_eq!(originals(&trash), ["late"]);
        assert_eq!(disk.names(Dir::Trash).len(), 2);
    }

    #[test]
    fn without_a_trash_nothing_is_kept() {
        let (disk, backing, trash) = disk(0);
        throw(&disk, &backing, &trash, "file", 5);
        assert!(trash.list().is_empty() && disk.names(Dir::Trash).is_empty());
    }

    #[test]
    fn what_can_be_taken_only_by_a_full_disk_is_let_go() {
        let (disk, backing, trash) = disk(7);
        throw(&disk, &backing, &trash, "file", 5);
        assert!(trash.give_way(&backing) && disk.names(Dir::Trash).is_empty());
        assert!(!trash.give_way(&backing), "there is nothing left to give");
    }
}
