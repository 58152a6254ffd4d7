//! A disk in memory that loses power as real ones do; for tests.
//!
//! What was not synced is kept, dropped or torn apart at a power cut, as the seed says: the same seed and
//! history leave the same bytes. Invariants: what was synced before a power cut is there after it; a rename
//! happened or did not, never by half; nothing depends on addresses, clocks or the order of a hash table.
//!
//! Every call that changes anything is an *effect*, numbered from 1. A test can have the process die at any
//! of them ([`TornDisk::die_at`]): the call then unwinds with [`Death`], a write perhaps half done.

use super::disk::{Content, Dir, Disk, File, Kind, Space, Stat, Time};
use super::error::Result;
use super::journal::Lsn;
use super::metadata::{MetaStore, Stored};
use crate::model::chunk::ChunkSet;
use crate::model::ids::FileId;
use parking_lot::Mutex;
use rustix::fs::RenameFlags;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::ops::Range;
use std::sync::Arc;

/// Clones are handles to one disk.
#[derive(Clone, Default)]
pub struct TornDisk(Arc<Mutex<State>>);

/// What a call unwinds with at which the process dies.
pub struct Death;

/// An open file. The inode lives for as long as it is open, whatever becomes of its name.
struct TornFile {
    disk: TornDisk,
    key: Key,
    _open: Arc<()>,
}

/// The metadata store on such a disk.
struct TornMeta(TornDisk);

/// Which inode.
type Key = u64;
type Place = (Dir, Vec<u8>);

#[derive(Default)]
struct State {
    inodes: BTreeMap<Key, Inode>,
    next: Key,
    names: BTreeMap<Place, Key>,
    durable_names: BTreeMap<Place, Key>,
    /// Changes of names since they were last durable, oldest first.
    pending_names: Vec<NameChange>,
    meta: Stored,
    /// Commits since the last sync, oldest first: what the store held before each.
    meta_before: Vec<Stored>,
    root_times: (Time, Time),

    /// Nanoseconds since 1970.
    now: i64,
    effects: u64,
    die_at: Option<u64>,
    /// How much of the write in which the process dies is done; `None`: as the effect's number says.
    die_after: Option<usize>,
    /// The length of the write in which it died.
    died_in: Option<usize>,
    dead: bool,
    space: Option<u64>,
    fail_truncate: bool,
    fail_sync: bool,
    syncs: u64,
}

struct Inode {
    open: Arc<()>,
    now: Vec<u8>,
    durable: Vec<u8>,
    /// What was done to the content since the last sync.
    pending: Vec<Change>,
    /// The bytes for which room was set aside.
    room: ChunkSet,
    attrs: Attrs,
    durable_attrs: Attrs,
}

#[derive(Clone, Default)]
struct Attrs {
    mode: u32,
    uid: u32,
    gid: u32,
    atime: Time,
    mtime: Time,
    ctime: Time,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

#[derive(Clone)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

/// A change of names, done as a whole or not at all. Changes of different entries reach the disk in any order, those of
/// one entry in theirs, as on every file system.
#[derive(Clone)]
struct NameChange {
    /// Names with the inodes that they held.
    before: Vec<(Place, Option<Key>)>,
    after: Vec<(Place, Option<Key>)>,
}

impl TornDisk {
    pub fn new() -> TornDisk {
        TornDisk::default()
    }

    /// The metadata store that lies on this disk.
    pub fn meta(&self) -> Box<dyn MetaStore> {
        Box::new(TornMeta(self.clone()))
    }

