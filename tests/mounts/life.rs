//! Mounting, unmounting, dying, coming back, and who is let in.

use crate::rig::{Host, Pair, Program, SYNCFS, free_ports, mounted, noise, run, until};
use std::path::Path;
use std::process::{Command, Output};

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn unmounting_ends_the_daemon_well_and_leaves_plain_files() {
    let mut pair = Pair::mounted();
    pair.a.save("f", b"content\n");
    // Right away: nothing is waited for.
    let status = pair.a.unmount();
    assert_eq!(status.code(), Some(0), "{}", pair.a.log_text());
    assert!(!mounted(&pair.a.dir));
    assert_eq!(pair.a.read("f"), b"content\n");
    assert_eq!(pair.a.ls(), ["f"]);
    pair.a.start();
    pair.finish();
}

#[test]
fn mount_in_the_background_returns_when_the_directory_works() {
    let pair = Pair::new();
    std::fs::write(pair.a.path("f"), b"was here").unwrap();
    let output = pair.a.mount_command().output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    assert!(mounted(&pair.a.dir));
    assert_eq!(pair.a.read("f"), b"was here");
    pair.a.save("g", b"new");
    assert_eq!(pair.a.status()["files"], 2);
    let output = pair.a.syncfs(&["unmount"]);
    assert!(output.status.success(), "{}", said(&output));
    assert!(!mounted(&pair.a.dir));
    assert_eq!(pair.a.read("g"), b"new");
    let output = pair.a.syncfs(&["unmount"]);
    assert!(said(&output).contains("is not mounted"), "{}", said(&output));
}

#[test]
fn a_killed_daemons_mount_is_replaced_by_the_same_command() {
    let mut pair = Pair::mounted();
    for n in 0..3u64 {
        let name = format!("late {n}");
        pair.a.save(&name, &noise(n, 200_000));
        pair.b.save(format!("of b {n}"), &noise(n + 10, 1_000));
        pair.a.kill();
        // What is left is a dead mount: nobody takes the raw directory for the share.
        assert!(mounted(&pair.a.dir));
        assert_eq!(crate::rig::errno(pair.a.dir.read_dir()), libc::ENOTCONN);
        pair.a.start();
        assert!(pair.a.has(&name, &noise(n, 200_000)));
    }
    assert_eq!(pair.finish().len(), 6);
}

#[test]
fn a_killed_daemon_does_not_take_its_untouched_files_for_edited() {
    let mut pair = Pair::mounted();
    pair.a.save("f", b"first");
    pair.a.flush();
    pair.a.kill();
    pair.b.save("f", b"edited on B");
    pair.a.start();
    // Nobody edited it on A: there is nothing to be in conflict with.
    assert_eq!(pair.finish().len(), 1);
}

#[test]
fn a_flush_without_the_peer_says_so() {
    let mut pair = Pair::new();
    pair.a.start();
    pair.a.save("f", b"f");
    let output = pair.a.syncfs(&["flush"]);
    assert_eq!(output.status.code(), Some(5));
    assert!(said(&output).contains("the peer is not there"), "{}", said(&output));
    pair.b.start();
    pair.finish();
}

#[test]
fn a_second_daemon_on_the_same_store_is_refused() {
    let pair = Pair::mounted();
    pair.a.save("f", b"f");
    // The very same mount.
    let output = pair.a.mount_command().output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("is mounted already"), "{}", said(&output));
    // Another mount of the mounted directory.
    let other = pair.root.path().join("other");
    std::fs::create_dir(&other).unwrap();
    let [port, peer] = free_ports();
    let key = pair.root.path().join("key");
    let second = |store: &Path| {
        let mut command = Command::new(SYNCFS);
        command.arg("mount").arg(&other).arg("--store").arg(store).arg("--key-file").arg(&key);
        command.args(["--listen", &format!("127.0.0.1:{port}"), "--peer", &format!("127.0.0.1:{peer}")]);
        command.output().unwrap()
    };
    let output = second(&pair.a.dir);
    assert_eq!(output.status.code(), Some(1), "{}", said(&output));
    assert!(said(&output).contains("is mounted already"), "{}", said(&output));
    assert!(!mounted(&other));
    // And one on a store whose daemon has its mount elsewhere.
    let mut apart = Pair::new();
    let store = apart.root.path().join("store");
    std::fs::create_dir(&store).unwrap();
    apart.a.option("--store", &store);
    apart.a.start();
    let output = second(&store);
    assert_eq!(output.status.code(), Some(7), "{}", said(&output));
    let id = apart.a.daemon().id().to_string();
    assert!(said(&output).contains("in use by another") && said(&output).contains(&id), "{}", said(&output));
    assert!(!mounted(&other));
    assert_eq!(apart.a.unmount().code(), Some(0));
    pair.finish();
}

