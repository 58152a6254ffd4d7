//! `--direction`: A sends, B receives. What A's users do arrives; what B's users do stays on B, and gives way.

use crate::number;
use crate::simulated::calls::{self, EXCHANGE, process};
use crate::simulated::hosts::{Hosts, Rest};
use crate::simulated::side::{Fate, Side};
use crate::story::{A, B, CONFLICT, Files, INLINE, Story, files, text};
use std::time::Duration;
use syncfs::fs::volume::Volume;
use syncfs::model::direction::Direction;
use syncfs::store::torn::Dice;

const MINUTE: Duration = Duration::from_secs(60);
const ONE_WAY: [Direction; 2] = [Direction::Send, Direction::Receive];

/// Two hosts that have not met.
fn unmet(seeds: [u64; 2], inline: u64, tell: impl FnOnce(&mut Story)) {
    let mut sides = seeds.map(|seed| Side::new(seed, inline));
    direct(&mut sides, ONE_WAY);
    let hosts = Hosts::new(sides);
    let handle = hosts.handle();
    let _inside = handle.enter();
    let mut story = Story { hosts };
    assert!(story.hosts.start(A) && story.hosts.start(B));
    tell(&mut story);
}

fn direct(sides: &mut [Side; 2], directions: [Direction; 2]) {
    sides.iter_mut().zip(directions).for_each(|(side, direction)| side.direction = direction);
}

/// Each story is told with either replica the greater, and with content that travels at once and that is fetched.
fn story(tell: impl Fn(&mut Story)) {
    for (seeds, inline) in [([11, 22], INLINE), ([22, 11], INLINE), ([11, 22], 0), ([22, 11], 0)] {
        unmet(seeds, inline, |s| {
            level(s);
            tell(s);
        });
    }
}

/// Both become level; returns what each has.
fn level(s: &mut Story) -> [Files; 2] {
    assert_eq!(s.hosts.rest(|| usize::MAX, |_, _| Ok(())), Ok(Rest::Level));
    [A, B].map(|side| s.hosts.sides[side].raw().into_iter().collect())
}

fn unlink(s: &Story, side: usize, name: &str) {
    s.host(side).unlink(name.as_bytes()).unwrap();
}

fn rename(s: &Story, side: usize, from: &str, to: &str) {
    s.host(side).rename(from.as_bytes(), to.as_bytes(), 0).unwrap();
}

/// The files that are no conflict copies, and what is in those that are.
fn apart(files: Files) -> (Files, Vec<Vec<u8>>) {
    let (copies, files): (Files, Files) = files.into_iter().partition(|(name, _)| name.contains(CONFLICT));
    (files, copies.into_values().collect())
}

/// B has exactly these, and these as conflict copies; A has what it had.
fn ends(s: &mut Story, on_a: &[(&str, &[u8])], on_b: &[(&str, &[u8])], copies: &[&[u8]]) {
    let [a, b] = level(s);
    let (b, mut kept) = apart(b);
    kept.sort();
    assert_eq!((a, b, kept), (files(on_a), files(on_b), copies.iter().map(|c| c.to_vec()).collect()));
}

fn held_back(s: &Story) -> u64 {
    s.host(B).status().held_back.unwrap()
}

#[test]
fn what_the_sender_does_arrives() {
    story(|s| {
        s.write(A, "plan", 0, &text(5_000, b'x'));
        s.write(A, "gone", 0, b"x");
        level(s);
        s.write(A, "plan", 1_500, b"edited");
        unlink(s, A, "gone");
        s.write(A, "new", 0, b"y");
        rename(s, A, "new", "renamed");
        let [a, b] = level(s);
        assert_eq!(a, b);
        assert_eq!(a.keys().collect::<Vec<_>>(), ["plan", "renamed"]);
        assert_eq!(held_back(s), 0);
    });
}

