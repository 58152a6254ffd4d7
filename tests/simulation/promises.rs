//! What is promised, each in a history of a few lines: told by hand, not by dice.
//!
//! The names here begin with neither user's letter: nobody works on them but who tells the story.

use crate::simulated::calls::read;
use crate::simulated::hosts::{Hosts, Rest, WORKERS};
use crate::simulated::side::{Done, Fate, Side};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use syncfs::engine::Host;
use syncfs::fs::volume::{Answer, Caller, SetAttr, Volume, WriteMode};
use syncfs::model::delta::Part;
use syncfs::model::message::Message;
use syncfs::store::torn::{Dice, TornDisk};
use syncfs::store::{Dir, Disk};

/// Changes of this size travel with their announcement, or none do.
const INLINE: u64 = 1 << 20;
const NEVER: u64 = 0;
/// The workers that tell and apply changes, without those that fetch content.
const TELLING: Range<usize> = 0..2;
const ALL: Range<usize> = 0..WORKERS;
const CALLER: Caller = Caller { uid: 0, gid: 0, thread: 5_000_000 };

/// Two hosts that know each other, and what befalls them.
fn tell(inline: u64, story: impl FnOnce(&mut Hosts)) {
    let mut hosts = Hosts::new([1, 2].map(|seed| Side::new(seed, inline)));
    let runtime = hosts.handle();
    let _inside = runtime.enter();
    for side in 0..2 {
        assert!(hosts.start(side));
    }
    hosts.connect();
    story(&mut hosts);
}

