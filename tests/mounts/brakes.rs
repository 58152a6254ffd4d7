//! What somebody deletes by accident on one host is not gone on the other before it has asked.

use crate::rig::{Host, Pair, until};
use std::process::Output;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn files(host: &Host) -> usize {
    host.ls().len()
}

/// Both hosts have so many files, and `a` has just lost most of them.
fn emptied(mut pair: Pair, count: usize) -> Pair {
    pair.a.start();
    pair.b.start();
    (0..count).for_each(|n| pair.a.save(format!("f{n:03}"), b"precious"));
    pair.a.flush();
    // All at once, as nobody is there to hear of them one by one.
    assert_eq!(pair.b.unmount().code(), Some(0));
    (0..count - 20).for_each(|n| std::fs::remove_file(pair.a.path(format!("f{n:03}"))).unwrap());
    pair.b.start();
    pair
}

#[test]
fn a_storm_of_deletes_waits_for_somebody_to_let_it_through() {
    let mut pair = emptied(Pair::new(), 200);
    until("it is paused", || pair.b.status()["paused"].as_u64().is_some_and(|n| n > 0));
    assert!(files(&pair.b) > 100, "more than half are gone");
    let output = pair.b.syncfs(&["flush", "--timeout", "60"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(said(&output).contains("paused") && said(&output).contains("syncfs resume"), "{}", said(&output));
    assert!(said(&pair.b.syncfs(&["status"])).contains("let them pass: syncfs resume"));
    let dir = pair.b.dir.display().to_string();
    assert!(pair.b.log_text().contains(&format!("syncfs resume {dir}")), "{}", pair.b.log_text());
    // Work goes on here, and is seen over there.
    pair.b.save("meanwhile", b"of b");
    until("a has it", || pair.a.has("meanwhile", b"of b"));
    // It still waits after a remount.
    let left = files(&pair.b);
    assert_eq!(pair.b.unmount().code(), Some(0));
    pair.b.start();
    until("it is paused again", || pair.b.status()["paused"].as_u64().is_some_and(|n| n > 0));
    assert_eq!(files(&pair.b), left);
    let resume = || said(&pair.b.syncfs(&["resume"]));
    until("all are through", || {
        resume();
        files(&pair.b) == 21
    });
    assert_eq!(resume(), "nothing is paused\n");
    assert_eq!(pair.b.status()["trash"]["entries"], 180);
    assert_eq!(pair.finish().len(), 21);
}

#[test]
fn who_said_how_many_may_go_is_not_asked() {
    let mut pair = Pair::new();
    pair.b.option("--max-delete", "180".as_ref());
    assert_eq!(emptied(pair, 200).finish().len(), 20);
    let mut pair = Pair::new();
    pair.b.option("--max-delete", "5".as_ref());
    pair = emptied(pair, 26);
    until("it is paused", || pair.b.status()["paused"].as_u64().is_some_and(|n| n > 0));
    assert!(files(&pair.b) >= 21);
    until("all are through", || {
        pair.b.syncfs(&["resume"]);
        files(&pair.b) == 20
    });
    pair.finish();
}
