//! Two hosts, the network between them, and the clock of both.
//!
//! A message goes through the codec on its way, as on a real wire. An honest host that mistrusts the other is a
//! fault.

use super::calls;
use super::side::{Done, Fate, Side};
use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::time::Duration;
use syncfs::engine::Host;
use syncfs::model::codec;
use syncfs::model::ids::ReplicaId;
use syncfs::model::message::{Hello, Message};
use syncfs::wire::Session;
use tokio::runtime::{Handle, Runtime};

const BEGIN: i64 = 1_700_000_000_000_000_000;
/// The workers of a host.
pub const WORKERS: usize = 8;
/// Rounds after which hosts that are still not at rest never will be.
const PATIENCE: usize = 4_000;

/// How working until nothing is left to do ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rest {
    /// Both hosts say that they are level.
    Level,
    /// The process of that host died.
    Died(usize),
}

pub struct Hosts {
    runtime: Runtime,
    pub sides: [Side; 2],
    sessions: u64,
    now: i64,
    /// How far each host's clock is ahead, nanoseconds.
    ahead: [i64; 2],
    /// Adds up what happens, where two runs are to be compared.
    trace: Option<DefaultHasher>,
    /// What happened, where somebody wants to read it.
    story: bool,
}

impl Hosts {
    /// Two hosts that do not run yet.
    pub fn new(sides: [Side; 2]) -> Hosts {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let story = std::env::var("SYNCFS_STORY").is_ok();
        sides.iter().for_each(|side| side.disk.set_time(BEGIN));
        Hosts { runtime, sides, sessions: 0, now: BEGIN, ahead: [0, 0], trace: None, story }
    }

    /// The runtime, to be entered by who makes calls.
    pub fn handle(&self) -> Handle {
        self.runtime.handle().clone()
    }

    /// The same, keeping a trace.
    pub fn traced(sides: [Side; 2]) -> Hosts {
        Hosts { trace: Some(DefaultHasher::new()), ..Hosts::new(sides) }
    }

    /// A number for everything that has happened.
    pub fn trace(&self) -> u64 {
        self.trace.as_ref().map_or(0, Hasher::finish)
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        if self.trace.is_none() && !self.story {
            return;
        }
        let what = what();
        if let Some(trace) = &mut self.trace {
            trace.write(what.as_bytes());
        }
        if self.story {
            println!("{:>10.3} {what}", (self.now - BEGIN) as f64 / 1e6);
        }
    }

    /// A side that runs.
    pub fn host(&self, side: usize) -> &Host {
        &self.sides[side].running.as_ref().expect("it runs").host
    }

    /// Starts a daemon; false where it died of that.
    pub fn start(&mut self, side: usize) -> bool {
        self.sides[side].start(&self.runtime)
    }

    /// Starts a daemon that had died, on what is left.
    pub fn wake(&mut self, side: usize, fate: Fate) -> bool {
        self.note(|| format!("{side} wakes, {fate:?}"));
        self.sides[side].settle(fate);
        self.start(side)
    }

    /// Turns a worker.
    pub fn turn(&mut self, side: usize, worker: usize) -> Done<bool> {
        let done = self.sides[side].run(|stepped| stepped.turn(worker));
        if let Done::Value(true) = done {
            self.note(|| format!("{side} turn {worker}"));
        }
        done
    }

    pub fn transmit(&mut self, side: usize) {
        if self.sides[side].out.transmit() {
            self.note(|| format!("{side} sends"));
        }
    }

    /// What flies towards `side` arrives there.
    pub fn arrive(&mut self, side: usize) -> Result<Done<()>, String> {
        let Some((session, message)) = self.sides[1 - side].out.arrive() else { return Ok(Done::Value(())) };
        if self.sides[side].session != session || session == 0 {
            return Ok(Done::Value(()));
        }
        let bytes = codec::encode(&message);
        self.note(|| format!("{side} hears {} {:x}", brief(&message), crc32c::crc32c(&bytes)));
        let message: Message = codec::decode(&bytes).map_err(|_| "a message does not decode")?;
        message.check()?;
        let done = self.sides[side].run(|stepped| stepped.hear(message));
        self.poll();
        self.drops(side)?;
        Ok(done)
    }

    /// A host that ended the session itself.
    pub fn drops(&mut self, side: usize) -> Result<(), String> {
        match self.sides[side].out.take_dropped() {
            Some(why) => Err(format!("host {side} mistrusts an honest peer: {why}")),
            None => Ok(()),
        }
    }

    /// Lets tasks run that wait for nothing any more.
    pub fn poll(&mut self) {
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
        self.set_clocks();
    }

    /// Nanoseconds since 1970, on a clock that is right.
    pub fn now(&self) -> i64 {
        self.now
    }

