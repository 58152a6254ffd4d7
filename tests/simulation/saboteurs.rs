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
const CAUGHT: &[(Bug, &str, Option<u32>)] = &[
    (Bug::ThankBeforeSync, "promises::what_the_peer_has_thanked_for_outlives_its_power", None),
    (Bug::TrustDisk, "stories::what_both_hosts_had_is_not_taken_back_by_a_disk_that_never_had_it", None),
    (Bug::ForgetSynced, "stories::what_fsync_returned_for_stays_above_what_the_peer_had", None),
    (
        Bug::ForgetUnfinished,
        "stories::a_change_that_failed_in_the_middle_is_finished_after_a_checkpoint_and_a_kill",
        None,
    ),
    (Bug::ChangeInSight, "promises::what_moved_together_is_seen_together_wherever_the_daemon_dies", None),
    (Bug::SkipRedo, "promises::what_moved_together_is_seen_together_wherever_the_daemon_dies", None),
    (Bug::ForgetRedo, "promises::what_moved_together_is_seen_together_wherever_the_daemon_dies", None),
    (Bug::HalfCut, "promises::what_moved_together_is_seen_together_wherever_the_daemon_dies", None),
    (Bug::HalfCut, "a_quiet_life", Some(4)),
    (Bug::Overtake, "promises::what_a_program_did_later_is_not_seen_before_what_it_did_first", None),
    (Bug::WriteUnjournaled, "promises::what_was_written_before_a_kill_arrives", None),
    (Bug::WriteBeforeSync, "promises::a_change_that_power_loss_tore_leaves_no_difference", None),
    (Bug::AnnounceBeforeSync, "promises::what_the_peer_has_heard_of_is_not_forgotten_here", None),
    (Bug::ForgetAside, "promises::what_is_being_fetched_is_one_moment_whatever_is_written_meanwhile", None),
    (Bug::ForgetAside, "a_quiet_life", Some(4)),
    (
        Bug::ServeAnyVersion,
        "promises::what_is_being_fetched_is_one_moment_whatever_is_written_meanwhile",
        None,
    ),
    (Bug::ServeAnyVersion, "a_quiet_life", Some(4)),
    (Bug::ThanksClearAll, "promises::what_is_changed_before_the_thanks_come_is_told_as_well", None),
    (Bug::ThankPartial, "promises::what_the_peer_has_thanked_for_outlives_its_power", None),
    (Bug::ReadPartial, "promises::what_is_written_into_what_is_not_fetched_yet_stays", None),
    (Bug::FillOverWrites, "promises::what_is_written_into_what_is_not_fetched_yet_stays", None),
    (Bug::FillStale, "promises::what_was_asked_for_before_a_change_does_not_undo_it", None),
    (Bug::TrustDelivered, "promises::content_that_is_not_what_its_digest_says_is_shown_to_nobody", None),
    (
        Bug::TrustRecipes,
        "promises::what_changes_while_it_is_compared_leaves_no_trace_in_what_is_made_of_it",
        None,
    ),
    (Bug::PublishUnsynced, "promises::what_the_peer_has_thanked_for_outlives_its_power", None),
    (Bug::LastWriterWins, "promises::what_both_changed_apart_is_kept_on_both", None),
    (Bug::ReviveUnlinked, "promises::a_file_that_was_unlinked_is_gone_on_both", None),
    (Bug::ReviveUnlinked, "a_quiet_life", Some(4)),
    (Bug::UnlinkOverEdit, "promises::a_file_that_was_edited_outlives_its_unlink_over_there", None),
    (
        Bug::ForgetUnlinked,
        "promises::what_was_unlinked_does_not_come_back_with_an_announcement_on_its_way",
        None,
    ),
    (Bug::ForgetLeft, "a_quiet_life", Some(4)),
    (Bug::IgnoreShrink, "promises::a_file_that_was_made_shorter_is_shorter_on_both", None),
    (Bug::GrowthKeepsTail, "promises::what_was_cut_off_and_grew_again_is_zeros_on_both", None),
    (Bug::TruncateUnmarked, "promises::what_a_truncation_cuts_off_on_its_way_is_not_made_up", None),
    (Bug::MissingIsDeleted, "promises::a_file_that_vanished_from_the_disk_comes_back", None),
    (Bug::LeaveNames, "promises::what_moved_together_is_seen_together_wherever_the_daemon_dies", None),
    (Bug::ReuseWriter, "promises::who_lost_the_metadata_is_somebody_new", None),
    (Bug::MergeUnseen, "first::what_is_changed_while_two_hosts_compare_is_not_lost", None),
    (Bug::TrustOldThanks, "promises::who_lost_the_disk_gets_everything_back", None),
    (Bug::BelieveAfterLoss, "promises::what_the_peer_has_heard_of_is_not_forgotten_here", None),
    (Bug::AcceptTornTail, "promises::what_fsync_returned_for_outlives_power_loss", None),
    (Bug::TrimBeforeMeta, "promises::what_a_checkpoint_covers_outlives_power_loss", None),
    (Bug::CheckpointUnsynced, "promises::what_is_half_fetched_at_a_checkpoint_is_right_in_the_end", None),
    (Bug::FsyncWithoutName, "promises::what_fsync_returned_for_outlives_power_loss", None),
    (Bug::RetryFailedSync, "promises::an_fsync_that_failed_is_not_tried_again_into_success", None),
    (
        Bug::ForgetTrash,
        "brakes::what_the_peer_deleted_or_replaced_is_in_the_trash_and_what_went_here_is_not",
        None,
    ),
    (Bug::IgnoreStorm, "brakes::most_of_the_files_go_only_when_somebody_says_so", None),
    (
        Bug::EvictDirty,
        "cache::what_is_pinned_and_what_the_peer_does_not_have_stay_however_full_the_cache_is",
        None,
    ),
    (Bug::ForgetBefore, "cache::a_file_held_in_part_that_both_changed_apart_is_whole_in_both_versions", None),
    (Bug::PunchUnrecorded, "cache::a_hole_is_known_before_it_is_there_wherever_the_daemon_dies", None),
    (
        Bug::EvictUnheld,
        "cache::nothing_goes_from_a_new_cache_before_the_peer_that_kept_one_holds_everything",
        None,
    ),
    (Bug::ReceiverTells, "direction::what_the_receiver_changes_stays_there_and_is_counted", None),
];

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
    last.lines().nth(1).unwrap_or("nothing").chars().take(100).collect()
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
