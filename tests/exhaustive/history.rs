//! One history: operations on two hosts in a fixed order, and at most one crash.

use crate::ledger::{CONFLICT, Found, Ledger, Share, tell};
use crate::operation::{Call, Operation, beginning};
use crate::simulated::calls;
use crate::simulated::hosts::{Hosts, Rest};
use crate::simulated::side::{Done, Fate, Side};
use std::panic::{AssertUnwindSafe, catch_unwind};
use syncfs::engine::Host;

/// What the hosts do between two operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// They work until they are level.
    Resting,
    /// Nothing: connected, but no worker has its turn.
    Busy,
    /// Nothing, and they are not connected.
    Apart,
}

/// The one crash, or the one and another in its recovery: on which side, at which of its effects from the history's beginning, and how.
#[derive(Clone, Copy, Debug)]
pub struct Crash {
    pub side: usize,
    pub effect: u64,
    /// So much of a write is done.
    pub bytes: usize,
    pub fate: Fate,
    /// Killed once more at that effect of its recovery.
    pub again: Option<u64>,
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub operations: Vec<(usize, Operation)>,
    pub schedule: Schedule,
}

/// What a history came to.
pub struct Outcome {
    /// Effects on the disk of either side.
    pub effects: [u64; 2],
    /// Effects of the recovery.
    pub recovery: u64,
    /// The length of the write that the crash was in.
    pub died_in: Option<usize>,
}

/// Two hosts that have the same files and do not run: every history begins with them.
pub struct Beginning([Side; 2]);

impl Beginning {
    pub fn new() -> Beginning {
        let mut hosts = Hosts::new([Side::new(1, 1 << 20), Side::new(2, 1 << 20)]);
        // Nobody removes anything past the hosts: what a crash leaves must not be taken for that.
        hosts.sides.iter_mut().for_each(|side| side.adopt_deletes = true);
        let handle = hosts.handle();
        let _inside = handle.enter();
        assert!(hosts.start(0) && hosts.start(1));
        for (side, (name, bytes)) in beginning().into_iter().enumerate() {
            let host = hosts.host(side);
            let handle = calls::create(host, calls::process(1), name).unwrap();
            calls::write(host, handle, 0, &bytes).unwrap();
            calls::close(host, handle);
        }
        assert_eq!(hosts.rest(|| usize::MAX, |_, _| Ok(())), Ok(Rest::Level));
        for side in &mut hosts.sides {
            assert!(matches!(side.close(), Done::Value(Ok(()))));
        }
        Beginning(hosts.sides)
    }
}

struct History {
    hosts: Hosts,
    ledger: Ledger,
    crash: Option<Crash>,
    recovery: u64,
}

impl Plan {
    /// Whether both hosts do something before either hears of the other.
    pub fn is_at_once(&self) -> bool {
        self.schedule != Schedule::Resting && self.operations.iter().any(|(side, _)| *side == 1)
    }

    /// Runs it, from the same beginning each time. `Ok(None)`: its operations make no sense in this order.
    pub fn run(&self, beginning: &Beginning, crash: Option<Crash>) -> Result<Option<Outcome>, String> {
        let run = || {
            let hosts = Hosts::new([beginning.0[0].snapshot(), beginning.0[1].snapshot()]);
            let handle = hosts.handle();
            let _inside = handle.enter();
            History { hosts, ledger: Ledger::default(), crash, recovery: 0 }.run(self)
        };
        catch_unwind(AssertUnwindSafe(run)).unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            Err(format!("panic: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?")))
        })
    }
}

