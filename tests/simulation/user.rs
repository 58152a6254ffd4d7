//! The users of one host: random work on its files, and an independent model of what must come of it.
//!
//! The model knows bytes and names, nothing of chunks, versions or journals. Of each file it keeps the states
//! it has had since it was last certain: after a crash each byte must be one that it was in one of them.

use crate::matching::Matching;
use crate::simulated::calls::{EXCHANGE, Result, process, read, read_open};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::hash::{DefaultHasher, Hash, Hasher};
use syncfs::engine::Host;
use syncfs::fs::error::Error;
use syncfs::fs::volume::{Caller, SetAttr, Volume, WriteMode};
use syncfs::store::torn::Dice;

const NOREPLACE: u32 = 1;

/// One file of a user's, whatever it is called at the moment.
#[derive(Clone, Default)]
pub struct Tracked {
    /// Contents since the last certain one, which is the first.
    pub contents: Vec<Vec<u8>>,
    /// Contents before that were not synced: on the disk they may be all that lies below a later write.
    older: Vec<Vec<u8>>,
    /// Names since the last certain one, which is the first; `None`: not there.
    pub names: Vec<Option<String>>,
    /// The other host has it, or had: what becomes of its name is told, and so durable, before a rest.
    told: bool,
}

impl Tracked {
    pub fn now(&self) -> &Vec<u8> {
        self.contents.last().expect("a file has a content")
    }

    /// What it may be after a crash: contents and names. Torn by power loss, any since it was certain; killed,
    /// the last, or one of the last few where a call was under way.
    fn recent(&self, torn: bool, busy: bool) -> (&[Vec<u8>], &[Option<String>]) {
        let recent = match (torn, busy) {
            (true, _) => usize::MAX,
            (false, true) => 3,
            (false, false) => 1,
        };
        let contents = &self.contents[self.contents.len().saturating_sub(recent)..];
        (contents, &self.names[self.names.len().saturating_sub(recent)..])
    }

    /// What is there now survives everything.
    fn synced(&mut self) {
        self.contents.drain(..self.contents.len() - 1);
        self.names.drain(..self.names.len() - 1);
        self.older.clear();
    }

    pub fn name(&self) -> Option<&String> {
        self.names.last().expect("a file has a name or has none").as_ref()
    }
}

struct Open {
    handle: u64,
    file: usize,
    writes: bool,
}

/// All users of one host, who keep to names of their own.
pub struct Users {
    /// What their names begin with.
    prefix: &'static str,
    pub files: Vec<Tracked>,
    /// Every content that any file ever had between two system calls.
    pub history: HashSet<u64>,
    open: Vec<Open>,
    /// Files that the call under way changes: it may have happened or not.
    busy: BTreeSet<usize>,
    /// What the file that was changed last was before.
    before: Vec<u8>,
    names: usize,
    largest: usize,
}

