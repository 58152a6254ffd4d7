//! What is promised, each in a history of a few lines: told by hand, not by dice.
//!
//! The names here begin with neither user's letter: nobody works on them but who tells the story.

use crate::side::Side;
use crate::user::read;
use crate::world::{Faults, World};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use syncfs::engine::Host;
use syncfs::fs::volume::{Answer, Caller, SetAttr, Volume, WriteMode};
use syncfs::model::message::Message;
use syncfs::store::torn::{Dice, TornDisk};
use syncfs::store::{Dir, Disk};

/// Changes of this size travel with their announcement, or none do.
const INLINE: u64 = 1 << 20;
const NEVER: u64 = 0;
/// The workers that tell and apply changes, without those that fetch content.
const TELLING: Range<usize> = 0..2;
const ALL: Range<usize> = 0..6;
const CALLER: Caller = Caller { uid: 0, gid: 0, thread: 5_000_000 };

/// Two hosts that know each other, and what befalls them.
fn tell(inline: u64, story: impl FnOnce(&mut World)) {
    let mut world = World::new(0, Faults::NONE);
    world.sides = [1, 2].map(|seed| Side::new(seed, inline));
    let runtime = world.runtime();
    let _inside = runtime.enter();
    for side in 0..2 {
        world.revive(side, None).unwrap();
    }
    world.connect();
    story(&mut world);
}

/// As [`tell`], of so many ways in which power loss may tear what was not synced.
fn tell_of(inline: u64, ways: u64, story: impl Fn(&mut World, u64)) {
    for seed in 0..ways {
        println!("seed {seed}");
        tell(inline, |world| story(world, seed));
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| dice.number().to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}

fn host(world: &World, side: usize) -> Arc<Host> {
    world.sides[side].running.as_ref().expect("it is running").host.clone()
}

fn shown(world: &World, side: usize, name: &str) -> Option<Vec<u8>> {
    read(&host(world, side), name)
}

/// Writes, and leaves the file open: nothing is told yet.
fn write(world: &World, side: usize, name: &str, at: u64, bytes: &[u8]) -> u64 {
    let host = host(world, side);
    let handle = match host.lookup(name.as_bytes()) {
        Ok(attr) => host.open(CALLER, attr.ino, libc::O_RDWR).unwrap().handle,
        Err(_) => host.create(CALLER, name.as_bytes(), 0o644, libc::O_RDWR).unwrap().1.handle,
    };
    assert_eq!(host.write(handle, at, bytes, WriteMode::default()).unwrap() as usize, bytes.len());
    handle
}

fn save(world: &World, side: usize, name: &str, at: u64, bytes: &[u8]) {
    let handle = write(world, side, name, at, bytes);
    Volume::flush(&*host(world, side), handle, 0).unwrap();
    host(world, side).release(handle, None);
}

fn truncate(world: &World, side: usize, name: &str, size: u64) {
    let host = host(world, side);
    let ino = host.lookup(name.as_bytes()).unwrap().ino;
    host.setattr(CALLER, ino, None, SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
}

fn rest(world: &mut World) {
    world.connect();
    world.come_to_rest().unwrap_or_else(|why| panic!("{why}"));
}

/// Some of the workers of both have a turn, and one message goes each way; true as soon as it is so.
fn work(world: &mut World, workers: Range<usize>, is: impl Fn(&World) -> bool) -> bool {
    for side in 0..2 {
        for worker in workers.clone() {
            world.sides[side].run(|stepped| stepped.turn(worker));
            if is(world) {
                return true;
            }
        }
        world.sides[side].out.transmit();
        world.arrive(1 - side).unwrap();
        if is(world) {
            return true;
        }
    }
    world.pass(Duration::from_millis(300));
    false
}

/// Everybody works until it is so.
fn until(world: &mut World, is: impl Fn(&World) -> bool) {
    assert!((0..1_000).any(|_| work(world, ALL, &is)), "it never comes to that");
}

/// What the other one has said arrives at `side`, whose applier turns after each message.
fn hear_all(world: &mut World, side: usize) {
    while world.sides[1 - side].out.transmit() {}
    while !world.sides[1 - side].out.is_idle() {
        world.arrive(side).unwrap();
        world.sides[side].run(|stepped| stepped.turn(1));
    }
}

fn level(world: &World, side: usize) -> bool {
    world.sides[side].running.as_ref().is_some_and(|stepped| stepped.is_level())
}

fn lose_power(world: &mut World, side: usize, seed: u64) {
    world.sides[side].kill();
    world.revive(side, Some(Some(seed))).unwrap();
}

/// What lies in the shared directory once both hosts are level, which are then equal.
fn files(world: &mut World) -> Vec<(String, Vec<u8>)> {
    rest(world);
    world.sides[0].raw()
}

/// Once both hosts are level, this is what both show, and nothing else.
#[track_caller]
fn ends_with(world: &mut World, expected: &[(&str, &[u8])]) {
    let files = files(world);
    let is: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&name[..], &bytes[..])).collect();
    let sizes: Vec<(&str, usize)> = is.iter().map(|(name, bytes)| (*name, bytes.len())).collect();
    assert!(is == expected, "both end with what nobody expects: {sizes:?}");
}

