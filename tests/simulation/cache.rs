//! A host that keeps a cache only: what is fetched, what goes, and what stays.
//!
//! Host B keeps the cache, unless said otherwise.

use crate::simulated::calls::{self, process, read_later};
use crate::simulated::hosts::Rest;
use crate::simulated::side::{Fate, Side};
use crate::story::{A, B, CONFLICT, INLINE, Story, story_between, text};
use syncfs::fs::error::Error;
use syncfs::fs::volume::{SetAttr, Volume, WriteMode};
use syncfs::model::message::Message;
use syncfs::store::Dir;
use tokio::task::JoinHandle;

const LIMIT: u64 = 64 << 10;

/// `inline` bytes travel with an announcement; of files that are told in another way nothing is held.
fn story(inline: u64, tell: impl FnOnce(&mut Story)) {
    let mut sides = [11, 22].map(|seed| Side::new(seed, inline));
    sides[B].cache = Some(LIMIT);
    story_between(sides, tell);
}

/// Content that differs from name to name and from chunk to chunk, without a zero in it.
fn content(name: &str, len: usize) -> Vec<u8> {
    let seed = name.bytes().fold(7usize, |sum, byte| sum * 31 + byte as usize);
    (0..len).map(|n| ((n / 1000 + n + seed) % 255) as u8 + 1).collect()
}

fn make(story: &Story, side: usize, name: &str, len: usize) -> Vec<u8> {
    let bytes = content(name, len);
    story.write(side, name, 0, &bytes);
    bytes
}

fn waiting(story: &Story, side: usize, name: &str) -> JoinHandle<Result<Vec<u8>, Error>> {
    let later = read_later(story.host(side), name).unwrap_or_else(|| panic!("{name} is here already"));
    story.hosts.handle().spawn(later)
}