#[test]
fn a_store_elsewhere_holds_the_files() {
    let mut pair = Pair::new();
    let store = pair.root.path().join("store");
    std::fs::create_dir(&store).unwrap();
    std::fs::write(store.join("before"), b"before").unwrap();
    pair.a.option("--store", &store);
    pair.a.start();
    pair.b.start();
    pair.a.save("f", b"content");
    pair.a.flush();
    assert_eq!(pair.b.ls(), ["before", "f"]);
    assert_eq!(pair.a.unmount().code(), Some(0));
    assert_eq!(pair.a.dir.read_dir().unwrap().count(), 0);
    assert_eq!(std::fs::read(store.join("f")).unwrap(), b"content");
}

#[test]
fn a_wrong_key_is_refused_and_both_sides_say_so() {
    let mut pair = Pair::new();
    let other = pair.root.path().join("other-key");
    run(pair.root.path(), &[SYNCFS, "keygen", "--key-file", other.to_str().unwrap()]);
    pair.b.option("--key-file", &other);
    std::fs::write(pair.a.path("secret-name"), b"secret").unwrap();
    pair.a.start();
    pair.b.start();
    let says = |host: &Host| {
        until("the log names the key", || host.log_text().lines().any(|line| line.contains("key")));
        until("status names the key", || {
            let peer = &host.status()["peer"];
            peer["connected"] == false && peer["last_error"].as_str().is_some_and(|e| e.contains("key"))
        });
        assert!(!host.log_text().contains("secret-name"));
    };
    says(&pair.a);
    says(&pair.b);
    assert!(pair.b.ls().is_empty());
    assert_eq!(pair.a.syncfs(&["flush"]).status.code(), Some(5));
    // Each goes on alone.
    pair.b.save("mine", b"mine");
    assert_eq!(pair.a.unmount().code(), Some(0));
    assert_eq!(pair.b.unmount().code(), Some(0));
    assert_eq!(pair.b.ls(), ["mine"]);
}

#[test]
fn each_host_works_alone_and_they_meet_again() {
    let mut pair = Pair::mounted();
    pair.a.save("both", b"both");
    pair.a.flush();
    assert_eq!(pair.b.unmount().code(), Some(0));
    pair.a.save("of a", b"a");
    pair.a.run(&["mv", "both", "renamed"]);
    std::fs::write(pair.b.path("of b"), b"b").unwrap();
    pair.b.start();
    let files = pair.finish();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["of a", "of b", "renamed"]);
}

#[test]
fn sigterm_unmounts() {
    let mut pair = Pair::mounted();
    pair.a.save("f", b"content");
    pair.a.daemon().signal(rustix::process::Signal::TERM);
    assert_eq!(pair.a.ended().code(), Some(0));
    assert!(!mounted(&pair.a.dir));
    assert_eq!(pair.a.read("f"), b"content");
}

#[test]
fn sigterm_ends_the_daemon_though_another_mount_namespace_has_the_mount() {
    let mut pair = Pair::mounted();
    pair.a.save("f", b"content");
    let other =
        Program::start(pair.root.path(), &["unshare", "--mount", "sh", "-c", "echo begun; exec sleep 1000"]);
    assert_eq!(other.line(), "begun");
    pair.a.daemon().signal(rustix::process::Signal::TERM);
    assert_eq!(pair.a.ended().code(), Some(0));
    assert!(!mounted(&pair.a.dir));
    assert_eq!(pair.a.read("f"), b"content");
}