#[test]
fn what_the_peer_has_thanked_for_outlives_its_power() {
    for inline in [INLINE, NEVER] {
        tell_of(inline, 6, |world, seed| {
            let mut note = noise(1, 5_000);
            save(world, 0, "note", 0, &note);
            // That the peer has heard of it does not mean that it has it.
            if !(0..20).any(|_| work(world, TELLING, |world| level(world, 0))) {
                until(world, |world| level(world, 0));
            }
            lose_power(world, 1, seed);
            assert!(shown(world, 1, "note").is_some_and(|b| b == note), "the new file is not there");
            rest(world);
            note[1_200..3_700].copy_from_slice(&noise(2, 2_500));
            save(world, 0, "note", 1_200, &note[1_200..3_700]);
            until(world, |world| level(world, 0));
            lose_power(world, 1, seed);
            assert!(shown(world, 1, "note").is_some_and(|b| b == note), "the edit is not there");
        });
    }
}

#[test]
fn what_the_peer_has_heard_of_is_not_forgotten_here() {
    tell_of(INLINE, 6, |world, seed| {
        let mut note = noise(1, 5_000);
        save(world, 0, "note", 0, &note);
        until(world, |world| shown(world, 1, "note").is_some());
        lose_power(world, 0, seed);
        ends_with(world, &[("note", &note)]);
        note[1_200..3_700].copy_from_slice(&noise(2, 2_500));
        save(world, 0, "note", 1_200, &note[1_200..3_700]);
        until(world, |world| shown(world, 1, "note").as_ref() == Some(&note));
        lose_power(world, 0, seed);
        ends_with(world, &[("note", &note)]);
    });
}

#[test]
fn a_change_that_power_loss_tore_leaves_no_difference() {
    tell_of(INLINE, 12, |world, seed| {
        save(world, 0, "note", 0, &noise(1, 5_000));
        rest(world);
        world.sides[0].run(|stepped| stepped.checkpoint().unwrap());
        write(world, 0, "note", 1_200, &noise(2, 2_500));
        lose_power(world, 0, seed);
        assert_eq!(files(world).len(), 1, "there are others, or it is gone");
    });
}

#[test]
fn what_was_written_before_a_kill_arrives() {
    tell(INLINE, |world| {
        let mut note = noise(1, 5_000);
        save(world, 0, "note", 0, &note);
        rest(world);
        write(world, 0, "note", 1_200, b"and then it died");
        note[1_200..1_216].copy_from_slice(b"and then it died");
        world.sides[0].kill();
        world.revive(0, Some(None)).unwrap();
        ends_with(world, &[("note", &note)]);
    });
}

#[test]
fn what_fsync_returned_for_outlives_power_loss() {
    tell_of(INLINE, 24, |world, seed| {
        let note = noise(1, 5_000);
        let handle = write(world, 0, "note", 0, &note);
        host(world, 0).fsync(handle, false).unwrap();
        // What follows is in the journal, and not synced.
        for n in 0..3 {
            write(world, 0, &format!("other-{n}"), 0, &noise(n, 2_000));
        }
        lose_power(world, 0, seed);
        assert!(shown(world, 0, "note").is_some_and(|b| b == note), "what was synced is not there");
        rest(world);
    });
}

#[test]
fn an_fsync_that_failed_is_not_tried_again_into_success() {
    tell(INLINE, |world| {
        let handle = write(world, 0, "note", 0, &noise(1, 5_000));
        world.sides[0].disk.fail_sync(true);
        assert!(host(world, 0).fsync(handle, false).is_err());
        world.sides[0].disk.fail_sync(false);
        assert!(host(world, 0).fsync(handle, false).is_err(), "what was lost is said to be there");
    });
}

