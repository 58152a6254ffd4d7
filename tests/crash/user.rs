//! A user who works at random on files of his own and remembers, byte by byte, what was accepted.
//!
//! Invariants: nothing is learned from the product, but how a call that never returned ended; that may be as if
//! it had not been made or as if it had, and for bytes in mid-write either of both. The same seed makes the same calls.

use crate::rig::{Item, noise};
use rustix::fs::{FallocateFlags, RenameFlags, XattrFlags};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Names a user has.
const NAMES: u64 = 8;
/// Files held open.
const HANDLES: usize = 4;
/// The attribute that users put on files.
const TAG: &str = "user.tag";

pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn length(&mut self) -> usize {
        match self.roll(20) {
            0..=9 => 1 + self.roll(3_000) as usize,
            10..=17 => 1 + self.roll(60_000) as usize,
            18 => 1 + self.roll(400_000) as usize,
            // Too large for an announcement.
            _ => 1_000_000 + self.roll(800_000) as usize,
        }
    }

    pub fn one_of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.roll(all.len() as u64) as usize]
    }
}

#[derive(Clone, PartialEq, Eq)]
struct Doc {
    bytes: Arc<Vec<u8>>,
    mode: u32,
    tag: Option<Vec<u8>>,
}

/// All files of a user, those without a name too while they are open.
#[derive(Clone, Default)]
struct State {
    names: BTreeMap<String, u64>,
    docs: BTreeMap<u64, Doc>,
}

impl State {
    fn doc(&mut self, id: u64) -> &mut Doc {
        self.docs.get_mut(&id).expect("never removed while it is used")
    }

    /// A file whose making was cut short may have fewer rights than were asked for, never more.
    fn with_new_files_private(&self, before: &State) -> State {
        let mut private = self.clone();
        let new = private.docs.iter_mut().filter(|(id, _)| !before.docs.contains_key(id));
        new.for_each(|(_, doc)| doc.mode = 0o600);
        private
    }

    fn write(&mut self, id: u64, at: usize, new: &[u8]) {
        let bytes = Arc::make_mut(&mut self.doc(id).bytes);
        bytes.resize(bytes.len().max(at + new.len()), 0);
        bytes[at..at + new.len()].copy_from_slice(new);
    }
}

struct Open {
    file: File,
    doc: u64,
    reads: bool,
}

/// A call that was made and has not returned.
struct Doubt {
    call: String,
    after: State,
    /// Where both may be mixed: a file, and its bytes.
    mixed: Option<(u64, Range<usize>)>,
}

pub struct User {
    dir: PathBuf,
    prefix: &'static str,
    dice: Dice,
    now: State,
    open: Vec<Open>,
    doubt: Option<Doubt>,
    last: u64,
    /// The longest that a call took.
    pub slowest: (Duration, String),
}

/// Whether this is how calls end when their daemon dies.
fn died(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOTCONN | libc::ECONNABORTED))
}

impl User {
    /// Of files in `dir` that begin with `prefix`, which nobody else uses.
    pub fn new(dir: &Path, prefix: &'static str, seed: u64) -> User {
        User {
            dir: dir.to_owned(),
            prefix,
            dice: Dice(seed),
            now: State::default(),
            open: Vec::new(),
            doubt: None,
            last: 0,
            slowest: (Duration::ZERO, String::new()),
        }
    }

    /// Works until told to stop or until the daemon dies under the call. Any other error is a failure.
    pub fn work(&mut self, stop: impl Fn() -> bool) {
        while !stop() {
            match self.step() {
                Ok(()) => {}
                Err(error) if died(&error) => {
                    self.open.clear();
                    return;
                }
                Err(error) => {
                    let call = self.doubt.as_ref().map_or("closing", |d| d.call.as_str());
                    panic!("{call} of {}: {error}", self.prefix)
                }
            }
        }
    }

    /// Closes all files.
    pub fn rest(&mut self) {
        self.open.clear();
    }

