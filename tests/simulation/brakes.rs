//! What holds up a delete that somebody did not mean: stories of the trash, and of the brake.

use crate::simulated::calls;
use crate::simulated::hosts::{Hosts, Rest};
use crate::simulated::side::{Done, Fate};
use crate::story::{A, B, INLINE, Story, story};
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;
use syncfs::fs::volume::Volume;
use syncfs::store::{Dir, Disk};

const DAY: Duration = Duration::from_secs(86_400);

impl Story {
    /// What lies in a host's trash: under which names it was known, and its content, in the order in which it came.
    fn trash(&self, side: usize) -> Vec<(String, Vec<u8>)> {
        trash(&self.hosts, side)
    }

    fn unlink(&self, side: usize, name: &str) {
        self.host(side).unlink(name.as_bytes()).unwrap();
    }

    fn rename(&self, side: usize, from: &str, to: &str) {
        self.host(side).rename(from.as_bytes(), to.as_bytes(), 0).unwrap();
    }

    /// `cp new name`
    fn rewrite(&self, side: usize, name: &str, bytes: &[u8]) {
        calls::truncate(self.host(side), name, 0).unwrap();
        self.write(side, name, 0, bytes);
    }
}

fn trash(hosts: &Hosts, side: usize) -> Vec<(String, Vec<u8>)> {
    let disk = &hosts.sides[side].disk;
    let told = |entry: Vec<u8>| {
        let name = String::from_utf8(entry.clone()).unwrap();
        // The time, which holds a dash, and the file.
        let original = name.splitn(4, '-').nth(3).expect("an entry's name").to_owned();
        (original, disk.bytes(Dir::Trash, &entry).unwrap())
    };
    disk.names(Dir::Trash).into_iter().map(told).collect()
}

fn of(name: &str, byte: u8) -> (String, Vec<u8>) {
    (name.to_owned(), vec![byte; 2_300])
}

#[test]
fn what_the_peer_deleted_or_replaced_is_in_the_trash_and_what_went_here_is_not() {
    story(INLINE, |story| {
        for (name, byte) in [("one", b'1'), ("two", b'2'), ("three", b'3')] {
            story.write(A, name, 0, &[byte; 2_300]);
        }
        story.level();
        story.unlink(A, "one");
        story.rename(A, "three", "two");
        assert_eq!(story.level(), BTreeMap::from([of("two", b'3')]));
        let mut thrown = story.trash(B);
        thrown.sort();
        assert_eq!(thrown, [of("one", b'1'), of("two", b'2')]);
        assert_eq!(story.trash(A), [], "a local unlink is none of the peer's");
    });
}

#[test]
fn what_comes_back_from_the_trash_comes_back_on_both() {
    story(INLINE, |story| {
        story.write(A, "one", 0, &[b'1'; 2_300]);
        story.level();
        story.unlink(A, "one");
        story.level();
        assert!(story.host(B).restore("two", None).is_err(), "there never was such a file");
        assert_eq!(story.host(B).restore("one", None).unwrap().name, "one");
        assert_eq!(story.trash(B), []);
        assert_eq!(story.level(), BTreeMap::from([of("one", b'1')]));
        // Once more, while something else has the name.
        story.unlink(A, "one");
        story.level();
        story.write(A, "one", 0, &[b'2'; 2_300]);
        story.level();
        assert!(story.host(B).restore("one", None).is_err(), "it must not replace anything");
        assert!(story.host(B).restore("one", Some(".syncfs")).is_err(), "nobody can have that name");
        let entry = story.host(B).thrown()[0].entry.clone();
        story.host(B).restore(&entry, Some("old")).unwrap();
        assert_eq!(story.level(), BTreeMap::from([of("old", b'1'), of("one", b'2')]));
    });
}

#[test]
fn of_a_file_that_the_peer_rewrites_in_place_the_old_content_is_kept_now_and_then() {
    story(INLINE, |story| {
        story.write(A, "note", 0, &[b'1'; 2_300]);
        story.level();
        story.write(A, "note", 500, b"an edit");
        story.level();
        assert_eq!(story.trash(B), [], "a part of it was edited");
        let edited = story.read(A, "note");
        story.rewrite(A, "note", &[b'2'; 2_300]);
        story.level();
        assert_eq!(story.trash(B), [("note".to_owned(), edited.clone())]);
        story.rewrite(A, "note", &[b'3'; 2_300]);
        story.level();
        assert_eq!(story.trash(B).len(), 1, "it was rewritten a moment ago");
        story.hosts.pass(Duration::from_secs(700));
        story.rewrite(A, "note", &[b'4'; 2_300]);
        story.level();
        assert_eq!(story.trash(B), [("note".to_owned(), edited), of("note", b'3')]);
        story.hosts.pass(Duration::from_secs(700));
        calls::truncate(story.host(A), "note", 0).unwrap();
        story.level();
        assert_eq!(story.trash(B)[2..], [of("note", b'4')]);
    });
}

