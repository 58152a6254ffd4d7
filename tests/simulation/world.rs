//! Two hosts, their users and the network between them, under one seeded scheduler.
//!
//! The scheduler alone decides what happens next: a worker's turn, a message's arrival, a system call, the
//! passing of time, a fault. So one seed is one history.

use crate::side::{Done, Side};
use crate::user::{Users, fingerprint, read};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;
use syncfs::model::codec;
use syncfs::model::ids::ReplicaId;
use syncfs::model::message::{Hello, Message};
use syncfs::store::torn::Dice;
use syncfs::wire::Session;
use tokio::runtime::Runtime;

/// What may go wrong in a history.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    pub cuts: bool,
    pub kills: bool,
    pub power: bool,
    pub full: bool,
}

impl Faults {
    pub const NONE: Faults = Faults { cuts: false, kills: false, power: false, full: false };
    pub const LINK: Faults = Faults { cuts: true, ..Faults::NONE };
    pub const KILLS: Faults = Faults { kills: true, ..Faults::LINK };
    pub const FULL: Faults = Faults { full: true, ..Faults::KILLS };
    pub const POWER: Faults = Faults { power: true, ..Faults::KILLS };
    pub const ALL: Faults = Faults { full: true, ..Faults::POWER };
}

pub struct World {
    runtime: Runtime,
    pub sides: [Side; 2],
    pub users: [Users; 2],
    dice: Dice,
    faults: Faults,
    sessions: u64,
    now: i64,
    full: [bool; 2],
    /// Has lost power since the last rest: its users wait for that.
    torn: [bool; 2],
    /// System calls of users.
    pub calls: u64,
    trace: DefaultHasher,
    /// What happened, where somebody wants to read it.
    story: bool,
}

const BEGIN: i64 = 1_700_000_000_000_000_000;

impl World {
    pub fn new(seed: u64, faults: Faults) -> World {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let mut dice = Dice(seed);
        let inline = [0, 3_000, 1 << 20][dice.roll(3)];
        let largest = [3_000, 12_000, 12_000, 40_000][dice.roll(4)];
        let names = 2 + dice.roll(5);
        World {
            runtime,
            sides: [Side::new(dice.number(), inline), Side::new(dice.number(), inline)],
            users: [Users::new("a", names, largest), Users::new("b", names, largest)],
            dice,
            faults,
            sessions: 0,
            now: BEGIN,
            full: [false, false],
            torn: [false, false],
            calls: 0,
            trace: DefaultHasher::new(),
            story: std::env::var("SYNCFS_STORY").is_ok(),
        }
    }

    /// A number for everything that has happened.
    pub fn trace(&self) -> u64 {
        self.trace.finish()
    }

    fn note(&mut self, what: impl FnOnce() -> String) {
        let what = what();
        self.trace.write(what.as_bytes());
        if self.story {
            println!("{:>10.3} {what}", (self.now - BEGIN) as f64 / 1e6);
        }
    }

    /// Where everything happens; it must be entered.
    pub fn runtime(&self) -> tokio::runtime::Handle {
        self.runtime.handle().clone()
    }