    /// Makes `call`, after which things are as in `after`.
    fn attempt<T>(
        &mut self,
        call: String,
        after: State,
        mixed: Option<(u64, Range<usize>)>,
        make: impl FnOnce(&mut User) -> io::Result<T>,
    ) -> io::Result<T> {
        self.doubt = Some(Doubt { call, after, mixed });
        let begun = Instant::now();
        let done = make(self)?;
        let doubt = self.doubt.take().expect("just put there");
        if begun.elapsed() > self.slowest.0 {
            self.slowest = (begun.elapsed(), doubt.call);
        }
        self.now = doubt.after;
        Ok(done)
    }

    fn step(&mut self) -> io::Result<()> {
        let name = format!("{}{}", self.prefix, self.dice.roll(NAMES));
        match self.dice.roll(40) {
            0..=5 => self.open_file(&name),
            6..=8 if self.open.len() > 1 => {
                let n = self.dice.roll(self.open.len() as u64) as usize;
                // close(2) says nothing of the daemon's death.
                drop(self.open.remove(n));
                Ok(())
            }
            9..=12 => self.rename(&name),
            13..=14 if self.now.names.len() > 3 => self.unlink(&name),
            15..=17 => self.save_by_rename(&name),
            18 => self.read_whole(&name),
            _ if self.open.is_empty() => self.open_file(&name),
            19 | 20 => self.truncate(),
            21 | 22 => self.chmod(),
            23 => self.set_tag(),
            24 => self.set_time(),
            25 => self.punch(),
            26 | 27 => self.copy(),
            28..=30 => self.fsync(),
            _ => self.write(),
        }
    }

    fn pick(&mut self) -> usize {
        self.dice.roll(self.open.len() as u64) as usize
    }

    fn open_file(&mut self, name: &str) -> io::Result<()> {
        if self.open.len() >= HANDLES {
            let n = self.pick();
            drop(self.open.remove(n));
        }
        let (reads, truncates) = (self.dice.roll(2) == 0, self.dice.roll(4) == 0);
        let mut after = self.now.clone();
        let known = after.names.get(name).copied();
        let doc = known.unwrap_or_else(|| {
            self.last += 1;
            let doc = Doc { bytes: Arc::default(), mode: 0o644, tag: None };
            after.docs.insert(self.last, doc);
            after.names.insert(name.to_owned(), self.last);
            self.last
        });
        if truncates {
            after.doc(doc).bytes = Arc::default();
        }
        let call = format!("open({name}, truncate {truncates})");
        let file = self.attempt(call, after, None, |user| {
            let mut options = OpenOptions::new();
            options.read(reads).write(true).create(true).truncate(truncates).mode(0o644);
            options.open(user.dir.join(name))
        })?;
        self.open.push(Open { file, doc, reads });
        Ok(())
    }

    fn write(&mut self) -> io::Result<()> {
        let n = self.pick();
        let id = self.open[n].doc;
        let length = self.dice.length();
        let size = self.now.doc(id).bytes.len();
        let at = match self.dice.roll(3) {
            0 => size,
            // A hole now and then.
            _ => self.dice.roll(size as u64 + 3_000) as usize,
        };
        let new = noise(self.dice.roll(u64::MAX), length);
        let call = format!("write {length} at {at} of {}", self.called(id));
        let (before, mut after) = (self.now.clone(), self.now.clone());
        after.write(id, at, &new);
        let written = self.attempt(call, after, Some((id, size.min(at)..at + length)), |user| {
            user.open[n].file.write_at(&new, at as u64)
        })?;
        self.whole(before, id, at, &new, written)
    }

    /// The kernel divides large writes; of one that fails on the way it tells how much was taken, and the rest is in
    /// doubt. That happens only where the daemon died.
    fn whole(&mut self, before: State, id: u64, at: usize, new: &[u8], taken: usize) -> io::Result<()> {
        if taken == new.len() {
            return Ok(());
        }
        let after = std::mem::replace(&mut self.now, before);
        self.now.write(id, at, &new[..taken]);
        let mixed = Some((id, at + taken..at + new.len()));
        self.doubt = Some(Doubt { call: "the rest of a write".into(), after, mixed });
        Err(io::Error::from_raw_os_error(libc::ENOTCONN))
    }

