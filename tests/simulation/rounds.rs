//! Two users who work on the same few files, each on a host of their own: round after round apart, or while they meet,
//! and each time both come to rest.
//!
//! The ledger knows contents, not versions: random bytes make each one unlike all others. Between two rests it notes which
//! content a user's call made of which, which were given up, and which were merely renamed or given a mode. At rest:
//! - a content that nobody gave up is there, under a name that it had or as a conflict copy of one;
//! - what is there was a whole file's content at the end of some call, once for each time that it was made;
//! - what somebody gave up is gone, unless both users had done something to that file, or it lost its name in between
//!   and is a conflict copy.
//!
//! `SYNCFS_ROUNDS=n` says how many rounds a history has; seeds as in the other histories.

use crate::number;
use crate::simulated::calls::{self, EXCHANGE, process};
use crate::simulated::hosts::{Hosts, Rest, WORKERS};
use crate::simulated::side::{Fate, Side};
use crate::user::fingerprint;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use syncfs::engine::Host;
use syncfs::fs::volume::{SetAttr, Volume};
use syncfs::model::conflict::{conflict, is_conflict_copy};
use syncfs::model::name::Name;
use syncfs::store::torn::Dice;

/// Rounds of a history, unless told otherwise.
const ROUNDS: u64 = 200;
/// With more files than these, users tidy up.
const MANY: usize = 14;
const THREE_DAYS: i64 = 3 * 24 * 3_600;

/// What befalls the two.
#[derive(Clone, Copy, Default)]
struct Weather {
    /// The link comes and goes while they work.
    meeting: bool,
    kills: bool,
    /// How far A's clock is ahead of B's, seconds.
    ahead: i64,
}

/// What is known of one content since the last rest.
#[derive(Default)]
struct Known {
    /// How many files it was made in.
    made: u32,
    /// Whose calls changed it into another or unlinked it; sides as bits.
    given_up: u8,
    /// The files that it was in, by inode.
    files: BTreeSet<u64>,
}

#[derive(Default)]
struct Ledger {
    contents: BTreeMap<u64, Known>,
    /// Whose calls did anything to each inode.
    touched: BTreeMap<u64, u8>,
    /// Names that each inode was given.
    names: BTreeMap<u64, BTreeSet<String>>,
    worked: u8,
}

impl Ledger {
    fn known(&mut self, content: &[u8]) -> &mut Known {
        self.contents.entry(fingerprint(content)).or_default()
    }

    fn made(&mut self, side: usize, file: u64, content: &[u8]) {
        let known = self.known(content);
        // Perhaps once more: cut off where it had been appended to.
        (known.made, known.given_up) = (known.made + 1, known.given_up & !(1 << side));
        self.touched(side, file, content);
    }

    fn touched(&mut self, side: usize, file: u64, content: &[u8]) {
        self.known(content).files.insert(file);
        *self.touched.entry(file).or_default() |= 1 << side;
    }

    fn gave_up(&mut self, side: usize, file: u64, content: &[u8]) {
        self.touched(side, file, content);
        self.known(content).given_up |= 1 << side;
    }

    fn changed(&mut self, side: usize, file: u64, from: &[u8], to: &[u8]) {
        match from == to {
            true => self.touched(side, file, from),
            false => {
                self.gave_up(side, file, from);
                self.made(side, file, to);
            }
        }
    }

    fn named(&mut self, ino: u64, name: &str) {
        self.names.entry(ino).or_default().insert(name.to_owned());
    }