#[test]
fn what_a_checkpoint_covers_outlives_power_loss() {
    tell_of(INLINE, 4, |world, seed| {
        // The journal of who is told all this is worth trimming.
        for n in 0..3 {
            save(world, 0, &format!("note-{n}"), 0, &noise(n, 400_000));
            rest(world);
        }
        world.sides[1].run(|stepped| stepped.checkpoint().unwrap());
        lose_power(world, 1, seed);
        assert_eq!(files(world).len(), 3, "there are others, or one is gone");
    });
}

#[test]
fn what_is_half_fetched_at_a_checkpoint_is_right_in_the_end() {
    tell_of(NEVER, 4, |world, seed| {
        let note = noise(1, 800_000);
        save(world, 0, "note", 0, &note);
        let some = |world: &World| {
            let Ok(attr) = host(world, 1).lookup(b"note") else { return false };
            let handle = host(world, 1).open(CALLER, attr.ino, libc::O_RDONLY).unwrap().handle;
            let first = host(world, 1).read(handle, 0, 1_000);
            host(world, 1).release(handle, None);
            matches!(first, Answer::Now(Ok(_)))
        };
        until(world, some);
        assert!(shown(world, 1, "note").is_none(), "it is all there already");
        world.sides[1].run(|stepped| stepped.checkpoint().unwrap());
        lose_power(world, 1, seed);
        ends_with(world, &[("note", &note)]);
    });
}

#[test]
fn what_both_changed_apart_is_kept_on_both() {
    tell(INLINE, |world| {
        let note = noise(1, 5_000);
        save(world, 0, "note", 0, &note);
        rest(world);
        save(world, 0, "note", 100, b"from here");
        save(world, 1, "note", 4_100, b"from there");
        let files = files(world);
        let changed = |at: usize, text: &[u8]| files.iter().any(|(_, bytes)| bytes[at..].starts_with(text));
        assert!(changed(100, b"from here") && changed(4_100, b"from there"), "an edit is gone");
    });
}

#[test]
fn a_file_that_was_edited_outlives_its_unlink_over_there() {
    tell(INLINE, |world| {
        save(world, 0, "note", 0, &noise(1, 5_000));
        rest(world);
        save(world, 0, "note", 100, b"edited");
        host(world, 1).unlink(b"note").unwrap();
        let files = files(world);
        assert!(files.iter().any(|(_, bytes)| bytes[100..].starts_with(b"edited")), "the edit is gone");
    });
}

#[test]
fn a_file_that_was_unlinked_is_gone_on_both() {
    tell(INLINE, |world| {
        save(world, 0, "note", 0, &noise(1, 5_000));
        rest(world);
        host(world, 1).unlink(b"note").unwrap();
        assert_eq!(files(world).len(), 0, "it is back");
    });
}

#[test]
fn a_file_that_vanished_from_the_disk_comes_back() {
    tell(INLINE, |world| {
        let note = noise(1, 5_000);
        save(world, 0, "note", 0, &note);
        rest(world);
        world.sides[1].close();
        world.sides[1].disk.unlink(Dir::Root, b"note").unwrap();
        world.revive(1, None).unwrap();
        ends_with(world, &[("note", &note)]);
    });
}

#[test]
fn who_lost_the_metadata_is_somebody_new() {
    tell(INLINE, |world| {
        let note = noise(1, 5_000);
        save(world, 0, "note", 0, &note);
        rest(world);
        world.sides[0].close();
        world.sides[0].disk.lose_metadata();
        world.revive(0, None).unwrap();
        save(world, 0, "note", 100, b"changed since");
        let files = files(world);
        let changed = |(_, bytes): &(String, Vec<u8>)| bytes[100..].starts_with(b"changed since");
        assert!(files.iter().any(changed) && files.iter().any(|f| f.1 == note), "a version is gone");
    });
}

#[test]
fn who_lost_the_disk_gets_everything_back() {
    tell(INLINE, |world| {
        let note = noise(1, 5_000);
        save(world, 0, "note", 0, &note);
        save(world, 1, "other", 0, b"theirs");
        rest(world);
        world.sides[1].kill();
        world.sides[1].disk = TornDisk::new();
        world.revive(1, None).unwrap();
        ends_with(world, &[("note", &note), ("other", b"theirs")]);
    });
}