#[test]
fn the_trash_is_emptied_of_what_has_lain_there_for_a_week() {
    story(INLINE, |story| {
        for name in ["one", "two"] {
            story.write(A, name, 0, &[b'1'; 2_300]);
        }
        story.level();
        story.unlink(A, "one");
        story.level();
        story.hosts.pass(4 * DAY);
        story.unlink(A, "two");
        story.level();
        assert_eq!(story.trash(B), [of("one", b'1'), of("two", b'1')]);
        story.hosts.pass(4 * DAY);
        story.level();
        assert_eq!(story.trash(B), [of("two", b'1')]);
    });
}

#[test]
fn on_a_full_disk_the_trash_gives_way_to_what_the_peer_brings_and_to_local_writes() {
    for local in [false, true] {
        story(INLINE, |story| {
            story.write(A, "one", 0, &[b'1'; 2_300]);
            story.write(A, "two", 0, &[b'2'; 2_300]);
            story.level();
            story.unlink(A, "one");
            story.level();
            assert_eq!(story.trash(B).len(), 1);
            let disk = story.hosts.sides[B].disk.clone();
            disk.fill_up(if local { 600 } else { 3_000 });
            if local {
                let host = story.host(B);
                let handle = calls::open(host, calls::process(1), "two").unwrap();
                // This disk does not gain by what is removed: that there is an end to it is not what is asked here.
                let _ = calls::write(host, handle, 0, &[b'3'; 2_300]);
                calls::close(host, handle);
            } else {
                story.write(A, "two", 2_000, &[b'3'; 9_000]);
                story.deliver_from(A);
                story.work(A);
                story.deliver_from(A);
                story.work(B);
            }
            assert_eq!(story.trash(B).len(), 0, "the trash still takes up room, local: {local}");
            disk.set_space(None);
            story.level();
        });
    }
}

/// Here one file is unlinked and another replaced; over there the daemon dies at the `nth` change of its disk. False where it
/// has come to the end before.
fn dies_while_it_throws_away(nth: u64, fate: Fate) -> bool {
    let mut died = false;
    story(INLINE, |story| died = throws_away(story, nth, fate));
    died
}

fn throws_away(story: &mut Story, nth: u64, fate: Fate) -> bool {
    for (name, byte) in [("one", b'1'), ("two", b'2'), ("three", b'3')] {
        story.write(A, name, 0, &[byte; 2_300]);
    }
    story.level();
    let soon = story.hosts.sides[B].disk.effects() + nth;
    story.unlink(A, "one");
    story.rename(A, "three", "two");
    story.hosts.sides[B].disk.die_at(Some(soon));
    let rested = story.hosts.rest(|| usize::MAX, |_, _| Ok(())).unwrap();
    story.hosts.sides[B].disk.die_at(None);
    if rested == Rest::Level {
        return false;
    }
    assert!(story.hosts.wake(B, fate));
    // What is not in the trash yet is still in the share, and never in both.
    let shown = calls::whole_files(story.host(B));
    for thrown in [of("one", b'1'), of("two", b'2')] {
        let times = story.trash(B).iter().filter(|found| **found == thrown).count();
        let shows = shown.iter().filter(|(name, bytes)| (name, bytes) == (&&thrown.0, &&thrown.1)).count();
        assert_eq!(times + shows, 1, "dead at change {nth}, {fate:?}: {times} in the trash, {shows} shown");
    }
    assert_eq!(story.level(), BTreeMap::from([of("two", b'3')]));
    let mut thrown = story.trash(B);
    thrown.sort();
    assert_eq!(thrown, [of("one", b'1'), of("two", b'2')], "dead at change {nth}, {fate:?}");
    true
}

#[test]
fn what_the_peer_deleted_is_in_the_trash_once_wherever_the_daemon_or_the_power_dies() {
    let deaths =
        |fate: fn(u64) -> Fate| (1..).take_while(|n| dies_while_it_throws_away(*n, fate(*n))).count();
    let torn: [fn(u64) -> Fate; 4] = [
        Fate::PowerLost,
        |n| Fate::PowerLost(n + 1_000),
        |n| Fate::PowerLost(n + 2_000),
        |n| Fate::PowerLost(n + 3_000),
    ];
    let whole: [fn(u64) -> Fate; 2] = [|_| Fate::Killed, |_| Fate::UnsyncedLost];
    for count in whole.into_iter().chain(torn).map(deaths) {
        assert!(count > 8, "it dies at {count} moments only");
    }
}

