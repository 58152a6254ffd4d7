//! The table of all files: by id, by name, by inode number.
//!
//! There may be millions, and hardly any of them is being worked on: so a file lies packed in few bytes, but for the latest that
//! were changed, and those with so many pieces that packing them would cost more than it saves. Nobody outside sees a difference.
//!
//! Invariants: each index leads to exactly the files there are, the index of names to those that have one; where two have the
//! same name, for a moment, it leads to the later.

use super::file::File;
use super::ids::FileId;
use super::name::Name;
use super::packed::Packed;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::borrow::Cow;
use std::collections::VecDeque;
use std::hash::{BuildHasher, RandomState};

/// Files that lie unpacked because they were changed last.
const AWAKE: usize = 1024;
/// A file in more pieces is not packed.
const PIECES: usize = 32;

#[derive(Clone, Debug, Default)]
pub struct Files {
    slots: Vec<Slot>,
    vacant: Vec<u32>,
    ids: HashTable<u32>,
    names: HashTable<u32>,
    inos: HashTable<u32>,
    /// Slots in the order in which their files were unpacked. Some may have been given to others since.
    awake: VecDeque<u32>,
    hasher: RandomState,
}

#[derive(Clone, Debug)]
enum Slot {
    Vacant,
    Packed(Packed),
    Whole(Box<Whole>),
}

#[derive(Clone, Debug)]
struct Whole {
    id: FileId,
    file: File,
    /// It is among the `awake`.
    awake: bool,
}

impl Slot {
    fn id(&self) -> Option<FileId> {
        match self {
            Slot::Vacant => None,
            Slot::Packed(packed) => Some(packed.id()),
            Slot::Whole(whole) => Some(whole.id),
        }
    }

    fn name(&self) -> Option<&[u8]> {
        match self {
            Slot::Vacant => None,
            Slot::Packed(packed) => packed.name(),
            Slot::Whole(whole) => whole.file.name.as_ref().map(Name::as_bytes),
        }
    }

    fn ino(&self) -> Option<u64> {
        match self {
            Slot::Vacant => None,
            Slot::Packed(packed) => Some(packed.ino()),
            Slot::Whole(whole) => Some(whole.file.ino),
        }
    }

    fn is_partial(&self) -> bool {
        match self {
            Slot::Vacant => false,
            Slot::Packed(packed) => packed.is_partial(),
            Slot::Whole(whole) => whole.file.partial,
        }
    }

    fn keeps_before(&self) -> bool {
        match self {
            Slot::Vacant => false,
            Slot::Packed(packed) => packed.keeps_before(),
            Slot::Whole(whole) => !whole.file.before.is_empty(),
        }
    }

    fn file(&self) -> Option<Cow<'_, File>> {
        match self {
            Slot::Vacant => None,
            Slot::Packed(packed) => Some(Cow::Owned(packed.unpack())),
            Slot::Whole(whole) => Some(Cow::Borrowed(&whole.file)),
        }
    }

    fn pack(&mut self) {
        if let Slot::Whole(whole) = self {
            match is_small(&whole.file) {
                true => *self = Slot::Packed(Packed::new(whole.id, &whole.file)),
                false => whole.awake = false,
            }
        }
    }
}

fn is_small(file: &File) -> bool {
    let sets = file.missing.pieces() + file.scraps.pieces();
    sets + file.dirty.pieces() + file.before.pieces() + file.left.len() <= PIECES
}

