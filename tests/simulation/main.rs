//! Whole histories of two hosts in one thread: the real engine on a disk that tears, under a network that
//! fails, at the mercy of one seed.
//!
//! `SYNCFS_SEED=n` replays one history, `SYNCFS_SEEDS=n` runs so many (from that one on), `SYNCFS_STEPS=n` says how long they
//! are, `SYNCFS_STORY=1` tells what happens.

mod brakes;
mod cache;
mod direction;
mod first;
mod ignoring;
mod interval;
mod matching;
mod meeting;
mod promises;
mod rounds;
mod saboteurs;
#[path = "../common/simulated/mod.rs"]
mod simulated;
mod stories;
mod story;
mod user;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;
use world::{Faults, World};

/// Steps of a history, unless told otherwise.
const STEPS: u64 = 3_000;

fn number(variable: &str) -> Option<u64> {
    Some(std::env::var(variable).ok()?.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

/// One history: what it came to, its trace, the system calls in it.
fn history(seed: u64, faults: Faults) -> (Result<(), String>, u64, u64) {
    let mut world = World::new(seed, faults);
    let steps = number("SYNCFS_STEPS").unwrap_or(STEPS) as usize;
    let result = catch_unwind(AssertUnwindSafe(|| world.run(steps)));
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        Err(format!("panic: {}", text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("?")))
    });
    (result, world.trace(), world.calls)
}

fn histories(name: &str, faults: Faults, seeds: u64) {
    if std::env::var("SYNCFS_LOG").is_ok() {
        let filter = tracing_subscriber::EnvFilter::from_env("SYNCFS_LOG");
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).without_time();
        let _ = log.with_test_writer().try_init();
    }
    let seeds = match (number("SYNCFS_SEED"), number("SYNCFS_SEEDS")) {
        (Some(seed), many) => seed..seed + many.unwrap_or(1),
        (None, many) => 0..many.unwrap_or(seeds),
    };
    let (begun, mut calls, count) = (Instant::now(), 0, seeds.end - seeds.start);
    let mut failed = Vec::new();
    // A bug that was planted is noticed by the first that fails.
    let enough = if std::env::var("SYNCFS_BUG").is_ok() { 1 } else { 10 };
    for seed in seeds {
        let (result, trace, called) = history(seed, faults);
        let again = history(seed, faults);
        calls += 2 * called;
        if again.1 != trace {
            failed.push(format!("seed {seed}: two runs of one seed differ"));
        }
        if let Err(why) = result {
            failed.push(format!("seed {seed}: {why}"));
        }
        if failed.len() >= enough {
            break;
        }
    }
    let minutes = begun.elapsed().as_secs_f64() / 60.0;
    println!("{name}: {count} seeds, {calls} system calls, {:.0} a minute", calls as f64 / minutes);
    for why in &failed {
        println!(
            "{why}; replay: SYNCFS_STORY=1 SYNCFS_SEED=n cargo test --features simulation --test simulation {name} -- --nocapture"
        );
    }
    assert!(failed.is_empty(), "{} histories went wrong; the first: {}", failed.len(), failed[0]);
}

#[test]
fn a_quiet_life() {
    histories("a_quiet_life", Faults::NONE, 40);
}

#[test]
fn links_that_fail() {
    histories("links_that_fail", Faults::LINK, 40);
}

#[test]
fn daemons_that_are_killed() {
    histories("daemons_that_are_killed", Faults::KILLS, 40);
}

#[test]
fn machines_that_lose_power() {
    histories("machines_that_lose_power", Faults::POWER, 40);
}

#[test]
fn disks_that_are_full() {
    histories("disks_that_are_full", Faults::FULL, 40);
}

#[test]
fn a_cache_in_a_quiet_life() {
    histories("a_cache_in_a_quiet_life", Faults { cache: true, ..Faults::NONE }, 40);
}

#[test]
fn a_cache_and_daemons_that_are_killed() {
    histories("a_cache_and_daemons_that_are_killed", Faults { cache: true, ..Faults::KILLS }, 40);
}

#[test]
fn a_cache_and_everything_at_once() {
    histories("a_cache_and_everything_at_once", Faults { cache: true, ..Faults::ALL }, 40);
}

#[test]
fn everything_at_once() {
    histories("everything_at_once", Faults::ALL, 40);
}