    /// The power fails. Files open before must not be used again.
    pub fn crash(&self, seed: u64) {
        let mut state = self.0.lock();
        let state = &mut *state;
        let mut dice = Dice(seed);
        for inode in state.inodes.values_mut() {
            let mut survived = std::mem::take(&mut inode.durable);
            for change in inode.pending.drain(..) {
                match dice.roll(4) {
                    0 => {}
                    1 => change.tear(&mut dice).apply(&mut survived),
                    _ => change.apply(&mut survived),
                }
            }
            (inode.now, inode.durable) = (survived.clone(), survived);
            if dice.roll(2) == 0 {
                inode.attrs = inode.durable_attrs.clone();
            } else {
                inode.durable_attrs = inode.attrs.clone();
            }
        }
        let changes = std::mem::take(&mut state.pending_names);
        let prefix = dice.roll(changes.len() + 1);
        let how = dice.roll(4);
        let mut lost: BTreeSet<Place> = BTreeSet::new();
        for (n, change) in changes.into_iter().enumerate() {
            let kept = match how {
                0 => false,
                1 => true,
                2 => n < prefix,
                _ => dice.roll(2) == 0,
            };
            if kept && change.after.iter().all(|(place, _)| !lost.contains(place)) {
                change.apply(&mut state.durable_names);
            } else {
                lost.extend(change.after.into_iter().map(|(place, _)| place));
            }
        }
        state.names = state.durable_names.clone();
        let commits = std::mem::take(&mut state.meta_before);
        let kept = dice.roll(commits.len() + 1);
        if let Some(before) = commits.into_iter().nth(kept) {
            state.meta = before;
        }
        state.revive();
    }

    /// The metadata store is gone, as where somebody removed it.
    pub fn lose_metadata(&self) {
        let mut state = self.0.lock();
        (state.meta, state.meta_before) = (Stored::default(), Vec::new());
    }

    /// The power fails, and nothing survives that was not synced. Files open before must not be used again.
    pub fn crash_bare(&self) {
        let mut state = self.0.lock();
        let state = &mut *state;
        for inode in state.inodes.values_mut() {
            inode.pending.clear();
            inode.now.clone_from(&inode.durable);
            inode.attrs = inode.durable_attrs.clone();
        }
        state.pending_names.clear();
        state.names = state.durable_names.clone();
        if let Some(synced) = std::mem::take(&mut state.meta_before).into_iter().next() {
            state.meta = synced;
        }
        state.revive();
    }

    /// Another disk, on which durably lies what lies here now: what a snapshot of the disk keeps.
    pub fn snapshot(&self) -> TornDisk {
        let state = self.0.lock();
        let named: BTreeSet<Key> = state.names.values().copied().collect();
        let inodes = state.inodes.iter().filter(|(key, _)| named.contains(key)).map(|(key, inode)| {
            let copy = Inode {
                open: Arc::new(()),
                now: inode.now.clone(),
                durable: inode.now.clone(),
                pending: Vec::new(),
                room: ChunkSet::new(),
                attrs: inode.attrs.clone(),
                durable_attrs: inode.attrs.clone(),
            };
            (*key, copy)
        });
        TornDisk(Arc::new(Mutex::new(State {
            inodes: inodes.collect(),
            next: state.next,
            names: state.names.clone(),
            durable_names: state.names.clone(),
            meta: state.meta.clone(),
            root_times: state.root_times,
            now: state.now,
            ..State::default()
        })))
    }

    /// The process is gone and the machine runs on: nothing is lost, and the disk takes calls again.
    pub fn revive(&self) {
        self.0.lock().revive();
    }

    /// The process dies at effect `n` from the disk's beginning.
    pub fn die_at(&self, n: Option<u64>) {
        self.0.lock().die_at = n;
    }

    /// The process dies at effect `n` from the disk's beginning; where that is a write, `bytes` of it are
    /// done.
    pub fn die_after(&self, n: u64, bytes: usize) {
        let mut state = self.0.lock();
        (state.die_at, state.die_after, state.died_in) = (Some(n), Some(bytes), None);
    }

    /// The length in bytes of the write that the process last died in, if [`die_after`](TornDisk::die_after)
    /// aimed at one.
    pub fn died_in(&self) -> Option<usize> {
        self.0.lock().died_in
    }

    /// The process dies here: no call does anything any more until the disk is revived or crashes.
    pub fn die_now(&self) {
        self.0.lock().dead = true;
    }

    pub fn is_dead(&self) -> bool {
        self.0.lock().dead
    }

    /// How many effects there were.
    pub fn effects(&self) -> u64 {
        self.0.lock().effects
    }

    /// What the disk takes for the time, in nanoseconds since 1970.
    pub fn set_time(&self, now: i64) {
        self.0.lock().now = now;
    }

    /// From now on the disk has room for so many more bytes, and none is set aside for any file.
    pub fn fill_up(&self, bytes: u64) {
        let mut state = self.0.lock();
        state.space = Some(bytes);
        state.inodes.values_mut().for_each(|inode| inode.room = ChunkSet::new());
    }