impl Files {
    pub fn get(&self, id: FileId) -> Option<Cow<'_, File>> {
        self.slot(id).and_then(Slot::file)
    }

    pub fn contains(&self, id: FileId) -> bool {
        self.find(id).is_some()
    }

    pub fn ino(&self, id: FileId) -> Option<u64> {
        self.slot(id).and_then(Slot::ino)
    }

    pub fn name(&self, id: FileId) -> Option<&[u8]> {
        self.slot(id).and_then(Slot::name)
    }

    pub fn named(&self, name: &Name) -> Option<FileId> {
        self.slot_named(name)?.id()
    }

    /// The file of that name.
    pub fn find_named(&self, name: &Name) -> Option<(FileId, Cow<'_, File>)> {
        let slot = self.slot_named(name)?;
        slot.id().zip(slot.file())
    }

    pub fn by_ino(&self, ino: u64) -> Option<FileId> {
        let at = self.inos.find(self.hasher.hash_one(ino), |at| self.slots[*at as usize].ino() == Some(ino));
        at.and_then(|at| self.slots[*at as usize].id())
    }

    /// The file as it is now, in few bytes.
    pub fn packed(&self, id: FileId) -> Option<Packed> {
        match self.slot(id)? {
            Slot::Vacant => None,
            Slot::Packed(packed) => Some(packed.clone()),
            Slot::Whole(whole) => Some(Packed::new(id, &whole.file)),
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = (FileId, Cow<'_, File>)> {
        self.slots.iter().filter_map(|slot| slot.id().zip(slot.file()))
    }

    pub fn ids(&self) -> impl Iterator<Item = FileId> + '_ {
        self.slots.iter().filter_map(Slot::id)
    }

    /// Files whose content is not all here, in no order.
    pub fn partial(&self) -> impl Iterator<Item = FileId> + '_ {
        self.slots.iter().filter(|slot| slot.is_partial()).filter_map(Slot::id)
    }

    /// Files of which something is kept from before they were changed, in no order.
    pub fn keeping_before(&self) -> impl Iterator<Item = FileId> + '_ {
        self.slots.iter().filter(|slot| slot.keeps_before()).filter_map(Slot::id)
    }

    /// The bytes of all names, and whose they are.
    pub fn names(&self) -> impl Iterator<Item = (&[u8], FileId)> {
        self.slots.iter().filter_map(|slot| slot.name().zip(slot.id()))
    }

    /// A file that is to be changed, but for its name and its inode number.
    pub fn wake(&mut self, id: FileId) -> Option<&mut File> {
        let at = self.find(id)?;
        Some(&mut self.awaken(at).file)
    }

    /// Gives a file another name, or none; returns the one that it had.
    pub fn rename(&mut self, id: FileId, name: Option<Name>) -> Option<Name> {
        let at = self.find(id)?;
        self.unindex_name(at);
        let before = std::mem::replace(&mut self.awaken(at).file.name, name);
        self.index_name(at);
        before
    }

    /// Puts in a file whose id no other has. It is found once [`Files::index`] was called: that is done for all at once, since
    /// indices that grow would have to look at each of them again and again.
    pub fn restore(&mut self, id: FileId, file: File) {
        self.slots.push(match is_small(&file) {
            true => Slot::Packed(Packed::new(id, &file)),
            false => Slot::Whole(Box::new(Whole { id, file, awake: false })),
        });
    }

    /// Lets everything be found that was put in by [`Files::restore`] and nothing else.
    pub fn index(&mut self) {
        let count = self.slots.len();
        (self.ids, self.inos, self.names) = (
            HashTable::with_capacity(count),
            HashTable::with_capacity(count),
            HashTable::with_capacity(count),
        );
        (0..slot_number(count)).for_each(|at| self.lead_to(at));
    }

    /// Puts a file in, in place of what had its id.
    pub fn insert(&mut self, id: FileId, file: File) {
        self.remove(id);
        let at = match self.vacant.pop() {
            Some(at) => at,
            None => {
                self.slots.push(Slot::Vacant);
                slot_number(self.slots.len() - 1)
            }
        };
        self.slots[at as usize] = Slot::Whole(Box::new(Whole { id, file, awake: false }));
        self.awaken(at);
        self.lead_to(at);
    }

    /// All indices lead to a file that none led to.
    fn lead_to(&mut self, at: u32) {
        let (slots, hasher) = (&self.slots, &self.hasher);
        let hash = |at: &u32| hasher.hash_one(slots[*at as usize].id().expect("it is in use"));
        self.ids.insert_unique(hash(&at), at, hash);
        let ino = |at: &u32| slots[*at as usize].ino().expect("it is in use");
        let hash = |at: &u32| hasher.hash_one(ino(at));
        put(self.inos.entry(hash(&at), |other| ino(other) == ino(&at), hash), at);
        self.index_name(at);
    }

    pub fn remove(&mut self, id: FileId) -> Option<File> {
        let at = self.find(id)?;
        self.unindex_name(at);
        let ino = self.slots[at as usize].ino();
        take(&mut self.ids, self.hasher.hash_one(id), at);
        take(&mut self.inos, self.hasher.hash_one(ino.expect("it is in use")), at);
        self.vacant.push(at);
        match std::mem::replace(&mut self.slots[at as usize], Slot::Vacant) {
            Slot::Vacant => None,
            Slot::Packed(packed) => Some(packed.unpack()),
            Slot::Whole(whole) => Some(whole.file),
        }
    }

    /// What of the invariants does not hold, if anything. Looks at everything.
    pub fn check(&self) -> Result<(), String> {
        let mut named = 0;
        for (at, slot) in self.slots.iter().enumerate() {
            let (Some(id), Some(ino)) = (slot.id(), slot.ino()) else { continue };
            named += usize::from(slot.name().is_some());
            let leads = [
                (self.find(id) == Some(at as u32), "its id leads elsewhere"),
                (self.by_ino(ino) == Some(id), "its inode number leads elsewhere"),
                (slot.name().is_none_or(|n| self.named(&as_name(n)) == Some(id)), "its name leads elsewhere"),
            ];
            if let Some((_, what)) = leads.into_iter().find(|(holds, _)| !holds) {
                return Err(format!("{id}: {what}: {slot:?}"));
            }
            if let Slot::Packed(packed) = slot
                && Packed::new(id, &packed.unpack()) != *packed
            {
                return Err(format!("{id}: it is not as it was packed: {packed:?}"));
            }
        }
        let used = self.slots.len() - self.vacant.len();
        match (self.ids.len(), self.inos.len(), self.names.len()) == (used, used, named) {
            true => Ok(()),
            false => Err("an index leads to a file that is not there".into()),
        }
    }

    fn find(&self, id: FileId) -> Option<u32> {
        self.ids.find(self.hasher.hash_one(id), |at| self.slots[*at as usize].id() == Some(id)).copied()
    }

    fn slot_named(&self, name: &Name) -> Option<&Slot> {
        let name = name.as_bytes();
        let at =
            self.names.find(self.hasher.hash_one(name), |at| self.slots[*at as usize].name() == Some(name));
        at.map(|at| &self.slots[*at as usize])
    }

    fn slot(&self, id: FileId) -> Option<&Slot> {
        self.find(id).map(|at| &self.slots[at as usize])
    }

    /// The file in a slot that is in use, unpacked; others are packed for it.
    fn awaken(&mut self, at: u32) -> &mut Whole {
        let awake = matches!(&self.slots[at as usize], Slot::Whole(whole) if whole.awake);
        if !awake {
            while self.awake.len() >= AWAKE {
                let tired = self.awake.pop_front().expect("just counted");
                self.slots[tired as usize].pack();
            }
            self.awake.push_back(at);
        }
        let slot = &mut self.slots[at as usize];
        if let Slot::Packed(packed) = slot {
            let (id, file) = (packed.id(), packed.unpack());
            *slot = Slot::Whole(Box::new(Whole { id, file, awake: true }));
        }
        match slot {
            Slot::Whole(whole) => {
                whole.awake = true;
                whole
            }
            _ => unreachable!("it is in use, and was unpacked"),
        }
    }

    /// Its name leads to a file, whatever it led to.
    fn index_name(&mut self, at: u32) {
        let (slots, hasher) = (&self.slots, &self.hasher);
        let name = |at: &u32| slots[*at as usize].name();
        let hash = |at: &u32| hasher.hash_one(name(at).expect("it has a name"));
        if name(&at).is_some() {
            put(self.names.entry(hash(&at), |other| name(other) == name(&at), hash), at);
        }
    }

    /// Its name leads nowhere, if it led to that file.
    fn unindex_name(&mut self, at: u32) {
        if let Some(name) = self.slots[at as usize].name() {
            take(&mut self.names, self.hasher.hash_one(name), at);
        }
    }
}