    /// A history of `steps` steps, ending level.
    pub fn run(&mut self, steps: usize) -> Result<(), String> {
        let runtime = self.runtime();
        let _inside = runtime.enter();
        for side in 0..2 {
            self.revive(side, None)?;
        }
        self.connect();
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
            70..=78 => self.transmit(side),
            79..=88 => self.arrive(side),
            89..=93 => {
                let ms = [1, 20, 300, 1_100, 6_000][self.dice.roll(5)];
                self.pass(Duration::from_millis(ms));
                Ok(())
            }
            94 => {
                if self.faults.cuts {
                    self.cut(side);
                }
                Ok(())
            }
            95 => {
                self.connect();
                Ok(())
            }
            96 => self.checkpoint(side),
            97 => self.fault(side),
            _ => self.inspect(side),
        }
    }

    /// Whatever `side` shows of the other's files, each of them is as it once was over there.
    fn inspect(&mut self, side: usize) -> Result<(), String> {
        let theirs = ["b", "a"][side];
        for (name, bytes) in self.seen(side) {
            if name.starts_with(theirs) && !self.users[1 - side].history.contains(&fingerprint(&bytes)) {
                return Err(format!("host {side} shows {name} ({} bytes) as it never was", bytes.len()));
            }
        }
        Ok(())
    }

    /// Everything heals, and both hosts must become level, equal and right.
    pub fn come_to_rest(&mut self) -> Result<(), String> {
        self.note(|| "come to rest".to_owned());
        for side in 0..2 {
            self.sides[side].disk.set_space(None);
            self.sides[side].disk.die_at(None);
            self.full[side] = false;
            let users = &mut self.users[side];
            self.sides[side].run(|stepped| {
                users.close_all(&stepped.host);
                stepped.level_soon();
            });
        }
        let mut quiet = 0;
        for round in 0.. {
            if round > 4_000 {
                let states: Vec<String> = self
                    .sides
                    .iter()
                    .map(|s| s.running.as_ref().map_or("down".into(), |r| r.state()))
                    .collect();
                return Err(format!("the hosts never come to rest: {}", states.join(" | ")));
            }
            self.connect();
            let mut busy = false;
            for side in 0..2 {
                for worker in 0..6 {
                    while let Done::Value(true) = self.sides[side].run(|stepped| stepped.turn(worker)) {
                        self.note(|| format!("{side} turn {worker}"));
                        busy = true;
                        self.drops(side)?;
                    }
                }
                while self.sides[side].out.transmit() {}
            }
            for side in 0..2 {
                for _ in 0..self.dice.roll(30) {
                    busy |= !self.sides[1 - side].out.is_idle();
                    self.arrive(side)?;
                }
            }
            self.poll();
            let level = self.sides.iter().all(|s| s.running.as_ref().is_some_and(|r| r.is_level()));
            quiet = if busy { 0 } else { quiet + 1 };
            if level && quiet > 2 {
                break;
            }
            if !busy {
                self.pass(Duration::from_millis(700));
            }
        }
        let [a, b] = [self.sides[0].raw(), self.sides[1].raw()];
        let names = |files: &[(String, Vec<u8>)]| {
            files.iter().map(|(name, bytes)| format!("{name}:{}", bytes.len())).collect::<Vec<_>>()
        };
        if a != b {
            let differ = a.iter().zip(&b).find(|(a, b)| a != b).map(|(a, _)| &a.0);
            return Err(format!(
                "level, but {:?} and {:?}; first different: {differ:?}",
                names(&a),
                names(&b)
            ));
        }
        for side in 0..2 {
            let mine = ["a", "b"][side];
            let actual = a.iter().filter(|f| f.0.starts_with(mine)).cloned().collect();
            let torn = std::mem::take(&mut self.torn[side]);
            self.users[side].adopt(&actual, torn).map_err(|e| format!("at rest, of host {side}: {e}"))?;
            self.users[side].settle();
        }
        Ok(())
    }

    fn user(&mut self, side: usize) -> Result<(), String> {
        if self.sides[side].running.is_none() || self.torn[side] {
            return Ok(());
        }
        self.calls += 1;
        let (users, dice) = (&mut self.users[side], &mut self.dice);
        let mut what = String::new();
        let done = self.sides[side].run(|stepped| users.act(&stepped.host, dice, &mut |s| what.push_str(&s)));
        self.note(|| format!("{side} {what}"));
        self.mourn(side, done)
    }

    fn turn(&mut self, side: usize) -> Result<(), String> {
        let worker = self.dice.roll(6);
        let done = self.sides[side].run(|stepped| stepped.turn(worker));
        if let Done::Value(true) = done {
            self.note(|| format!("{side} turn {worker}"));
        }
        self.mourn(side, done)
    }

    fn transmit(&mut self, side: usize) -> Result<(), String> {
        if self.sides[side].out.transmit() {
            self.note(|| format!("{side} sends"));
        }
        Ok(())
    }

    /// What flies towards `side` arrives there.
    pub fn arrive(&mut self, side: usize) -> Result<(), String> {
        let Some((session, message)) = self.sides[1 - side].out.arrive() else { return Ok(()) };
        if self.sides[side].session != session || session == 0 {
            return Ok(());
        }
        let bytes = codec::encode(&message);
        self.note(|| format!("{side} hears {} {:x}", brief(&message), fingerprint(&bytes)));
        let message: Message = codec::decode(&bytes).map_err(|_| "a message does not decode")?;
        message.check()?;
        let done = self.sides[side].run(|stepped| stepped.hear(message));
        self.mourn(side, done)?;
        self.poll();
        self.drops(side)
    }

    /// A host that ended the session itself.
    fn drops(&mut self, side: usize) -> Result<(), String> {
        match self.sides[side].out.take_dropped() {
            Some(why) => Err(format!("host {side} mistrusts an honest peer: {why}")),
            None => Ok(()),
        }
    }

    /// Lets tasks run that wait for nothing any more.
    fn poll(&mut self) {
        self.runtime.block_on(async {
            for _ in 0..3 {
                tokio::task::yield_now().await;
            }
        });
    }

    pub fn pass(&mut self, time: Duration) {
        self.note(|| format!("{time:?} pass"));
        self.now += time.as_nanos() as i64;
        self.runtime.block_on(tokio::time::advance(time));
        self.poll();
        self.sides.iter().for_each(|s| s.disk.set_time(self.now));
    }

    pub fn connect(&mut self) {
        if self.sides.iter().any(|s| s.running.is_none()) || self.sides.iter().all(|s| s.session != 0) {
            return;
        }
        // Who still believes in an older session learns first that it is over.
        (0..2).for_each(|side| self.hang_up(side));
        self.sessions += 1;
        let session = self.sessions;
        self.note(|| format!("session {session}"));
        for side in 0..2 {
            let peer = &self.sides[1 - side];
            let hello = Hello {
                replica: peer.running.as_ref().map_or(ReplicaId(0), |r| r.replica()),
                boot: peer.starts,
                clock_ms: self.now / 1_000_000,
                features: Vec::new(),
            };
            let session_of = Session {
                peer: hello,
                address: "127.0.0.1:1".parse().unwrap(),
                clock_skew_ms: 0,
                dialled: side == 0,
            };
            let me = &mut self.sides[side];
            me.session = session;
            me.out.begin(session);
            let done = me.run(|stepped| stepped.up(session_of));
            if matches!(done, Done::Died) {
                self.note(|| format!("{side} died of a session"));
            }
        }
    }

    pub fn hang_up(&mut self, side: usize) {
        let me = &mut self.sides[side];
        if me.session != 0 {
            me.session = 0;
            me.out.begin(0);
            me.run(|stepped| stepped.down());
        }
    }

    /// The session ends for one side, and perhaps for the other.
    fn cut(&mut self, side: usize) {
        self.note(|| format!("{side} is cut off"));
        self.hang_up(side);
        if self.dice.roll(2) == 0 {
            self.hang_up(1 - side);
        }
    }

    fn checkpoint(&mut self, side: usize) -> Result<(), String> {
        self.note(|| format!("{side} checkpoints"));
        let done = self.sides[side].run(|stepped| stepped.checkpoint());
        self.mourn(side, done)
    }

    fn fault(&mut self, side: usize) -> Result<(), String> {
        match self.dice.roll(4) {
            0 if self.faults.kills && self.sides[side].running.is_some() => {
                // At once, or at one of the next things it does to the disk.
                match self.dice.roll(3) {
                    0 => {
                        self.note(|| format!("{side} is killed"));
                        self.sides[side].kill();
                        self.wake(side)
                    }
                    _ => {
                        let soon = self.sides[side].disk.effects() + 1 + self.dice.roll(12) as u64;
                        self.sides[side].disk.die_at(Some(soon));
                        Ok(())
                    }
                }
            }
            1 if self.faults.full => {
                self.full[side] = !self.full[side];
                let room = self.full[side].then(|| self.dice.roll(20_000) as u64);
                self.note(|| format!("{side} has room for {room:?}"));
                self.sides[side].disk.set_space(room);
                Ok(())
            }
            2 if self.faults.kills && self.sides[side].running.is_some() => {
                self.note(|| format!("{side} is restarted"));
                self.sides[side].disk.set_space(None);
                self.full[side] = false;
                self.users[side].lose_handles();
                match self.sides[side].close() {
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
            Done::Died if self.sides[side].disk.is_dead() => {
                self.note(|| format!("{side} died"));
                self.wake(side)
            }
            _ => Ok(()),
        }
    }

    /// A dead host comes back, perhaps after a power cut.
    fn wake(&mut self, side: usize) -> Result<(), String> {
        let power = (self.faults.power && self.dice.roll(2) == 0).then(|| self.dice.number());
        self.revive(side, Some(power))
    }

    /// Starts a host, as often as it dies of that. With `crash` it had died, by power loss where that has a
    /// seed.
    pub fn revive(&mut self, side: usize, crash: Option<Option<u64>>) -> Result<(), String> {
        let mut crash = crash;
        let mut torn = false;
        loop {
            if let Some(power) = crash {
                torn |= power.is_some();
                self.note(|| format!("{side} wakes, power lost: {}", power.is_some()));
                self.sides[side].settle(power);
                self.sides[side].disk.set_space(None);
                self.full[side] = false;
            }
            if self.faults.kills && self.dice.roll(4) == 0 {
                let soon = self.sides[side].disk.effects() + 1 + self.dice.roll(40) as u64;
                self.sides[side].disk.die_at(Some(soon));
            }
            if self.sides[side].start(&self.runtime) {
                break;
            }
            crash = Some((self.faults.power && self.dice.roll(2) == 0).then(|| self.dice.number()));
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

    /// What `side` sees under its own users' names, as far as it is all here.
    fn seen(&mut self, side: usize) -> BTreeMap<String, Vec<u8>> {
        let Some(running) = &self.sides[side].running else { return BTreeMap::new() };
        let names = syncfs::fs::volume::Volume::list(&*running.host);
        let names = names.into_iter().map(|(name, _)| String::from_utf8(name).unwrap());
        names.filter_map(|name| Some((name.clone(), read(&running.host, &name)?))).collect()
    }
}

fn brief(message: &Message) -> String {
    match message {
        Message::Announce(cut) => {
            let files: Vec<String> = cut
                .files
                .iter()
                .map(|f| {
                    let place = f.place.as_ref().map(|p| format!(" {:?} {:?}", p.name, p.version));
                    let body = f.body.as_ref().map(|b| {
                        let pieces: Vec<_> = b.pieces.iter().map(|p| p.chunks()).collect();
                        format!(
                            " body {:?} base {:?} size {} changed {:?} pieces {pieces:?}",
                            b.version, b.base, b.attrs.size, b.changed
                        )
                    });
                    format!("{}{}{}", f.file, place.unwrap_or_default(), body.unwrap_or_default())
                })
                .collect();
            format!("announce {} after {:?}: {}", cut.seq, cut.after, files.join("; "))
        }
        Message::Deliver { request, pieces, .. } => {
            let pieces: Vec<_> = pieces.iter().map(|p| p.chunks()).collect();
            format!("deliver {request} {pieces:?}")
        }
        other => format!("{other:?}"),
    }
}
