//! A host that has lost its state, its directory or both meets the one that has not: nothing is deleted for it.

use crate::rig::{Host, Item, Pair, until};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;

/// Two hosts that were together, both unmounted, and what they have.
fn together() -> (Pair, BTreeMap<OsString, Item>) {
    let mut pair = Pair::mounted();
    for n in 0..20 {
        pair.a.save(format!("file {n}"), format!("content {n}").repeat(n * 50 + 1).as_bytes());
    }
    pair.b.save("of b", b"made there");
    pair.b.flush();
    let all = pair.compare();
    assert!(pair.b.unmount().success());
    (pair, all)
}

fn shared(host: &Host) -> Vec<OsString> {
    let names = fs::read_dir(&host.dir).unwrap().map(|entry| entry.unwrap().file_name());
    names.filter(|name| name != ".syncfs").collect()
}

#[track_caller]
fn ends_with(mut pair: Pair, all: &BTreeMap<OsString, Item>) {
    pair.b.flush();
    assert_eq!(&pair.compare(), all, "nothing is missing, and nothing is called a conflict");
    for host in [&mut pair.a, &mut pair.b] {
        assert!(host.unmount().success());
    }
}

#[test]
fn who_lost_the_metadata_is_together_with_the_peer_again_at_once() {
    let (mut pair, all) = together();
    for lost in ["meta.db", "meta.db-wal", "meta.db-shm"] {
        let _ = fs::remove_file(pair.b.dir.join(".syncfs").join(lost));
    }
    fs::remove_dir_all(pair.b.dir.join(".syncfs/journal")).unwrap();
    pair.b.start();
    ends_with(pair, &all);
}

#[test]
fn who_lost_the_directory_gets_it_back() {
    let (mut pair, all) = together();
    for name in shared(&pair.b) {
        fs::remove_file(pair.b.dir.join(name)).unwrap();
    }
    pair.b.start();
    ends_with(pair, &all);
}

#[test]
fn who_lost_all_of_its_state_is_a_stranger_until_somebody_says_otherwise() {
    for with_files in [true, false] {
        let (mut pair, all) = together();
        fs::remove_dir_all(pair.b.dir.join(".syncfs")).unwrap();
        if !with_files {
            shared(&pair.b).iter().for_each(|name| fs::remove_file(pair.b.dir.join(name)).unwrap());
        }
        pair.b.start();
        let told = |host: &Host| host.status()["peer"]["last_error"].to_string().contains("--new-peer");
        until("both say what to type", || told(&pair.a) && told(&pair.b));
        assert_eq!(shared(&pair.a).len(), all.len(), "nothing is gone on the other side");
        assert!(pair.a.unmount().success());
        pair.a.flag("--new-peer");
        pair.a.start();
        ends_with(pair, &all);
    }
}