    /// Holds what both have at rest against what was done, and begins anew from there.
    fn settle(&mut self, host: &Host, files: &BTreeMap<String, Vec<u8>>) -> Result<(), String> {
        let mut there: BTreeMap<u64, u32> = BTreeMap::new();
        for (name, bytes) in files {
            let print = fingerprint(bytes);
            let Some(known) = self.contents.get(&print) else {
                return Err(format!("{name} ({} bytes) is what no file was", bytes.len()));
            };
            let touched = known.files.iter().fold(0, |all, file| all | self.touched.get(file).unwrap_or(&0));
            // What stood in the way of others in between was a copy by then, and stays that.
            let set_aside = is_copy(name) && self.worked == 3;
            if known.given_up != 0 && touched != 3 && !set_aside {
                return Err(format!("{name} ({} bytes) was given up and is back", bytes.len()));
            }
            let count = there.entry(print).or_default();
            *count += 1;
            if *count > known.made {
                return Err(format!("{name} ({} bytes) is there once more than it was made", bytes.len()));
            }
            self.check_name(host, name)?;
        }
        let lost =
            self.contents.iter().find(|(print, known)| known.given_up == 0 && !there.contains_key(print));
        if let Some((_, known)) = lost {
            return Err(format!("a content of {:?} is lost; there are {:?}", self.of(known), files.keys()));
        }
        *self = Ledger::default();
        for (name, bytes) in files {
            let known = self.known(bytes);
            known.made += 1;
            known.files.insert(ino(host, name));
            self.named(ino(host, name), name);
        }
        Ok(())
    }

    /// The names that files with that content have had.
    fn of(&self, known: &Known) -> Vec<&BTreeSet<String>> {
        known.files.iter().filter_map(|file| self.names.get(file)).collect()
    }

    /// A file has a name that somebody gave it, or is a conflict copy of one.
    fn check_name(&self, host: &Host, name: &str) -> Result<(), String> {
        let given = self.names.get(&ino(host, name));
        if given.is_some_and(|given| given.contains(name)) {
            return Ok(());
        }
        let anybody = || self.names.values().flatten();
        let originals: BTreeSet<String> = match given {
            Some(given) => given.iter().map(|name| original(name)).collect(),
            None => anybody().map(|name| original(name)).collect(),
        };
        if !is_copy(name) || !originals.contains(&original(name)) {
            return Err(format!("{name} is a name that nobody gave; there were {given:?}"));
        }
        if name.matches("sync-conflict").count() != 1 {
            return Err(format!("{name} is a copy of a copy"));
        }
        match self.worked {
            3 => Ok(()),
            _ => Err(format!("{name} is a conflict, though only one user did anything")),
        }
    }
}

fn is_copy(name: &str) -> bool {
    is_conflict_copy(&Name::new(name.as_bytes()).unwrap())
}

/// What a copy is a copy of; any other name itself.
fn original(name: &str) -> String {
    let told = conflict(&Name::new(name.as_bytes()).unwrap());
    told.map_or(name.to_owned(), |told| told.original.to_string())
}

fn ino(host: &Host, name: &str) -> u64 {
    host.lookup(name.as_bytes()).expect("it was listed").ino
}

struct Rounds {
    hosts: Hosts,
    dice: Dice,
    weather: Weather,
    ledger: Ledger,
    /// Files that are kept open for writing: handle and inode.
    open: [Vec<(u64, u64)>; 2],
    calls: u64,
}

impl Rounds {
    fn new(seed: u64, weather: Weather) -> Rounds {
        let mut dice = Dice(seed);
        let inline = [0, 2_000, 1 << 20][dice.roll(3)];
        let mut hosts = Hosts::traced([0, 1].map(|_| Side::new(dice.number(), inline)));
        hosts.set_clock(0, weather.ahead);
        Rounds { hosts, dice, weather, ledger: Ledger::default(), open: Default::default(), calls: 0 }
    }

    fn run(&mut self, rounds: u64) -> Result<(), String> {
        let runtime = self.hosts.handle();
        let _inside = runtime.enter();
        for side in 0..2 {
            self.wake(side, None);
        }
        self.come_to_rest()?;
        for round in 0..rounds {
            self.hosts.note(|| format!("round {round}"));
            self.round().and_then(|()| self.come_to_rest()).map_err(|why| format!("round {round}: {why}"))?;
        }
        Ok(())
    }