#[test]
fn what_is_being_restored_is_not_lost_wherever_the_daemon_or_the_power_dies() {
    let dies_at = |nth: u64, fate: Fate| {
        let mut came = false;
        story(INLINE, |story| {
            story.write(A, "one", 0, &[b'1'; 2_300]);
            story.level();
            story.unlink(A, "one");
            story.level();
            let disk = story.hosts.sides[B].disk.clone();
            disk.die_at(Some(disk.effects() + nth));
            story.hosts.sides[B].run(|stepped| stepped.host.restore("one", None).map(drop).unwrap());
            came = disk.is_dead();
            disk.die_at(None);
            if came {
                assert!(story.hosts.wake(B, fate));
            }
            let files = story.level();
            let back = files == BTreeMap::from([of("one", b'1')]);
            let kept = story.trash(B) == [of("one", b'1')];
            assert!(back || (kept && files.is_empty()), "dead at change {nth}, {fate:?}: {:?}", files.keys());
            assert!(came || (back && !kept), "without a death it is not back");
        });
        came
    };
    for fate in [|_| Fate::Killed, |_| Fate::UnsyncedLost, Fate::PowerLost] {
        assert!((1..).take_while(|n| dies_at(*n, fate(*n))).count() > 5);
    }
}

/// So many files, on both hosts.
fn with_files(count: usize, tell: impl FnOnce(&mut Story, Vec<String>)) {
    story(INLINE, |story| {
        let names: Vec<String> = (0..count).map(|n| format!("file {n:03}")).collect();
        names.iter().for_each(|name| story.write(A, name, 0, name.as_bytes()));
        assert_eq!(story.level().len(), count);
        // What was made within this minute counts as having been there.
        story.hosts.pass(Duration::from_secs(100));
        tell(story, names);
    });
}

impl Story {
    /// What one host has to say is said and heard, and what follows from it.
    fn exchange(&mut self) {
        for _ in 0..20 {
            for side in [A, B] {
                assert!(self.work(side));
                self.deliver_from(side);
            }
            self.hosts.poll();
        }
    }

    fn paused(&self, side: usize) -> Option<u64> {
        self.host(side).status().paused
    }
}

#[test]
fn most_of_the_files_go_only_when_somebody_says_so() {
    with_files(200, |story, names| {
        names[..150].iter().for_each(|name| story.unlink(A, name));
        story.write(A, "made later", 0, b"x");
        story.exchange();
        assert_eq!(story.names(B).len(), 200, "something is gone, or what came later is here");
        assert_eq!(story.paused(B), Some(150));
        assert_eq!(story.paused(A), None);
        // Reads and local work go on, and A hears of it.
        assert_eq!(story.read(B, &names[0]), names[0].as_bytes());
        story.write(B, "of B", 0, b"x");
        story.exchange();
        assert_eq!(story.read(A, "of B"), b"x");
        // It is not forgotten over a connection that fails, nor by a kill.
        story.cut_link();
        story.hosts.pass(Duration::from_secs(300));
        story.hosts.connect();
        story.exchange();
        assert_eq!((story.names(B).len(), story.paused(B)), (201, Some(150)));
        story.crash(B, Fate::Killed);
        story.hosts.connect();
        story.exchange();
        assert_eq!((story.names(B).len(), story.paused(B)), (201, Some(150)));
        assert_eq!(story.host(B).resume().unwrap(), Some(150));
        assert_eq!(story.level().len(), 52);
        assert_eq!((story.paused(B), story.host(B).resume().unwrap()), (None, None));
        assert_eq!(story.trash(B).len(), 150);
    });
}

#[test]
fn a_pause_is_not_forgotten_when_the_power_goes() {
    with_files(200, |story, names| {
        names[..150].iter().for_each(|name| story.unlink(A, name));
        story.exchange();
        story.crash(B, Fate::UnsyncedLost);
        // One after the other, they would be few each time.
        story.hosts.connect();
        for _ in 0..400 {
            story.work(A);
            story.hosts.transmit(A);
            story.hosts.arrive(B).unwrap();
            story.work(B);
        }
        assert_eq!(story.names(B).len(), 200);
        story.exchange();
        story.host(B).resume().unwrap();
        assert_eq!(story.level().len(), 50);
    });
}

