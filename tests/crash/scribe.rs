//! A user who notes for every byte which fsync covered it.
//!
//! Invariant: what is demanded after a power cut is what any disk file system owes: what fsync returned for is
//! there; each page of anything later is as it was or as it became, and so is each chunk.

use crate::rig::noise;
use crate::user::Dice;
use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::ops::RangeInclusive;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Not a divisor of pages or chunks, nor they of it.
const SLOT: usize = 1300;
const SLOTS: u64 = 60;
/// What a disk writes as a whole.
const PAGE: usize = 512;
/// What one host asks the other for.
const CHUNK: usize = 1000;
/// Files that are saved as editors do.
const SAVED: u64 = 5;

pub struct Scribe {
    dir: PathBuf,
    prefix: String,
    dice: Dice,
    log: Option<File>,
    slots: Option<File>,
    /// Records of the log and versions of each slot: what fsync covers, and what was begun.
    lines: Mark,
    cells: Vec<Mark>,
    /// What a power cut made of slots, as versions of their own.
    torn: BTreeMap<(u64, u64), Vec<u8>>,
    /// Versions of files that are saved by renaming: what was durable, and what was begun.
    saved: BTreeMap<u64, Mark>,
    pub fsyncs: u64,
}

#[derive(Clone, Copy, Default, Debug)]
struct Mark {
    durable: u64,
    accepted: u64,
    begun: u64,
}

impl Mark {
    /// The versions that may be found.
    fn may_be(&self, exactly: bool) -> RangeInclusive<u64> {
        if exactly { self.accepted..=self.accepted } else { self.durable..=self.begun }
    }
}

fn cell(slot: u64, version: u64) -> Vec<u8> {
    if version == 0 { vec![0; SLOT] } else { noise(slot << 32 | version, SLOT) }
}

fn saved(name: u64, version: u64) -> Vec<u8> {
    noise(name << 40 | version << 1 | 1, 700 + (version as usize * 977) % 20_000)
}

/// A file that ends before reads as zeros where it has not been extended.
fn slot_of(slots: &[u8], slot: u64) -> Vec<u8> {
    let from = slot as usize * SLOT;
    let mut found = slots.get(from..slots.len().min(from + SLOT)).unwrap_or_default().to_vec();
    found.resize(SLOT, 0);
    found
}

impl Scribe {
    pub fn new(dir: &Path, prefix: &str, seed: u64) -> Scribe {
        Scribe {
            dir: dir.to_owned(),
            prefix: prefix.to_owned(),
            dice: Dice(seed),
            log: None,
            slots: None,
            lines: Mark::default(),
            cells: vec![Mark::default(); SLOTS as usize],
            torn: BTreeMap::new(),
            saved: BTreeMap::new(),
            fsyncs: 0,
        }
    }

    fn version(&self, slot: u64, version: u64) -> Vec<u8> {
        self.torn.get(&(slot, version)).cloned().unwrap_or_else(|| cell(slot, version))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{}-{name}", self.prefix))
    }

    /// Works until told to stop, or until the daemon is gone. A daemon that is `dying` may take a call along that it was
    /// just about to hear of: to that the kernel says EIO.
    pub fn work(&mut self, stop: impl Fn() -> bool, dying: impl Fn() -> bool) {
        while !stop() {
            if let Err(error) = self.step() {
                let gone = [libc::ENOTCONN, libc::ECONNABORTED];
                let untold = libc::EIO;
                assert!(
                    error.raw_os_error().is_some_and(|e| gone.contains(&e) || (e == untold && dying())),
                    "{} can't work: {error}",
                    self.prefix
                );
                break;
            }
        }
        (self.log, self.slots) = (None, None);
    }

    fn step(&mut self) -> io::Result<()> {
        let open = |path| File::options().create(true).truncate(false).write(true).open(path);
        if self.log.is_none() {
            self.log = Some(open(self.path("log"))?);
            self.slots = Some(open(self.path("slots"))?);
        }
        let (Some(log), Some(slots)) = (&self.log, &self.slots) else { unreachable!("just opened") };
        match self.dice.roll(10) {
            0..=3 => {
                self.lines.begun += 1;
                let n = self.lines.begun;
                log.write_all_at(&cell(SLOTS, n), (n - 1) * SLOT as u64)?;
                self.lines.accepted = n;
            }
            4..=7 => {
                let slot = self.dice.roll(SLOTS);
                let mark = &mut self.cells[slot as usize];
                mark.begun += 1;
                slots.write_all_at(&cell(slot, mark.begun), slot * SLOT as u64)?;
                mark.accepted = mark.begun;
            }
            8 if self.dice.roll(2) == 0 => {
                log.sync_all()?;
                self.lines.durable = self.lines.accepted;
                self.fsyncs += 1;
            }
            8 => {
                slots.sync_data()?;
                self.cells.iter_mut().for_each(|mark| mark.durable = mark.accepted);
                self.fsyncs += 1;
            }
            _ => self.save()?,
        }
        Ok(())
    }