    fn round(&mut self) -> Result<(), String> {
        if !self.weather.meeting {
            (0..2).for_each(|side| self.hosts.hang_up(side));
        }
        // Now and then only one does anything, and neither may be seen as a conflict.
        let busy: &[usize] = [&[0, 1][..], &[0, 1], &[0, 1], &[0, 1], &[0], &[1]][self.dice.roll(6)];
        let steps = busy.len() * (2 + self.dice.roll(7)) * if self.weather.meeting { 6 } else { 2 };
        for _ in 0..steps {
            let side = busy[self.dice.roll(busy.len())];
            match self.dice.roll(if self.weather.meeting { 12 } else { 6 }) {
                0..=1 => self.act(side)?,
                2 => self.turn(side),
                3 if self.dice.roll(3) == 0 => {
                    self.hosts.pass(Duration::from_millis([1, 400, 3_000][self.dice.roll(3)]))
                }
                4 if self.weather.kills && self.dice.roll(4) == 0 => self.kill(side),
                5 if self.dice.roll(4) == 0 => self.checkpoint(side),
                6..=7 => self.turn(1 - side),
                8 => self.hosts.transmit(self.dice.roll(2)),
                9..=10 => self.arrive()?,
                11 => match self.dice.roll(12) {
                    0 => self.hosts.hang_up(side),
                    1 => (0..2).for_each(|side| self.hosts.hang_up(side)),
                    _ => self.hosts.connect(),
                },
                _ => {}
            }
        }
        Ok(())
    }

    fn come_to_rest(&mut self) -> Result<(), String> {
        self.hosts.note(|| "come to rest".to_owned());
        for side in 0..2 {
            if self.dice.roll(3) != 0 {
                self.close_all(side);
            }
        }
        loop {
            if self.weather.kills && self.dice.roll(3) == 0 {
                let side = self.dice.roll(2);
                let soon = self.hosts.sides[side].disk.effects() + 1 + self.dice.roll(60) as u64;
                self.hosts.sides[side].disk.die_at(Some(soon));
            }
            let dice = &mut self.dice;
            match self.hosts.rest(|| dice.roll(30), |_, _| Ok(()))? {
                Rest::Level => break,
                Rest::Died(_) if !self.weather.kills => return Err("a host died of nothing".into()),
                Rest::Died(_) => self.mourn(),
            }
        }
        (0..2).for_each(|side| self.hosts.sides[side].disk.die_at(None));
        let files = self.hosts.equal()?;
        let copies = files.keys().filter(|name| is_copy(name)).count() as u64;
        for side in 0..2 {
            let told = self.hosts.host(side).status().conflicts;
            if told != copies {
                return Err(format!("host {side} counts {told} conflicts of {copies}"));
            }
        }
        self.ledger.settle(self.hosts.host(0), &files)
    }

    fn turn(&mut self, side: usize) {
        let worker = self.dice.roll(WORKERS);
        if self.weather.kills && self.dice.roll(20) == 0 {
            let soon = self.hosts.sides[side].disk.effects() + 1 + self.dice.roll(12) as u64;
            self.hosts.sides[side].disk.die_at(Some(soon));
        }
        self.hosts.turn(side, worker);
        self.hosts.sides[side].disk.die_at(None);
        self.mourn();
    }

    fn arrive(&mut self) -> Result<(), String> {
        let side = self.dice.roll(2);
        self.hosts.arrive(side).map(drop)
    }

    fn checkpoint(&mut self, side: usize) {
        self.hosts.note(|| format!("{side} checkpoints"));
        let _ = self.hosts.sides[side].run(|stepped| stepped.checkpoint());
        self.mourn();
    }

    fn kill(&mut self, side: usize) {
        self.hosts.note(|| format!("{side} is killed"));
        self.hosts.sides[side].kill();
        self.mourn();
    }

    /// Whoever has died is started again, and may die of that.
    fn mourn(&mut self) {
        for side in 0..2 {
            if self.hosts.sides[side].disk.is_dead() || self.hosts.sides[side].running.is_none() {
                self.wake(side, Some(Fate::Killed));
            }
        }
    }

    fn wake(&mut self, side: usize, mut fate: Option<Fate>) {
        self.open[side].clear();
        loop {
            if let Some(fate) = fate {
                self.hosts.note(|| format!("{side} wakes"));
                self.hosts.sides[side].settle(fate);
            }
            if self.weather.kills && self.dice.roll(4) == 0 {
                let soon = self.hosts.sides[side].disk.effects() + 1 + self.dice.roll(40) as u64;
                self.hosts.sides[side].disk.die_at(Some(soon));
            }
            let started = self.hosts.start(side);
            self.hosts.sides[side].disk.die_at(None);
            if started {
                return;
            }
            fate = Some(Fate::Killed);
        }
    }

