//! Two directories that both have files when they meet, or meet again after one has lost something: told step by step.
//!
//! What is the same is one file from then on, costs next to nothing, and is in nobody's way. Whoever dies in between, and
//! whatever is changed meanwhile, nothing is lost and nothing that is the same becomes a conflict.

use crate::simulated::calls::{self, process};
use crate::simulated::hosts::Hosts;
use crate::simulated::side::{Fate, Side};
use crate::story::{A, B, INLINE, Story, copies, text, versions};
use std::collections::BTreeMap;
use std::time::Duration;
use syncfs::fs::volume::Volume;
use syncfs::store::torn::TornDisk;

/// Two hosts that run and have never met, with these files on either; where one dies of its files, it is started again.
fn strangers(files: [&[(&str, &[u8])]; 2], tell: impl FnOnce(&mut Story)) {
    let hosts = Hosts::new([11, 22].map(|seed| Side::new(seed, INLINE)));
    let handle = hosts.handle();
    let _inside = handle.enter();
    let mut story = Story { hosts };
    for side in [A, B] {
        assert!(story.hosts.start(side));
        files[side].iter().for_each(|(name, bytes)| story.write(side, name, 0, bytes));
        story.hosts.pass(Duration::from_secs(1));
    }
    tell(&mut story);
}

fn names(files: &BTreeMap<String, Vec<u8>>) -> Vec<&str> {
    files.keys().map(String::as_str).collect()
}

const SAME: &[u8] = b"the same on both";

#[test]
fn what_is_the_same_on_both_is_one_file_and_stays_so() {
    let same: &[(&str, &[u8])] = &[("a", SAME), ("b", b"")];
    strangers([same, same], |s| {
        assert_eq!(names(&s.level()), ["a", "b"]);
        // It is one file: an edit arrives, a rename and an unlink as well.
        s.write(A, "a", 0, b"THE");
        s.level();
        assert_eq!(s.read(B, "a"), b"THE same on both");
        s.host(B).rename(b"a", b"c", 0).unwrap();
        s.host(A).unlink(b"b").unwrap();
        assert_eq!(names(&s.level()), ["c"]);
    });
}

/// The program goes on with the file that it has open, and what it writes arrives.
#[test]
fn a_file_that_a_program_has_open_while_its_host_meets_another_stays_its_own() {
    for side in [A, B] {
        let same: &[(&str, &[u8])] = &[("a", SAME)];
        strangers([same, same], |s| {
            let open = calls::open(s.host(side), process(1), "a").unwrap();
            s.level();
            calls::write(s.host(side), open, 0, b"THE").unwrap();
            calls::close(s.host(side), open);
            let files = s.level();
            let all = versions(&files, "a");
            assert!(all.contains(&b"THE same on both".to_vec()), "what the program wrote is gone: {files:?}");
            assert!(all.iter().all(|bytes| bytes.ends_with(b"same on both")), "{files:?}");
        });
    }
}

/// Between the survey's questions and its end, on either side.
#[test]
fn what_is_changed_while_two_hosts_compare_is_not_lost() {
    for side in [A, B] {
        for steps in 0..8 {
            let same: &[(&str, &[u8])] = &[("a", SAME), ("b", SAME), ("c", SAME)];
            strangers([same, same], |s| {
                s.hosts.connect();
                for n in 0..steps {
                    assert!(s.work(n % 2));
                    s.deliver_from(n % 2);
                }
                s.write(side, "a", 0, b"THE");
                s.host(side).rename(b"b", b"moved", 0).unwrap();
                s.host(side).unlink(b"c").unwrap();
                let files = s.level();
                let edited = versions(&files, "a");
                assert!(edited.contains(&b"THE same on both".to_vec()), "after {steps} steps: {files:?}");
                assert_eq!(files["moved"], SAME, "after {steps} steps");
            });
        }
    }
}

/// Either host dies at each change of its disk on the way, with or without its machine.
#[test]
fn whoever_dies_while_two_hosts_meet_nothing_is_lost_and_nothing_the_same_is_in_conflict() {
    let a: &[(&str, &[u8])] = &[("a", SAME), ("b", SAME), ("only a", b"1"), ("x", b"x of a")];
    let b: &[(&str, &[u8])] = &[("a", SAME), ("b", SAME), ("only b", b"2"), ("x", b"x of b, the later one")];
    for side in [A, B] {
        for fate in [Fate::Killed, Fate::UnsyncedLost, Fate::PowerLost(7)] {
            let mut deaths = 0;
            for nth in 1.. {
                let mut died = false;
                strangers([a, b], |s| {
                    // What only power loss could take back is no matter here.
                    for side in [A, B] {
                        s.names(side).iter().for_each(|name| s.fsync(side, name));
                    }
                    let disk = s.hosts.sides[side].disk.clone();
                    disk.die_at(Some(disk.effects() + nth));
                    s.hosts.connect();
                    for _ in 0..20 {
                        died = !s.work(A) || !s.work(B);
                        if died {
                            assert!(s.hosts.wake(side, fate));
                            break;
                        }
                        s.deliver_from(A);
                        s.deliver_from(B);
                    }
                    disk.die_at(None);
                    let files = s.level();
                    let plain: Vec<&str> =
                        names(&files).into_iter().filter(|name| !name.contains(".sync-conflict-")).collect();
                    assert_eq!(plain, ["a", "b", "only a", "only b", "x"], "{side} {fate:?} {nth}");
                    assert_eq!(copies(&files).len(), 1, "{side} {fate:?} {nth}: {files:?}");
                    let x = versions(&files, "x");
                    assert!(
                        x.contains(&b"x of a".to_vec()) && x.len() == 2,
                        "{side} {fate:?} {nth}: {files:?}"
                    );
                });
                if !died {
                    break;
                }
                deaths += 1;
            }
            assert!(deaths > 5, "host {side} dies at {deaths} moments only");
        }
    }
}

/// What it has lost is told again also where the link fails in the middle of that.
#[test]
fn who_lost_the_disk_gets_everything_back_though_the_telling_is_cut_short() {
    let files: Vec<(String, Vec<u8>)> =
        (0..30).map(|n| (format!("file {n}"), text(100 + n, b'a' + n as u8 % 26))).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (name.as_str(), &bytes[..])).collect();
    for steps in 4..12 {
        strangers([&files, &[]], |s| {
            s.level();
            s.hosts.sides[B].kill();
            s.hosts.sides[B].disk = TornDisk::new();
            assert!(s.hosts.start(B));
            s.hosts.connect();
            for n in 0..steps {
                assert!(s.work(n % 2));
                if n + 1 < steps {
                    s.deliver_from(n % 2);
                } else {
                    let out = s.hosts.sides[n % 2].out.clone();
                    while out.transmit() {}
                    for _ in 0..10 {
                        s.hosts.arrive(1 - n % 2).unwrap();
                    }
                    assert!(s.work(1 - n % 2));
                }
            }
            s.cut_link();
            assert_eq!(s.level().len(), 30, "after {steps} steps");
        });
    }
}