#[test]
fn what_the_receiver_changes_stays_there_and_is_counted() {
    story(|s| {
        for name in ["edited", "gone", "old", "same"] {
            s.write(A, name, 0, b"of A");
            s.fsync(A, name);
        }
        level(s);
        s.write(B, "edited", 0, b"by B");
        s.write(B, "new", 0, b"by B");
        unlink(s, B, "gone");
        rename(s, B, "old", "moved");
        let on_a: &[(&str, &[u8])] =
            &[("edited", b"of A"), ("gone", b"of A"), ("old", b"of A"), ("same", b"of A")];
        let on_b: &[(&str, &[u8])] =
            &[("edited", b"by B"), ("moved", b"of A"), ("new", b"by B"), ("same", b"of A")];
        ends(s, on_a, on_b, &[]);
        assert_eq!(
            (held_back(s), s.host(B).status().pending_files, s.host(A).status().pending_files),
            (4, 0, 0)
        );
        // Neither a new connection nor a remount nor power loss changes that.
        s.cut_link();
        ends(s, on_a, on_b, &[]);
        for fate in [Fate::Killed, Fate::PowerLost(3)] {
            for side in [A, B] {
                ["edited", "new"].iter().for_each(|name| s.fsync(B, name));
                s.crash(side, fate);
                ends(s, on_a, on_b, &[]);
                assert_eq!(held_back(s), 4, "{fate:?} of {side}");
            }
        }
    });
}

#[test]
fn an_edit_that_meets_the_senders_becomes_a_conflict_copy_whichever_is_later() {
    for later in [A, B] {
        story(|s| {
            s.write(A, "plan", 0, b"base");
            level(s);
            for side in [1 - later, later] {
                s.hosts.pass(MINUTE);
                s.cut_link();
                s.write(side, "plan", 0, [b"by A", b"by B"][side]);
            }
            ends(s, &[("plan", b"by A")], &[("plan", b"by A")], &[b"by B"]);
            assert_eq!(held_back(s), 1);
            // Once it has given way the file is the sender's again.
            s.write(A, "plan", 0, b"anew");
            ends(s, &[("plan", b"anew")], &[("plan", b"anew")], &[b"by B"]);
        });
    }
}

#[test]
fn a_file_that_was_unlinked_here_comes_back_whole_when_the_sender_changes_it() {
    story(|s| {
        let mut long = text(9_000, b'x');
        s.write(A, "plan", 0, &long);
        level(s);
        unlink(s, B, "plan");
        level(s);
        assert_eq!(s.names(B), [""; 0]);
        s.write(A, "plan", 4_000, b"edited");
        long[4_000..4_006].copy_from_slice(b"edited");
        ends(s, &[("plan", &long)], &[("plan", &long)], &[]);
        assert_eq!(held_back(s), 0);
        // So it does when it is renamed over there.
        unlink(s, B, "plan");
        level(s);
        rename(s, A, "plan", "renamed");
        ends(s, &[("renamed", &long)], &[("renamed", &long)], &[]);
    });
}

#[test]
fn a_new_file_of_the_receivers_steps_aside_for_the_senders() {
    story(|s| {
        s.write(B, "plan", 0, b"by B");
        level(s);
        s.write(A, "plan", 0, b"by A");
        ends(s, &[("plan", b"by A")], &[("plan", b"by A")], &[b"by B"]);
        s.write(A, "other", 0, b"by A");
        s.write(B, "name", 0, b"B's, too");
        rename(s, A, "other", "name");
        let a: &[(&str, &[u8])] = &[("name", b"by A"), ("plan", b"by A")];
        ends(s, a, a, &[b"B's, too", b"by B"]);
        assert_eq!(held_back(s), 2);
    });
}

#[test]
fn a_file_that_was_renamed_here_takes_the_senders_name_and_content_when_it_changes_there() {
    story(|s| {
        s.write(A, "plan", 0, b"base");
        level(s);
        rename(s, B, "plan", "mine");
        ends(s, &[("plan", b"base")], &[("mine", b"base")], &[]);
        s.write(A, "plan", 0, b"by A");
        ends(s, &[("plan", b"by A")], &[("plan", b"by A")], &[]);
        // Renamed and edited here, and edited there.
        rename(s, B, "plan", "mine");
        s.write(B, "mine", 0, b"by B");
        level(s);
        s.write(A, "plan", 0, b"anew");
        ends(s, &[("plan", b"anew")], &[("plan", b"anew")], &[b"by B"]);
        // Its name goes to another file of the sender's, equal or not.
        rename(s, B, "plan", "mine");
        level(s);
        s.write(A, "mine", 0, b"anew");
        let a: &[(&str, &[u8])] = &[("mine", b"anew"), ("plan", b"anew")];
        ends(s, a, &[("mine", b"anew")], &[b"anew", b"by B"]);
        s.write(A, "plan", 0, b"last");
        let a: &[(&str, &[u8])] = &[("mine", b"anew"), ("plan", b"last")];
        ends(s, a, a, &[b"by B"]);
    });
}