    fn close_all(&mut self, side: usize) {
        let host = self.hosts.sides[side].running.as_ref().expect("it runs").host.clone();
        self.open[side].drain(..).for_each(|(handle, _)| calls::close(&host, handle));
    }

    fn noise(&mut self, most: usize) -> Vec<u8> {
        let len = 12 + self.dice.roll(most);
        let mut bytes: Vec<u8> =
            (0..len.div_ceil(8)).flat_map(|_| self.dice.number().to_le_bytes()).collect();
        bytes.truncate(len);
        bytes
    }

    /// One call of a user's, or a few that belong together.
    fn act(&mut self, side: usize) -> Result<(), String> {
        let host = self.hosts.sides[side].running.as_ref().expect("it runs").host.clone();
        self.calls += 1;
        let there = calls::names(&host);
        let fresh = format!("n{}", self.dice.roll(4));
        let pick = |dice: &mut Dice| match there.len() {
            0 => fresh.clone(),
            many => there[dice.roll(many)].clone(),
        };
        let (name, other) = (pick(&mut self.dice), pick(&mut self.dice));
        let new = match self.dice.roll(3) {
            0 => other.clone(),
            _ => format!("n{}", self.dice.roll(4)),
        };
        // What is still on its way nobody has seen, so nobody works on it.
        let content = |name: &str| calls::read(&host, name);
        let what = if there.len() > MANY { 7 } else { self.dice.roll(16) };
        let held = content(&name);
        self.ledger.worked |= 1 << side;
        let mut note = String::new();
        match (what, held) {
            (0..=1, _) => self.create(&host, side, &new, &mut note),
            (2..=4, Some(old)) => {
                note = format!("writes {name}");
                let (at, bytes) = self.piece(&old);
                // Not to be read from: what may be mapped is looked at each second, and that is no rest.
                let by = process(1 + self.dice.roll(3) as u32);
                let handle = host.open(by, ino(&host, &name), libc::O_WRONLY).unwrap().handle;
                self.write(&host, side, handle, &name, (old, at, bytes))?;
                match self.open[side].len() < 2 && self.dice.roll(4) == 0 {
                    true => self.open[side].push((handle, ino(&host, &name))),
                    false => calls::close(&host, handle),
                }
            }
            (5, Some(old)) => {
                let size = 1 + self.dice.roll(old.len() * 5 / 4 + 10);
                note = format!("truncates {name} to {size}");
                let mut cut = old.clone();
                cut.resize(size, 0);
                calls::truncate(&host, &name, size as u64).unwrap();
                self.ledger.changed(side, ino(&host, &name), &old, &cut);
                seen(&host, &name, &cut)?;
            }
            (6..=7, Some(old)) if what == 7 || self.dice.roll(2) == 0 => {
                note = format!("unlinks {name}");
                self.ledger.gave_up(side, ino(&host, &name), &old);
                host.unlink(name.as_bytes()).unwrap();
            }
            (8..=9, Some(old)) => {
                if let Some(taken) =
                    content(&new).or_else(|| host.lookup(new.as_bytes()).is_err().then(Vec::new))
                    && new != name
                {
                    note = format!("renames {name} {new}");
                    self.ledger.named(ino(&host, &name), &new);
                    self.ledger.touched(side, ino(&host, &name), &old);
                    if let Ok(there) = host.lookup(new.as_bytes()) {
                        self.ledger.gave_up(side, there.ino, &taken);
                    }
                    host.rename(name.as_bytes(), new.as_bytes(), 0).unwrap();
                    seen(&host, &new, &old)?;
                }
            }
            (10, Some(old)) => {
                if let (Some(second), true) = (content(&other), other != name) {
                    note = format!("exchanges {name} {other}");
                    self.ledger.named(ino(&host, &name), &other);
                    self.ledger.named(ino(&host, &other), &name);
                    self.ledger.touched(side, ino(&host, &name), &old);
                    self.ledger.touched(side, ino(&host, &other), &second);
                    host.rename(name.as_bytes(), other.as_bytes(), EXCHANGE).unwrap();
                    seen(&host, &other, &old)?;
                }
            }
            (11..=12, Some(old)) => {
                note = format!("saves {name}");
                self.save_over(&host, side, &name, old)?;
            }
            (13, Some(old)) => {
                note = format!("sets mode of {name}");
                let when = self.when(side);
                let set = SetAttr {
                    mode: Some(0o600 + self.dice.roll(64) as u32),
                    mtime: when,
                    ..SetAttr::default()
                };
                host.setattr(process(1), ino(&host, &name), None, set).unwrap();
                self.ledger.touched(side, ino(&host, &name), &old);
            }
            (14, _) if !self.open[side].is_empty() => {
                let (handle, of) = self.open[side][0];
                // What was unlinked may have come back, but not to who had it open.
                let linked = host.getattr(of, Some(handle)).is_ok_and(|attr| attr.nlink > 0);
                let name = there.iter().find(|name| linked && ino(&host, name) == of).cloned();
                note = format!("writes on to {name:?}");
                // Unlinked meanwhile, it concerns nobody any more.
                if let Some((name, old)) = name.and_then(|name| content(&name).map(|old| (name, old))) {
                    let (at, bytes) = self.piece(&old);
                    self.write(&host, side, handle, &name, (old, at, bytes))?;
                }
                if self.dice.roll(2) == 0 {
                    self.open[side].remove(0);
                    calls::close(&host, handle);
                }
            }
            (15, Some(old)) => {
                if let (Some(second), true) = (content(&other), other != name) {
                    note = format!("writes {name} and {other} together");
                    let by = process(7);
                    let handles = [&name, &other].map(|name| calls::open(&host, by, name).unwrap());
                    for (handle, (name, old)) in handles.iter().zip([(&name, old), (&other, second)]) {
                        let (at, bytes) = self.piece(&old);
                        self.write(&host, side, *handle, name, (old, at, bytes))?;
                    }
                    handles.into_iter().for_each(|handle| calls::close(&host, handle));
                }
            }
            _ => {}
        }
        self.hosts.note(|| format!("{side} {note}"));
        Ok(())
    }