#[test]
fn what_moved_together_is_seen_together_wherever_the_daemon_dies() {
    for inline in [INLINE, NEVER] {
        let deaths = (1..).take_while(|nth| exchanged_and_edited(inline, *nth)).count();
        assert!(deaths > 5, "it dies at {deaths} moments only");
    }
}

/// Here two files change places and one is edited; over there the daemon dies at the `nth` change of its disk,
/// which is false where it has come to the end before.
fn exchanged_and_edited(inline: u64, nth: u64) -> bool {
    let (one, two, edit) = (noise(1, 5_000), noise(2, 3_000), noise(3, 2_000));
    let mut died = false;
    tell(inline, |world| {
        save(world, 0, "one", 0, &one);
        save(world, 0, "two", 0, &two);
        rest(world);
        host(world, 0).rename(b"one", b"two", 2).unwrap();
        save(world, 0, "two", 1_000, &edit);
        let (soon, starts) = (world.sides[1].disk.effects() + nth, world.sides[1].starts);
        world.sides[1].disk.die_at(Some(soon));
        let dead = |world: &World| world.sides[1].disk.is_dead() || world.sides[1].starts > starts;
        until(world, |world| dead(world) || level(world, 0));
        died = dead(world);
        if world.sides[1].disk.is_dead() {
            world.revive(1, Some(None)).unwrap();
        }
        let mut edited = one.clone();
        edited[1_000..3_000].copy_from_slice(&edit);
        let seen = ["one", "two"].map(|name| shown(world, 1, name).unwrap_or_default());
        let moments = [[&one, &two], [&two, &one], [&two, &edited]];
        assert!(moments.contains(&seen.each_ref()), "dead at change {nth}: a mixture is shown");
    });
    died
}

#[test]
fn what_a_program_did_later_is_not_seen_before_what_it_did_first() {
    tell(3_000, |world| {
        for name in ["first", "second"] {
            save(world, 0, name, 0, &noise(1, 8_000));
        }
        rest(world);
        save(world, 0, "first", 0, &noise(2, 8_000));
        save(world, 0, "second", 0, &noise(3, 1_000));
        until(world, |world| shown(world, 1, "second").is_some_and(|b| b[..1_000] == noise(3, 1_000)));
        assert!(
            shown(world, 1, "first").is_some_and(|b| b == noise(2, 8_000)),
            "the first change is not there"
        );
    });
}

#[test]
fn content_that_is_not_what_its_digest_says_is_shown_to_nobody() {
    tell(NEVER, |world| {
        save(world, 0, "note", 0, &noise(1, 5_000));
        for _ in 0..100 {
            for side in 0..2 {
                for worker in 0..6 {
                    world.sides[side].run(|stepped| stepped.turn(worker));
                }
                while world.sides[side].out.transmit() {}
            }
            assert_eq!(shown(world, 1, "note"), None, "what nobody wrote is shown");
            if world.sides[1].out.take_dropped().is_some() {
                return;
            }
            world.arrive(0).unwrap();
            let Some((_, mut message)) = world.sides[0].out.arrive() else { continue };
            if let Message::Deliver { pieces, .. } = &mut message {
                pieces[0].bytes[17] ^= 1;
            }
            world.sides[1].run(|stepped| stepped.hear(message));
        }
        panic!("nobody minds");
    });
}

#[test]
fn what_is_written_into_what_is_not_fetched_yet_stays() {
    tell(NEVER, |world| {
        let mut note = noise(1, 5_000);
        save(world, 0, "note", 0, &note);
        until(world, |world| host(world, 1).lookup(b"note").is_ok());
        assert_eq!(shown(world, 1, "note"), None, "what is not here yet is shown");
        save(world, 1, "note", 1_500, b"in the middle");
        note[1_500..1_513].copy_from_slice(b"in the middle");
        ends_with(world, &[("note", &note)]);
    });
}

#[test]
fn what_was_asked_for_before_a_change_does_not_undo_it() {
    tell(NEVER, |world| {
        let mut note = noise(1, 5_000);
        save(world, 0, "note", 0, &note);
        until(world, |world| host(world, 1).lookup(b"note").is_ok());
        // What was asked for is on its way when the next change overtakes it.
        hear_all(world, 0);
        for worker in ALL {
            world.sides[0].run(|stepped| stepped.turn(worker));
        }
        note[2_000..3_000].copy_from_slice(&noise(2, 1_000));
        save(world, 0, "note", 2_000, &note[2_000..3_000]);
        world.sides[0].run(|stepped| stepped.turn(0));
        hear_all(world, 1);
        ends_with(world, &[("note", &note)]);
    });
}