    /// From now on writes take at most `bytes` more in all, then fail with `ENOSPC`; `None`: no end.
    pub fn set_space(&self, bytes: Option<u64>) {
        self.0.lock().space = bytes;
    }

    /// From now on truncating fails with `EIO`, or no longer.
    pub fn fail_truncate(&self, fail: bool) {
        self.0.lock().fail_truncate = fail;
    }

    /// From now on syncs fail with `EIO`, or no longer.
    pub fn fail_sync(&self, fail: bool) {
        self.0.lock().fail_sync = fail;
    }

    /// How often anything was synced.
    pub fn syncs(&self) -> u64 {
        self.0.lock().syncs
    }

    /// The bytes of a file; `None` if there is none of that name.
    pub fn bytes(&self, dir: Dir, name: &[u8]) -> Option<Vec<u8>> {
        let state = self.0.lock();
        state.names.get(&(dir, name.to_vec())).map(|key| state.inodes[key].now.clone())
    }

    /// The names in a directory, in order.
    pub fn names(&self, dir: Dir) -> Vec<Vec<u8>> {
        let state = self.0.lock();
        state.names.keys().filter(|place| place.0 == dir).map(|place| place.1.clone()).collect()
    }

    /// Puts a file there, durable, behind everybody's back.
    pub fn put(&self, dir: Dir, name: &[u8], bytes: Vec<u8>) {
        let mut state = self.0.lock();
        let key = state.inode(0o644);
        let inode = state.inodes.get_mut(&key).expect("just made");
        (inode.now, inode.durable) = (bytes.clone(), bytes);
        inode.durable_attrs = inode.attrs.clone();
        state.names.insert((dir, name.to_vec()), key);
        state.durable_names.insert((dir, name.to_vec()), key);
    }

    fn file(&self, key: Key) -> Content {
        let open = self.0.lock().inodes[&key].open.clone();
        Arc::new(TornFile { disk: self.clone(), key, _open: open })
    }
}

impl State {
    /// Counts an effect. The process may die of it.
    fn effect(&mut self) -> bool {
        self.effects += 1;
        self.now += 1;
        if self.dead || self.die_at.is_some_and(|n| n <= self.effects) {
            self.dead = true;
        }
        self.dead
    }

    fn revive(&mut self) {
        (self.dead, self.die_at, self.die_after) = (false, None, None);
    }

    fn inode(&mut self, mode: u32) -> Key {
        let named: BTreeSet<Key> = self.names.values().chain(self.durable_names.values()).copied().collect();
        let pending: BTreeSet<Key> = self
            .pending_names
            .iter()
            .flat_map(|c| c.before.iter().chain(&c.after).filter_map(|(_, key)| *key))
            .collect();
        self.inodes.retain(|key, inode| {
            named.contains(key) || pending.contains(key) || Arc::strong_count(&inode.open) > 1
        });
        let time = Time::from_nanoseconds(self.now);
        let attrs = Attrs { mode, atime: time, mtime: time, ctime: time, ..Attrs::default() };
        self.next += 1;
        let inode = Inode {
            open: Arc::new(()),
            now: Vec::new(),
            durable: Vec::new(),
            pending: Vec::new(),
            room: ChunkSet::new(),
            durable_attrs: attrs.clone(),
            attrs,
        };
        self.inodes.insert(self.next, inode);
        self.next
    }

    fn change_names(&mut self, after: Vec<(Place, Option<Key>)>) {
        let before = after.iter().map(|(p, _)| (p.clone(), self.names.get(p).copied())).collect();
        let change = NameChange { before, after };
        change.apply(&mut self.names);
        self.pending_names.push(change);
    }

    fn change(&mut self, key: Key, change: Change) {
        let time = Time::from_nanoseconds(self.now);
        let inode = self.inodes.get_mut(&key).expect("it is open");
        change.clone().apply(&mut inode.now);
        inode.pending.push(change);
        (inode.attrs.mtime, inode.attrs.ctime) = (time, time);
    }

    fn change_attrs(&mut self, key: Key, change: impl FnOnce(&mut Attrs)) {
        let time = Time::from_nanoseconds(self.now);
        let inode = self.inodes.get_mut(&key).expect("it is open");
        change(&mut inode.attrs);
        inode.attrs.ctime = time;
    }