    /// Where and what to write into a file that holds `old`.
    fn piece(&mut self, old: &[u8]) -> (usize, Vec<u8>) {
        let at = if self.dice.roll(3) == 0 { old.len() } else { self.dice.roll(old.len() + 300) };
        let most = [20, 1_500, 4_000][self.dice.roll(3)];
        (at, self.noise(most))
    }

    fn write(
        &mut self,
        host: &Host,
        side: usize,
        handle: u64,
        name: &str,
        (old, at, bytes): (Vec<u8>, usize, Vec<u8>),
    ) -> Result<(), String> {
        calls::write(host, handle, at as u64, &bytes).unwrap();
        let mut new = old.clone();
        new.resize(new.len().max(at + bytes.len()), 0);
        new[at..at + bytes.len()].copy_from_slice(&bytes);
        self.ledger.changed(side, ino(host, name), &old, &new);
        seen(host, name, &new)
    }

    fn create(&mut self, host: &Host, side: usize, name: &str, note: &mut String) {
        let Ok(handle) = calls::create(host, process(1), name) else { return };
        *note = format!("creates {name}");
        let bytes = self.noise(2_500);
        calls::write(host, handle, 0, &bytes).unwrap();
        calls::close(host, handle);
        self.ledger.made(side, ino(host, name), &bytes);
        self.ledger.named(ino(host, name), name);
    }

