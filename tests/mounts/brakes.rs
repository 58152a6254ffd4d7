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

#[test]
fn what_was_removed_while_unmounted_goes_on_both_where_that_is_asked_for() {
    let mut pair = Pair::mounted();
    ["one", "two", "three"].iter().for_each(|name| pair.a.save(name, b"precious"));
    pair.a.flush();
    assert_eq!(pair.b.unmount().code(), Some(0));
    pair.b.run(&["rm", "one"]);
    pair.b.start();
    assert_eq!(pair.b.status()["missing_at_mount"], 1);
    assert!(pair.b.log_text().contains("--adopt-deletes") && pair.b.log_text().contains("one"));
    pair.b.flush();
    assert_eq!(pair.b.ls(), ["one", "three", "two"]);
    assert_eq!(pair.b.unmount().code(), Some(0));
    pair.b.run(&["rm", "one"]);
    pair.b.flag("--adopt-deletes");
    pair.b.start();
    assert_eq!(pair.b.status()["missing_at_mount"], 0);
    assert_eq!(pair.finish().keys().collect::<Vec<_>>(), ["three", "two"]);
}

#[test]
fn a_wiped_directory_is_not_mounted_to_delete_everything() {
    let mut pair = Pair::mounted();
    (0..120).for_each(|n| pair.a.save(format!("f{n:03}"), b"precious"));
    pair.a.flush();
    assert_eq!(pair.b.unmount().code(), Some(0));
    (0..100).for_each(|n| std::fs::remove_file(pair.b.path(format!("f{n:03}"))).unwrap());
    pair.b.flag("--adopt-deletes");
    let output = pair.b.mount_command().output().unwrap();
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    let says = said(&output);
    assert!(says.contains("100 of the 120 files") && says.contains("--max-delete 100"), "{says}");
    assert_eq!(pair.a.ls().len(), 120);
    pair.b.option("--max-delete", "100".as_ref());
    pair.b.start();
    until("a asks, too", || pair.a.status()["paused"].as_u64().is_some_and(|n| n > 0));
    until("all are through", || {
        pair.a.syncfs(&["resume"]);
        files(&pair.a) == 20
    });
    assert_eq!(pair.finish().len(), 20);
}

#[test]
fn a_foreign_replica_is_refused_on_both_sides_until_somebody_pairs_it() {
    let mut pair = Pair::mounted();
    pair.a.save("ours", b"ours");
    pair.a.flush();
    assert_eq!(pair.b.unmount().code(), Some(0));
    // Another replica answers at the peer's address, with the share's key: what was there is set aside.
    let other = pair.root.path().join("other");
    std::fs::create_dir(&other).unwrap();
    std::fs::write(other.join("theirs"), b"theirs").unwrap();
    let own = pair.b.dir.clone();
    pair.b.option("--store", &other);
    pair.b.start();
    let refused = |host: &Host| {
        until("it says that and what to type", || {
            let error = host.status()["peer"]["last_error"].as_str().unwrap_or_default().to_owned();
            error.contains("belongs together with replica") && error.contains("--new-peer")
        });
        assert!(host.log_text().contains("--new-peer"), "{}", host.log_text());
        assert_eq!(host.syncfs(&["flush"]).status.code(), Some(5));
    };
    refused(&pair.a);
    refused(&pair.b);
    assert_eq!((pair.a.ls(), pair.b.ls()), (vec!["ours".to_owned()], vec!["theirs".to_owned()]));
    assert_eq!((pair.a.read("ours"), pair.b.read("theirs")), (b"ours".to_vec(), b"theirs".to_vec()));
    // Somebody wants it so.
    assert_eq!(pair.a.unmount().code(), Some(0));
    pair.a.flag("--new-peer");
    pair.a.start();
    let files = pair.assert_same();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["ours", "theirs"]);
    // The old one is a stranger now.
    assert_eq!(pair.b.unmount().code(), Some(0));
    assert_eq!(pair.a.unmount().code(), Some(0));
    pair.a.unflag("--new-peer");
    pair.b.option("--store", &own);
    pair.a.start();
    pair.b.start();
    refused(&pair.a);
    assert_eq!(pair.b.ls(), ["ours"]);
}
