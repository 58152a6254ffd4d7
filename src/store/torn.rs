//! A disk in memory that loses power as real ones do; for tests.
//!
//! What was not synced is kept, dropped or torn apart at a crash, each write and each name by itself,
//! as the seed says: the same seed and history leave the same bytes. Invariant: what was synced before
//! a crash is there after it.

use super::disk::Disk;
use parking_lot::Mutex;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::Arc;

/// Clones are handles to one disk.
#[derive(Clone, Default)]
pub struct TornDisk(Arc<Mutex<State>>);

/// An open file: its number, which outlives its name.
pub struct TornFile(usize);

#[derive(Default)]
struct State {
    files: Vec<Content>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    space: Option<u64>,
    fail_truncate: bool,
    fail_sync: bool,
    syncs: u64,
}

#[derive(Default)]
struct Content {
    durable: Vec<u8>,
    now: Vec<u8>,
    /// What was done since the last sync.
    pending: Vec<Change>,
}

enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
}

impl TornDisk {
    pub fn new() -> TornDisk {
        TornDisk::default()
    }

    /// The power fails. Open files of before must not be used again.
    pub fn crash(&self, seed: u64) {
        let mut state = self.0.lock();
        let state = &mut *state;
        let mut dice = Dice(seed);
        for file in &mut state.files {
            let mut survived = std::mem::take(&mut file.durable);
            for change in file.pending.drain(..) {
                match dice.roll(4) {
                    0 => {}
                    1 => change.tear(&mut dice).apply(&mut survived),
                    _ => change.apply(&mut survived),
                }
            }
            (file.now, file.durable) = (survived.clone(), survived);
        }
        let all: BTreeSet<String> = state.names.keys().chain(state.durable_names.keys()).cloned().collect();
        for name in all {
            let kept = if dice.roll(2) == 0 { &state.names } else { &state.durable_names };
            match kept.get(&name).copied() {
                Some(file) => state.durable_names.insert(name, file),
                None => state.durable_names.remove(&name),
            };
        }
        state.names = state.durable_names.clone();
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
    pub fn bytes(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.0.lock();
        state.names.get(name).map(|file| state.files[*file].now.clone())
    }

    /// Puts a file there, durable, behind everybody's back.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut state = self.0.lock();
        let file = state.files.len();
        state.files.push(Content { durable: bytes.clone(), now: bytes, pending: vec![] });
        state.names.insert(name.to_owned(), file);
        state.durable_names.insert(name.to_owned(), file);
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

impl Disk for TornDisk {
    type File = TornFile;

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.0.lock().names.keys().cloned().collect())
    }

    fn create(&self, name: &str) -> io::Result<TornFile> {
        let mut state = self.0.lock();
        if state.names.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let file = state.files.len();
        state.files.push(Content::default());
        state.names.insert(name.to_owned(), file);
        Ok(TornFile(file))
    }

    fn open(&self, name: &str) -> io::Result<TornFile> {
        let state = self.0.lock();
        state.names.get(name).map(|file| TornFile(*file)).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.0.lock().names.remove(name).map(drop).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn sync_names(&self) -> io::Result<()> {
        let mut state = self.0.lock();
        state.syncing()?;
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn read(&self, file: &TornFile) -> io::Result<Vec<u8>> {
        Ok(self.0.lock().files[file.0].now.clone())
    }

    fn write_at(&self, file: &TornFile, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let mut state = self.0.lock();
        let taken = state.space.unwrap_or(u64::MAX).min(bytes.len() as u64) as usize;
        if let Some(space) = &mut state.space {
            *space -= taken as u64;
        }
        if taken == 0 && !bytes.is_empty() {
            return Err(io::Error::from_raw_os_error(libc::ENOSPC));
        }
        state.files[file.0]
            .change(|| Change::Write { offset: offset as usize, bytes: bytes[..taken].to_vec() });
        Ok(taken)
    }

    fn truncate(&self, file: &TornFile, len: u64) -> io::Result<()> {
        let mut state = self.0.lock();
        if state.fail_truncate {
            return Err(io::Error::from_raw_os_error(libc::EIO));
        }
        state.files[file.0].change(|| Change::Truncate(len as usize));
        Ok(())
    }

    fn sync(&self, file: &TornFile) -> io::Result<()> {
        let mut state = self.0.lock();
        state.syncing()?;
        let file = &mut state.files[file.0];
        file.pending.clear();
        file.durable = file.now.clone();
        Ok(())
    }
}

impl State {
    fn syncing(&mut self) -> io::Result<()> {
        self.syncs += 1;
        if self.fail_sync { Err(io::Error::from_raw_os_error(libc::EIO)) } else { Ok(()) }
    }
}

impl Content {
    fn change(&mut self, change: impl Fn() -> Change) {
        change().apply(&mut self.now);
        self.pending.push(change());
    }
}

/// Numbers from a seed (SplitMix64).
pub struct Dice(pub u64);

impl Dice {
    /// A number below `sides`, which is not 0.
    pub fn roll(&mut self, sides: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % sides as u64) as usize
    }
}