    /// As an editor does: written beside it, and renamed over it.
    fn save_over(&mut self, host: &Host, side: usize, name: &str, old: Vec<u8>) -> Result<(), String> {
        let beside = format!("beside{side}");
        let mut ignored = String::new();
        if host.lookup(beside.as_bytes()).is_err() {
            self.create(host, side, &beside, &mut ignored);
        }
        let Some(new) = calls::read(host, &beside).filter(|_| name != beside) else { return Ok(()) };
        self.ledger.named(ino(host, &beside), name);
        self.ledger.touched(side, ino(host, &beside), &new);
        self.ledger.gave_up(side, ino(host, name), &old);
        host.rename(beside.as_bytes(), name.as_bytes(), 0).unwrap();
        seen(host, name, &new)
    }

    /// A time to set, of the past or the future; or none.
    fn when(&mut self, side: usize) -> Option<std::time::SystemTime> {
        let times = [631_152_000, 1_700_000_000 + side as u64, 4_000_000_000];
        let seconds = times.get(self.dice.roll(6)).copied()?;
        Some(std::time::UNIX_EPOCH + Duration::from_secs(seconds))
    }
}

/// Who has done something sees it.
fn seen(host: &Host, name: &str, expected: &[u8]) -> Result<(), String> {
    match calls::read(host, name) {
        Some(bytes) if bytes == expected => Ok(()),
        other => Err(format!("{name} reads {:?} bytes, not what was just done", other.map(|b| b.len()))),
    }
}

/// One history: what it came to, its trace, the calls in it.
fn history(seed: u64, weather: Weather) -> (Result<(), String>, u64, u64) {
    let mut rounds = Rounds::new(seed, weather);
    let many = number("SYNCFS_ROUNDS").unwrap_or(ROUNDS);
    let result = catch_unwind(AssertUnwindSafe(|| rounds.run(many)));
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panic: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?")))
    });
    (result, rounds.hosts.trace(), rounds.calls)
}

fn histories(name: &str, weather: Weather, seeds: u64) {
    let seeds = match (number("SYNCFS_SEED"), number("SYNCFS_SEEDS")) {
        (Some(seed), many) => seed..seed + many.unwrap_or(1),
        (None, many) => 0..many.unwrap_or(seeds),
    };
    let (begun, mut calls, count) = (Instant::now(), 0, seeds.end - seeds.start);
    let mut failed = Vec::new();
    for seed in seeds {
        let (result, trace, called) = history(seed, weather);
        calls += called;
        // A few are enough to see that a seed is a history.
        if seed % 16 == 0 && history(seed, weather).1 != trace {
            failed.push(format!("seed {seed}: two runs of one seed differ"));
        }
        failed.extend(result.err().map(|why| format!("seed {seed}: {why}")));
        if failed.len() >= 20 {
            break;
        }
    }
    println!("{name}: {count} seeds, {calls} calls, {:.0} s", begun.elapsed().as_secs_f64());
    failed
        .iter()
        .for_each(|why| println!("{why}; replay: SYNCFS_STORY=1 SYNCFS_SEED=n ... {name} -- --nocapture"));
    assert!(failed.is_empty(), "{} histories went wrong; the first: {}", failed.len(), failed[0]);
}

#[test]
fn two_users_of_the_same_files_apart() {
    histories("two_users_of_the_same_files_apart", Weather::default(), 6);
}

#[test]
fn two_users_of_the_same_files_who_meet_while_they_work() {
    let weather = Weather { meeting: true, ..Weather::default() };
    histories("two_users_of_the_same_files_who_meet_while_they_work", weather, 6);
}

#[test]
fn two_users_of_the_same_files_whose_daemons_are_killed() {
    let weather = Weather { kills: true, ..Weather::default() };
    histories("two_users_of_the_same_files_whose_daemons_are_killed", weather, 4);
}

#[test]
fn two_users_of_the_same_files_who_meet_while_their_daemons_are_killed() {
    let weather = Weather { meeting: true, kills: true, ..Weather::default() };
    histories("two_users_of_the_same_files_who_meet_while_their_daemons_are_killed", weather, 4);
}

#[test]
fn two_users_of_the_same_files_whose_clocks_are_three_days_apart() {
    for ahead in [THREE_DAYS, -THREE_DAYS] {
        let weather = Weather { meeting: true, ahead, ..Weather::default() };
        histories("two_users_of_the_same_files_whose_clocks_are_three_days_apart", weather, 3);
    }
}