/// What a program reads, whoever has it.
fn read_all(story: &mut Story, side: usize, name: &str) -> Vec<u8> {
    let Some(later) = read_later(story.host(side), name) else { return story.read(side, name) };
    let task = story.hosts.handle().spawn(later);
    while !task.is_finished() {
        assert_eq!(story.hosts.rest(|| usize::MAX, |_, _| Ok(())), Ok(Rest::Level));
    }
    story.hosts.handle().block_on(task).unwrap().unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn held(story: &Story, side: usize, name: &str) -> u64 {
    story.host(side).residency(name).unwrap().held
}

fn state(story: &Story, side: usize, name: &str) -> String {
    let host = story.host(side);
    let ino = host.lookup(name.as_bytes()).unwrap().ino;
    String::from_utf8(host.getxattr(ino, b"user.syncfs.state").unwrap()).unwrap()
}

/// Unmounts a host, which is to keep this cache when it is started again.
fn end(story: &mut Story, side: usize, cache: Option<u64>) {
    story.hosts.hang_up(side);
    story.hosts.sides[side].close();
    story.hosts.sides[side].cache = cache;
}

/// How often `side` has asked for content that the peer has not heard of yet.
fn asks(story: &Story, side: usize) -> usize {
    let asks = |message: &&Message| matches!(message, Message::Retrieve { .. });
    story.hosts.sides[side].out.said().iter().filter(asks).count()
}

#[test]
fn everything_is_seen_and_only_what_is_read_comes_over() {
    story(0, |story| {
        let big = make(story, A, "big", 40_000);
        make(story, A, "other", 40_000);
        story.level();
        assert_eq!((held(story, B, "big"), held(story, B, "other")), (0, 0));
        assert_eq!(story.host(B).lookup(b"big").unwrap().size, 40_000);
        assert_eq!(state(story, B, "big"), "partial");
        let host = story.host(B);
        let handle = calls::open(host, process(1), "big").unwrap();
        let syncfs::fs::volume::Answer::Later(part) = host.read(handle, 20_500, 2_000) else {
            panic!("it is here")
        };
        let task = story.hosts.handle().spawn(part);
        story.level();
        let part = story.hosts.handle().block_on(task).unwrap().unwrap();
        assert!(part == big[20_500..22_500]);
        calls::close(story.host(B), handle);
        assert_eq!((held(story, B, "big"), held(story, B, "other")), (3_000, 0));
        assert!(read_all(story, B, "big") == big);
        assert_eq!((held(story, B, "big"), state(story, B, "big").as_str()), (40_000, "synced"));
    });
}

#[test]
fn what_was_read_longest_ago_goes_first_and_comes_back() {
    story(0, |story| {
        let files: Vec<(String, Vec<u8>)> = (0..8)
            .map(|n| format!("file {n}"))
            .map(|name| (name.clone(), make(story, A, &name, 15_000)))
            .collect();
        story.level();
        for (name, bytes) in files.iter().chain(&files[..1]) {
            assert!(read_all(story, B, name) == *bytes);
            let used = story.hosts.sides[B].running.as_ref().unwrap().cache_used().unwrap();
            assert!(used <= LIMIT, "{used}");
        }
        assert_eq!(held(story, B, "file 0"), 15_000);
        assert_eq!(held(story, B, "file 7"), 15_000);
        assert_eq!(held(story, B, "file 2"), 0, "it was used before all that are held");
        let order: Vec<u64> = (0..8).map(|n| held(story, B, &format!("file {n}"))).collect();
        // The order outlives the daemon.
        story.hosts.sides[B].run(|stepped| stepped.checkpoint().unwrap());
        story.crash(B, Fate::Killed);
        assert_eq!((0..8).map(|n| held(story, B, &format!("file {n}"))).collect::<Vec<_>>(), order);
        story.level();
        assert!(read_all(story, B, "file 2") == files[2].1);
        assert_eq!(held(story, B, "file 0"), 15_000, "it was used last");
    });
}

#[test]
fn what_is_pinned_and_what_the_peer_does_not_have_stay_however_full_the_cache_is() {
    story(0, |story| {
        let pinned = make(story, A, "pinned", 20_000);
        for n in 0..20 {
            make(story, A, &format!("file {n}"), 30_000);
        }
        story.level();
        story.host(B).pin("pinned", true).unwrap();
        story.level();
        assert_eq!(held(story, B, "pinned"), 20_000, "what is pinned comes by itself");
        for round in 0..2 {
            for n in 0..20 {
                let name = format!("file {n}");
                assert!(read_all(story, B, &name) == content(&name, 30_000));
            }
            assert_eq!(held(story, B, "pinned"), 20_000);
            if round == 0 {
                story.crash(B, Fate::Killed);
                story.level();
            }
        }
        story.cut_link();
        let dirty = make(story, B, "dirty", 10_000);
        // All that can go makes room for what is written, and then there is none.
        let full = (0..20).find(|n| {
            let host = story.host(B);
            let handle = calls::create(host, process(1), &format!("new {n}")).unwrap();
            let written = calls::write(host, handle, 0, &text(10_000, b'n'));
            calls::close(host, handle);
            written.is_err_and(|error| error.errno() == libc::ENOSPC)
        });
        assert_eq!(full, Some(3), "beside 30,000 bytes three more fit");
        assert_eq!(story.host(B).free("dirty").unwrap(), 0);
        for _ in 0..2 {
            assert_eq!((held(story, B, "pinned"), held(story, B, "dirty")), (20_000, 10_000));
            assert!(story.read(B, "pinned") == pinned && story.read(B, "dirty") == dirty);
            story.crash(B, Fate::Killed);
        }
        story.level();
        assert!(story.read(A, "dirty") == dirty);
        // More than fits is not pinned.
        let refused = story.host(B).pin("file 1", true).and_then(|()| story.host(B).pin("file 2", true));
        assert!(refused.unwrap_err().to_string().contains("65536"), "it says what the cache takes");
    });
}

#[test]
fn a_cache_full_of_what_only_this_host_has_takes_no_more() {
    story(INLINE, |story| {
        story.cut_link();
        for n in 0..6 {
            make(story, B, &format!("file {n}"), 10_000);
        }
        let host = story.host(B);
        let handle = calls::create(host, process(1), "more").unwrap();
        let refused = calls::write(host, handle, 0, &text(10_000, b'x')).unwrap_err();
        assert_eq!(refused.errno(), libc::ENOSPC);
        // What is held already can be changed, and what is deleted makes room.
        let zero = calls::open(host, process(1), "file 0").unwrap();
        calls::write(host, zero, 0, &text(10_000, b'y')).unwrap();
        calls::close(host, zero);
        host.unlink(b"file 1").unwrap();
        calls::write(host, handle, 0, &text(10_000, b'x')).unwrap();
        calls::close(host, handle);
        let files = story.level();
        assert!(files["more"] == text(10_000, b'x') && files["file 0"] == text(10_000, b'y'));
        // The peer has it all now: there is room for more.
        make(story, B, "even more", 40_000);
        story.level();
    });
}

#[test]
fn a_write_into_what_is_not_held_brings_over_only_the_chunks_it_does_not_cover() {
    story(0, |story| {
        let mut bytes = make(story, A, "big", 50_000);
        story.level();
        // One whole chunk, and parts of two others.
        bytes[9_500..11_200].fill(b'z');
        story.write(B, "big", 9_500, &bytes[9_500..11_200]);
        assert_eq!(held(story, B, "big"), 1_000);
        let files = story.level();
        assert!(files["big"] == bytes);
        assert_eq!(held(story, B, "big"), 3_000);
        // Neither appending nor cutting off at a border, nor a new name, nor unlinking costs content.
        story.write(B, "big", 50_000, &text(500, b'a'));
        let ino = story.host(B).lookup(b"big").unwrap().ino;
        let cut = SetAttr { size: Some(30_000), ..SetAttr::default() };
        story.host(B).setattr(process(1), ino, None, cut).unwrap();
        story.host(B).rename(b"big", b"large", 0).unwrap();
        let files = story.level();
        bytes.truncate(30_000);
        assert!(files["large"] == bytes);
        assert_eq!(held(story, B, "large"), 3_000);
        story.host(B).unlink(b"large").unwrap();
        assert!(story.level().is_empty());
    });
}

#[test]
fn what_was_written_into_a_file_of_which_nothing_is_held_and_synced_outlives_power_loss() {
    story(0, |story| {
        let mut bytes = make(story, A, "big", 5_000);
        story.level();
        story.cut_link();
        bytes[2_300..2_500].fill(b'z');
        story.write(B, "big", 2_300, &bytes[2_300..2_500]);
        story.fsync(B, "big");
        story.crash(B, Fate::UnsyncedLost);
        story.level();
        assert!(read_all(story, B, "big") == bytes && story.read(A, "big") == bytes);
    });
}

#[test]
fn a_write_beyond_the_end_of_what_is_not_held_is_the_same_on_both_sides_wherever_the_disk_is_full() {
    story(0, |story| {
        for room in (0..800).step_by(5) {
            let name = format!("of {room}");
            make(story, A, &name, 1_500);
            story.level();
            let ino = story.host(B).lookup(name.as_bytes()).unwrap().ino;
            let opened = story.host(B).open(process(1), ino, libc::O_WRONLY).unwrap();
            story.hosts.sides[B].disk.set_space(Some(room));
            let _ = story.host(B).write(opened.handle, 1_500, &[b'x'; 300], WriteMode::default());
            story.hosts.sides[B].disk.set_space(None);
            story.host(B).release(opened.handle, None);
            let there = story.level()[&name].clone();
            assert_eq!(read_all(story, B, &name), there, "with room for {room} bytes");
            story.host(A).unlink(name.as_bytes()).unwrap();
        }
    });
}

#[test]
fn two_readers_of_one_chunk_ask_for_it_once() {
    story(0, |story| {
        let bytes = make(story, A, "big", 30_000);
        story.level();
        let readers: Vec<_> = (0..3).map(|_| waiting(story, B, "big")).collect();
        story.hosts.poll();
        assert_eq!(asks(story, B), 1);
        story.level();
        for reader in readers {
            assert!(story.hosts.handle().block_on(reader).unwrap().unwrap() == bytes);
        }
    });
}

#[test]
fn nothing_goes_from_a_new_cache_before_the_peer_that_kept_one_holds_everything() {
    story(0, |story| {
        let bytes = make(story, A, "big", 60_000);
        let more = make(story, A, "more", 60_000);
        story.level();
        // They change places: what A has is nowhere else yet.
        end(story, A, Some(LIMIT));
        end(story, B, None);
        assert!(story.hosts.start(A));
        story.host(A).lookup(b"big").unwrap();
        assert!(
            story
                .host(A)
                .free("big")
                .unwrap_err()
                .to_string()
                .contains("has not said yet that it holds everything")
        );
        story.work(A);
        assert_eq!((held(story, A, "big"), held(story, A, "more")), (60_000, 60_000));
        assert!(story.hosts.start(B));
        let files = story.level();
        assert!(files["big"] == bytes && files["more"] == more);
        assert_eq!(held(story, B, "big"), 60_000);
        // Now B has all of it, and A makes room.
        assert!(held(story, A, "big") + held(story, A, "more") <= LIMIT);
        story.host(A).free("more").unwrap();
        assert_eq!(held(story, A, "more"), 0);
        assert!(read_all(story, A, "more") == more);
    });
}

#[test]
fn two_hosts_that_both_become_caches_let_go_of_nothing() {
    story(0, |story| {
        for side in [A, B] {
            end(story, side, None);
            assert!(story.hosts.start(side));
        }
        let bytes = make(story, A, "big", 90_000);
        story.level();
        for side in [A, B] {
            end(story, side, Some(LIMIT));
            assert!(story.hosts.start(side));
            // They refuse each other, as long as that is so.
            story.work(side);
            assert!(story.read(side, "big") == bytes);
        }
    });
}

#[test]
fn a_hole_is_known_before_it_is_there_wherever_the_daemon_dies() {
    let mut deaths = 0;
    for at in 1.. {
        for fate in [Fate::Killed, Fate::PowerLost(at), Fate::UnsyncedLost] {
            let mut over = false;
            story(0, |story| {
                let bytes = make(story, A, "big", 30_000);
                story.level();
                assert!(read_all(story, B, "big") == bytes);
                let disk = &story.hosts.sides[B].disk;
                disk.die_at(Some(disk.effects() + at));
                story.hosts.sides[B].run(|stepped| stepped.host.free("big").unwrap());
                over = story.hosts.sides[B].running.is_some();
                if over {
                    return;
                }
                deaths += 1;
                assert!(story.hosts.wake(B, fate));
                assert!(story.level()["big"] == bytes);
                assert!(read_all(story, B, "big") == bytes, "after {at} {fate:?}");
            });
            if over {
                assert!(deaths > 10, "{deaths}");
                return;
            }
        }
    }
}

/// A file of 20 chunks that B holds two of, and is cut off from A while both do something; then they meet again.
fn apart(rest: bool, tell: impl Fn(&mut Story, &[u8]) -> Vec<(&'static str, Vec<u8>)>) {
    for b_is_later in [false, true] {
        story(0, |story| {
            let old = make(story, A, "doc", 20_000);
            story.level();
            let host = story.host(B);
            let handle = calls::open(host, process(1), "doc").unwrap();
            let syncfs::fs::volume::Answer::Later(part) = host.read(handle, 3_000, 2_000) else {
                panic!("it is here")
            };
            let task = story.hosts.handle().spawn(part);
            story.level();
            story.hosts.handle().block_on(task).unwrap().unwrap();
            calls::close(story.host(B), handle);
            story.cut_link();
            story.hosts.set_clock(usize::from(b_is_later), 3_600);
            let expected = tell(story, &old);
            if rest {
                story.work(A);
                story.crash(A, Fate::Killed);
            }
            story.level();
            let names = story.names(B);
            let mut found: Vec<(String, Vec<u8>)> =
                names.iter().map(|name| (name.clone(), read_all(story, B, name))).collect();
            for (name, bytes) in expected {
                let is = |f: &(String, Vec<u8>)| f.0.split(CONFLICT).next() == Some(name) && f.1 == bytes;
                let at = found.iter().position(is);
                assert!(
                    at.is_some(),
                    "{name} is not there as it should be, of {names:?}, later: {b_is_later}"
                );
                found.remove(at.unwrap());
            }
            let left: Vec<&String> = found.iter().map(|f| &f.0).collect();
            assert!(left.is_empty(), "{left:?}");
        });
    }
}

fn edited(old: &[u8], at: usize, letter: u8, len: usize) -> Vec<u8> {
    let mut new = old.to_vec();
    new.resize(old.len().max(at + len), 0);
    new[at..at + len].fill(letter);
    new
}

#[test]
fn a_file_held_in_part_that_both_changed_apart_is_whole_in_both_versions() {
    for rest in [false, true] {
        apart(rest, |story, old| {
            story.write(A, "doc", 500, &text(8_000, b'a'));
            story.write(A, "doc", 1_000, &text(500, b'A'));
            story.write(B, "doc", 10_200, &text(1_000, b'b'));
            let ours = edited(&edited(old, 500, b'a', 8_000), 1_000, b'A', 500);
            vec![("doc", ours), ("doc", edited(old, 10_200, b'b', 1_000))]
        });
    }
}

#[test]
fn a_file_held_in_part_that_is_edited_here_and_truncated_there_is_whole_in_both_versions() {
    apart(true, |story, old| {
        let ino = story.host(A).lookup(b"doc").unwrap().ino;
        let cut = SetAttr { size: Some(0), ..SetAttr::default() };
        story.host(A).setattr(process(1), ino, None, cut).unwrap();
        story.write(A, "doc", 0, &text(700, b'a'));
        story.write(B, "doc", 20_000, &text(1_500, b'b'));
        vec![("doc", text(700, b'a')), ("doc", edited(old, 20_000, b'b', 1_500))]
    });
}

#[test]
fn a_file_held_in_part_that_is_edited_here_and_unlinked_there_stays_whole() {
    apart(false, |story, old| {
        story.write(A, "doc", 2_500, &text(100, b'a'));
        story.host(A).unlink(b"doc").unwrap();
        story.work(A);
        story.write(B, "doc", 15_500, &text(100, b'b'));
        vec![("doc", edited(old, 15_500, b'b', 100))]
    });
}

#[test]
fn a_file_held_in_part_that_is_edited_here_and_replaced_there_is_whole_in_both_versions() {
    apart(false, |story, old| {
        story.write(A, "new", 0, &text(900, b'a'));
        story.host(A).rename(b"new", b"doc", 0).unwrap();
        story.work(A);
        story.write(B, "doc", 15_500, &text(100, b'b'));
        vec![("doc", text(900, b'a')), ("doc", edited(old, 15_500, b'b', 100))]
    });
}

#[test]
fn what_was_kept_for_the_peer_goes_when_it_knows_what_came_after() {
    story(0, |story| {
        make(story, A, "doc", 20_000);
        make(story, A, "gone", 20_000);
        story.level();
        story.cut_link();
        story.write(A, "doc", 0, &text(5_000, b'a'));
        story.host(A).unlink(b"gone").unwrap();
        story.work(A);
        assert_eq!(story.host(A).status().kept_for_peer.bytes, 25_000);
        story.crash(A, Fate::Killed);
        assert_eq!(story.host(A).status().kept_for_peer.bytes, 25_000);
        story.level();
        assert_eq!(story.host(A).status().kept_for_peer.bytes, 0);
        assert!(story.hosts.sides[A].disk.names(Dir::Before).is_empty());
    });
}

#[test]
fn without_the_peer_what_is_held_is_read_and_the_rest_fails_at_once() {
    story(0, |story| {
        let small = make(story, A, "small", 5_000);
        make(story, A, "big", 30_000);
        story.level();
        assert!(read_all(story, B, "small") == small);
        story.cut_link();
        story.crash(B, Fate::Killed);
        assert_eq!(story.names(B), ["big", "small"]);
        assert!(story.read(B, "small") == small);
        let reader = waiting(story, B, "big");
        story.hosts.poll();
        assert!(reader.is_finished(), "nobody waits for a peer that is not there");
        let failed = story.hosts.handle().block_on(reader).unwrap();
        assert_eq!(failed.unwrap_err().errno(), libc::EIO);
        // What is appended to it now is whole when the peer is back.
        story.write(B, "big", 30_000, &text(700, b'e'));
        let files = story.level();
        assert!(files["big"] == [content("big", 30_000), text(700, b'e')].concat());
    });
}
