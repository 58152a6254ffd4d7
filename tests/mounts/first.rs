//! Two filled directories that meet for the first time, and how they become one.

use crate::rig::{Host, Pair, until};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, SystemTime};

/// Files by name, with what is in them.
type Files = BTreeMap<String, String>;

/// What both directories hold before they are mounted: A, B and X here, A, C and another X, made later, there.
fn two_directories(first: [&str; 2]) -> Pair {
    let mut pair = Pair::new();
    for (host, own, mode) in [(&mut pair.a, "B", first[0]), (&mut pair.b, "C", first[1])] {
        let write = |name: &str, text: &str, day: u64| {
            fs::write(host.dir.join(name), text).unwrap();
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + day * 86_400);
            let file = fs::File::options().write(true).open(host.dir.join(name)).unwrap();
            file.set_modified(time).unwrap();
        };
        write("A", "the same on both", 1);
        write(own, &format!("only one has {own}"), 1);
        write("X", if own == "B" { "X of a" } else { "X of b" }, if own == "B" { 2 } else { 3 });
        host.option("--first-sync", mode.as_ref());
    }
    pair
}

fn shown(host: &Host) -> Files {
    let read = |name: std::ffi::OsString| {
        let text = String::from_utf8(host.read(&name)).unwrap();
        (name.into_string().unwrap(), text)
    };
    fs::read_dir(&host.dir).unwrap().map(|entry| read(entry.unwrap().file_name())).collect()
}

/// Both are mounted with these modes and become level; returns what both show, conflict copies apart.
fn meet(first: [&str; 2]) -> (Files, Vec<String>) {
    let mut pair = two_directories(first);
    pair.a.start();
    pair.b.start();
    pair.a.flush_with_conflicts();
    let (a, b) = (shown(&pair.a), shown(&pair.b));
    assert_eq!(a, b);
    let (copies, files): (Files, Files) =
        a.into_iter().partition(|(name, _)| name.contains(".sync-conflict-"));
    let thrown = |host: &mut Host| -> Vec<String> {
        assert!(host.unmount().success());
        let entries = fs::read_dir(host.dir.join(".syncfs/trash")).unwrap();
        let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort_by_key(|name| name.rsplit('-').next().map(str::to_owned));
        names
    };
    let thrown = [thrown(&mut pair.a), thrown(&mut pair.b)].concat();
    let lost = copies.into_values().chain(thrown.into_iter().map(|entry| {
        let original = entry.rsplit('-').next().unwrap().to_owned();
        format!("thrown away: {original}")
    }));
    (files, lost.collect())
}

fn files(expected: &[(&str, &str)]) -> Files {
    expected.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
}

const A: (&str, &str) = ("A", "the same on both");
const B: (&str, &str) = ("B", "only one has B");
const C: (&str, &str) = ("C", "only one has C");

#[test]
fn newest_keeps_all_files_and_of_each_name_the_later_one() {
    let (shown, lost) = meet(["newest", "newest"]);
    assert_eq!(shown, files(&[A, B, C, ("X", "X of b")]));
    assert_eq!(lost, ["X of a"]);
}

#[test]
fn local_keeps_all_files_and_of_each_name_the_one_of_this_side() {
    let (shown, lost) = meet(["local", "peer"]);
    assert_eq!(shown, files(&[A, B, C, ("X", "X of a")]));
    assert_eq!(lost, ["X of b"]);
}

#[test]
fn peer_keeps_all_files_and_of_each_name_the_one_of_the_other_side() {
    let (shown, lost) = meet(["peer", "local"]);
    assert_eq!(shown, files(&[A, B, C, ("X", "X of b")]));
    assert_eq!(lost, ["X of a"]);
}

#[test]
fn mirror_local_makes_the_peer_as_this_side_is() {
    let (shown, lost) = meet(["mirror-local", "mirror-peer"]);
    assert_eq!(shown, files(&[A, B, ("X", "X of a")]));
    assert_eq!(lost, ["thrown away: C", "thrown away: X"]);
}

#[test]
fn mirror_peer_makes_this_side_as_the_peer_is() {
    let (shown, lost) = meet(["mirror-peer", "mirror-local"]);
    assert_eq!(shown, files(&[A, C, ("X", "X of b")]));
    assert_eq!(lost, ["thrown away: B", "thrown away: X"]);
}

#[test]
fn hosts_that_disagree_on_how_to_become_one_stay_apart_and_say_why() {
    let mut pair = two_directories(["mirror-local", "newest"]);
    pair.a.start();
    pair.b.start();
    let why = |host: &Host| host.status().to_string().contains("disagree on how to become one");
    until("both say why", || why(&pair.a) && why(&pair.b));
    assert_eq!(shown(&pair.a), files(&[A, B, ("X", "X of a")]));
    assert_eq!(shown(&pair.b), files(&[A, C, ("X", "X of b")]));
    for host in [&mut pair.a, &mut pair.b] {
        assert!(host.unmount().success());
    }
}

/// Equal but for their times, which become the later ones; nothing is called a conflict.
#[test]
fn equal_files_with_other_times_are_one_file_with_the_later_time() {
    let mut pair = Pair::new();
    for (host, day) in [(&pair.a, 5), (&pair.b, 4)] {
        fs::write(host.dir.join("f"), "the same").unwrap();
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + day * 86_400);
        fs::File::options().write(true).open(host.dir.join("f")).unwrap().set_modified(time).unwrap();
    }
    pair.a.start();
    pair.b.start();
    pair.a.flush();
    let later = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000 + 5 * 86_400);
    for host in [&pair.a, &pair.b] {
        assert_eq!(shown(host), files(&[("f", "the same")]));
        assert_eq!(fs::metadata(host.path("f")).unwrap().modified().unwrap(), later);
    }
    pair.finish();
}