#[test]
fn files_that_are_renamed_or_replaced_are_not_deleted() {
    with_files(200, |story, names| {
        names[..150].iter().for_each(|name| story.rename(A, name, &format!("renamed {name}")));
        assert_eq!(story.level().len(), 200);
        for name in &names[150..] {
            story.rename(A, &format!("renamed {}", names[0]), name);
            story.rename(A, name, &format!("renamed {}", names[0]));
            story.write(A, name, 0, b"made anew");
        }
        assert_eq!((story.level().len(), story.paused(B)), (200, None));
        // As tar and git do: away with it, and a new one.
        for name in story.names(A) {
            story.unlink(A, &name);
            story.work(A);
            story.write(A, &name, 0, b"once more");
        }
        assert_eq!((story.level().len(), story.paused(B)), (200, None));
    });
}

#[test]
fn of_a_hundred_files_and_fewer_any_number_may_go() {
    with_files(100, |story, names| {
        names[..90].iter().for_each(|name| story.unlink(A, name));
        assert_eq!((story.level().len(), story.paused(B)), (10, None));
    });
}

impl Story {
    /// Host B ends in order, and somebody removes files from its directory.
    fn removed_meanwhile(&mut self, names: &[String]) {
        assert!(matches!(self.hosts.sides[B].close(), Done::Value(Ok(()))));
        let disk = &self.hosts.sides[B].disk;
        names.iter().for_each(|name| disk.unlink(Dir::Root, name.as_bytes()).unwrap());
    }
}

#[test]
fn what_was_removed_while_unmounted_comes_back_unless_it_is_adopted() {
    with_files(10, |story, names| {
        story.removed_meanwhile(&names[..2]);
        assert!(story.hosts.start(B));
        assert_eq!(story.host(B).status().missing_at_mount, 2);
        assert_eq!(story.level().len(), 10);
        story.hosts.sides[B].adopt_deletes = true;
        story.removed_meanwhile(&names[..2]);
        assert!(story.hosts.start(B));
        assert_eq!(story.host(B).status().missing_at_mount, 0);
        assert_eq!(story.level().keys().collect::<Vec<_>>(), names[2..].iter().collect::<Vec<_>>());
        // Over there it is a delete of the peer's like any other.
        assert_eq!(story.trash(A).len(), 2);
    });
}

#[test]
fn an_edit_over_there_outlives_a_delete_that_is_adopted() {
    with_files(2, |story, names| {
        story.removed_meanwhile(&names[..1]);
        story.write(A, &names[0], 0, b"edited");
        story.hosts.sides[B].adopt_deletes = true;
        assert!(story.hosts.start(B));
        assert!(story.level()[&names[0]].starts_with(b"edited"));
    });
}

#[test]
fn what_was_removed_after_a_kill_is_adopted_and_after_power_loss_it_is_not() {
    for (fate, left) in [(Fate::Killed, 9), (Fate::PowerLost(1), 10), (Fate::UnsyncedLost, 10)] {
        with_files(10, |story, names| {
            story.hosts.sides[B].run(|stepped| stepped.checkpoint().unwrap());
            story.hosts.sides[B].kill();
            story.hosts.sides[B].settle(fate);
            story.hosts.sides[B].disk.unlink(Dir::Root, names[0].as_bytes()).unwrap();
            story.hosts.sides[B].adopt_deletes = true;
            assert!(story.hosts.start(B));
            assert_eq!(story.level().len(), left, "{fate:?}");
        });
    }
}

#[test]
fn a_directory_that_has_lost_most_of_its_files_is_not_mounted_to_adopt_that() {
    with_files(200, |story, names| {
        story.hosts.sides[B].adopt_deletes = true;
        story.removed_meanwhile(&names[..101]);
        let opened = catch_unwind(AssertUnwindSafe(|| story.hosts.start(B)));
        let panic = opened.expect_err("it opens");
        let why = panic.downcast_ref::<String>().expect("it says why");
        let says =
            ["101 of the 200 files are missing", "--adopt-deletes --max-delete 101", "file 000, file 001"];
        assert!(says.iter().all(|part| why.contains(part)), "{why}");
        // Nothing came of it: without the option they are all back.
        story.hosts.sides[B].adopt_deletes = false;
        assert!(story.hosts.start(B));
        assert_eq!(story.level().len(), 200);
        // And who says so many gets his will. The other side is to ask for itself.
        story.hosts.sides[B].adopt_deletes = true;
        story.hosts.sides[B].max_delete = Some(101);
        story.removed_meanwhile(&names[..101]);
        assert!(story.hosts.start(B));
        story.hosts.connect();
        story.exchange();
        assert_eq!((story.names(B).len(), story.names(A).len(), story.paused(A)), (99, 200, Some(101)));
        story.host(A).resume().unwrap();
        assert_eq!(story.level().len(), 99);
    });
}
