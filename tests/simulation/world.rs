//! Two hosts, their users and the network between them, under one seeded scheduler.
//!
//! The scheduler alone decides what happens next: a worker's turn, a message's arrival, a system call, the
//! passing of time, a fault. So one seed is one history.

use crate::simulated::calls::{names, read_later, whole_files};
use crate::simulated::hosts::{Hosts, Rest, WORKERS};
use crate::simulated::side::{Done, Fate, Side};
use crate::user::{Users, fingerprint};
use std::collections::BTreeMap;
use std::time::Duration;
use syncfs::fs::error::Error;
use syncfs::store::torn::Dice;
use tokio::task::JoinHandle;

/// What may go wrong in a history.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub cuts: bool,
    pub kills: bool,
    pub power: bool,
    pub full: bool,
    /// One host keeps a cache only.
    pub cache: bool,
}

impl Faults {
    pub const NONE: Faults = Faults { cuts: false, kills: false, power: false, full: false, cache: false };
    pub const LINK: Faults = Faults { cuts: true, ..Faults::NONE };
    pub const KILLS: Faults = Faults { kills: true, ..Faults::LINK };
    pub const FULL: Faults = Faults { full: true, ..Faults::KILLS };
    pub const POWER: Faults = Faults { power: true, ..Faults::KILLS };
    pub const ALL: Faults = Faults { full: true, ..Faults::POWER };
}

pub struct World {
    hosts: Hosts,
    users: [Users; 2],
    dice: Dice,
    faults: Faults,
    full: [bool; 2],
    /// Has lost power since the last rest: its users wait for that.
    torn: [bool; 2],
    /// System calls of users.
    pub calls: u64,
    /// A reader that waits for content: of which side, what, and until when.
    reader: Option<Reader>,
}

/// Somebody who reads a file that is not all here.
struct Reader {
    side: usize,
    name: String,
    task: JoinHandle<Result<Vec<u8>, Error>>,
}

impl World {
    pub fn new(seed: u64, faults: Faults) -> World {
        let mut dice = Dice(seed);
        let inline = [0, 3_000, 1 << 20][dice.roll(3)];
        let largest = [3_000, 12_000, 12_000, 40_000][dice.roll(4)];
        let names = 2 + dice.roll(5);
        let mut sides = [Side::new(dice.number(), inline), Side::new(dice.number(), inline)];
        if faults.cache {
            sides[dice.roll(2)].cache = Some([4_096, 16_384, 65_536][dice.roll(3)]);
        }
        World {
            hosts: Hosts::traced(sides),
            users: [Users::new("a", names, largest), Users::new("b", names, largest)],
            dice,
            faults,
            full: [false, false],
            torn: [false, false],
            calls: 0,
            reader: None,
        }
    }

    /// A number for everything that has happened.
    pub fn trace(&self) -> u64 {
        self.hosts.trace()
    }

    /// A history of `steps` steps, ending level.
    pub fn run(&mut self, steps: usize) -> Result<(), String> {
        let runtime = self.hosts.handle();
        let _inside = runtime.enter();
        for side in 0..2 {
            self.revive(side, None)?;
        }
        self.hosts.connect();
        for n in 0..steps {
            self.step()?;
            if n % 400 == 399 && self.dice.roll(3) == 0 {
                self.come_to_rest()?;
            }
        }
        self.come_to_rest()
    }

    fn step(&mut self) -> Result<(), String> {
        let side = self.dice.roll(2);
        match self.dice.roll(100) {
            0..=24 => self.user(side),
            25..=69 => self.turn(side),
            70..=78 => {
                self.hosts.transmit(side);
                Ok(())
            }
            79..=88 => {
                let done = self.hosts.arrive(side)?;
                self.mourn(side, done)
            }
            89..=93 => {
                let ms = [1, 20, 300, 1_100, 6_000][self.dice.roll(5)];
                self.hosts.pass(Duration::from_millis(ms));
                Ok(())
            }
            94 => {
                if self.faults.cuts {
                    self.cut(side);
                }
                Ok(())
            }
            95 => {
                self.hosts.connect();
                Ok(())
            }
            96 => self.checkpoint(side),
            98 if self.faults.cache => self.read(side),
            97 => self.fault(side),
            _ => self.inspect(side),
        }
    }

    /// Somebody reads a file, however long that takes.
    fn read(&mut self, side: usize) -> Result<(), String> {
        self.look_at_reader()?;
        if self.reader.is_some() {
            return Ok(());
        }
        let Some(running) = &self.hosts.sides[side].running else { return Ok(()) };
        let names = names(&running.host);
        if names.is_empty() {
            return Ok(());
        }
        let name = names[self.dice.roll(names.len())].clone();
        let mut later = None;
        let done = self.hosts.sides[side].run(|stepped| later = read_later(&stepped.host, &name));
        if let Some(task) = later {
            self.hosts.note(|| format!("{side} waits for {name}"));
            let task = self.hosts.handle().spawn(task);
            self.reader = Some(Reader { side, name, task });
        }
        self.mourn(side, done)
    }