fn slot_number(at: usize) -> u32 {
    u32::try_from(at).expect("no memory holds so many files")
}

fn put(entry: Entry<'_, u32>, at: u32) {
    match entry {
        Entry::Occupied(mut entry) => *entry.get_mut() = at,
        Entry::Vacant(entry) => _ = entry.insert(at),
    }
}

fn take(index: &mut HashTable<u32>, hash: u64, at: u32) {
    if let Ok(entry) = index.find_entry(hash, |other| *other == at) {
        entry.remove();
    }
}

pub(super) fn as_name(bytes: &[u8]) -> Name {
    Name::new(bytes).expect("files have names that are valid")
}

#[cfg(test)]
mod tests {
    use super::super::ids::WriterId;
    use super::*;

    fn id(counter: u64) -> FileId {
        FileId { writer: WriterId(1), counter }
    }

    fn file(n: u64) -> File {
        File { name: Some(name(n)), size: n, ino: id(n).usual_ino(), ..File::default() }
    }

    fn name(n: u64) -> Name {
        Name::new(format!("file {n}").as_bytes()).unwrap()
    }

    #[test]
    fn files_are_found_packed_or_not() {
        let mut files = Files::default();
        let many = 3 * AWAKE as u64;
        (0..many).for_each(|n| files.insert(id(n), file(n)));
        (0..many).for_each(|n| files.wake(id(n)).unwrap().stamp = 7);
        assert_eq!(files.check(), Ok(()));
        let packed = files.slots.iter().filter(|slot| matches!(slot, Slot::Packed(_))).count();
        assert_eq!(packed, files.ids.len() - AWAKE);
        for n in 0..many {
            assert_eq!(files.get(id(n)).as_deref(), Some(&File { stamp: 7, ..file(n) }));
            assert_eq!((files.named(&name(n)), files.by_ino(file(n).ino)), (Some(id(n)), Some(id(n))));
        }
        (0..many).step_by(2).for_each(|n| assert_eq!(files.remove(id(n)).map(|f| f.size), Some(n)));
        assert_eq!((files.check(), files.ids.len() as u64), (Ok(()), many / 2));
        assert_eq!((files.get(id(2)), files.named(&name(2))), (None, None));
        (0..many).for_each(|n| files.insert(id(n), file(n)));
        assert_eq!((files.check(), files.ids.len() as u64), (Ok(()), many));
    }