    fn truncate(&mut self) -> io::Result<()> {
        let n = self.pick();
        let id = self.open[n].doc;
        let size = self.dice.roll(self.now.doc(id).bytes.len() as u64 * 3 / 2 + 1_000);
        let mut after = self.now.clone();
        Arc::make_mut(&mut after.doc(id).bytes).resize(size as usize, 0);
        let call = format!("truncate {} to {size}", self.called(id));
        self.attempt(call, after, None, |user| user.open[n].file.set_len(size))
    }

    fn chmod(&mut self) -> io::Result<()> {
        let n = self.pick();
        let id = self.open[n].doc;
        let mode = *self.dice.one_of(&[0o600, 0o640, 0o644, 0o664, 0o755]);
        let mut after = self.now.clone();
        after.doc(id).mode = mode;
        let call = format!("chmod {} {mode:o}", self.called(id));
        self.attempt(call, after, None, |user| {
            user.open[n].file.set_permissions(std::fs::Permissions::from_mode(mode))
        })
    }

    fn set_tag(&mut self) -> io::Result<()> {
        let n = self.pick();
        let id = self.open[n].doc;
        let tag = noise(self.dice.roll(u64::MAX), 20);
        let mut after = self.now.clone();
        after.doc(id).tag = Some(tag.clone());
        let call = format!("setxattr {}", self.called(id));
        self.attempt(call, after, None, |user| {
            Ok(rustix::fs::fsetxattr(&user.open[n].file, TAG, &tag, XattrFlags::empty())?)
        })
    }

    fn set_time(&mut self) -> io::Result<()> {
        let n = self.pick();
        let time = UNIX_EPOCH + Duration::from_secs(1_000_000_000 + self.dice.roll(100_000));
        let after = self.now.clone();
        let call = format!("utimens {}", self.called(self.open[n].doc));
        self.attempt(call, after, None, |user| user.open[n].file.set_modified(time))
    }

    fn punch(&mut self) -> io::Result<()> {
        let n = self.pick();
        let id = self.open[n].doc;
        let size = self.now.doc(id).bytes.len();
        let at = self.dice.roll(size as u64 + 1) as usize;
        let length = self.dice.length();
        let end = (at + length).min(size);
        let mut after = self.now.clone();
        Arc::make_mut(&mut after.doc(id).bytes)[at..end].fill(0);
        let call = format!("punch {at}..{end} of {}", self.called(id));
        self.attempt(call, after, Some((id, at..end)), |user| {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            Ok(rustix::fs::fallocate(&user.open[n].file, flags, at as u64, length as u64)?)
        })
    }

    fn copy(&mut self) -> io::Result<()> {
        let (from, to) = (self.pick(), self.pick());
        let (source, target) = (self.open[from].doc, self.open[to].doc);
        let size = self.now.doc(source).bytes.len();
        if !self.open[from].reads || source == target || size == 0 {
            return Ok(());
        }
        let at = self.dice.roll(size as u64) as usize;
        let length = (size - at).min(self.dice.length());
        let to_at = self.dice.roll(self.now.doc(target).bytes.len() as u64 + 1) as usize;
        let bytes = self.now.doc(source).bytes[at..at + length].to_vec();
        let mut after = self.now.clone();
        after.write(target, to_at, &bytes);
        let call = format!("copy {length} to {to_at} of {}", self.called(target));
        let copied = self.attempt(call, after, Some((target, to_at..to_at + length)), |user| {
            let (mut at, mut to_at) = (at as u64, to_at as u64);
            let (from, to) = (&user.open[from].file, &user.open[to].file);
            Ok(rustix::fs::copy_file_range(from, Some(&mut at), to, Some(&mut to_at), length)?)
        })?;
        assert_eq!(copied, length, "only part was copied");
        Ok(())
    }