#[test]
fn what_was_edited_here_stays_as_a_conflict_copy_when_the_sender_unlinks_it() {
    story(|s| {
        s.write(A, "plan", 0, b"base");
        s.write(A, "moved", 0, b"base");
        level(s);
        s.write(B, "plan", 0, b"by B");
        rename(s, B, "moved", "mine");
        level(s);
        unlink(s, A, "plan");
        unlink(s, A, "moved");
        ends(s, &[], &[], &[b"by B"]);
        assert_eq!(held_back(s), 1);
    });
}

#[test]
fn names_that_change_places_here_go_back_with_the_senders_next_change() {
    story(|s| {
        s.write(A, "one", 0, b"1");
        s.write(A, "two", 0, b"2");
        level(s);
        s.host(B).rename(b"one", b"two", EXCHANGE).unwrap();
        ends(s, &[("one", b"1"), ("two", b"2")], &[("one", b"2"), ("two", b"1")], &[]);
        s.write(A, "one", 0, b"3");
        let [a, b] = level(s);
        assert_eq!((&a["one"], &b["one"]), (&b"3".to_vec(), &b"3".to_vec()));
        s.write(A, "two", 0, b"4");
        ends(s, &[("one", b"3"), ("two", b"4")], &[("one", b"3"), ("two", b"4")], &[]);
    });
}

#[test]
fn where_two_directories_meet_the_senders_files_keep_their_names() {
    for first in [A, B] {
        unmet([11, 22], INLINE, |s| {
            for side in [first, 1 - first] {
                s.hosts.pass(MINUTE);
                s.write(side, "plan", 0, [b"by A", b"by B"][side]);
                s.write(side, "same", 0, b"same");
                s.write(side, ["of A", "of B"][side], 0, b"x");
            }
            let a: &[(&str, &[u8])] = &[("of A", b"x"), ("plan", b"by A"), ("same", b"same")];
            let b: &[(&str, &[u8])] = &[("of A", b"x"), ("of B", b"x"), ("plan", b"by A"), ("same", b"same")];
            ends(s, a, b, &[b"by B"]);
            assert_eq!(held_back(s), 2);
        });
    }
}

#[test]
fn changed_to_both_ways_what_was_held_back_is_sent() {
    story(|s| {
        for name in ["edited", "gone", "old", "met"] {
            s.write(A, name, 0, b"of A");
        }
        level(s);
        s.write(B, "edited", 0, b"by B");
        s.write(B, "met", 0, b"by B");
        s.write(B, "new", 0, b"by B");
        unlink(s, B, "gone");
        rename(s, B, "old", "moved");
        s.write(A, "met", 0, b"by A");
        level(s);
        for side in [A, B] {
            s.hosts.sides[side].close();
        }
        direct(&mut s.hosts.sides, [Direction::Both; 2]);
        assert!(s.hosts.start(A) && s.hosts.start(B));
        let (all, copies) = apart(s.level());
        let expected: &[(&str, &[u8])] =
            &[("edited", b"by B"), ("met", b"by A"), ("moved", b"of A"), ("new", b"by B")];
        assert_eq!((all, copies), (files(expected), vec![b"by B".to_vec()]));
        // And back again: what is changed from here on stays here once more.
        for side in [A, B] {
            s.hosts.sides[side].close();
        }
        direct(&mut s.hosts.sides, ONE_WAY);
        assert!(s.hosts.start(A) && s.hosts.start(B));
        s.write(B, "edited", 0, b"once");
        let [a, b] = level(s);
        assert_eq!((&a["edited"][..], &b["edited"][..]), (&b"by B"[..], &b"once"[..]));
        assert_eq!(held_back(s), 1);
    });
}

