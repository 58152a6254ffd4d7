//! Conflicts: both versions are listed on both hosts, and whoever decides decides for both.

use crate::rig::{Pair, SYNCFS};
use std::process::{Command, Output};

/// Both hosts have changed `plan.txt` while apart, `b` later.
fn in_conflict() -> Pair {
    let mut pair = Pair::mounted();
    pair.a.save("plan.txt", b"draft");
    pair.a.flush();
    pair.contest("plan.txt");
    pair
}

fn text(output: &[u8]) -> String {
    String::from_utf8_lossy(output).into_owned()
}

fn resolve(pair: &Pair, file: &str, keep: &str) -> Output {
    let mut command = Command::new(SYNCFS);
    command.arg("resolve").arg(pair.a.path(file)).args(["--keep", keep]).output().unwrap()
}

#[track_caller]
fn resolved(pair: &Pair, file: &str, keep: &str) {
    let output = resolve(pair, file, keep);
    assert!(output.status.success(), "{}", text(&output.stderr));
}

fn copy(pair: &Pair) -> String {
    pair.a.ls().into_iter().find(|name| name.contains(".sync-conflict-")).expect("a conflict copy")
}

#[test]
fn a_conflict_is_listed_on_both_hosts_with_both_versions() {
    let pair = in_conflict();
    let copy = copy(&pair);
    for (host, side) in [(&pair.a, "of here"), (&pair.b, "of peer")] {
        let output = host.syncfs(&["conflicts"]);
        assert_eq!(output.status.code(), Some(11));
        let listed = text(&output.stdout);
        assert!(listed.starts_with("plan.txt\n"), "{listed}");
        let row = listed.lines().find(|line| line.contains(&copy)).expect("the copy is listed");
        assert!(
            row.contains(side) && row.contains("2026-01-01 00:00:00 UTC") && row.contains("4 bytes"),
            "{row}"
        );
        let json: serde_json::Value =
            serde_json::from_slice(&host.syncfs(&["conflicts", "--json"]).stdout).unwrap();
        assert_eq!((&json[0]["file"], &json[0]["this"]["size"]), (&"plan.txt".into(), &11.into()));
        assert_eq!(json[0]["copies"][0]["file"], copy.as_str());
    }
}

#[test]
fn what_was_decided_holds_on_both_hosts() {
    for (keep, by_copy, kept) in [
        ("this", false, "of b, later"),
        ("other", false, "of a"),
        ("this", true, "of a"),
        ("other", true, "of b, later"),
    ] {
        let pair = in_conflict();
        let file = if by_copy { copy(&pair) } else { "plan.txt".into() };
        resolved(&pair, &file, keep);
        pair.a.flush();
        assert_eq!(pair.b.syncfs(&["conflicts"]).status.code(), Some(0), "{keep} {by_copy}");
        let found = pair.finish();
        assert_eq!(found.len(), 1, "{keep} {by_copy}");
        assert_eq!(text(&found[std::ffi::OsStr::new("plan.txt")].bytes), kept, "{keep} {by_copy}");
    }
}

#[test]
fn kept_both_no_conflict_is_left_and_no_version_is_lost() {
    let pair = in_conflict();
    resolved(&pair, "plan.txt", "both");
    pair.a.flush();
    let found = pair.finish();
    let mut versions: Vec<String> = found.values().map(|item| text(&item.bytes)).collect();
    versions.sort();
    assert_eq!(versions, ["of a", "of b, later"]);
    assert!(
        found.keys().any(|name| name.to_string_lossy().starts_with("plan (20260101-000000-")),
        "{:?}",
        found.keys()
    );
}

#[test]
fn what_is_in_no_conflict_is_left_alone() {
    let pair = in_conflict();
    pair.a.save("other", b"calm");
    for (file, why) in [("other", "has no conflict copy"), ("nothing", "no such file")] {
        let output = resolve(&pair, file, "other");
        assert_eq!(output.status.code(), Some(1));
        assert!(text(&output.stderr).contains(why), "{}", text(&output.stderr));
    }
    assert_eq!(pair.a.read("other"), b"calm");
}