    /// Uses up room for a write to a file, what was set aside for these bytes first. Returns how many of them there
    /// is room for.
    fn claim_for(&mut self, key: Key, bytes: Range<u64>) -> u64 {
        let room = &self.inodes[&key].room;
        let mut end = bytes.end;
        for gap in room.gaps(&bytes) {
            let taken = self.claim(gap.end - gap.start);
            if taken < gap.end - gap.start {
                end = gap.start + taken;
                break;
            }
        }
        self.inodes.get_mut(&key).expect("it is open").room.remove(bytes.start..end);
        end - bytes.start
    }

    /// Sets room aside for these bytes of a file; false where there is not enough for all of them.
    fn set_aside(&mut self, key: Key, bytes: Range<u64>) -> bool {
        let gaps = self.inodes[&key].room.gaps(&bytes);
        let wanted = gaps.iter().map(|gap| gap.end - gap.start).sum();
        if self.space.is_some_and(|space| space < wanted) {
            return false;
        }
        self.claim(wanted);
        self.inodes.get_mut(&key).expect("it is open").room.insert(bytes);
        true
    }

    fn claim(&mut self, bytes: u64) -> u64 {
        let taken = self.space.unwrap_or(u64::MAX).min(bytes);
        if let Some(space) = &mut self.space {
            *space -= taken;
        }
        taken
    }

    fn syncing(&mut self) -> io::Result<()> {
        self.syncs += 1;
        if self.fail_sync { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }

    fn sync_inode(&mut self, key: Key) {
        let inode = self.inodes.get_mut(&key).expect("it is open");
        if !inode.pending.is_empty() {
            inode.pending.clear();
            inode.durable.clone_from(&inode.now);
        }
        inode.durable_attrs = inode.attrs.clone();
    }

    /// Makes the changes of `dir` durable, and those that they build upon.
    fn sync_names(&mut self, dir: Dir) {
        let mut places: BTreeSet<Place> = BTreeSet::new();
        let mut keys: BTreeSet<Key> = BTreeSet::new();
        let mut later = Vec::new();
        let mut now = Vec::new();
        for change in std::mem::take(&mut self.pending_names).into_iter().rev() {
            let all = || change.before.iter().chain(&change.after);
            let hit = all().any(|(place, key)| {
                place.0 == dir || places.contains(place) || key.is_some_and(|k| keys.contains(&k))
            });
            if hit {
                places.extend(all().map(|(place, _)| place.clone()));
                keys.extend(all().filter_map(|(_, key)| *key));
                now.push(change);
            } else {
                later.push(change);
            }
        }
        now.into_iter().rev().for_each(|change| change.apply(&mut self.durable_names));
        later.reverse();
        self.pending_names = later;
    }

    fn stat(&self, key: Key) -> Stat {
        let inode = &self.inodes[&key];
        let attrs = &inode.attrs;
        Stat {
            kind: Kind::File,
            ino: key,
            size: inode.now.len() as u64,
            // What is all zeros is a hole.
            blocks: inode.now.chunks(512).filter(|block| block.iter().any(|byte| *byte != 0)).count() as u64,
            mode: attrs.mode,
            nlink: u32::from(self.names.values().any(|k| *k == key)),
            uid: attrs.uid,
            gid: attrs.gid,
            atime: attrs.atime,
            mtime: attrs.mtime,
            ctime: attrs.ctime,
        }
    }
}

impl Change {
    fn apply(self, bytes: &mut Vec<u8>) {
        match self {
            Change::Truncate(len) => bytes.resize(len, 0),
            Change::Write { offset, bytes: written } => {
                let end = offset + written.len();
                if bytes.len() < end {
                    bytes.resize(end, 0);
                }
                bytes[offset..end].copy_from_slice(&written);
            }
        }
    }

