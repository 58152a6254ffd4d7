//! Power cuts: what fsync returned for is there, the host that kept its power loses nothing at all, and both sides
//! become the same by themselves.
//!
//! `SYNCFS_CUTS` is how many on each file system; `SYNCFS_SEED` replays the users' calls, not the timing.

use crate::database::{self, Database};
use crate::disk::{self, Disk, Kind, World};
use crate::rig::{Item, Pair};

use crate::scribe::Scribe;
use crate::user::Dice;
use crate::{number, said, seed};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How many cuts one pair of disks goes through.
const CUTS_OF_A_PAIR: u64 = 5;

#[test]
fn what_fsync_returned_for_is_there_after_a_power_cut_on_ext4() {
    sweep(Kind::Ext4, Demand::Fsynced);
}

#[test]
fn what_fsync_returned_for_is_there_after_a_power_cut_on_xfs() {
    sweep(Kind::Xfs, Demand::Fsynced);
}

#[test]
fn after_a_power_cut_both_sides_are_the_same_and_nothing_is_lost_on_ext4() {
    sweep(Kind::Ext4, Demand::Kept);
}

#[test]
fn after_a_power_cut_both_sides_are_the_same_and_nothing_is_lost_on_xfs() {
    sweep(Kind::Xfs, Demand::Kept);
}

#[test]
fn after_a_power_cut_nobody_finds_a_conflict_that_nobody_made() {
    sweep(Kind::Ext4, Demand::Healed);
}

#[test]
fn a_database_has_all_that_was_committed_after_a_power_cut() {
    databases(Kind::Ext4, Demand::Fsynced);
    databases(Kind::Xfs, Demand::Fsynced);
}

#[test]
fn after_a_power_cut_databases_are_whole_on_both_sides() {
    databases(Kind::Ext4, Demand::Healed);
    databases(Kind::Xfs, Demand::Healed);
}

/// What is asked of the two hosts after a cut, each more than the one before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Demand {
    /// The host has what its own fsync covered, before it meets the peer.
    Fsynced,
    /// Both sides become the same, and what the other host's users wrote is there, under its name or as a conflict
    /// copy beside it.
    Kept,
    /// As `Kept`, under its name, with no copy beside it.
    Healed,
}

/// Runs `cut` on fresh pairs until all cuts are done; tells which of them failed.
fn campaign(kind: Kind, cuts: u64, demand: Demand, mut pair: impl FnMut(u64, u64, &mut u64)) {
    if !disk::able(kind) {
        return;
    }
    let seed = seed();
    let (mut done, mut failures) = (0, Vec::new());
    while done < cuts {
        // Where nobody waits until the two are level again, the next cut takes others.
        let of_a_pair = if demand == Demand::Fsynced { 1 } else { CUTS_OF_A_PAIR };
        let (goal, seed) = ((done + of_a_pair).min(cuts), seed.wrapping_mul(1_000_003) + done);
        if let Err(panic) = catch_unwind(AssertUnwindSafe(|| pair(seed, goal, &mut done))) {
            done = goal.min(done + 1);
            println!("FAILED at cut {done}: {}", said(&*panic));
            failures.push(done);
        }
    }
    println!("{cuts} power cuts on {}", kind.name());
    assert!(failures.is_empty(), "failed at {failures:?} of {cuts} cuts");
}

fn sweep(kind: Kind, demand: Demand) {
    let root = tempfile::tempdir().unwrap();
    let Some(mut world) = World::new(root.path()) else { return };
    let (mut copies, mut fsyncs) = (0, 0);
    campaign(kind, number("SYNCFS_CUTS", 2), demand, |seed, goal, done| {
        let mut story = Story::new(kind, seed, &mut world);
        while *done < goal {
            fsyncs += story.cut_one(&mut world, demand);
            *done += 1;
        }
        copies += story.conflicts;
    });
    println!("{fsyncs} times fsync returned; {copies} conflict copies that nobody made");
}

struct Story {
    dice: Dice,
    // Dropped before the disks.
    pair: Pair,
    disks: [Disk; 2],
    scribes: [Scribe; 2],
    conflicts: usize,
}

fn two_hosts(kind: Kind, world: &mut World) -> (Pair, [Disk; 2]) {
    let disks = [Disk::new(kind, 320), Disk::new(kind, 320)];
    let mut pair = Pair::of([disks[0].share(), disks[1].share()], tempfile::tempdir().unwrap());
    world.boot();
    pair.a.start();
    pair.b.start();
    pair.a.flush();
    (pair, disks)
}

impl Story {
    fn new(kind: Kind, seed: u64, world: &mut World) -> Story {
        let (pair, disks) = two_hosts(kind, world);
        let scribes = [Scribe::new(&pair.a.dir, "a", seed), Scribe::new(&pair.b.dir, "b", !seed)];
        Story { dice: Dice(seed), pair, disks, scribes, conflicts: 0 }
    }