    /// The clock of `side` is so many seconds ahead from here on.
    pub fn set_clock(&mut self, side: usize, seconds: i64) {
        self.ahead[side] = seconds * 1_000_000_000;
        self.set_clocks();
    }

    fn set_clocks(&self) {
        self.sides.iter().zip(self.ahead).for_each(|(s, ahead)| s.disk.set_time(self.now + ahead));
    }

    /// Begins a session, where both run and are not in one. A host may die of it.
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
                features: peer.running.as_ref().map_or_else(Vec::new, |r| r.features()),
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

    /// The session is over for `side`; the other learns of it in its own time.
    pub fn hang_up(&mut self, side: usize) {
        let me = &mut self.sides[side];
        if me.session != 0 {
            me.session = 0;
            me.out.begin(0);
            me.run(|stepped| stepped.down());
        }
    }

    /// Connected, both work until they are level and nothing is left to do, or one dies. In each round
    /// `arrivals` messages arrive on either side; `look` sees a host after each turn that changed anything.
    pub fn rest(
        &mut self,
        mut arrivals: impl FnMut() -> usize,
        mut look: impl FnMut(&Host, usize) -> Result<(), String>,
    ) -> Result<Rest, String> {
        for side in 0..2 {
            if matches!(self.sides[side].run(|stepped| stepped.level_soon()), Done::Died) {
                return Ok(Rest::Died(side));
            }
        }
        let mut quiet = 0;
        for _ in 0..PATIENCE {
            self.connect();
            if let Some(side) = (0..2).find(|side| self.sides[*side].running.is_none()) {
                return Ok(Rest::Died(side));
            }
            let mut busy = false;
            for side in 0..2 {
                for worker in 0..WORKERS {
                    loop {
                        match self.turn(side, worker) {
                            Done::Value(true) => {
                                busy = true;
                                self.drops(side)?;
                                look(self.host(side), side)?;
                            }
                            Done::Value(false) => break,
                            Done::Died => return Ok(Rest::Died(side)),
                        }
                    }
                }
                while self.sides[side].out.transmit() {}
            }
            for side in 0..2 {
                busy |= !self.sides[1 - side].out.is_idle();
                for _ in 0..arrivals() {
                    if !self.sides[1 - side].out.flies() {
                        break;
                    }
                    if let Done::Died = self.arrive(side)? {
                        return Ok(Rest::Died(side));
                    }
                }
            }
            self.poll();
            quiet = if busy { 0 } else { quiet + 1 };
            if quiet > 1 && self.sides.iter().all(|s| s.running.as_ref().is_some_and(|r| r.is_level())) {
                return Ok(Rest::Level);
            }
            if !busy {
                self.pass(Duration::from_millis(700));
            }
        }
        let state = |s: &Side| s.running.as_ref().map_or("down".into(), |r| r.state());
        let states: Vec<String> = self.sides.iter().map(state).collect();
        Err(format!("the hosts never come to rest: {}", states.join(" | ")))
    }

    /// Every file of a host as its users would read it: what is not held there is as the other one has it.
    pub fn read_through(&self, side: usize) -> Vec<(String, Vec<u8>)> {
        let (Some(host), Some(peer)) = (&self.sides[side].running, &self.sides[1 - side].running) else {
            return Vec::new();
        };
        let read = |name: String| {
            let (id, mut bytes, missing) = host.host.lies_here(&name)?;
            if !missing.is_empty() {
                let theirs = peer.host.content(id)?;
                for range in missing.iter().map(|r| r.start as usize..r.end as usize) {
                    bytes[range.clone()].copy_from_slice(theirs.get(range)?);
                }
            }
            Some((name, bytes))
        };
        calls::names(&host.host).into_iter().filter_map(read).collect()
    }

    /// Both directories, as users would find them after unmounting, hold the same; returns it. Where one keeps a cache only, as
    /// they would read them.
    pub fn equal(&self) -> Result<BTreeMap<String, Vec<u8>>, String> {
        let files = |side: usize| match self.sides[side].cache {
            Some(_) => self.read_through(side),
            None => self.sides[side].raw(),
        };
        let [a, b] = [files(0), files(1)];
        if a != b {
            let names = |files: &[(String, Vec<u8>)]| {
                files.iter().map(|(name, bytes)| format!("{name}:{}", bytes.len())).collect::<Vec<_>>()
            };
            let differ = a.iter().zip(&b).find(|(a, b)| a != b).map(|(a, _)| &a.0);
            return Err(format!(
                "level, but {:?} and {:?}; first different: {differ:?}",
                names(&a),
                names(&b)
            ));
        }
        for (name, _) in &a {
            let modes = [0, 1].map(|side| calls::mode(self.host(side), name));
            if modes[0] != modes[1] {
                return Err(format!("level, but {name} has modes {modes:?}"));
            }
        }
        Ok(a.into_iter().collect())
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
