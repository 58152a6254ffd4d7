//! `.syncfsignore`: what it names stays on the host where it is made, until nothing names it any more.

use crate::simulated::hosts::Rest;
use crate::simulated::side::Fate;
use crate::story::{self, A, B, Files, INLINE, Story, files};
use syncfs::fs::volume::Volume;

const PATTERNS: &str = ".syncfsignore";

/// Each story is told with content that travels at once and that is fetched.
fn story(tell: impl Fn(&mut Story)) {
    [INLINE, 0].into_iter().for_each(|inline| story::story(inline, &tell));
}

/// Both become level; returns what each has, but for the patterns, which are the same.
fn level(s: &mut Story) -> [Files; 2] {
    assert_eq!(s.hosts.rest(|| usize::MAX, |_, _| Ok(())), Ok(Rest::Level));
    let mut all = [A, B].map(|side| Files::from_iter(s.hosts.sides[side].raw()));
    let patterns = [A, B].map(|side| all[side].remove(PATTERNS));
    assert_eq!(patterns[A], patterns[B]);
    all
}

#[test]
fn what_stays_here_outlives_power_loss_and_is_told_when_nothing_names_it_any_more() {
    story(|s| {
        s.write(A, PATTERNS, 0, b"*.log\n");
        level(s);
        s.write(A, "a.log", 0, b"of a");
        s.fsync(A, "a.log");
        s.write(B, "b.log", 0, b"of b");
        s.write(A, "letter", 0, b"dear");
        let apart = [
            files(&[("a.log", b"of a"), ("letter", b"dear")]),
            files(&[("b.log", b"of b"), ("letter", b"dear")]),
        ];
        assert_eq!(level(s), apart);
        s.crash(A, Fate::UnsyncedLost);
        s.crash(B, Fate::Killed);
        assert_eq!(level(s), apart);
        s.host(B).unlink(PATTERNS.as_bytes()).unwrap();
        let both = files(&[("a.log", b"of a"), ("b.log", b"of b"), ("letter", b"dear")]);
        assert_eq!(level(s), [both.clone(), both]);
    });
}

#[test]
fn what_both_know_stays_shared_whatever_it_is_called() {
    story(|s| {
        s.write(A, "plan", 0, b"one");
        s.write(B, "x.tmp", 0, b"two");
        level(s);
        s.write(B, PATTERNS, 0, b"*.tmp\n*~\n");
        level(s);
        s.host(A).rename(b"plan", b"plan~", 0).unwrap();
        s.write(A, "plan", 0, b"three");
        s.write(A, "x.tmp", 0, b"four");
        let both = files(&[("plan", b"three"), ("plan~", b"one"), ("x.tmp", b"four")]);
        assert_eq!(level(s), [both.clone(), both]);
    });
}

#[test]
fn a_file_of_each_host_under_a_name_that_is_no_longer_ignored_is_a_conflict_with_both_kept() {
    story(|s| {
        s.write(A, PATTERNS, 0, b"x*\n");
        level(s);
        s.write(A, "x", 0, b"of a");
        s.write(B, "x", 0, b"of b");
        level(s);
        s.write(A, PATTERNS, 0, b"#\n");
        let [a, b] = level(s);
        assert_eq!(a, b);
        let mut versions = story::versions(&a, "x");
        versions.sort();
        assert_eq!(versions, [b"of a", b"of b"]);
    });
}

#[test]
fn a_peer_that_takes_a_name_which_is_ignored_here_meanwhile_loses_nothing_and_nothing_is_lost() {
    story(|s| {
        s.write(A, "before", 0, b"x");
        level(s);
        s.cut_link();
        s.write(A, "x.log", 0, b"shared by a");
        s.write(B, PATTERNS, 0, b"*.log\n");
        s.work(B);
        s.write(B, "x.log", 0, b"of b alone");
        s.work(A);
        let [a, b] = level(s);
        // A never hears of B's; whose it was that had to give way, each is there, whole.
        assert!(a.values().any(|bytes| bytes == b"shared by a"), "{a:?}");
        for bytes in [&b"shared by a"[..], b"of b alone"] {
            assert!(b.values().any(|held| held == bytes), "{b:?}");
        }
    });
}

#[test]
fn files_that_are_open_together_do_not_wait_for_one_that_stays_here() {
    story(|s| {
        use crate::simulated::calls::{self, process};
        s.write(A, PATTERNS, 0, b"*.swp\n");
        level(s);
        let swap = calls::create(s.host(A), process(1), "letter.swp").unwrap();
        let letter = calls::create(s.host(A), process(1), "letter").unwrap();
        calls::write(s.host(A), swap, 0, b"undo").unwrap();
        calls::write(s.host(A), letter, 0, b"dear").unwrap();
        s.host(A).fsync(letter, false).unwrap();
        assert_eq!(level(s)[B], files(&[("letter", b"dear")]));
        calls::close(s.host(A), letter);
        calls::close(s.host(A), swap);
        assert_eq!(level(s)[B], files(&[("letter", b"dear")]));
    });
}
