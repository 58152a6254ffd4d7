//! `.syncfsignore`: files that stay on the host where they are.

use crate::rig::{Host, Pair, until};
use std::fs::{File, OpenOptions};
use std::io::Write;

fn state(host: &Host, name: &str) -> String {
    host.run(&["getfattr", "--only-values", "-n", "user.syncfs.state", name])
}

#[test]
fn what_the_patterns_name_stays_here_and_everything_else_travels() {
    let mut pair = Pair::mounted();
    pair.a.save("shared.tmp", b"was shared before");
    pair.a.flush();
    pair.a.save(".syncfsignore", b"# scratch files\n*.tmp\n*~\n!keep.tmp\n");
    pair.a.flush();
    // Both sides go by it at once.
    pair.a.save("a.tmp", b"scratch");
    pair.b.save("a.tmp", b"other scratch");
    pair.b.save("b~", b"backup");
    pair.a.save("keep.tmp", b"not scratch");
    pair.a.save("letter", b"dear");
    pair.a.flush();
    pair.b.flush();
    assert_eq!(pair.a.ls(), [".syncfsignore", "a.tmp", "keep.tmp", "letter", "shared.tmp"]);
    assert_eq!(pair.b.ls(), [".syncfsignore", "a.tmp", "b~", "keep.tmp", "letter", "shared.tmp"]);
    assert!(pair.a.has("a.tmp", b"scratch") && pair.b.has("a.tmp", b"other scratch"));
    assert_eq!((state(&pair.a, "a.tmp"), state(&pair.a, "letter")), ("ignored".into(), "synced".into()));
    let status = pair.b.status();
    assert_eq!((&status["ignored"], &status["pending_files"]), (&2.into(), &0.into()));
    assert_eq!(pair.b.syncfs(&["verify"]).status.code(), Some(0));

    // What both have stays shared.
    pair.b.save("shared.tmp", b"and is still");
    pair.b.flush();
    assert!(pair.a.has("shared.tmp", b"and is still"));

    // It is the same after a restart, and for what was done without syncfs.
    pair.b.unmount();
    pair.b.save("c.tmp", b"made while it was not mounted");
    pair.b.start();
    pair.b.flush();
    assert_eq!(pair.b.status()["ignored"], 3);
    assert_eq!(pair.a.ls(), [".syncfsignore", "a.tmp", "keep.tmp", "letter", "shared.tmp"]);
    pair.b.run(&["rm", "c.tmp", "b~"]);
    pair.b.run(&["mv", "a.tmp", "taken over"]);
    pair.b.flush();
    assert!(pair.a.has("taken over", b"other scratch") && pair.a.has("a.tmp", b"scratch"));
    pair.a.run(&["rm", "a.tmp"]);
    pair.finish();
}

#[test]
fn what_is_no_longer_named_is_shared_from_then_on() {
    let pair = Pair::mounted();
    pair.a.save(".syncfsignore", b"*.log\n");
    pair.a.flush();
    pair.a.save("a.log", b"of a");
    pair.b.save("b.log", b"of b");
    pair.a.flush();
    pair.b.flush();
    assert!(!pair.a.ls().contains(&"b.log".into()) && !pair.b.ls().contains(&"a.log".into()));
    pair.a.run(&["rm", ".syncfsignore"]);
    until("both have both", || pair.a.has("b.log", b"of b") && pair.b.has("a.log", b"of a"));
    assert_eq!(pair.a.status()["ignored"], 0);
    pair.finish();
}

#[test]
fn what_is_saved_together_with_an_ignored_file_does_not_wait_for_it() {
    let pair = Pair::mounted();
    pair.a.save(".syncfsignore", b"*.swp");
    pair.a.flush();
    // As an editor has both open.
    let mut swap = File::create_new(pair.a.path(".letter.swp")).unwrap();
    swap.write_all(b"undo").unwrap();
    pair.a.save("letter", b"first");
    let mut letter = OpenOptions::new().append(true).open(pair.a.path("letter")).unwrap();
    letter.write_all(b", second").unwrap();
    letter.sync_all().unwrap();
    swap.sync_all().unwrap();
    until("the letter is there", || pair.b.has("letter", b"first, second"));
    drop(letter);
    pair.a.flush();
    assert_eq!(pair.b.ls(), [".syncfsignore", "letter"]);
    drop(swap);
    pair.a.run(&["rm", ".letter.swp"]);
    pair.finish();
}

#[test]
fn what_is_wrong_in_a_pattern_is_told_and_the_others_count() {
    let pair = Pair::mounted();
    pair.a.save(".syncfsignore", b"*.tmp\n[z-a]\n");
    pair.a.save("x.tmp", b"scratch");
    pair.a.flush();
    assert_eq!(pair.b.ls(), [".syncfsignore"]);
    let said = pair.a.log_text();
    assert!(said.contains(".syncfsignore, line 2: "), "{said}");
    pair.a.run(&["rm", "x.tmp"]);
    pair.finish();
}