    /// What a reader was given was once all of the file.
    fn look_at_reader(&mut self) -> Result<(), String> {
        if !self.reader.as_ref().is_some_and(|reader| reader.task.is_finished()) {
            return Ok(());
        }
        let Reader { side, name, task } = self.reader.take().expect("just seen");
        let read = self.hosts.handle().block_on(task);
        self.hosts.note(|| {
            format!("{side} has read {name}: {:?}", read.as_ref().map(|r| r.as_ref().map(Vec::len)))
        });
        let (Ok(Ok(bytes)), Some(owner)) = (read, ["a", "b"].iter().position(|mine| name.starts_with(mine)))
        else {
            return Ok(());
        };
        let users = &self.users[owner];
        match users.history.contains(&fingerprint(&bytes)) || (self.torn[owner] && users.may_be_torn(&bytes))
        {
            true => Ok(()),
            false => Err(format!("host {side} has read {name} ({} bytes) as it never was", bytes.len())),
        }
    }

    /// Whatever `side` shows of the other's files, each of them is as it once was over there.
    fn inspect(&mut self, side: usize) -> Result<(), String> {
        let theirs = ["b", "a"][side];
        let shown = self.hosts.sides[side].running.as_ref().map(|running| whole_files(&running.host));
        for (name, bytes) in shown.unwrap_or_default() {
            let users = &self.users[1 - side];
            let was = users.history.contains(&fingerprint(&bytes));
            if name.starts_with(theirs) && !was && !(self.torn[1 - side] && users.may_be_torn(&bytes)) {
                return Err(format!("host {side} shows {name} ({} bytes) as it never was", bytes.len()));
            }
        }
        Ok(())
    }

    /// Everything heals, and both hosts must become level, equal and right.
    fn come_to_rest(&mut self) -> Result<(), String> {
        self.hosts.note(|| "come to rest".to_owned());
        for side in 0..2 {
            self.hosts.sides[side].disk.set_space(None);
            self.hosts.sides[side].disk.die_at(None);
            self.full[side] = false;
            let users = &mut self.users[side];
            self.hosts.sides[side].run(|stepped| users.close_all(&stepped.host));
        }
        let dice = &mut self.dice;
        match self.hosts.rest(|| dice.roll(30), |_, _| Ok(()))? {
            Rest::Level => {}
            Rest::Died(side) => return Err(format!("host {side} died of nothing")),
        }
        for side in self.hosts.sides.iter_mut().filter(|_| self.faults.cache) {
            // What a cache has thanked for may lie on the other disk alone.
            side.run(|stepped| stepped.flush_disk().expect("the disk is well"));
        }
        self.look_at_reader()?;
        self.reader = None;
        let files = self.hosts.equal()?;
        self.read_all(&files)?;
        for side in 0..2 {
            let mine = ["a", "b"][side];
            let mine = |f: &(&String, &Vec<u8>)| f.0.starts_with(mine);
            let actual = files.iter().filter(mine).map(|(n, b)| (n.clone(), b.clone())).collect();
            let torn = std::mem::take(&mut self.torn[side]);
            self.users[side].adopt(&actual, torn).map_err(|e| format!("at rest, of host {side}: {e}"))?;
            self.users[side].settle(torn);
        }
        Ok(())
    }

    /// Who keeps a cache only reads everything nevertheless, and never holds more than that takes.
    fn read_all(&mut self, files: &BTreeMap<String, Vec<u8>>) -> Result<(), String> {
        let Some(side) = (0..2).find(|side| self.hosts.sides[*side].cache.is_some()) else { return Ok(()) };
        for (name, bytes) in files {
            let mut later = None;
            self.hosts.sides[side].run(|stepped| later = read_later(&stepped.host, name));
            let Some(later) = later else { continue };
            let task = self.hosts.handle().spawn(later);
            let dice = &mut self.dice;
            for _ in 0..10 {
                if task.is_finished() {
                    break;
                }
                self.hosts.rest(|| dice.roll(30), |_, _| Ok(()))?;
            }
            if !task.is_finished() {
                return Err(format!("host {side} never reads {name}"));
            }
            match self.hosts.handle().block_on(task) {
                Ok(Ok(read)) if read == *bytes => {}
                Ok(Ok(_)) => return Err(format!("host {side} reads {name} as it is not")),
                // More than the cache takes at once.
                Ok(Err(Error::NoRoom)) => {}
                other => return Err(format!("host {side} can't read {name}: {other:?}")),
            }
        }
        Ok(())
    }

    fn user(&mut self, side: usize) -> Result<(), String> {
        if self.hosts.sides[side].running.is_none() || self.torn[side] {
            return Ok(());
        }
        self.calls += 1;
        let (users, dice) = (&mut self.users[side], &mut self.dice);
        let mut what = String::new();
        let done =
            self.hosts.sides[side].run(|stepped| users.act(&stepped.host, dice, &mut |s| what.push_str(&s)));
        self.hosts.note(|| format!("{side} {what}"));
        self.mourn(side, done)
    }