#[test]
fn what_a_truncation_cuts_off_on_its_way_is_not_made_up() {
    tell(NEVER, |world| {
        let (old, new) = (noise(1, 5_000), noise(2, 5_000));
        save(world, 0, "note", 0, &old);
        rest(world);
        save(world, 0, "note", 0, &new);
        world.sides[0].run(|stepped| stepped.turn(0));
        hear_all(world, 1);
        hear_all(world, 0);
        // Asked for, and not served yet.
        truncate(world, 0, "note", 1_500);
        let seen = |world: &World| shown(world, 1, "note").expect("it was there before");
        until(world, |world| {
            let seen = seen(world);
            assert!([&old[..], &new, &new[..1_500]].contains(&&seen[..]), "it was never so");
            seen.len() == 1_500
        });
    });
}

#[test]
fn what_was_cut_off_and_grew_again_is_zeros_on_both() {
    tell(INLINE, |world| {
        save(world, 0, "note", 0, &noise(1, 5_000));
        rest(world);
        truncate(world, 0, "note", 1_500);
        truncate(world, 0, "note", 5_000);
        let note = [&noise(1, 5_000)[..1_500], &[0; 3_500]].concat();
        ends_with(world, &[("note", &note)]);
    });
}

#[test]
fn a_file_that_was_made_shorter_is_shorter_on_both() {
    tell(INLINE, |world| {
        save(world, 0, "note", 0, &noise(1, 5_000));
        rest(world);
        truncate(world, 0, "note", 1_500);
        ends_with(world, &[("note", &noise(1, 5_000)[..1_500])]);
    });
}

#[test]
fn what_is_being_fetched_is_one_moment_whatever_is_written_meanwhile() {
    tell(NEVER, |world| {
        let (old, new) = (noise(1, 600_000), noise(2, 600_000));
        let mut newest = new.clone();
        newest[450_200..550_300].copy_from_slice(&noise(3, 100_100));
        save(world, 0, "note", 0, &old);
        rest(world);
        save(world, 0, "note", 0, &new);
        world.sides[0].run(|stepped| stepped.turn(0));
        hear_all(world, 1);
        hear_all(world, 0);
        // Of the two parts that it is asked for in, one is served before the next change and one after it.
        world.sides[0].run(|stepped| stepped.turn(4));
        save(world, 0, "note", 450_200, &newest[450_200..550_300]);
        until(world, |world| {
            let seen = shown(world, 1, "note").expect("it was there before");
            assert!([&old, &new, &newest].contains(&&seen), "it was never so");
            seen == newest
        });
    });
}

#[test]
fn what_is_changed_before_the_thanks_come_is_told_as_well() {
    tell(INLINE, |world| {
        let mut note = noise(1, 5_000);
        save(world, 0, "note", 0, &note);
        rest(world);
        save(world, 0, "note", 2_000, b"first");
        world.sides[0].run(|stepped| stepped.turn(0));
        hear_all(world, 1);
        note[1_200..3_700].copy_from_slice(&noise(2, 2_500));
        save(world, 0, "note", 1_200, &note[1_200..3_700]);
        hear_all(world, 0);
        ends_with(world, &[("note", &note)]);
    });
}

#[test]
fn what_was_unlinked_does_not_come_back_with_an_announcement_on_its_way() {
    tell(3_000, |world| {
        save(world, 1, "note", 0, &noise(1, 5_000));
        rest(world);
        // Two files of one program move together. They arrive, and the thanks for them are lost.
        let handles = [write(world, 1, "note", 0, b"small"), write(world, 1, "other", 0, b"small")];
        handles.into_iter().for_each(|handle| host(world, 1).release(handle, None));
        world.sides[1].run(|stepped| stepped.turn(0));
        hear_all(world, 0);
        (0..2).for_each(|side| world.hang_up(side));
        host(world, 0).unlink(b"other").unwrap();
        save(world, 1, "note", 0, &noise(2, 5_000));
        world.connect();
        hear_all(world, 0);
        hear_all(world, 1);
        // Here they wait for content, while over there it is learnt that one of them was unlinked.
        world.sides[1].run(|stepped| stepped.turn(0));
        hear_all(world, 0);
        world.sides[0].run(|stepped| stepped.turn(0));
        hear_all(world, 1);
        hear_all(world, 0);
        ends_with(world, &[("note", &noise(2, 5_000))]);
    });
}