    /// A part of it reached the disk: a prefix, or everything but a zeroed stretch.
    fn tear(self, dice: &mut Dice) -> Change {
        let Change::Write { offset, mut bytes } = self else { return self };
        let (a, b) = (dice.roll(bytes.len() + 1), dice.roll(bytes.len() + 1));
        if dice.roll(2) == 0 {
            bytes.truncate(a);
        } else {
            bytes[a.min(b)..a.max(b)].fill(0);
        }
        Change::Write { offset, bytes }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<Place, Key>) {
        for (place, key) in &self.after {
            match key {
                Some(key) => names.insert(place.clone(), *key),
                None => names.remove(place),
            };
        }
    }
}

/// Does an effect on the state, or dies of it: `half` is what a dying call may leave behind.
fn effect<T>(
    disk: &TornDisk,
    half: impl FnOnce(&mut State),
    whole: impl FnOnce(&mut State) -> io::Result<T>,
) -> io::Result<T> {
    let mut state = disk.0.lock();
    let was_dead = state.dead;
    if !state.effect() {
        return whole(&mut state);
    }
    if was_dead {
        // Only destructors call now.
        return Err(io::Error::from_raw_os_error(libc::EIO));
    }
    half(&mut state);
    drop(state);
    std::panic::resume_unwind(Box::new(Death))
}

impl Disk for TornDisk {
    fn open(&self, dir: Dir, name: &[u8], _write: bool) -> io::Result<Content> {
        let key = self.0.lock().names.get(&(dir, name.to_vec())).copied();
        key.map(|key| self.file(key)).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn create(&self, dir: Dir, name: &[u8], mode: u32) -> io::Result<Content> {
        let key = effect(
            self,
            |_| {},
            |state| {
                let place = (dir, name.to_vec());
                if state.names.contains_key(&place) {
                    return Err(io::Error::from_raw_os_error(libc::EEXIST));
                }
                if state.space == Some(0) {
                    return Err(io::Error::from_raw_os_error(libc::ENOSPC));
                }
                let key = state.inode(mode & 0o7777);
                state.change_names(vec![(place, Some(key))]);
                Ok(key)
            },
        )?;
        Ok(self.file(key))
    }

    fn stat(&self, dir: Dir, name: &[u8]) -> io::Result<Stat> {
        let state = self.0.lock();
        let key = state.names.get(&(dir, name.to_vec())).copied();
        key.map(|key| state.stat(key)).ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))
    }

    fn rename(&self, from: (Dir, &[u8]), to: (Dir, &[u8]), flags: RenameFlags) -> io::Result<()> {
        effect(
            self,
            |_| {},
            |state| {
                let (from, to) = ((from.0, from.1.to_vec()), (to.0, to.1.to_vec()));
                let moved = *state.names.get(&from).ok_or(io::Error::from_raw_os_error(libc::ENOENT))?;
                let replaced = state.names.get(&to).copied();
                if flags.contains(RenameFlags::NOREPLACE) && replaced.is_some() {
                    return Err(io::Error::from_raw_os_error(libc::EEXIST));
                }
                let back = flags.contains(RenameFlags::EXCHANGE);
                if back && replaced.is_none() {
                    return Err(io::Error::from_raw_os_error(libc::ENOENT));
                }
                if from != to {
                    state.change_names(vec![(from, replaced.filter(|_| back)), (to, Some(moved))]);
                }
                Ok(())
            },
        )
    }

    fn unlink(&self, dir: Dir, name: &[u8]) -> io::Result<()> {
        effect(
            self,
            |_| {},
            |state| {
                let place = (dir, name.to_vec());
                if !state.names.contains_key(&place) {
                    return Err(io::Error::from_raw_os_error(libc::ENOENT));
                }
                state.change_names(vec![(place, None)]);
                Ok(())
            },
        )
    }

    fn list(&self, dir: Dir) -> io::Result<Vec<(Vec<u8>, Kind)>> {
        Ok(self.names(dir).into_iter().map(|name| (name, Kind::File)).collect())
    }

    fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        effect(
            self,
            |_| {},
            |state| {
                state.syncing()?;
                state.sync_names(dir);
                Ok(())
            },
        )
    }

    fn sync_all(&self) -> io::Result<()> {
        effect(
            self,
            |_| {},
            |state| {
                state.syncing()?;
                let keys: Vec<Key> = state.inodes.keys().copied().collect();
                keys.into_iter().for_each(|key| state.sync_inode(key));
                state.pending_names.clear();
                state.durable_names = state.names.clone();
                Ok(())
            },
        )
    }