    #[test]
    fn a_name_leads_to_who_got_it_last_until_that_one_gives_it_up() {
        let mut files = Files::default();
        (0..2).for_each(|n| files.insert(id(n), file(n)));
        assert_eq!(files.rename(id(1), Some(name(0))), Some(name(1)));
        assert_eq!((files.named(&name(0)), files.named(&name(1))), (Some(id(1)), None));
        files.rename(id(0), Some(name(1)));
        assert_eq!((files.named(&name(0)), files.named(&name(1))), (Some(id(1)), Some(id(0))));
        assert_eq!(files.check(), Ok(()));
    }

    #[test]
    fn a_file_in_very_many_pieces_is_not_packed_whatever_happens_to_others() {
        let mut files = Files::default();
        let mut torn = file(0);
        (0..PIECES as u64 + 1).for_each(|n| torn.missing.insert(2 * n..2 * n + 1));
        files.insert(id(0), torn.clone());
        (1..3 * AWAKE as u64).for_each(|n| files.insert(id(n), file(n)));
        (0..3 * AWAKE as u64).for_each(|n| _ = files.wake(id(n)));
        assert!(matches!(files.get(id(0)), Some(Cow::Borrowed(found)) if *found == torn));
        files.wake(id(0)).unwrap().missing = Default::default();
        (1..3 * AWAKE as u64).for_each(|n| _ = files.wake(id(n)));
        assert!(matches!(files.get(id(0)), Some(Cow::Owned(_))));
    }
}