#[test]
fn what_power_took_from_the_sender_comes_back_from_the_receiver_unless_it_was_changed_there() {
    story(|s| {
        s.write(A, "one", 0, b"base");
        s.write(A, "two", 0, b"base");
        level(s);
        ["one", "two"].iter().for_each(|name| s.fsync(A, name));
        s.write(A, "one", 0, b"anew");
        s.write(A, "two", 0, b"anew");
        level(s);
        s.write(B, "two", 0, b"by B");
        s.crash(A, Fate::UnsyncedLost);
        let [a, b] = level(s);
        assert_eq!((&a["one"][..], &b["one"][..]), (&b"anew"[..], &b"anew"[..]));
        assert!(!a.values().any(|bytes| bytes == b"by B"), "{a:?}");
        assert!(b.values().any(|bytes| bytes == b"by B"), "{b:?}");
        assert!(!a.keys().any(|name| name.contains(CONFLICT)), "{a:?}");
    });
}

/// Whatever the users of both do, whatever dies: the sender's files are what its users made them, and once each was changed
/// there, the receiver has them all. Replay: SYNCFS_SEED=n.
#[test]
fn whatever_happens_the_senders_files_end_equal_on_both() {
    let seeds = number("SYNCFS_SEED").map_or(0..number("SYNCFS_SEEDS").unwrap_or(150), |seed| seed..seed + 1);
    for seed in seeds {
        println!("seed {seed}");
        let mut dice = Dice(seed);
        let inline = [INLINE, 0][dice.number() as usize % 2];
        unmet([2 * seed + 11, 3 * seed + 22], inline, |s| random_history(s, &mut dice));
    }
}

fn write_if_here(s: &Story, name: &str, at: u64, bytes: &[u8]) {
    let host = s.host(B);
    let opened = calls::open(host, process(1), name).or_else(|_| calls::create(host, process(1), name));
    let Ok(handle) = opened else { return };
    let _ = calls::write(host, handle, at, bytes);
    calls::close(host, handle);
}

fn random_history(s: &mut Story, dice: &mut Dice) {
    let mut throw = |sides: u64| dice.number() % sides;
    let mut made = Files::new();
    for step in 0..80u64 {
        let side = throw(2) as usize;
        let [from, to] = [throw(5), throw(5)].map(|n| format!("file {n}"));
        match throw(12) {
            0..=4 => {
                // No two are alike.
                let bytes = format!("{step} {}", ["a", "b"][side]).into_bytes();
                let at = throw(3) * 1_000;
                if side == B {
                    // What power took is not there to be written into before the sender has told of it.
                    write_if_here(s, &from, at, &bytes);
                } else {
                    s.write(A, &from, at, &bytes);
                    let file = made.entry(from).or_default();
                    file.resize(file.len().max(at as usize + bytes.len()), 0);
                    file[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
                }
            }
            5 if s.names(side).contains(&from) => {
                unlink(s, side, &from);
                if side == A {
                    made.remove(&from);
                }
            }
            6 | 7 if from != to && s.names(side).contains(&from) => {
                rename(s, side, &from, &to);
                if side == A {
                    let file = made.remove(&from).unwrap();
                    made.insert(to, file);
                }
            }
            8 => drop(level(s)),
            9 => s.cut_link(),
            10 if throw(3) == 0 => s.crash(side, Fate::Killed),
            10 if side == B && throw(3) == 0 => s.crash(B, Fate::PowerLost(step)),
            _ => {
                s.hosts.pass(Duration::from_millis(400));
                s.hosts.connect();
                assert!(s.work(A) && s.work(B));
                s.deliver_from(side);
            }
        }
    }
    let [a, _] = level(s);
    assert_eq!(a, made);
    for (name, bytes) in &mut made {
        s.write(A, name, 0, b"last");
        bytes.resize(bytes.len().max(4), 0);
        bytes[..4].copy_from_slice(b"last");
    }
    let [a, b] = level(s);
    assert_eq!(a, made);
    for (name, bytes) in &made {
        assert_eq!(b.get(name), Some(bytes), "{name}");
    }
    let others = b.keys().filter(|name| !made.contains_key(*name)).count() as u64;
    assert!(held_back(s) >= others, "{} of {others}", held_back(s));
}
