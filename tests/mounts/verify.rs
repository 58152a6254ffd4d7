//! What both sides hold is compared from their disks, and made the same where it is not.

use crate::rig::{Host, Pair, noise, until};
use rustix::fs::{Timespec, Timestamps, futimens};
use rustix::process::Signal;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Output;

/// Two mounted hosts whose files lie in directories of their own beside the mounts, which are returned.
fn pair() -> (Pair, [PathBuf; 2]) {
    let mut pair = Pair::new();
    let stores = ["store-a", "store-b"].map(|name| pair.root.path().join(name));
    stores.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
    pair.a.option("--store", &stores[0]);
    pair.b.option("--store", &stores[1]);
    pair.a.start();
    pair.b.start();
    pair.a.flush();
    (pair, stores)
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

#[track_caller]
fn verify(host: &Host, words: &[&str], code: i32) -> String {
    let output = host.syncfs(&[&["verify"], words].concat());
    assert_eq!(output.status.code(), Some(code), "{}{}", said(&output), host.log_text());
    said(&output)
}

/// Changes a file as a rotten disk does: neither size nor time tell.
fn rot(path: &Path, at: u64, bytes: &[u8]) {
    let file = File::options().write(true).open(path).unwrap();
    let stat = file.metadata().unwrap();
    file.write_all_at(bytes, at).unwrap();
    let time = |s, ns| Timespec { tv_sec: s, tv_nsec: ns };
    let last_access = time(stat.atime(), stat.atime_nsec());
    let last_modification = time(stat.mtime(), stat.mtime_nsec());
    futimens(&file, &Timestamps { last_access, last_modification }).unwrap();
}

/// Both daemons end well.
fn finish(mut pair: Pair) {
    pair.compare();
    for host in [&mut pair.a, &mut pair.b] {
        let status = host.unmount();
        assert!(status.success(), "{status}: {}", host.log_text());
    }
}

#[test]
fn equal_sides_are_found_equal_with_a_few_words() {
    let (pair, _) = pair();
    (0..200).for_each(|n| pair.a.save(format!("file {n}"), &noise(n, 5_000)));
    pair.b.save("large", &noise(1, 3_000_000));
    pair.a.flush();
    let sent = |host: &Host| host.status()["sent_bytes"].as_u64().unwrap();
    let before = sent(&pair.a) + sent(&pair.b);
    let said = verify(&pair.a, &[], 0);
    let cost = sent(&pair.a) + sent(&pair.b) - before;
    assert_eq!(said, "both sides hold the same 201 files, 4.00 MB\n");
    assert!(cost < 2_000, "{cost} bytes");
    let json: serde_json::Value = serde_json::from_str(&verify(&pair.b, &["--json"], 0)).unwrap();
    assert_eq!((&json["same"], &json["files"]), (&true.into(), &201.into()));
    finish(pair);
}

#[test]
fn a_byte_that_rotted_is_found_and_both_versions_are_kept() {
    let (pair, stores) = pair();
    (0..50).for_each(|n| pair.a.save(format!("file {n}"), &noise(n, 2_000)));
    let content = noise(77, 3_000_000);
    pair.a.save("large", &content);
    pair.a.flush();
    pair.b.read("large");
    let mut rotten = content.clone();
    rotten[1_700_000] ^= 1;
    rot(&stores[1].join("large"), 1_700_000, &rotten[1_700_000..1_700_001]);
    for host in [&pair.a, &pair.b] {
        let said = verify(host, &[], 1);
        assert!(
            said.starts_with("large: content differs in group 3 (bytes 1500000-1999999)\n1 file differ"),
            "{said}"
        );
    }
    let said = verify(&pair.a, &["--repair"], 11);
    assert!(
        said.contains("large: content differs in group 3") && said.contains("both versions are kept"),
        "{said}"
    );
    pair.b.flush_with_conflicts();
    let files = pair.compare();
    assert_eq!(files.len(), 52);
    let kept: Vec<&Vec<u8>> =
        files.iter().filter(|f| f.0.to_string_lossy().starts_with("large")).map(|f| &f.1.bytes).collect();
    assert!(kept.contains(&&content) && kept.contains(&&rotten), "one version is gone");
    verify(&pair.b, &[], 0);
    verify(&pair.a, &[], 0);
    finish(pair);
}

#[test]
fn an_edit_below_the_mount_that_nobody_saw_wins_if_it_is_later() {
    let (pair, stores) = pair();
    pair.a.save("longer", b"first");
    pair.a.save("shorter", b"first and more");
    pair.a.flush();
    assert_eq!(pair.b.read("longer"), b"first");
    std::fs::write(stores[1].join("longer"), b"second version").unwrap();
    std::fs::write(stores[1].join("shorter"), b"2nd").unwrap();
    let said = verify(&pair.a, &[], 1);
    assert!(
        said.contains("longer: content differs in group 0") && said.contains("shorter: content"),
        "{said}"
    );
    verify(&pair.a, &["--repair"], 11);
    pair.b.flush_with_conflicts();
    let files = pair.compare();
    let bytes = |name: &str| files[std::ffi::OsStr::new(name)].bytes.clone();
    assert_eq!((bytes("longer"), bytes("shorter")), (b"second version".to_vec(), b"2nd".to_vec()));
    let mut all: Vec<Vec<u8>> = files.values().map(|f| f.bytes.clone()).collect();
    all.sort();
    assert_eq!(all, [&b"2nd"[..], b"first", b"first and more", b"second version"]);
    verify(&pair.b, &[], 0);
    finish(pair);
}

#[test]
fn an_edit_below_the_mount_that_is_older_is_kept_once_beside_the_later() {
    let (pair, stores) = pair();
    pair.a.save("f", b"from the mount");
    pair.a.flush();
    std::fs::write(stores[1].join("f"), b"older").unwrap();
    pair.a.run(&["touch", "-d", "2001-01-01", stores[1].join("f").to_str().unwrap()]);
    verify(&pair.b, &["--repair"], 11);
    pair.b.flush_with_conflicts();
    let mut all: Vec<Vec<u8>> = pair.compare().into_values().map(|f| f.bytes).collect();
    all.sort();
    assert_eq!(
        (all, pair.a.read("f")),
        (vec![b"from the mount".to_vec(), b"older".to_vec()], b"from the mount".to_vec())
    );
    verify(&pair.a, &[], 0);
    finish(pair);
}

#[test]
fn attributes_that_differ_are_told_and_become_the_same() {
    let (pair, stores) = pair();
    pair.a.save("f", b"content");
    pair.a.flush();
    pair.b.run(&["chmod", "600", stores[1].join("f").to_str().unwrap()]);
    let said = verify(&pair.a, &[], 1);
    assert!(said.starts_with("f: attributes differ"), "{said}");
    verify(&pair.a, &["--repair"], 0);
    pair.compare();
    verify(&pair.b, &[], 0);
    finish(pair);
}

#[test]
fn what_is_gone_below_the_mount_is_said_to_be_unreadable() {
    let (pair, stores) = pair();
    pair.a.save("f", b"content");
    pair.a.flush();
    std::fs::remove_file(stores[1].join("f")).unwrap();
    assert!(verify(&pair.a, &[], 1).starts_with("f: can't be read from the disk of the peer"));
    let said = verify(&pair.b, &["--repair"], 1);
    assert!(said.contains("f: can't be read from the disk here") && said.contains("not repaired"), "{said}");
}

#[test]
fn without_the_peer_or_while_changes_are_under_way_nothing_is_verified() {
    let (mut pair, _) = pair();
    // It stays connected, and takes nothing.
    pair.b.daemon().stand_still();
    pair.a.save("f", b"content");
    let words = verify(&pair.a, &[], 5);
    assert!(words.contains("not yet on the peer: 1 (f)") && words.contains("syncfs flush"), "{words}");
    pair.b.daemon().signal(Signal::CONT);
    pair.a.flush();
    verify(&pair.a, &[], 0);
    pair.b.unmount();
    until("the peer is gone", || pair.a.status()["peer"]["connected"] == false);
    let words = verify(&pair.a, &[], 5);
    assert!(words.contains("the peer is not there") && words.contains("try again later"), "{words}");
}