    /// Returns how often fsync returned before the cut.
    fn cut_one(&mut self, world: &mut World, demand: Demand) -> u64 {
        let victim = self.dice.roll(2) as usize;
        let after = Duration::from_millis(200 + self.dice.roll(2_000));
        let (stop, dying) = (AtomicBool::new(false), AtomicBool::new(false));
        let before: u64 = self.scribes.iter().map(|s| s.fsyncs).sum();
        let Story { pair, disks, scribes, .. } = self;
        let (host, peer) = if victim == 0 { (&mut pair.a, &mut pair.b) } else { (&mut pair.b, &mut pair.a) };
        std::thread::scope(|scope| {
            let stopped = || stop.load(Ordering::Relaxed);
            let dying = &dying;
            for (side, scribe) in scribes.iter_mut().enumerate() {
                let is_dying = move || side == victim && dying.load(Ordering::Relaxed);
                scope.spawn(move || scribe.work(stopped, is_dying));
            }
            std::thread::sleep(after);
            dying.store(true, Ordering::Relaxed);
            world.cut_power(host, &disks[victim]);
            stop.store(true, Ordering::Relaxed);
        });
        let fsyncs = scribes.iter().map(|s| s.fsyncs).sum::<u64>() - before;
        let cut = ["A", "B"][victim];
        peer.daemon().signal(Signal::STOP);
        host.start();
        let own = |name: &str| std::fs::read(host.path(name)).into_iter().collect();
        scribes[victim].check(false, own).unwrap_or_else(|why| panic!("cut of {cut}: lost {why}"));
        peer.daemon().signal(Signal::CONT);
        if demand == Demand::Fsynced {
            return fsyncs;
        }
        let found = self.level();
        let copies: Vec<&OsString> =
            found.keys().filter(|n| n.to_string_lossy().contains(".sync-conflict-")).collect();
        self.conflicts += copies.len();
        if demand == Demand::Healed {
            assert!(copies.is_empty(), "{copies:?} after a cut of {cut}");
        }
        let versions = |name: &str| versions(&found, name, demand);
        self.scribes[victim].check(false, versions).unwrap_or_else(|why| panic!("cut of {cut}: lost {why}"));
        let other = &self.scribes[1 - victim];
        other.check(true, versions).unwrap_or_else(|why| panic!("cut of {cut}: the peer lost {why}"));
        // Copies that are seen once are removed, as somebody would.
        for name in copies {
            std::fs::remove_file(self.pair.a.path(name)).unwrap();
        }
        for scribe in &mut self.scribes {
            scribe.settle(|name| found.get(&OsString::from(name)).cloned());
        }
        self.level();
        fsyncs
    }

    fn level(&self) -> BTreeMap<OsString, Vec<u8>> {
        level(&self.pair).into_iter().map(|(name, item)| (name, item.bytes)).collect()
    }
}

/// Both sides are level, conflicts or not, and show the same.
#[track_caller]
fn level(pair: &Pair) -> BTreeMap<OsString, Item> {
    let flush = || {
        pair.a.flush_with_conflicts();
        pair.b.flush_with_conflicts();
    };
    if std::panic::catch_unwind(std::panic::AssertUnwindSafe(flush)).is_err() {
        panic!("not level: {} {}\n{}", pair.a.status(), pair.b.status(), pair.logs());
    }
    pair.compare()
}

/// What lies under `name`, and in copies made of it in conflict.
fn versions(found: &BTreeMap<OsString, Vec<u8>>, name: &str, demand: Demand) -> Vec<Vec<u8>> {
    let copy = format!("{name}.sync-conflict-");
    let copies = found.iter().filter(|(n, _)| n.to_string_lossy().starts_with(&copy)).map(|c| c.1);
    let copies = copies.filter(|_| demand == Demand::Kept);
    found.get(&OsString::from(name)).into_iter().chain(copies).cloned().collect()
}

fn databases(kind: Kind, demand: Demand) {
    let root = tempfile::tempdir().unwrap();
    let Some(mut world) = World::new(root.path()) else { return };
    let mut committed = 0;
    campaign(kind, number("SYNCFS_CUTS", 1), demand, |seed, goal, done| {
        let mut dice = Dice(seed);
        let (mut pair, disks) = two_hosts(kind, &mut world);
        while *done < goal {
            let victim = dice.roll(2) as usize;
            let mut programs = Vec::new();
            for (side, host) in [&pair.a, &pair.b].into_iter().enumerate() {
                for mode in database::MODES {
                    let name = format!("{side}-{mode}.db");
                    let program = Database::write(&host.path(&name), mode);
                    programs.push((side, name, program));
                }
            }
            for (_, _, program) in &mut programs {
                program.committed_since_start(3);
            }
            std::thread::sleep(Duration::from_millis(dice.roll(1_500)));
            let (host, peer) =
                if victim == 0 { (&mut pair.a, &mut pair.b) } else { (&mut pair.b, &mut pair.a) };
            world.cut_power(host, &disks[victim]);
            let ended =
                programs.into_iter().map(|(side, name, program)| (side, name, program.end(side == victim)));
            let rows: Vec<(usize, String, u64)> = ended.collect();
            peer.daemon().signal(Signal::STOP);
            host.start();
            for (_, name, rows) in rows.iter().filter(|r| r.0 == victim) {
                whole(&host.dir, name, *rows, "whose power was cut");
                committed += rows;
            }
            peer.daemon().signal(Signal::CONT);
            *done += 1;
            if demand == Demand::Fsynced {
                continue;
            }
            level(&pair);
            for (side, name, rows) in &rows {
                let what = if *side == victim { "whose power was cut" } else { "whose peer's power was cut" };
                whole(&pair.a.dir, name, *rows, what);
                whole(&pair.b.dir, name, *rows, what);
            }
        }
    });
    println!("{committed} rows looked for");
}

#[track_caller]
fn whole(dir: &Path, name: &str, rows: u64, what: &str) {
    database::check(dir, name, rows).unwrap_or_else(|why| panic!("{name} of the host {what}: {why}"));
}