impl History {
    fn run(mut self, plan: &Plan) -> Result<Option<Outcome>, String> {
        for side in 0..2 {
            assert!(self.hosts.start(side));
        }
        self.rest()?;
        let begun = [0, 1].map(|side| self.hosts.sides[side].disk.effects());
        let crash = self.crash;
        if let Some(crash) = crash {
            let at = begun[crash.side] + crash.effect;
            self.hosts.sides[crash.side].disk.die_after(at, crash.bytes);
        }
        if plan.schedule == Schedule::Apart {
            (0..2).for_each(|side| self.hosts.hang_up(side));
        }
        for (nth, (side, operation)) in plan.operations.iter().enumerate() {
            let names = calls::names(self.hosts.host(*side));
            if names.iter().any(|name| name.contains(CONFLICT)) {
                break;
            }
            match operation.calls(nth, &names) {
                Some(calls) => self.perform(*side, calls)?,
                None if crash.is_none() => return Ok(None),
                // The crash took what this was about.
                None => {}
            }
            if plan.schedule == Schedule::Resting {
                self.rest()?;
            }
        }
        self.rest()?;
        if self.crash.is_some() {
            return Err("the crash never came: two runs of one history differ".into());
        }
        let effects = [0, 1].map(|side| self.hosts.sides[side].disk.effects() - begun[side]);
        let died_in = crash.and_then(|crash| self.hosts.sides[crash.side].disk.died_in());
        Ok(Some(Outcome { effects, recovery: self.recovery, died_in }))
    }

    fn perform(&mut self, side: usize, calls: Vec<Call>) -> Result<(), String> {
        let mut open = None;
        for call in calls {
            self.hosts.note(|| format!("{side} {call:?}"));
            self.ledger.begin(side, &call);
            let done = self.hosts.sides[side].run(|stepped| match call {
                Call::Checkpoint => stepped.checkpoint().map_err(|e| e.to_string()),
                _ => call.make(&stepped.host, &mut open).map_err(|e| format!("{call:?}: {e:?}")),
            });
            match done {
                Done::Value(done) => done?,
                // The rest of the operation dies with the mount.
                Done::Died => return self.recover(side),
            }
            self.ledger.returned(side, &call);
        }
        Ok(())
    }

    /// The crash has come, and the daemon starts anew.
    fn recover(&mut self, side: usize) -> Result<(), String> {
        let crash = self.crash.take().ok_or("a process died of nothing")?;
        let other = shown(self.hosts.host(1 - side));
        self.hosts.sides[side].settle(crash.fate);
        let begun = self.hosts.sides[side].disk.effects();
        if let Some(effect) = crash.again {
            self.hosts.sides[side].disk.die_at(Some(begun + effect));
        }
        let recovered = self.hosts.start(side);
        match crash.again {
            None if !recovered => return Err("recovery died of nothing".into()),
            None => self.recovery = self.hosts.sides[side].disk.effects() - begun,
            Some(_) if recovered => return Err("the second crash never came".into()),
            Some(_) if !self.hosts.wake(side, Fate::Killed) => {
                return Err("the second recovery died of nothing".into());
            }
            Some(_) => {}
        }
        let shows = shown(self.hosts.host(side));
        if crash.fate.loses_power() {
            self.ledger.lost_power(side, &other);
        } else {
            self.ledger.killed(side, &shows)?;
        }
        look(&self.ledger, self.hosts.host(side), side)?;
        // What is uncertain is settled before anybody goes on.
        if crash.fate.loses_power() { self.rest() } else { Ok(()) }
    }

    /// Both hosts work until they are level: then they must be equal and right.
    fn rest(&mut self) -> Result<(), String> {
        loop {
            let ledger = &self.ledger;
            let all_known = !ledger.is_empty();
            let looks = |host: &Host, side| if all_known { look(ledger, host, side) } else { Ok(()) };
            match self.hosts.rest(|| usize::MAX, looks)? {
                Rest::Level => break,
                Rest::Died(side) => self.recover(side)?,
            }
        }
        self.hosts.equal()?;
        let share = shown(self.hosts.host(0));
        if !self.ledger.is_empty() {
            self.ledger.check(&share).map_err(|why| format!("{why}; in the end {}", tell(&share)))?;
        }
        self.ledger.both_have(&share);
        Ok(())
    }
}

/// What a host shows of its files, but for those still on their way.
fn shown(host: &Host) -> Share {
    let found = |(name, bytes): (String, Vec<u8>)| {
        let mode = calls::mode(host, &name).expect("it was there just now");
        (name, Found { bytes, mode })
    };
    calls::whole_files(host).into_iter().map(found).collect()
}

/// No file shows as it never was.
fn look(ledger: &Ledger, host: &Host, side: usize) -> Result<(), String> {
    for (name, bytes) in calls::whole_files(host) {
        if !ledger.ever(&bytes) {
            let share = shown(host);
            return Err(format!("host {side} shows {name} as it never was: {}", tell(&share)));
        }
    }
    Ok(())
}