/// As [`tell`], of so many ways in which power loss may tear what was not synced.
fn tell_of(inline: u64, ways: u64, story: impl Fn(&mut Hosts, u64)) {
    for seed in 0..ways {
        println!("seed {seed}");
        tell(inline, |hosts| story(hosts, seed));
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut dice = Dice(seed);
    let mut bytes: Vec<u8> = (0..len.div_ceil(8)).flat_map(|_| dice.number().to_le_bytes()).collect();
    bytes.truncate(len);
    bytes
}

fn host(hosts: &Hosts, side: usize) -> Arc<Host> {
    hosts.sides[side].running.as_ref().expect("it is running").host.clone()
}

fn shown(hosts: &Hosts, side: usize, name: &str) -> Option<Vec<u8>> {
    read(&host(hosts, side), name)
}

/// Writes, and leaves the file open: nothing is told yet.
fn write(hosts: &Hosts, side: usize, name: &str, at: u64, bytes: &[u8]) -> u64 {
    let host = host(hosts, side);
    let handle = match host.lookup(name.as_bytes()) {
        Ok(attr) => host.open(CALLER, attr.ino, libc::O_RDWR).unwrap().handle,
        Err(_) => host.create(CALLER, name.as_bytes(), 0o644, libc::O_RDWR).unwrap().1.handle,
    };
    assert_eq!(host.write(handle, at, bytes, WriteMode::default()).unwrap() as usize, bytes.len());
    handle
}

fn save(hosts: &Hosts, side: usize, name: &str, at: u64, bytes: &[u8]) {
    let handle = write(hosts, side, name, at, bytes);
    Volume::flush(&*host(hosts, side), handle, 0).unwrap();
    host(hosts, side).release(handle, None);
}

fn truncate(hosts: &Hosts, side: usize, name: &str, size: u64) {
    let host = host(hosts, side);
    let ino = host.lookup(name.as_bytes()).unwrap().ino;
    host.setattr(CALLER, ino, None, SetAttr { size: Some(size), ..SetAttr::default() }).unwrap();
}

fn rest(hosts: &mut Hosts) {
    hosts.connect();
    hosts.sides.iter().for_each(|side| side.disk.die_at(None));
    let rest = hosts.rest(|| 30, |_, _| Ok(())).unwrap_or_else(|why| panic!("{why}"));
    assert_eq!(rest, Rest::Level);
    hosts.equal().unwrap_or_else(|why| panic!("{why}"));
}

/// Some of the workers of both have a turn, and one message goes each way; true as soon as it is so.
fn work(hosts: &mut Hosts, workers: Range<usize>, is: impl Fn(&Hosts) -> bool) -> bool {
    for side in 0..2 {
        for worker in workers.clone() {
            hosts.sides[side].run(|stepped| stepped.turn(worker));
            if is(hosts) {
                return true;
            }
        }
        hosts.sides[side].out.transmit();
        hosts.arrive(1 - side).unwrap();
        if is(hosts) {
            return true;
        }
    }
    hosts.pass(Duration::from_millis(300));
    false
}

/// Everybody works until it is so.
fn until(hosts: &mut Hosts, is: impl Fn(&Hosts) -> bool) {
    assert!((0..1_000).any(|_| work(hosts, ALL, &is)), "it never comes to that");
}

/// What the other one has said arrives at `side`, whose applier turns after each message.
fn hear_all(hosts: &mut Hosts, side: usize) {
    while hosts.sides[1 - side].out.transmit() {}
    while !hosts.sides[1 - side].out.is_idle() {
        hosts.arrive(side).unwrap();
        hosts.sides[side].run(|stepped| stepped.turn(1));
    }
}

fn level(hosts: &Hosts, side: usize) -> bool {
    hosts.sides[side].running.as_ref().is_some_and(|stepped| stepped.is_level())
}

fn lose_power(hosts: &mut Hosts, side: usize, seed: u64) {
    hosts.sides[side].kill();
    assert!(hosts.wake(side, Fate::PowerLost(seed)));
}

/// What lies in the shared directory once both hosts are level, which are then equal.
fn files(hosts: &mut Hosts) -> Vec<(String, Vec<u8>)> {
    rest(hosts);
    hosts.sides[0].raw()
}

/// Once both hosts are level, this is what both show, and nothing else.
#[track_caller]
fn ends_with(hosts: &mut Hosts, expected: &[(&str, &[u8])]) {
    let files = files(hosts);
    let is: Vec<(&str, &[u8])> = files.iter().map(|(name, bytes)| (&name[..], &bytes[..])).collect();
    let sizes: Vec<(&str, usize)> = is.iter().map(|(name, bytes)| (*name, bytes.len())).collect();
    assert!(is == expected, "both end with what nobody expects: {sizes:?}");
}

#[test]
fn what_the_peer_has_thanked_for_outlives_its_power() {
    for inline in [INLINE, NEVER] {
        tell_of(inline, 6, |hosts, seed| {
            let mut note = noise(1, 5_000);
            save(hosts, 0, "note", 0, &note);
            // That the peer has heard of it does not mean that it has it.
            if !(0..20).any(|_| work(hosts, TELLING, |hosts| level(hosts, 0))) {
                until(hosts, |hosts| level(hosts, 0));
            }
            lose_power(hosts, 1, seed);
            assert!(shown(hosts, 1, "note").is_some_and(|b| b == note), "the new file is not there");
            rest(hosts);
            note[1_200..3_700].copy_from_slice(&noise(2, 2_500));
            save(hosts, 0, "note", 1_200, &note[1_200..3_700]);
            until(hosts, |hosts| level(hosts, 0));
            lose_power(hosts, 1, seed);
            assert!(shown(hosts, 1, "note").is_some_and(|b| b == note), "the edit is not there");
        });
    }
}

#[test]
fn what_the_peer_has_heard_of_is_not_forgotten_here() {
    tell_of(INLINE, 6, |hosts, seed| {
        let mut note = noise(1, 5_000);
        save(hosts, 0, "note", 0, &note);
        until(hosts, |hosts| shown(hosts, 1, "note").is_some());
        lose_power(hosts, 0, seed);
        ends_with(hosts, &[("note", &note)]);
        note[1_200..3_700].copy_from_slice(&noise(2, 2_500));
        save(hosts, 0, "note", 1_200, &note[1_200..3_700]);
        until(hosts, |hosts| shown(hosts, 1, "note").as_ref() == Some(&note));
        lose_power(hosts, 0, seed);
        ends_with(hosts, &[("note", &note)]);
    });
}

#[test]
fn a_change_that_power_loss_tore_leaves_no_difference() {
    tell_of(INLINE, 12, |hosts, seed| {
        save(hosts, 0, "note", 0, &noise(1, 5_000));
        rest(hosts);
        hosts.sides[0].run(|stepped| stepped.checkpoint().unwrap());
        write(hosts, 0, "note", 1_200, &noise(2, 2_500));
        lose_power(hosts, 0, seed);
        assert_eq!(files(hosts).len(), 1, "there are others, or it is gone");
    });
}

#[test]
fn what_was_written_before_a_kill_arrives() {
    tell(INLINE, |hosts| {
        let mut note = noise(1, 5_000);
        save(hosts, 0, "note", 0, &note);
        rest(hosts);
        write(hosts, 0, "note", 1_200, b"and then it died");
        note[1_200..1_216].copy_from_slice(b"and then it died");
        let new = noise(2, 3_000);
        save(hosts, 0, "new", 0, &new);
        hosts.sides[0].kill();
        assert!(hosts.wake(0, Fate::Killed));
        ends_with(hosts, &[("new", &new), ("note", &note)]);
    });
}

#[test]
fn what_fsync_returned_for_outlives_power_loss() {
    tell_of(INLINE, 24, |hosts, seed| {
        let note = noise(1, 5_000);
        let handle = write(hosts, 0, "note", 0, &note);
        host(hosts, 0).fsync(handle, false).unwrap();
        // What follows is in the journal, and not synced.
        for n in 0..3 {
            write(hosts, 0, &format!("other-{n}"), 0, &noise(n, 2_000));
        }
        lose_power(hosts, 0, seed);
        assert!(shown(hosts, 0, "note").is_some_and(|b| b == note), "what was synced is not there");
        rest(hosts);
    });
}

#[test]
fn an_fsync_that_failed_is_not_tried_again_into_success() {
    tell(INLINE, |hosts| {
        let handle = write(hosts, 0, "note", 0, &noise(1, 5_000));
        hosts.sides[0].disk.fail_sync(true);
        assert!(host(hosts, 0).fsync(handle, false).is_err());
        hosts.sides[0].disk.fail_sync(false);
        assert!(host(hosts, 0).fsync(handle, false).is_err(), "what was lost is said to be there");
    });
}

#[test]
fn what_a_checkpoint_covers_outlives_power_loss() {
    tell_of(INLINE, 4, |hosts, seed| {
        // The journal of who is told all this is worth trimming.
        for n in 0..3 {
            save(hosts, 0, &format!("note-{n}"), 0, &noise(n, 400_000));
            rest(hosts);
        }
        host(hosts, 1).rename(b"note-0", b"moved", 0).unwrap();
        hosts.sides[1].run(|stepped| stepped.checkpoint().unwrap());
        lose_power(hosts, 1, seed);
        let names: Vec<String> = files(hosts).into_iter().map(|file| file.0).collect();
        assert_eq!(names, ["moved", "note-1", "note-2"]);
    });
}

#[test]
fn what_is_half_fetched_at_a_checkpoint_is_right_in_the_end() {
    tell_of(NEVER, 4, |hosts, seed| {
        let note = noise(1, 800_000);
        save(hosts, 0, "note", 0, &note);
        let some = |hosts: &Hosts| {
            let Ok(attr) = host(hosts, 1).lookup(b"note") else { return false };
            let handle = host(hosts, 1).open(CALLER, attr.ino, libc::O_RDONLY).unwrap().handle;
            let first = host(hosts, 1).read(handle, 0, 1_000);
            host(hosts, 1).release(handle, None);
            matches!(first, Answer::Now(Ok(_)))
        };
        until(hosts, some);
        assert!(shown(hosts, 1, "note").is_none(), "it is all there already");
        hosts.sides[1].run(|stepped| stepped.checkpoint().unwrap());
        lose_power(hosts, 1, seed);
        ends_with(hosts, &[("note", &note)]);
    });
}

#[test]
fn what_both_changed_apart_is_kept_on_both() {
    tell(INLINE, |hosts| {
        let note = noise(1, 5_000);
        save(hosts, 0, "note", 0, &note);
        rest(hosts);
        save(hosts, 0, "note", 100, b"from here");
        save(hosts, 1, "note", 4_100, b"from there");
        let files = files(hosts);
        let changed = |at: usize, text: &[u8]| files.iter().any(|(_, bytes)| bytes[at..].starts_with(text));
        assert!(changed(100, b"from here") && changed(4_100, b"from there"), "an edit is gone");
    });
}

#[test]
fn a_file_that_was_edited_outlives_its_unlink_over_there() {
    tell(INLINE, |hosts| {
        save(hosts, 0, "note", 0, &noise(1, 5_000));
        rest(hosts);
        save(hosts, 0, "note", 100, b"edited");
        host(hosts, 1).unlink(b"note").unwrap();
        let files = files(hosts);
        let edited =
            |(name, bytes): &(String, Vec<u8>)| name == "note" && bytes[100..].starts_with(b"edited");
        assert!(files.iter().any(edited), "the edit is gone");
    });
}

#[test]
fn a_file_that_was_unlinked_is_gone_on_both() {
    tell(INLINE, |hosts| {
        save(hosts, 0, "note", 0, &noise(1, 5_000));
        rest(hosts);
        host(hosts, 1).unlink(b"note").unwrap();
        assert_eq!(files(hosts).len(), 0, "it is back");
    });
}

#[test]
fn a_file_that_vanished_from_the_disk_comes_back() {
    tell(INLINE, |hosts| {
        let note = noise(1, 5_000);
        save(hosts, 0, "note", 0, &note);
        rest(hosts);
        hosts.sides[1].close();
        hosts.sides[1].disk.unlink(Dir::Root, b"note").unwrap();
        assert!(hosts.start(1));
        ends_with(hosts, &[("note", &note)]);
    });
}

#[test]
fn who_lost_the_metadata_is_somebody_new() {
    tell(INLINE, |hosts| {
        let note = noise(1, 5_000);
        save(hosts, 0, "note", 0, &note);
        rest(hosts);
        hosts.sides[0].close();
        hosts.sides[0].disk.lose_metadata();
        assert!(hosts.start(0));
        save(hosts, 0, "note", 100, b"changed since");
        let files = files(hosts);
        let changed = |(_, bytes): &(String, Vec<u8>)| bytes[100..].starts_with(b"changed since");
        assert!(files.iter().any(changed) && files.iter().any(|f| f.1 == note), "a version is gone");
    });
}

#[test]
fn who_lost_the_disk_gets_everything_back() {
    tell(INLINE, |hosts| {
        let note = noise(1, 5_000);
        save(hosts, 0, "note", 0, &note);
        save(hosts, 1, "other", 0, b"theirs");
        rest(hosts);
        hosts.sides[1].kill();
        hosts.sides[1].disk = TornDisk::new();
        assert!(hosts.start(1));
        ends_with(hosts, &[("note", &note), ("other", b"theirs")]);
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
    tell(inline, |hosts| {
        save(hosts, 0, "one", 0, &one);
        save(hosts, 0, "two", 0, &two);
        rest(hosts);
        host(hosts, 0).rename(b"one", b"two", 2).unwrap();
        save(hosts, 0, "two", 1_000, &edit);
        let (soon, starts) = (hosts.sides[1].disk.effects() + nth, hosts.sides[1].starts);
        hosts.sides[1].disk.die_at(Some(soon));
        let dead = |hosts: &Hosts| hosts.sides[1].disk.is_dead() || hosts.sides[1].starts > starts;
        until(hosts, |hosts| dead(hosts) || level(hosts, 0));
        died = dead(hosts);
        if hosts.sides[1].disk.is_dead() {
            assert!(hosts.wake(1, Fate::Killed));
        }
        let mut edited = one.clone();
        edited[1_000..3_000].copy_from_slice(&edit);
        let seen = ["one", "two"].map(|name| shown(hosts, 1, name).unwrap_or_default());
        let moments = [[&one, &two], [&two, &one], [&two, &edited]];
        assert!(moments.contains(&seen.each_ref()), "dead at change {nth}: a mixture is shown");
    });
    died
}

#[test]
fn what_a_program_did_later_is_not_seen_before_what_it_did_first() {
    tell(3_000, |hosts| {
        for name in ["first", "second"] {
            save(hosts, 0, name, 0, &noise(1, 8_000));
        }
        rest(hosts);
        save(hosts, 0, "first", 0, &noise(2, 8_000));
        save(hosts, 0, "second", 0, &noise(3, 1_000));
        until(hosts, |hosts| shown(hosts, 1, "second").is_some_and(|b| b[..1_000] == noise(3, 1_000)));
        assert!(
            shown(hosts, 1, "first").is_some_and(|b| b == noise(2, 8_000)),
            "the first change is not there"
        );
    });
}

#[test]
fn content_that_is_not_what_its_digest_says_is_shown_to_nobody() {
    tell(NEVER, |hosts| {
        save(hosts, 0, "note", 0, &noise(1, 5_000));
        for _ in 0..100 {
            for side in 0..2 {
                for worker in ALL {
                    hosts.sides[side].run(|stepped| stepped.turn(worker));
                }
                while hosts.sides[side].out.transmit() {}
            }
            assert_eq!(shown(hosts, 1, "note"), None, "what nobody wrote is shown");
            if hosts.sides[1].out.take_dropped().is_some() {
                return;
            }
            hosts.arrive(0).unwrap();
            let Some((_, mut message)) = hosts.sides[0].out.arrive() else { continue };
            if let Message::Deliver { pieces, .. } = &mut message {
                pieces[0].bytes[17] ^= 1;
            }
            hosts.sides[1].run(|stepped| stepped.hear(message));
        }
        panic!("nobody minds");
    });
}

/// Host 0 writes `book.tmp`, which is `book` but for a byte at its front; `meddle` sees what crosses the wire, after it
/// has been heard, and may change what is yet to be. Ends once host 1 has minded what it heard, or all is quiet.
fn writes_what_is_alike(
    hosts: &mut Hosts,
    mut meddle: impl FnMut(&mut Hosts, &mut Message),
) -> Option<String> {
    let book = noise(1, 300_000);
    save(hosts, 0, "book", 0, &book);
    rest(hosts);
    save(hosts, 0, "book.tmp", 0, &[b"x", &book[..]].concat());
    for _ in 0..200 {
        for side in 0..2 {
            for worker in ALL {
                while matches!(hosts.turn(side, worker), Done::Value(true)) {}
            }
            while hosts.sides[side].out.transmit() {}
            while let Some((_, mut message)) = hosts.sides[side].out.arrive() {
                meddle(hosts, &mut message);
                message.check().unwrap();
                hosts.sides[1 - side].run(|stepped| stepped.hear(message));
            }
        }
        if let Some(why) = hosts.sides[1].out.take_dropped() {
            return Some(why);
        }
    }
    None
}

#[test]
fn what_changes_while_it_is_compared_leaves_no_trace_in_what_is_made_of_it() {
    tell(NEVER, |hosts| {
        let (mut signed, mut copied) = (false, false);
        let minded = writes_what_is_alike(hosts, |hosts, message| match message {
            Message::Signature { .. } if !signed => {
                signed = true;
                save(hosts, 1, "book", 100_000, b"edited meanwhile");
            }
            Message::Recipes { recipes, .. } => copied |= recipes[0].copied() > 0,
            _ => {}
        });
        assert_eq!(minded, None);
        assert!(signed && copied, "nothing was to be made of it");
        let mut book = noise(1, 300_000);
        let alike = [b"x", &book[..]].concat();
        book[100_000..100_016].copy_from_slice(b"edited meanwhile");
        ends_with(hosts, &[("book", &book), ("book.tmp", &alike)]);
    });
}

#[test]
fn a_peer_that_takes_content_from_the_wrong_place_is_not_believed() {
    tell(NEVER, |hosts| {
        let mut lies = 0;
        let minded = writes_what_is_alike(hosts, |_, message| {
            let Message::Recipes { recipes, .. } = message else { return };
            for recipe in recipes {
                if let Some(Part::Copy { from, len }) = recipe.parts.last_mut() {
                    (*from, *len) = (*from + 1, *len - 1);
                    recipe.parts.push(Part::Bytes(vec![7]));
                    lies += 1;
                }
            }
        });
        assert_eq!(minded, None);
        assert!(lies > 0, "there was nothing to lie about");
        let book = noise(1, 300_000);
        ends_with(hosts, &[("book", &book), ("book.tmp", &[b"x", &book[..]].concat())]);
    });
}

#[test]
fn a_peer_that_takes_content_from_where_there_is_none_is_not_talked_to() {
    tell(NEVER, |hosts| {
        let minded = writes_what_is_alike(hosts, |_, message| {
            let Message::Recipes { recipes, .. } = message else { return };
            for part in recipes.iter_mut().flat_map(|r| &mut r.parts) {
                if let Part::Copy { from, len } = part {
                    *from = 300_001 - *len;
                }
            }
        });
        assert!(minded.is_some_and(|why| why.contains("from where there is none")));
        assert_eq!(shown(hosts, 1, "book.tmp"), None, "what nobody wrote is shown");
    });
}

#[test]
fn what_is_written_into_what_is_not_fetched_yet_stays() {
    tell(NEVER, |hosts| {
        let mut note = noise(1, 5_000);
        save(hosts, 0, "note", 0, &note);
        until(hosts, |hosts| host(hosts, 1).lookup(b"note").is_ok());
        assert_eq!(shown(hosts, 1, "note"), None, "what is not here yet is shown");
        save(hosts, 1, "note", 1_500, b"in the middle");
        note[1_500..1_513].copy_from_slice(b"in the middle");
        ends_with(hosts, &[("note", &note)]);
    });
}

#[test]
fn what_was_asked_for_before_a_change_does_not_undo_it() {
    tell(NEVER, |hosts| {
        let mut note = noise(1, 5_000);
        save(hosts, 0, "note", 0, &note);
        until(hosts, |hosts| host(hosts, 1).lookup(b"note").is_ok());
        // What was asked for is on its way when the next change overtakes it.
        hear_all(hosts, 0);
        for worker in ALL {
            hosts.sides[0].run(|stepped| stepped.turn(worker));
        }
        note[2_000..3_000].copy_from_slice(&noise(2, 1_000));
        save(hosts, 0, "note", 2_000, &note[2_000..3_000]);
        hosts.sides[0].run(|stepped| stepped.turn(0));
        hear_all(hosts, 1);
        ends_with(hosts, &[("note", &note)]);
    });
}

#[test]
fn what_a_truncation_cuts_off_on_its_way_is_not_made_up() {
    tell(NEVER, |hosts| {
        let (old, new) = (noise(1, 5_000), noise(2, 5_000));
        save(hosts, 0, "note", 0, &old);
        rest(hosts);
        save(hosts, 0, "note", 0, &new);
        hosts.sides[0].run(|stepped| stepped.turn(0));
        hear_all(hosts, 1);
        hear_all(hosts, 0);
        // Asked for, and not served yet.
        truncate(hosts, 0, "note", 1_500);
        let seen = |hosts: &Hosts| shown(hosts, 1, "note").expect("it was there before");
        until(hosts, |hosts| {
            let seen = seen(hosts);
            assert!([&old[..], &new, &new[..1_500]].contains(&&seen[..]), "it was never so");
            seen.len() == 1_500
        });
    });
}

#[test]
fn what_was_cut_off_and_grew_again_is_zeros_on_both() {
    tell(INLINE, |hosts| {
        save(hosts, 0, "note", 0, &noise(1, 5_000));
        rest(hosts);
        truncate(hosts, 0, "note", 1_500);
        truncate(hosts, 0, "note", 5_000);
        let note = [&noise(1, 5_000)[..1_500], &[0; 3_500]].concat();
        ends_with(hosts, &[("note", &note)]);
    });
}

#[test]
fn a_file_that_was_made_shorter_is_shorter_on_both() {
    tell(INLINE, |hosts| {
        save(hosts, 0, "note", 0, &noise(1, 5_000));
        rest(hosts);
        truncate(hosts, 0, "note", 1_500);
        ends_with(hosts, &[("note", &noise(1, 5_000)[..1_500])]);
    });
}

#[test]
fn what_is_being_fetched_is_one_moment_whatever_is_written_meanwhile() {
    tell(NEVER, |hosts| {
        // What changes is so little of it that nothing is compared.
        let old = noise(1, 3_000_000);
        let new = [&noise(2, 600_000), &old[600_000..]].concat();
        let mut newest = new.clone();
        newest[450_200..550_300].copy_from_slice(&noise(3, 100_100));
        save(hosts, 0, "note", 0, &old);
        rest(hosts);
        save(hosts, 0, "note", 0, &new[..600_000]);
        hosts.sides[0].run(|stepped| stepped.turn(0));
        hear_all(hosts, 1);
        hear_all(hosts, 0);
        // Of the two parts that it is asked for in, one is served before the next change and one after it.
        hosts.sides[0].run(|stepped| stepped.turn(4));
        save(hosts, 0, "note", 450_200, &newest[450_200..550_300]);
        until(hosts, |hosts| {
            let seen = shown(hosts, 1, "note").expect("it was there before");
            assert!([&old, &new, &newest].contains(&&seen), "it was never so");
            seen == newest
        });
    });
}

#[test]
fn what_is_changed_before_the_thanks_come_is_told_as_well() {
    tell(INLINE, |hosts| {
        let mut note = noise(1, 5_000);
        save(hosts, 0, "note", 0, &note);
        rest(hosts);
        save(hosts, 0, "note", 2_000, b"first");
        hosts.sides[0].run(|stepped| stepped.turn(0));
        hear_all(hosts, 1);
        note[1_200..3_700].copy_from_slice(&noise(2, 2_500));
        save(hosts, 0, "note", 1_200, &note[1_200..3_700]);
        hear_all(hosts, 0);
        ends_with(hosts, &[("note", &note)]);
    });
}

#[test]
fn what_was_unlinked_does_not_come_back_with_an_announcement_on_its_way() {
    tell(3_000, |hosts| {
        save(hosts, 1, "note", 0, &noise(1, 5_000));
        rest(hosts);
        // Two files of one program move together. They arrive, and the thanks for them are lost.
        let handles = [write(hosts, 1, "note", 0, b"small"), write(hosts, 1, "other", 0, b"small")];
        handles.into_iter().for_each(|handle| host(hosts, 1).release(handle, None));
        hosts.sides[1].run(|stepped| stepped.turn(0));
        hear_all(hosts, 0);
        (0..2).for_each(|side| hosts.hang_up(side));
        host(hosts, 0).unlink(b"other").unwrap();
        save(hosts, 1, "note", 0, &noise(2, 5_000));
        hosts.connect();
        hear_all(hosts, 0);
        hear_all(hosts, 1);
        // Here they wait for content, while over there it is learnt that one of them was unlinked.
        hosts.sides[1].run(|stepped| stepped.turn(0));
        hear_all(hosts, 0);
        hosts.sides[0].run(|stepped| stepped.turn(0));
        hear_all(hosts, 1);
        hear_all(hosts, 0);
        ends_with(hosts, &[("note", &noise(2, 5_000))]);
    });
}