    fn root_stat(&self) -> io::Result<Stat> {
        let state = self.0.lock();
        Ok(Stat {
            kind: Kind::Directory,
            ino: 1,
            size: 0,
            blocks: 0,
            mode: 0o755,
            nlink: 2,
            uid: 0,
            gid: 0,
            atime: state.root_times.0,
            mtime: state.root_times.1,
            ctime: state.root_times.1,
        })
    }

    fn set_root_times(&self, atime: Option<Time>, mtime: Option<Time>) -> io::Result<()> {
        let mut state = self.0.lock();
        state.root_times = (atime.unwrap_or(state.root_times.0), mtime.unwrap_or(state.root_times.1));
        Ok(())
    }

    fn space(&self) -> io::Result<Space> {
        let free = self.0.lock().space.unwrap_or(1 << 40);
        let (blocks, files) = (1 << 30, 1 << 20);
        Ok(Space { block: 1, blocks, free, available: free, files, files_free: files })
    }

    fn now(&self) -> Time {
        Time::from_nanoseconds(self.0.lock().now)
    }
}

impl File for TornFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.0.lock();
        let bytes = &state.inodes[&self.key].now;
        let from = usize::try_from(offset).unwrap_or(usize::MAX).min(bytes.len());
        let len = buf.len().min(bytes.len() - from);
        buf[..len].copy_from_slice(&bytes[from..from + len]);
        Ok(len)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let write = |state: &mut State, len: usize| {
            let change = Change::Write { offset: offset as usize, bytes: bytes[..len].to_vec() };
            state.change(self.key, change);
        };
        effect(
            &self.disk,
            |state| {
                state.died_in = Some(bytes.len());
                let by_chance = || Dice(state.effects).roll(bytes.len() + 1);
                let len = state.die_after.unwrap_or_else(by_chance).min(bytes.len());
                if len > 0 {
                    write(state, len);
                }
            },
            |state| {
                let taken = state.claim_for(self.key, offset..offset + bytes.len() as u64) as usize;
                if taken == 0 && !bytes.is_empty() {
                    return Err(io::Error::from_raw_os_error(libc::ENOSPC));
                }
                write(state, taken);
                Ok(taken)
            },
        )
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        effect(
            &self.disk,
            |_| {},
            |state| {
                if state.fail_truncate {
                    return Err(io::Error::from_raw_os_error(libc::EIO));
                }
                state.change(self.key, Change::Truncate(len as usize));
                Ok(())
            },
        )
    }

    fn sync(&self) -> io::Result<()> {
        effect(
            &self.disk,
            |_| {},
            |state| {
                state.syncing()?;
                state.sync_inode(self.key);
                Ok(())
            },
        )
    }

    fn sync_data(&self) -> io::Result<()> {
        self.sync()
    }

    fn stat(&self) -> io::Result<Stat> {
        Ok(self.disk.0.lock().stat(self.key))
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        self.set(|attrs| attrs.mode = mode & 0o7777)
    }

    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        self.set(|attrs| (attrs.uid, attrs.gid) = (uid.unwrap_or(attrs.uid), gid.unwrap_or(attrs.gid)))
    }

    fn set_times(&self, atime: Option<Time>, mtime: Option<Time>) -> io::Result<()> {
        self.set(|attrs| {
            (attrs.atime, attrs.mtime) = (atime.unwrap_or(attrs.atime), mtime.unwrap_or(attrs.mtime));
        })
    }

    fn xattr(&self, name: &[u8], buf: &mut [u8]) -> io::Result<usize> {
        let state = self.disk.0.lock();
        let xattrs = &state.inodes[&self.key].attrs.xattrs;
        let value = xattrs.get(name).ok_or(io::Error::from_raw_os_error(libc::ENODATA))?;
        let room = buf.get_mut(..value.len()).ok_or(io::Error::from_raw_os_error(libc::ERANGE))?;
        room.copy_from_slice(value);
        Ok(value.len())
    }

    fn xattrs(&self) -> io::Result<Vec<u8>> {
        let state = self.disk.0.lock();
        let names = state.inodes[&self.key].attrs.xattrs.keys();
        Ok(names.flat_map(|name| name.iter().copied().chain([0])).collect())
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], _flags: u32) -> io::Result<()> {
        self.set(|attrs| drop(attrs.xattrs.insert(name.to_vec(), value.to_vec())))
    }

    fn remove_xattr(&self, name: &[u8]) -> io::Result<()> {
        self.set(|attrs| drop(attrs.xattrs.remove(name)))
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> io::Result<()> {
        let mode = mode as i32;
        effect(
            &self.disk,
            |_| {},
            |state| {
                let size = state.inodes[&self.key].now.len() as u64;
                let end = offset + len;
                if mode & (libc::FALLOC_FL_COLLAPSE_RANGE | libc::FALLOC_FL_INSERT_RANGE) != 0 {
                    return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
                }
                if mode & !libc::FALLOC_FL_KEEP_SIZE == 0 && !state.set_aside(self.key, offset..end) {
                    return Err(io::Error::from_raw_os_error(libc::ENOSPC));
                }
                if mode & libc::FALLOC_FL_KEEP_SIZE == 0 && end > size {
                    state.change(self.key, Change::Truncate(end as usize));
                }
                let size = state.inodes[&self.key].now.len() as u64;
                if mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0 && offset < size {
                    let bytes = vec![0; (end.min(size) - offset) as usize];
                    state.change(self.key, Change::Write { offset: offset as usize, bytes });
                }
                Ok(())
            },
        )
    }

    fn seek_data(&self, offset: u64) -> io::Result<u64> {
        match offset < self.disk.0.lock().inodes[&self.key].now.len() as u64 {
            true => Ok(offset),
            false => Err(io::Error::from_raw_os_error(libc::ENXIO)),
        }
    }

    fn seek_hole(&self, offset: u64) -> io::Result<u64> {
        self.seek_data(offset)?;
        Ok(self.disk.0.lock().inodes[&self.key].now.len() as u64)
    }

    fn descriptor(&self) -> Option<&Arc<std::fs::File>> {
        None
    }
}

