//! What the peer deleted or wrote over is kept for a while, and comes back when somebody asks for it.

use crate::rig::Pair;
use std::process::Output;

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&[&output.stdout[..], &output.stderr[..]].concat()).into_owned()
}

fn restore(host: &crate::rig::Host, words: &[&str]) -> Output {
    let dir = host.dir.to_str().unwrap();
    let words: Vec<&str> =
        ["trash", "restore", words[0], dir].into_iter().chain(words[1..].to_owned()).collect();
    crate::rig::try_run(&host.dir, &[&[crate::rig::SYNCFS], &words[..]].concat())
}

fn list(host: &crate::rig::Host, words: &[&str]) -> String {
    let dir = host.dir.to_str().unwrap();
    crate::rig::run(&host.dir, &[&[crate::rig::SYNCFS, "trash", "list", dir], words].concat())
}

#[test]
fn what_was_deleted_over_there_is_listed_and_comes_back_on_both() {
    let pair = Pair::mounted();
    pair.a.save("notes.txt", b"precious");
    pair.a.run(&["chmod", "640", "notes.txt"]);
    pair.a.flush();
    pair.a.run(&["rm", "notes.txt"]);
    pair.a.flush();
    assert_eq!(pair.b.ls().len(), 0);
    assert_eq!(list(&pair.a, &[]), "the trash is empty\n");
    let listed = list(&pair.b, &[]);
    assert!(listed.contains("8 bytes  notes.txt"), "{listed}");
    let json: serde_json::Value = serde_json::from_str(&list(&pair.b, &["--json"])).unwrap();
    assert_eq!((&json[0]["name"], &json[0]["size"]), (&"notes.txt".into(), &8.into()));
    let entry = json[0]["entry"].as_str().unwrap();
    assert!(entry.ends_with("-notes.txt") && listed.contains(entry), "{listed}");
    assert_eq!(pair.b.status()["trash"]["entries"], 1);
    let output = restore(&pair.b, &["notes.txt"]);
    assert!(output.status.success() && said(&output).contains("is back as notes.txt"), "{}", said(&output));
    assert_eq!(pair.b.status()["trash"]["entries"], 0);
    // It is there at once, though the kernel has been told that there was none.
    assert_eq!(pair.b.read("notes.txt"), b"precious");
    let output = restore(&pair.b, &["notes.txt"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("is not in the trash"), "{}", said(&output));
    let files = pair.finish();
    assert_eq!(files[std::ffi::OsStr::new("notes.txt")].mode & 0o777, 0o640);
}

#[test]
fn what_comes_back_replaces_nothing() {
    let pair = Pair::mounted();
    pair.a.save("f", b"old");
    pair.a.flush();
    // As most editors save: a new file takes the name.
    pair.a.save("f.new", b"new");
    pair.a.run(&["mv", "f.new", "f"]);
    pair.a.flush();
    let output = restore(&pair.b, &["f"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("there is a file f already") && said(&output).contains("--as"),
        "{}",
        said(&output)
    );
    assert_eq!(pair.b.read("f"), b"new");
    let output = restore(&pair.b, &["f", "--as", "f.old"]);
    assert!(output.status.success(), "{}", said(&output));
    let files = pair.finish();
    assert_eq!(files.keys().collect::<Vec<_>>(), ["f", "f.old"]);
    assert_eq!(files[std::ffi::OsStr::new("f.old")].bytes, b"old");
}

#[test]
fn a_program_that_has_a_deleted_file_open_does_not_write_into_what_came_back() {
    use std::io::Write;
    let pair = Pair::mounted();
    pair.b.save("f", b"content");
    pair.b.flush();
    let mut open = std::fs::File::options().append(true).open(pair.b.path("f")).unwrap();
    pair.a.run(&["rm", "f"]);
    pair.a.flush();
    assert!(restore(&pair.b, &["f"]).status.success());
    open.write_all(b" and more").unwrap();
    drop(open);
    assert_eq!(pair.finish()[std::ffi::OsStr::new("f")].bytes, b"content");
}

#[test]
fn a_long_trash_is_listed_to_its_end() {
    let pair = Pair::mounted();
    let name = |n: usize| format!("{}-{n:03}", "\u{1}".repeat(200));
    (0..90).for_each(|n| pair.a.save(name(n), b"x"));
    pair.a.flush();
    (0..90).for_each(|n| std::fs::remove_file(pair.a.path(name(n))).unwrap());
    pair.a.flush();
    let json: serde_json::Value = serde_json::from_str(&list(&pair.b, &["--json"])).unwrap();
    let mut names: Vec<&str> = json.as_array().unwrap().iter().map(|e| e["name"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, (0..90).map(name).collect::<Vec<_>>());
    pair.finish();
}

#[test]
fn without_a_trash_nothing_is_kept() {
    let mut pair = Pair::new();
    pair.b.option("--trash-days", "0".as_ref());
    pair.a.start();
    pair.b.start();
    pair.a.save("f", b"content");
    pair.a.flush();
    pair.a.run(&["rm", "f"]);
    pair.a.flush();
    assert_eq!(list(&pair.b, &[]), "the trash is empty\n");
    pair.finish();
}
