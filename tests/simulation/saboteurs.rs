//! Would the tests notice? Plants the bugs of [`syncfs::model::sabotage`] one by one, and runs the test that is
//! to catch each, in a process of its own.
//!
//! The same table stands in docs/testing.md.

use std::collections::{BTreeSet, VecDeque};
use std::io::Read;
use std::process::{Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};
use syncfs::model::sabotage::Bug;

/// A run that takes longer has not failed but hangs, which catches nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// Which test catches which bug; of histories, within how many seeds at the most.
const CAUGHT: &[(Bug, &str, Option<u32>)] = &[];

/// What came of one test run.
struct Run {
    took: Duration,
    /// `None`: it passed.
    said: Option<String>,
}

/// Runs one test of this binary, with `bug` planted in the product.
fn run(test: &str, seeds: Option<u32>, bug: Option<Bug>) -> Result<Run, String> {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--include-ignored"]).stdout(Stdio::piped()).stderr(Stdio::null());
    for variable in ["SYNCFS_BUG", "SYNCFS_SEED", "SYNCFS_SEEDS", "SYNCFS_STORY", "SYNCFS_LOG"] {
        command.env_remove(variable);
    }
    command.envs(bug.map(|bug| ("SYNCFS_BUG", format!("{bug:?}"))));
    command.envs(seeds.map(|seeds| ("SYNCFS_SEEDS", seeds.to_string())));
    let begun = Instant::now();
    let mut child = command.spawn().map_err(|e| format!("{test} can't be started: {e}"))?;
    let mut stdout = child.stdout.take().expect("it is piped");
    let (ended, end) = mpsc::channel();
    let watch = std::thread::spawn(move || {
        if end.recv_timeout(PATIENCE).is_err() {
            child.kill().expect("it is ours");
        }
        child.wait()
    });
    let mut output = String::new();
    stdout.read_to_string(&mut output).map_err(|e| format!("{test}: {e}"))?;
    let _ = ended.send(());
    let status = watch.join().expect("it does not panic").map_err(|e| format!("{test}: {e}"))?;
    let took = begun.elapsed();
    let line = |word: &str| output.lines().any(|line| line == format!("test {test} ... {word}"));
    match status.code() {
        Some(0) if line("ok") => Ok(Run { took, said: None }),
        Some(101) if line("FAILED") => Ok(Run { took, said: Some(last_words(&output)) }),
        _ => Err(format!("{test} neither passed nor failed: {status} after {took:?}\n{output}")),
    }
}

/// The first line of the last panic.
fn last_words(output: &str) -> String {
    let (_, last) = output.rsplit_once(" panicked at ").unwrap_or_default();
    last.lines().nth(1).unwrap_or("nothing").to_owned()
}

/// Does all of `jobs`, as many at a time as there are processors; results in the order of the jobs.
fn all<J: Sync, T: Send>(jobs: &[J], act: impl Fn(&J) -> T + Sync) -> Vec<T> {
    let open: Mutex<VecDeque<usize>> = Mutex::new((0..jobs.len()).collect());
    let done = Mutex::new(Vec::new());
    let work = || {
        loop {
            let Some(n) = open.lock().unwrap().pop_front() else { return };
            let result = act(&jobs[n]);
            done.lock().unwrap().push((n, result));
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut done = done.into_inner().unwrap();
    done.sort_by_key(|d| d.0);
    done.into_iter().map(|d| d.1).collect()
}

#[test]
fn every_planted_bug_is_noticed() {
    let mut wrongs = Vec::new();
    let tests: BTreeSet<(&str, Option<u32>)> = CAUGHT.iter().map(|c| (c.1, c.2)).collect();
    let tests: Vec<(&str, Option<u32>)> = tests.into_iter().collect();
    for ((test, _), sound) in tests.iter().zip(all(&tests, |(test, seeds)| run(test, *seeds, None))) {
        match sound {
            Ok(Run { said: Some(said), .. }) => wrongs.push(format!("{test} fails without any bug: {said}")),
            Ok(_) => {}
            Err(why) => wrongs.push(why),
        }
    }
    println!("bug | caught by | what it said | ms");
    for ((bug, test, _), run) in CAUGHT.iter().zip(all(CAUGHT, |c| run(c.1, c.2, Some(c.0)))) {
        match run {
            Ok(Run { took, said: Some(said) }) => {
                println!("{bug:?} | {test} | {said} | {}", took.as_millis());
            }
            Ok(_) => wrongs.push(format!("{bug:?} goes unnoticed by {test}")),
            Err(why) => wrongs.push(format!("{bug:?}: {why}")),
        }
    }
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
}

#[test]
fn the_page_on_testing_names_the_test_that_catches_each_bug() {
    let mut table = "| bug | what goes wrong | caught by |\n|---|---|---|\n".to_owned();
    for bug in Bug::ALL {
        let by: Vec<String> = CAUGHT
            .iter()
            .filter(|c| c.0 == *bug)
            .map(|c| format!("`{}`", c.1.replace("promises::", "")))
            .collect();
        assert!(!by.is_empty(), "{bug:?} is not to be caught by any test");
        table += &format!("| {bug:?} | {} | {} |\n", bug.what(), by.join(", "));
    }
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/testing.md")).unwrap();
    assert!(page.contains(&table), "docs/testing.md should say:\n\n{table}");
}