    fn fsync(&mut self) -> io::Result<()> {
        let n = self.pick();
        let (after, call) = (self.now.clone(), format!("fsync {}", self.called(self.open[n].doc)));
        self.attempt(call, after, None, |user| user.open[n].file.sync_all())
    }

    fn rename(&mut self, from: &str) -> io::Result<()> {
        let to = format!("{}{}", self.prefix, self.dice.roll(NAMES));
        let Some(&id) = self.now.names.get(from) else { return Ok(()) };
        let mut after = self.now.clone();
        let mut flags = RenameFlags::empty();
        if let Some(&other) = self.now.names.get(&to)
            && self.dice.roll(2) == 0
        {
            flags = RenameFlags::EXCHANGE;
            after.names.insert(from.to_owned(), other);
            after.names.insert(to.clone(), id);
        } else if from != to {
            after.names.remove(from);
            after.names.insert(to.clone(), id);
        }
        let call = format!("rename({from}, {to}, {flags:?})");
        self.attempt(call, after, None, |user| {
            let here = rustix::fs::CWD;
            Ok(rustix::fs::renameat_with(here, user.dir.join(from), here, user.dir.join(to), flags)?)
        })
    }

    fn unlink(&mut self, name: &str) -> io::Result<()> {
        let mut after = self.now.clone();
        if after.names.remove(name).is_none() {
            return Ok(());
        }
        self.attempt(format!("unlink({name})"), after, None, |user| std::fs::remove_file(user.dir.join(name)))
    }

    /// As editors do.
    fn save_by_rename(&mut self, name: &str) -> io::Result<()> {
        let new = format!("{name}.new");
        self.last += 1;
        let id = self.last;
        let bytes = noise(self.dice.roll(u64::MAX), self.dice.length());
        let mut after = self.now.clone();
        after.names.insert(new.clone(), id);
        after.docs.insert(id, Doc { bytes: Arc::default(), mode: 0o644, tag: None });
        let path = self.dir.join(&new);
        let file = self.attempt(format!("create({new})"), after, None, |_| {
            OpenOptions::new().write(true).create(true).truncate(true).mode(0o644).open(&path)
        })?;
        let (before, mut after) = (self.now.clone(), self.now.clone());
        after.write(id, 0, &bytes);
        let call = format!("write {} of {new}", bytes.len());
        let mixed = Some((id, 0..bytes.len()));
        let written = self.attempt(call, after, mixed, |_| file.write_at(&bytes, 0))?;
        self.whole(before, id, 0, &bytes, written)?;
        if self.dice.roll(2) == 0 {
            let after = self.now.clone();
            self.attempt(format!("fsync {new}"), after, None, |_| file.sync_all())?;
        }
        drop(file);
        let mut after = self.now.clone();
        after.names.remove(&new);
        after.names.insert(name.to_owned(), id);
        let to = self.dir.join(name);
        self.attempt(format!("rename({new}, {name})"), after, None, |_| std::fs::rename(&path, to))?;
        // What nobody can reach any more.
        let State { names, docs } = &mut self.now;
        let open = &self.open;
        docs.retain(|id, _| names.values().any(|n| n == id) || open.iter().any(|o| o.doc == *id));
        Ok(())
    }

    /// What was written is read at once.
    fn read_whole(&mut self, name: &str) -> io::Result<()> {
        let path = self.dir.join(name);
        let after = self.now.clone();
        let found = self.attempt(format!("read {name}"), after, None, |_| match std::fs::read(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map(Some),
        })?;
        let known = self.now.names.get(name).map(|id| &*self.now.docs[id].bytes);
        assert!(found.as_ref() == known, "{name} does not read as it was written");
        Ok(())
    }

    fn called(&self, id: u64) -> String {
        let name = self.now.names.iter().find(|(_, n)| **n == id);
        name.map_or_else(|| "an unlinked file".into(), |(name, _)| name.clone())
    }