    fn turn(&mut self, side: usize) -> Result<(), String> {
        let worker = self.dice.roll(WORKERS);
        let done = self.hosts.turn(side, worker);
        self.mourn(side, done)
    }

    /// The session ends for one side, and perhaps for the other.
    fn cut(&mut self, side: usize) {
        self.hosts.note(|| format!("{side} is cut off"));
        self.hosts.hang_up(side);
        if self.dice.roll(2) == 0 {
            self.hosts.hang_up(1 - side);
        }
    }

    fn checkpoint(&mut self, side: usize) -> Result<(), String> {
        self.hosts.note(|| format!("{side} checkpoints"));
        let done = self.hosts.sides[side].run(|stepped| stepped.checkpoint());
        self.mourn(side, done)
    }

    fn fault(&mut self, side: usize) -> Result<(), String> {
        match self.dice.roll(4) {
            0 if self.faults.kills && self.hosts.sides[side].running.is_some() => {
                // At once, or at one of the next things it does to the disk.
                match self.dice.roll(3) {
                    0 => {
                        self.hosts.note(|| format!("{side} is killed"));
                        self.hosts.sides[side].kill();
                        self.wake(side)
                    }
                    _ => {
                        let soon = self.hosts.sides[side].disk.effects() + 1 + self.dice.roll(12) as u64;
                        self.hosts.sides[side].disk.die_at(Some(soon));
                        Ok(())
                    }
                }
            }
            1 if self.faults.full => {
                self.full[side] = !self.full[side];
                let room = self.full[side].then(|| self.dice.roll(20_000) as u64);
                self.hosts.note(|| format!("{side} has room for {room:?}"));
                self.hosts.sides[side].disk.set_space(room);
                Ok(())
            }
            2 if self.faults.kills && self.hosts.sides[side].running.is_some() => {
                self.hosts.note(|| format!("{side} is restarted"));
                self.hosts.sides[side].disk.set_space(None);
                self.full[side] = false;
                self.users[side].lose_handles();
                match self.hosts.sides[side].close() {
                    Done::Value(closed) => {
                        closed.map_err(|e| format!("{side} does not close: {e}"))?;
                        self.revive(side, None)
                    }
                    died => self.mourn(side, died),
                }
            }
            _ => Ok(()),
        }
    }

    /// Sees whether the process died of what it did; then it is started again.
    fn mourn<T>(&mut self, side: usize, done: Done<T>) -> Result<(), String> {
        match done {
            Done::Died if self.hosts.sides[side].disk.is_dead() => {
                self.hosts.note(|| format!("{side} died"));
                self.wake(side)
            }
            _ => Ok(()),
        }
    }

    /// A dead host comes back, perhaps after a power cut.
    fn wake(&mut self, side: usize) -> Result<(), String> {
        let fate = self.fate();
        self.revive(side, Some(fate))
    }

    fn fate(&mut self) -> Fate {
        match self.faults.power && self.dice.roll(2) == 0 {
            true => Fate::PowerLost(self.dice.number()),
            false => Fate::Killed,
        }
    }

    /// Starts a host, as often as it dies of that; it had died where it has a fate.
    fn revive(&mut self, side: usize, fate: Option<Fate>) -> Result<(), String> {
        let mut crash = fate;
        let mut torn = false;
        loop {
            if let Some(fate) = crash {
                torn |= fate.loses_power();
                self.hosts.note(|| format!("{side} wakes, {fate:?}"));
                self.hosts.sides[side].settle(fate);
                self.hosts.sides[side].disk.set_space(None);
                self.full[side] = false;
            }
            if self.faults.kills && self.dice.roll(4) == 0 {
                let soon = self.hosts.sides[side].disk.effects() + 1 + self.dice.roll(40) as u64;
                self.hosts.sides[side].disk.die_at(Some(soon));
            }
            if self.hosts.start(side) {
                break;
            }
            crash = Some(self.fate());
        }
        if crash.is_some() {
            let actual: BTreeMap<String, Vec<u8>> = self.seen(side);
            let mine = ["a", "b"][side];
            let actual: BTreeMap<String, Vec<u8>> =
                actual.into_iter().filter(|(name, _)| name.starts_with(mine)).collect();
            self.torn[side] |= torn;
            if self.torn[side] {
                self.users[side].lose_handles();
                self.users[side].history.extend(actual.values().map(|bytes| fingerprint(bytes)));
            } else {
                self.users[side].adopt(&actual, false).map_err(|e| format!("host {side}, killed: {e}"))?;
            }
        }
        Ok(())
    }

    /// What `side` sees under its own users' names, as far as it is all here; of a cache, as they would read it, for nobody
    /// else changes these files.
    fn seen(&mut self, side: usize) -> BTreeMap<String, Vec<u8>> {
        match &self.hosts.sides[side] {
            Side { cache: Some(_), running: Some(_), .. } => {
                self.hosts.read_through(side).into_iter().collect()
            }
            Side { running: Some(running), .. } => whole_files(&running.host),
            _ => BTreeMap::new(),
        }
    }
}