pub fn fingerprint(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

impl Users {
    pub fn new(prefix: &'static str, names: usize, largest: usize) -> Users {
        let history = HashSet::from([fingerprint(&[])]);
        let (files, open, busy, before) = (Vec::new(), Vec::new(), BTreeSet::new(), Vec::new());
        Users { prefix, files, history, open, busy, before, names, largest }
    }

    /// The files by name, as they must be now.
    pub fn present(&self) -> BTreeMap<String, usize> {
        let named = |(n, f): (usize, &Tracked)| Some((f.name()?.clone(), n));
        self.files.iter().enumerate().filter_map(named).collect()
    }

    fn becomes(&mut self, file: usize, content: Vec<u8>) {
        self.history.insert(fingerprint(&content));
        self.busy.insert(file);
        self.before.clone_from(self.files[file].now());
        if self.files[file].now() != &content {
            self.files[file].contents.push(content);
        }
    }

    fn moves(&mut self, file: usize, name: Option<&str>) {
        self.busy.insert(file);
        self.files[file].names.push(name.map(str::to_owned));
    }

    /// What was there at the last system call is all there is: nothing is uncertain any more. But a file that was
    /// unlinked before the other host heard of it concerns nobody, and nobody has synced its unlink: as on every
    /// file system it may be back after the next power loss. With `torn` that has just been, and did not bring it.
    pub fn settle(&mut self, torn: bool) {
        self.files.retain(|f| f.name().is_some() || !(f.told || torn));
        for file in self.files.iter_mut().filter(|f| f.name().is_some()) {
            file.told = true;
            let last = file.contents.len() - 1;
            file.older.extend(file.contents.drain(..last));
            file.names.drain(..file.names.len() - 1);
        }
        self.open.clear();
        self.busy.clear();
    }

    /// Everybody closes what is open.
    pub fn close_all(&mut self, host: &Host) {
        for open in self.open.drain(..) {
            let _ = Volume::flush(host, open.handle, 0);
            host.release(open.handle, None);
        }
    }

    /// The daemon ended and took all handles with it.
    pub fn lose_handles(&mut self) {
        self.open.clear();
    }

    /// Whether `bytes` may be what power loss left of some file, until it is known what that was.
    pub fn may_be_torn(&self, bytes: &[u8]) -> bool {
        self.files.iter().any(|f| may_be(&f.contents, &f.older, bytes, true))
    }

    /// After a crash: takes over what is there, where it is among what may be.
    pub fn adopt(
        &mut self,
        actual: &BTreeMap<String, Vec<u8>>,
        torn: bool,
    ) -> std::result::Result<(), String> {
        // Those that are certain first: others must not claim their names.
        let busy = std::mem::take(&mut self.busy);
        let mut order: Vec<usize> = (0..self.files.len()).collect();
        order.sort_by_key(|n| {
            let (_, names) = self.files[*n].recent(torn, busy.contains(n));
            (names.contains(&None), names.len())
        });
        let mut matching = Matching::default();
        // What is exactly as it was finds its place before what was torn.
        for exactly in [true, false] {
            for &n in &order {
                let (contents, names) = self.files[n].recent(torn, busy.contains(&n));
                let older = if torn { &self.files[n].older[..] } else { &[] };
                // The last of the names it may have is the likeliest.
                for name in names.iter().rev().flatten() {
                    let fits = actual.get(name).is_some_and(|bytes| match exactly {
                        true => contents.contains(bytes),
                        false => !contents.contains(bytes) && may_be(contents, older, bytes, torn),
                    });
                    if fits {
                        matching.may(n, name);
                    }
                }
            }
            order.iter().for_each(|n| _ = matching.place(*n));
        }
        let unclaimed = actual.iter().find(|(name, _)| !matching.claim(name));
        for n in order {
            let (contents, names) = self.files[n].recent(torn, busy.contains(&n));
            match matching.name(n) {
                Some(name) => {
                    self.becomes(n, actual[name].clone());
                    self.moves(n, Some(name));
                }
                None if names.contains(&None) => self.moves(n, None),
                None => {
                    let sizes: Vec<usize> = contents.iter().map(Vec::len).collect();
                    let left: Vec<String> = actual.iter().map(|(n, b)| format!("{n}:{}", b.len())).collect();
                    return Err(format!("a file that was {names:?} of {sizes:?} bytes is lost, of {left:?}"));
                }
            }
        }
        if let Some((name, bytes)) = unclaimed {
            let mut may: Vec<String> = Vec::new();
            for file in self.files.iter().filter(|f| f.names.contains(&Some(name.clone()))) {
                let sizes: Vec<usize> = file.contents.iter().map(Vec::len).collect();
                may.push(format!("{:?} of {sizes:?}", file.names));
            }
            return Err(format!("{name} ({} bytes) is nobody's file; there may be {may:?}", bytes.len()));
        }
        self.open.clear();
        self.busy.clear();
        Ok(())
    }

    /// One random system call or a few that belong together.
    pub fn act(&mut self, host: &Host, dice: &mut Dice, trace: &mut dyn FnMut(String)) {
        self.busy.clear();
        let name = format!("{}{}", self.prefix, dice.roll(self.names));
        let other = format!("{}{}", self.prefix, dice.roll(self.names));
        let present = self.present();
        let file = present.get(&name).copied();
        match (dice.roll(16), file) {
            (0..=1, None) => {
                trace(format!("create {name}"));
                self.create(host, dice, &name);
            }
            (2, _) if self.open.len() < 4 => {
                let Some(file) = file else { return };
                trace(format!("open {name}"));
                let writes = dice.roll(4) != 0;
                let flags = if writes { libc::O_RDWR } else { libc::O_RDONLY };
                let attr = host.lookup(name.as_bytes()).expect("it is there");
                if let Ok(opened) = host.open(caller(dice), attr.ino, flags) {
                    self.open.push(Open { handle: opened.handle, file, writes });
                }
            }
            (3, _) if !self.open.is_empty() => {
                let open = self.open.swap_remove(dice.roll(self.open.len()));
                trace(format!("close {:?}", self.files[open.file].name()));
                let _ = Volume::flush(host, open.handle, 0);
                host.release(open.handle, None);
            }
            (4, _) if !self.open.is_empty() => {
                let n = dice.roll(self.open.len());
                let (handle, file) = (self.open[n].handle, self.open[n].file);
                trace(format!("fsync {:?}", self.files[file].name()));
                if host.fsync(handle, dice.roll(2) == 0).is_ok() {
                    self.files[file].synced();
                }
            }
            (5..=6, _) => {
                let writing: Vec<usize> = (0..self.open.len()).filter(|n| self.open[*n].writes).collect();
                if !writing.is_empty() {
                    let n = writing[dice.roll(writing.len())];
                    let (handle, file) = (self.open[n].handle, self.open[n].file);
                    trace(format!("write {:?}", self.files[file].name()));
                    self.write(host, dice, handle, file);
                }
            }
            (7..=8, Some(file)) => {
                trace(format!("edit {name}"));
                self.edit(host, dice, &name, file);
            }
            (9, Some(file)) => {
                trace(format!("truncate {name}"));
                let size = dice.roll(self.files[file].now().len() * 3 / 2 + 1_200);
                let mut content = self.files[file].now().clone();
                content.resize(size, 0);
                self.becomes(file, content);
                let ino = host.lookup(name.as_bytes()).expect("it is there").ino;
                let set = SetAttr { size: Some(size as u64), ..SetAttr::default() };
                let done = host.setattr(caller(dice), ino, None, set);
                self.check(host, file, None, done.map(drop));
            }
            (10..=11, Some(file)) => {
                let (taken, exchange) = (present.get(&other).copied(), dice.roll(4) == 0);
                trace(format!("rename {name} {other} {exchange}"));
                self.rename(host, &name, file, &other, taken, exchange, dice.roll(5) == 0);
            }
            (12, Some(file)) => {
                trace(format!("unlink {name}"));
                self.moves(file, None);
                if host.unlink(name.as_bytes()).is_err() {
                    self.moves(file, Some(&name));
                }
            }
            (13, Some(file)) => {
                trace(format!("replace {name}"));
                self.replace(host, dice, &name, file);
            }
            (14, Some(file)) => {
                trace(format!("chmod {name}"));
                // It leaves the content as it is, also where it fails.
                self.becomes(file, self.files[file].now().clone());
                let ino = host.lookup(name.as_bytes()).expect("it is there").ino;
                let set = SetAttr { mode: Some(0o600 + dice.roll(64) as u32), ..SetAttr::default() };
                let done = host.setattr(caller(dice), ino, None, set);
                self.check(host, file, None, done.map(drop));
            }
            (15, Some(file)) => {
                trace(format!("punch {name}"));
                self.punch(host, dice, &name, file);
            }
            _ => {}
        }
        self.busy.clear();
    }

    fn create(&mut self, host: &Host, dice: &mut Dice, name: &str) {
        let file = self.files.len();
        self.busy.insert(file);
        self.files.push(Tracked {
            contents: vec![Vec::new()],
            names: vec![None, Some(name.to_owned())],
            ..Tracked::default()
        });
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
        match host.create(caller(dice), name.as_bytes(), 0o644, flags) {
            Ok((_, opened)) => {
                self.write(host, dice, opened.handle, file);
                if dice.roll(4) == 0 {
                    self.open.push(Open { handle: opened.handle, file, writes: true });
                } else {
                    let _ = Volume::flush(host, opened.handle, 0);
                    host.release(opened.handle, None);
                }
            }
            Err(_) => self.moves(file, None),
        }
    }

    fn write(&mut self, host: &Host, dice: &mut Dice, handle: u64, file: usize) {
        let old = self.files[file].now().clone();
        let append = dice.roll(3) == 0;
        let at = if append { old.len() } else { dice.roll(old.len() + 1_500) };
        let len = match dice.roll(4) {
            0 => 1 + dice.roll(20),
            1..=2 => 1 + dice.roll(2_500),
            _ => 1 + dice.roll(self.largest),
        };
        let mut bytes: Vec<u8> = Vec::with_capacity(len + 8);
        while bytes.len() < len {
            bytes.extend(dice.number().to_le_bytes());
        }
        bytes.truncate(len);
        let mut content = old;
        content.resize(content.len().max(at + len), 0);
        content[at..at + len].copy_from_slice(&bytes);
        self.becomes(file, content);
        let mode = WriteMode { append, ..WriteMode::default() };
        let done = match host.write(handle, at as u64, &bytes, mode) {
            Ok(n) if n as usize == bytes.len() => Ok(()),
            Ok(_) => Err(Error::Io(std::io::Error::from_raw_os_error(libc::ENOSPC))),
            Err(e) => Err(e),
        };
        self.check(host, file, Some(handle), done);
    }

    fn edit(&mut self, host: &Host, dice: &mut Dice, name: &str, file: usize) {
        let attr = host.lookup(name.as_bytes()).expect("it is there");
        if let Ok(opened) = host.open(caller(dice), attr.ino, libc::O_WRONLY) {
            for _ in 0..1 + dice.roll(2) {
                self.write(host, dice, opened.handle, file);
            }
            let _ = Volume::flush(host, opened.handle, 0);
            host.release(opened.handle, None);
        }
    }

    #[allow(clippy::too_many_arguments)]
    fn rename(
        &mut self,
        host: &Host,
        from: &str,
        file: usize,
        to: &str,
        taken: Option<usize>,
        exchange: bool,
        careful: bool,
    ) {
        let same = from == to;
        let flags = match (exchange, careful) {
            (true, _) => EXCHANGE,
            (false, true) => NOREPLACE,
            _ => 0,
        };
        let fails = (exchange && taken.is_none()) || (flags == NOREPLACE && taken.is_some());
        if !same && !fails {
            self.moves(file, Some(to));
            if let Some(taken) = taken {
                self.moves(taken, exchange.then_some(from));
            }
        }
        let done = host.rename(from.as_bytes(), to.as_bytes(), flags);
        if done.is_err() && !same && !fails {
            // It may have failed before it began, or after the journal knew of it.
            let there = host.lookup(from.as_bytes()).is_ok();
            assert!(there, "a rename that failed moved {from}: {done:?}");
            self.moves(file, Some(from));
            if let Some(taken) = taken {
                self.moves(taken, Some(to));
            }
        }
        assert!(done.is_err() || !fails, "a rename of {from} to {to} succeeded");
    }

    /// What an editor does: the new content beside the file, synced, and renamed over it.
    fn replace(&mut self, host: &Host, dice: &mut Dice, name: &str, old: usize) {
        let temporary = format!("{}tmp", self.prefix);
        if self.present().contains_key(&temporary) {
            return;
        }
        let file = self.files.len();
        self.busy.insert(file);
        self.files.push(Tracked {
            contents: vec![Vec::new()],
            names: vec![None, Some(temporary.clone())],
            ..Tracked::default()
        });
        let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY;
        let Ok((_, opened)) = host.create(caller(dice), temporary.as_bytes(), 0o644, flags) else {
            self.moves(file, None);
            return;
        };
        self.write(host, dice, opened.handle, file);
        let synced = host.fsync(opened.handle, false).is_ok();
        if synced {
            self.files[file].synced();
        }
        let _ = Volume::flush(host, opened.handle, 0);
        host.release(opened.handle, None);
        self.rename(host, &temporary, file, name, Some(old), false, false);
    }

    fn punch(&mut self, host: &Host, dice: &mut Dice, name: &str, file: usize) {
        let attr = host.lookup(name.as_bytes()).expect("it is there");
        let Ok(opened) = host.open(caller(dice), attr.ino, libc::O_WRONLY) else { return };
        let mut content = self.files[file].now().clone();
        let (at, len) = (dice.roll(content.len() + 500), 1 + dice.roll(3_000));
        let end = (at + len).min(content.len());
        if at < end {
            content[at..end].fill(0);
        }
        self.becomes(file, content);
        let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
        let done = host.fallocate(opened.handle, at as u64, len as u64, mode);
        self.check(host, file, Some(opened.handle), done);
        let _ = Volume::flush(host, opened.handle, 0);
        host.release(opened.handle, None);
    }

    /// What a file is whose content is not all here: what is missing nobody can have changed.
    fn look(&self, host: &Host, name: &str) -> Option<Vec<u8>> {
        let (_, mut bytes, missing) = host.lies_here(name)?;
        for n in missing.into_iter().flatten().map(|n| n as usize) {
            bytes[n] = *self.before.get(n)?;
        }
        Some(bytes)
    }

    /// Where a call failed, what it left is read back: it must be something between before and after.
    fn check(&mut self, host: &Host, file: usize, handle: Option<u64>, done: Result<()>) {
        if done.is_ok() {
            return;
        }
        if matches!(done, Err(Error::NoRoom)) {
            // A cache that takes no more says so before anything happens.
            let before = std::mem::take(&mut self.before);
            return self.becomes(file, before);
        }
        // A file without a name is read through the handle that wrote it.
        let (found, name) = match self.files[file].name() {
            Some(name) => (read(host, name).or_else(|| self.look(host, name)), name.clone()),
            None => {
                (handle.and_then(|handle| read_open(host, handle, 1 << 20)), "an unlinked file".to_owned())
            }
        };
        if let Some(bytes) = found {
            let last = self.files[file].contents.len().saturating_sub(2);
            let may = &self.files[file].contents[last..];
            assert!(
                may_be(may, &[], &bytes, false),
                "{name}: a failed call left what nobody wrote: {done:?}"
            );
            self.becomes(file, bytes);
        }
    }
}

/// Whether `bytes` may be what a crash made of a file that went through `states`: each byte is of one of
/// them, or zero where `torn`; the size lies between theirs. Where a chunk was changed meanwhile, or the size,
/// it may also be of one of the `older` states, which were never synced.
fn may_be(states: &[Vec<u8>], older: &[Vec<u8>], bytes: &[u8], torn: bool) -> bool {
    let resized = states.iter().any(|s| s.len() != states[0].len());
    let sizes = || states.iter().chain(older.iter().filter(|_| resized)).map(Vec::len);
    let (least, most) = (sizes().min().unwrap_or(0), sizes().max().unwrap_or(0));
    let at = |state: &Vec<u8>, n: usize| state.get(n).copied().unwrap_or(0);
    let chunk = |state: &'_ Vec<u8>, n: usize| state.get(n..(n + 1000).min(state.len())).map(<[u8]>::to_vec);
    (least..=most).contains(&bytes.len())
        && (0..bytes.len()).step_by(1000).all(|begin| {
            let end = (begin + 1000).min(bytes.len());
            let changed = states.iter().any(|s| chunk(s, begin) != chunk(&states[0], begin));
            (begin..end).all(|n| {
                (bytes[n] == 0 && torn && states.len() > 1)
                    || states.iter().any(|s| at(s, n) == bytes[n])
                    || (changed && older.iter().any(|s| at(s, n) == bytes[n]))
            })
        })
}

/// One of a few processes.
fn caller(dice: &mut Dice) -> Caller {
    process(1 + dice.roll(3) as u32)
}