impl TornFile {
    fn set(&self, change: impl FnOnce(&mut Attrs)) -> io::Result<()> {
        effect(
            &self.disk,
            |_| {},
            |state| {
                state.change_attrs(self.key, change);
                Ok(())
            },
        )
    }
}

impl MetaStore for TornMeta {
    fn head(&mut self) -> Result<(Lsn, Option<Vec<u8>>)> {
        let state = self.0.0.lock();
        Ok((state.meta.lsn, state.meta.header.clone()))
    }

    fn each_file(&mut self, tell: &mut dyn FnMut(FileId, &[u8])) -> Result<()> {
        let files = self.0.0.lock().meta.files.clone();
        files.iter().for_each(|(id, value)| tell(*id, value));
        Ok(())
    }

    fn commit(
        &mut self,
        lsn: Lsn,
        header: &[u8],
        puts: &mut dyn Iterator<Item = (FileId, Vec<u8>)>,
        gone: &[FileId],
    ) -> Result<()> {
        let puts: Vec<(FileId, Vec<u8>)> = puts.collect();
        let done = effect(
            &self.0,
            |_| {},
            |state| {
                let bytes = header.len() + puts.iter().map(|put| put.1.len()).sum::<usize>();
                if state.claim(bytes as u64) < bytes as u64 {
                    return Err(io::Error::from_raw_os_error(libc::ENOSPC));
                }
                state.meta_before.push(state.meta.clone());
                let mut files: BTreeMap<FileId, Vec<u8>> = state.meta.files.drain(..).collect();
                gone.iter().for_each(|id| drop(files.remove(id)));
                files.extend(puts.iter().cloned());
                let files = files.into_iter().collect();
                state.meta = Stored { lsn, header: Some(header.to_vec()), files };
                Ok(())
            },
        );
        done.map_err(super::Error::io("cannot write the metadata store"))
    }

    fn sync(&mut self) -> Result<()> {
        let done = effect(
            &self.0,
            |_| {},
            |state| {
                state.syncing()?;
                state.meta_before.clear();
                Ok(())
            },
        );
        done.map_err(|e| super::Error::Stopped { why: format!("cannot sync the metadata store: {e}") })
    }
}

/// Numbers from a seed (SplitMix64, Steele et al. 2014).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    /// A number below `sides`, which is not 0.
    pub fn roll(&mut self, sides: usize) -> usize {
        (self.number() % sides as u64) as usize
    }

    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