    /// Holds what is there against what was accepted. A call in doubt is settled by it.
    pub fn check(&mut self, found: &BTreeMap<OsString, Item>) -> Result<(), String> {
        let mine: BTreeMap<&str, &Item> = found
            .iter()
            .filter_map(|(name, item)| Some((name.to_str()?, item)))
            .filter(|(name, _)| name.starts_with(self.prefix))
            .collect();
        let doubt = self.doubt.take();
        let Err(before) = differs(&self.now, &mine, None) else { return Ok(()) };
        let Some(doubt) = doubt else { return Err(before) };
        let after = match differs(&doubt.after, &mine, None) {
            Ok(()) => {
                self.now = doubt.after;
                return Ok(());
            }
            Err(after) => after,
        };
        let private = doubt.after.with_new_files_private(&self.now);
        if differs(&private, &mine, None).is_ok() {
            self.now = private;
            return Ok(());
        }
        let Some((id, range)) = doubt.mixed else {
            return Err(format!("{} was not made: {before}; or it was: {after}", doubt.call));
        };
        let old = self.now.doc(id).bytes.clone();
        differs(&self.now, &mine, Some((id, &old, &doubt.after.docs[&id].bytes, &range)))
            .map_err(|mixed| format!("{} half made: {mixed}", doubt.call))?;
        let name = self.called(id);
        if let Some(item) = mine.get(name.as_str()) {
            self.now.doc(id).bytes = Arc::new(item.bytes.clone());
        }
        Ok(())
    }
}

/// A file that may be in mid-write: which, its bytes before and after, and what is being written.
type Mixed<'a> = (u64, &'a [u8], &'a [u8], &'a Range<usize>);

fn differs(state: &State, found: &BTreeMap<&str, &Item>, mixed: Option<Mixed>) -> Result<(), String> {
    let (known, names): (Vec<_>, Vec<_>) = (state.names.keys().collect(), found.keys().collect());
    if !known.iter().map(|n| n.as_str()).eq(names.iter().map(|n| **n)) {
        return Err(format!("{known:?} should be there, and {names:?} are"));
    }
    for (name, id) in &state.names {
        let (doc, item) = (&state.docs[id], found[name.as_str()]);
        match mixed.filter(|m| m.0 == *id) {
            Some((_, old, new, range)) => {
                mixture(old, new, range, &item.bytes).map_err(|e| format!("{name}: {e}"))?
            }
            None if *doc.bytes != item.bytes => {
                return Err(format!("{name}: {}", difference(&doc.bytes, &item.bytes)));
            }
            None => {}
        }
        if item.mode & 0o7777 != doc.mode {
            return Err(format!("{name} has the mode {:o} instead of {:o}", item.mode & 0o7777, doc.mode));
        }
        if item.attributes.get(&OsString::from(TAG)) != doc.tag.as_ref() {
            return Err(format!("{name} has another {TAG}"));
        }
    }
    Ok(())
}

pub fn difference(wanted: &[u8], found: &[u8]) -> String {
    let common = wanted.iter().zip(found).position(|(a, b)| a != b);
    let common = common.unwrap_or(wanted.len().min(found.len()));
    let wrong = wanted.iter().zip(found).filter(|(a, b)| a != b).count();
    format!("{} bytes instead of {}, {wrong} differ, the first at {common}", found.len(), wanted.len())
}

fn mixture(old: &[u8], new: &[u8], range: &Range<usize>, found: &[u8]) -> Result<(), String> {
    let lengths = old.len().min(new.len())..=old.len().max(new.len());
    if !lengths.contains(&found.len()) {
        return Err(format!("{} bytes, neither old nor new nor between", found.len()));
    }
    let fits = |(at, byte): (usize, &u8)| {
        let was = old.get(at).copied().unwrap_or(0);
        *byte == was || (range.contains(&at) && new.get(at) == Some(byte))
    };
    match found.iter().enumerate().position(|pair| !fits(pair)) {
        None => Ok(()),
        Some(at) => Err(format!("byte {at} is neither old nor new")),
    }
}
