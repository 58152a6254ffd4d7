//! `--interval`: what changes is told once for so many seconds, and at once where somebody waits for it.

use crate::simulated::calls::{self, process};
use crate::simulated::side::Side;
use crate::story::{A, B, CONFLICT, INLINE, Story, copies, story_between, text};
use std::time::Duration;
use syncfs::fs::volume::Volume;
use syncfs::model::message::Message;

const INTERVAL: Duration = Duration::from_secs(60);

/// Two hosts, connected and level, of which A tells of its changes once a minute.
fn story(tell: impl FnOnce(&mut Story)) {
    let mut sides = [11, 22].map(|seed| Side::new(seed, INLINE));
    sides[A].interval = Some(INTERVAL);
    story_between(sides, tell);
}

/// Time passes, in which both do what there is to do and hear each other.
fn pass(s: &mut Story, seconds: u64) {
    for _ in 0..seconds {
        s.hosts.pass(Duration::from_secs(1));
        for _ in 0..3 {
            for side in [A, B] {
                assert!(s.work(side));
                s.deliver_from(side);
            }
        }
    }
}

/// What A says from here on instead of reaching B: the files of each of its cuts.
fn heard(s: &mut Story) -> Vec<usize> {
    s.work(A);
    let out = s.hosts.sides[A].out.clone();
    while out.transmit() {}
    let said = std::iter::from_fn(|| out.arrive());
    let cuts = said.filter_map(|(_, message)| match message {
        Message::Announce(cut) => Some(cut.files.len()),
        _ => None,
    });
    cuts.collect()
}

#[test]
fn ten_edits_within_an_interval_cost_one_announcement() {
    story(|s| {
        for n in 0..10 {
            s.write(A, "plan", n, b"x");
            s.hosts.pass(Duration::from_secs(5));
            assert_eq!(heard(s), [0usize; 0], "edit {n}");
        }
        s.hosts.pass(Duration::from_secs(16));
        assert_eq!(heard(s), [1]);
        // Nothing is left to be told by the next tick.
        s.hosts.pass(INTERVAL * 2);
        assert_eq!(heard(s), [0usize; 0]);
        s.cut_link();
        assert_eq!(s.level()["plan"], text(10, b'x'));
    });
}

#[test]
fn a_change_is_there_after_the_interval_and_not_before() {
    story(|s| {
        s.write(A, "plan", 0, b"new");
        pass(s, 58);
        assert_eq!(s.names(B), [""; 0]);
        pass(s, 4);
        assert_eq!(s.read(B, "plan"), b"new");
    });
}

#[test]
fn a_flush_on_either_host_does_not_wait_for_the_interval() {
    for side in [A, B] {
        story(|s| {
            s.write(A, "plan", 0, b"new");
            pass(s, 3);
            assert_eq!(s.names(B), [""; 0]);
            let host = s.hosts.sides[side].running.as_ref().unwrap().host.clone();
            let _flush = s.hosts.handle().spawn(async move { host.flush(Duration::from_secs(30)).await });
            pass(s, 5);
            assert_eq!(s.read(B, "plan"), b"new");
        });
    }
}

#[test]
fn what_the_peer_changes_comes_at_once() {
    story(|s| {
        s.write(B, "plan", 0, b"theirs");
        pass(s, 1);
        assert_eq!(s.read(A, "plan"), b"theirs");
    });
}

#[test]
fn files_that_were_open_together_within_an_interval_move_together() {
    story(|s| {
        let host = s.host(A);
        let handles = ["data", "log"].map(|name| calls::create(host, process(1), name).unwrap());
        for handle in handles {
            calls::write(host, handle, 0, b"one").unwrap();
        }
        host.fsync(handles[0], false).unwrap();
        handles.into_iter().for_each(|handle| calls::close(host, handle));
        s.write(A, "other", 0, b"x");
        assert_eq!(heard(s), [0usize; 0]);
        s.hosts.pass(INTERVAL);
        assert_eq!(heard(s), [2, 1]);
    });
}

#[test]
fn a_file_that_stays_open_is_told_with_the_interval() {
    story(|s| {
        let handle = calls::create(s.host(A), process(1), "log").unwrap();
        for n in 0..4 {
            calls::write(s.host(A), handle, n, b"x").unwrap();
            pass(s, 10);
            assert_eq!(s.names(B), [""; 0]);
        }
        pass(s, 25);
        assert_eq!(s.read(B, "log"), b"xxxx");
        calls::close(s.host(A), handle);
    });
}

/// A link that comes and goes does not make it tell earlier; a mount does, for what the one before left.
#[test]
fn a_new_connection_does_not_wait_for_what_was_told_and_waits_for_the_rest() {
    story(|s| {
        s.write(A, "plan", 0, b"new");
        s.work(A);
        s.cut_link();
        s.hosts.connect();
        pass(s, 10);
        assert_eq!(s.names(B), [""; 0]);
        s.hosts.sides[A].close();
        s.hosts.hang_up(B);
        assert!(s.hosts.start(A));
        s.hosts.connect();
        pass(s, 2);
        assert_eq!(s.read(B, "plan"), b"new");
    });
}

#[test]
fn both_change_a_file_within_an_interval_and_both_versions_stay() {
    story(|s| {
        s.write(A, "plan", 0, b"base");
        s.level();
        s.write(A, "plan", 0, b"by A");
        s.hosts.pass(Duration::from_secs(1));
        s.write(B, "plan", 0, b"by B");
        pass(s, 70);
        let files = s.level();
        assert_eq!(files["plan"], b"by B");
        let [copy] = copies(&files)[..] else { panic!("{files:?}") };
        assert!(copy.contains(CONFLICT) && files[copy] == b"by A");
    });
}