    /// Write aside, fsync, rename, and now and then fsync of the directory.
    fn save(&mut self) -> io::Result<()> {
        let name = self.dice.roll(SAVED);
        let mark = self.saved.entry(name).or_default();
        mark.begun += 1;
        let version = mark.begun;
        let (new, path) = (self.path(&format!("{name}.new")), self.path(&name.to_string()));
        let file = File::create(&new)?;
        file.write_all_at(&saved(name, version), 0)?;
        file.sync_all()?;
        drop(file);
        std::fs::rename(new, path)?;
        let whole = self.dice.roll(2) == 0;
        if whole {
            File::open(&self.dir)?.sync_all()?;
            self.fsyncs += 1;
        }
        for (other, mark) in &mut self.saved {
            if *other == name {
                mark.accepted = version;
            }
            if whole {
                mark.durable = mark.accepted;
            }
        }
        Ok(())
    }

    /// Whether each file is right in one of the versions that `versions` gives for its name, the first being that under
    /// the name itself: it has what fsync covered or, with `exactly`, is as it was accepted.
    pub fn check(&self, exactly: bool, versions: impl Fn(&str) -> Vec<Vec<u8>>) -> Result<(), String> {
        let fixed = ["log", "slots"].map(str::to_owned);
        for name in fixed.into_iter().chain(self.saved.keys().map(u64::to_string)) {
            let all = versions(&format!("{}-{name}", self.prefix));
            let verdict = |found: Option<&[u8]>| match name.as_str() {
                "log" => self.check_log(exactly, found.unwrap_or_default()),
                "slots" => self.check_slots(exactly, found.unwrap_or_default()),
                _ => self.check_saved(exactly, &name, found),
            };
            let first = verdict(all.first().map(Vec::as_slice));
            let Err(why) = first else { continue };
            if !all.iter().skip(1).any(|bytes| verdict(Some(bytes)).is_ok()) {
                return Err(format!("{}-{name} ({} versions): {why}", self.prefix, all.len()));
            }
        }
        Ok(())
    }

    fn check_log(&self, exactly: bool, log: &[u8]) -> Result<(), String> {
        let may_be = self.lines.may_be(exactly);
        let lengths = may_be.start() * SLOT as u64..=may_be.end() * SLOT as u64;
        if !lengths.contains(&(log.len() as u64)) {
            return Err(format!("{} bytes, not {lengths:?}", log.len()));
        }
        for (n, found) in (1..).zip(log.chunks(SLOT)) {
            if *found != cell(SLOTS, n)[..found.len()] && n <= *may_be.start() {
                return Err(format!("record {n} of {:?}", self.lines));
            }
        }
        Ok(())
    }

    fn check_slots(&self, exactly: bool, slots: &[u8]) -> Result<(), String> {
        for (n, mark) in (0..).zip(&self.cells) {
            let (from, found) = (n as usize * SLOT, slot_of(slots, n));
            let versions: Vec<Vec<u8>> = mark.may_be(exactly).map(|v| self.version(n, v)).collect();
            let mut at = 0;
            while at < SLOT {
                // Torn where the disk tears, or where what the peer has was put in.
                let next = |unit: usize| ((from + at) / unit + 1) * unit - from;
                let end = next(PAGE).min(next(CHUNK)).min(SLOT);
                if !versions.iter().any(|v| v[at..end] == found[at..end]) {
                    let old = (0..mark.durable).find(|v| self.version(n, *v)[at..end] == found[at..end]);
                    return Err(format!("slot {n} from {at}, {mark:?}, is of version {old:?}"));
                }
                at = end;
            }
        }
        Ok(())
    }

    fn check_saved(&self, exactly: bool, name: &str, found: Option<&[u8]>) -> Result<(), String> {
        let number = name.parse().expect("a name of ours");
        let mark = &self.saved[&number];
        let fits = |version: u64| match version {
            0 => found.is_none(),
            v => found == Some(&saved(number, v)),
        };
        if mark.may_be(exactly).any(fits) {
            return Ok(());
        }
        let old = (1..mark.durable).find(|v| fits(*v));
        Err(format!("{:?} bytes, of version {old:?}, {mark:?}", found.map(<[u8]>::len)))
    }

    /// After a check: what may have been lost counts from now on as it is.
    pub fn settle(&mut self, read: impl Fn(&str) -> Option<Vec<u8>>) {
        let get = |name: &str| read(&format!("{}-{name}", self.prefix));
        let log = get("log").unwrap_or_default();
        let whole = (1..).zip(log.chunks(SLOT)).take_while(|(n, found)| *found == cell(SLOTS, *n)).count();
        // The log goes on where it ends now.
        self.lines = Mark { durable: whole as u64, accepted: whole as u64, begun: whole as u64 };
        let slots = get("slots").unwrap_or_default();
        for n in 0..SLOTS {
            let found = slot_of(&slots, n);
            let known = self.cells[n as usize].may_be(false).find(|v| self.version(n, *v) == found);
            let mark = &mut self.cells[n as usize];
            let version = known.unwrap_or_else(|| {
                mark.begun += 1;
                self.torn.insert((n, mark.begun), found);
                mark.begun
            });
            (mark.accepted, mark.durable) = (version, version);
        }
        for (name, mark) in &mut self.saved {
            let found = get(&name.to_string());
            let fits = |v: &u64| *v > 0 && found.as_deref() == Some(&saved(*name, *v));
            let version = mark.may_be(false).find(fits).unwrap_or(0);
            (mark.accepted, mark.durable) = (version, version);
        }
    }
}
