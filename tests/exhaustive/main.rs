//! Every short history, with a crash at every change of either disk.
//!
//! A history is one or two operations (`SYNCFS_LENGTH` says how many at most) of a small alphabet, on either
//! host. It is run once undisturbed, which tells how often each disk was changed; then once more for each of these changes
//! and each way to die of it. Whatever happens, both hosts must become level, equal and right.
//!
//! `SYNCFS_STRIDE=1` takes every change also of histories of several operations, `SYNCFS_PREFIXES=n` so many lengths of each torn
//! write, `SYNCFS_TEARS=n` so many ways to tear a disk. `SYNCFS_ONLY=n` runs the nth history alone, `SYNCFS_STORY=1` tells it.

mod history;
mod ledger;
mod operation;
#[path = "../common/simulated/mod.rs"]
mod simulated;

use history::{Beginning, Crash, Plan, Schedule};
use simulated::side::Fate;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

/// What the process dies of, and how finely it is tried.
enum Deaths {
    /// Kills: at each change, and after so many prefixes of each write.
    Kills { prefixes: usize },
    /// Kills, and one more at each change of each recovery.
    KillsTwice,
    /// Power cuts: one that takes all that was not synced, and so many that tear by chance.
    PowerCuts { seeds: u64 },
}

impl Deaths {
    /// Of how many changes of a history of several operations one is tried by default.
    fn stride(&self) -> usize {
        match self {
            Deaths::Kills { .. } => 4,
            Deaths::KillsTwice => 16,
            Deaths::PowerCuts { .. } => 12,
        }
    }
}

/// With `SYNCFS_LOG` the hosts' own log is shown, too.
fn show_log() {
    if std::env::var("SYNCFS_LOG").is_ok() {
        let filter = tracing_subscriber::EnvFilter::from_env("SYNCFS_LOG");
        let log = tracing_subscriber::fmt().with_env_filter(filter).with_ansi(false).without_time();
        let _ = log.with_writer(std::io::stderr).try_init();
    }
}

fn number(variable: &str) -> Option<usize> {
    Some(std::env::var(variable).ok()?.parse().unwrap_or_else(|_| panic!("{variable} is no number")))
}

/// All histories of up to `length` operations. The hosts are alike: the first operation is always on the same.
fn plans(length: usize) -> Vec<Plan> {
    let mut sequences: Vec<Vec<(usize, operation::Operation)>> = operation::ALL.map(|o| vec![(0, o)]).into();
    let mut last = sequences.clone();
    for _ in 1..length {
        let longer = |sequence: &Vec<_>| {
            let next = (0..2).flat_map(|side| operation::ALL.map(|o| (side, o)));
            next.map(|step| [sequence.clone(), vec![step]].concat()).collect::<Vec<_>>()
        };
        last = last.iter().flat_map(longer).collect();
        sequences.extend(last.clone());
    }
    let mut plans = Vec::new();
    for operations in sequences {
        let schedules = match operations.len() {
            1 => &[Schedule::Resting, Schedule::Apart][..],
            _ => &[Schedule::Resting, Schedule::Busy, Schedule::Apart],
        };
        plans.extend(schedules.iter().map(|s| Plan { operations: operations.clone(), schedule: *s }));
    }
    plans
}

/// Every crash of one history. Returns how many there were, 0 where it makes no sense.
fn crashes(
    nth: usize,
    plan: &Plan,
    beginning: &Beginning,
    deaths: &Deaths,
    failed: &mut Vec<String>,
) -> usize {
    let mut runs = 1;
    let mut run = |crash: Option<Crash>| {
        runs += 1;
        match plan.run(beginning, crash) {
            Ok(outcome) => outcome,
            Err(why) => {
                failed.push(format!("{:?} {:?}, {crash:?}: {why}", plan.schedule, plan.operations));
                None
            }
        }
    };
    let Some(outcome) = run(None) else { return 0 };
    // Of longer histories not each change, unless asked for; which ones goes with the history.
    let stride =
        if plan.operations.len() == 1 { 1 } else { number("SYNCFS_STRIDE").unwrap_or(deaths.stride()) };
    for side in 0..2 {
        for effect in (1..=outcome.effects[side]).skip(nth % stride).step_by(stride) {
            let mut crash = |bytes, fate, again| run(Some(Crash { side, effect, bytes, fate, again }));
            let mut die = |bytes, fate| crash(bytes, fate, None);
            match *deaths {
                Deaths::KillsTwice => {
                    let recovery = die(0, Fate::Killed).map_or(0, |outcome| outcome.recovery);
                    for again in 1..=recovery {
                        crash(0, Fate::Killed, Some(again));
                    }
                }
                Deaths::Kills { prefixes } => {
                    let write = die(0, Fate::Killed).and_then(|o| o.died_in).unwrap_or(0);
                    let steps = prefixes.min(write.saturating_sub(1));
                    for n in 1..=steps {
                        die(n * write / (steps + 1), Fate::Killed);
                    }
                }
                Deaths::PowerCuts { seeds } => {
                    die(0, Fate::UnsyncedLost);
                    for seed in 0..seeds {
                        // A write that is cut short as well.
                        die(seed as usize * 100, Fate::PowerLost(seed ^ effect << 8));
                    }
                }
            }
        }
    }
    runs - 2
}

fn all_histories(which: impl Fn(&Plan) -> bool, deaths: &Deaths) {
    let begun = Instant::now();
    let plans: Vec<Plan> = plans(number("SYNCFS_LENGTH").unwrap_or(2)).into_iter().filter(which).collect();
    let (next, done) = (AtomicUsize::new(0), Mutex::new((0, 0, Vec::new())));
    show_log();
    let only = number("SYNCFS_ONLY");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                let beginning = Beginning::new();
                loop {
                    let n = next.fetch_add(1, Ordering::Relaxed);
                    let Some(plan) = plans.get(n) else { return };
                    if only.is_some_and(|only| only != n) {
                        continue;
                    }
                    let mut failed = Vec::new();
                    let crashes = crashes(n, plan, &beginning, deaths, &mut failed);
                    let mut done = done.lock().unwrap();
                    done.0 += usize::from(crashes > 0);
                    done.1 += crashes;
                    done.2.extend(failed.into_iter().map(|why| format!("history {n}: {why}")));
                }
            });
        }
    });
    let (histories, crashes, mut failed) = done.into_inner().unwrap();
    println!(
        "{histories} histories, {crashes} crashes, {:.1} s on {threads} threads",
        begun.elapsed().as_secs_f64()
    );
    failed.sort();
    for why in failed.iter().take(number("SYNCFS_SHOW").unwrap_or(20)) {
        println!("{why}");
    }
    assert!(failed.is_empty(), "{} of {crashes} went wrong; the first: {}", failed.len(), failed[0]);
}

fn kills() -> Deaths {
    Deaths::Kills { prefixes: number("SYNCFS_PREFIXES").unwrap_or(1) }
}

#[test]
fn killed_at_any_change_of_its_disk_a_host_loses_nothing() {
    all_histories(|plan| !plan.is_at_once(), &kills());
}

#[test]
fn killed_while_both_hosts_changed_the_same_things_a_host_loses_nothing() {
    all_histories(Plan::is_at_once, &kills());
}

#[test]
fn killed_once_more_while_it_recovers_a_host_loses_nothing() {
    all_histories(|_| true, &Deaths::KillsTwice);
}

#[test]
fn without_power_at_any_change_of_its_disk_a_host_loses_nothing_that_was_durable() {
    let seeds = number("SYNCFS_TEARS").unwrap_or(1) as u64;
    all_histories(|_| true, &Deaths::PowerCuts { seeds });
}
