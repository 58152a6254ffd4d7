//! What a reader on one host sees of the changes on the other, without doing anything about it.

use crate::rig::{Pair, noise, until, wait_for};
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};

#[test]
fn an_open_descriptor_shows_remote_edits() {
    let pair = Pair::mounted();
    pair.a.save("f", &noise(0, 50_000));
    pair.a.flush();
    let file = File::open(pair.b.path("f")).unwrap();
    let read = || {
        let mut bytes = vec![0; file.metadata().unwrap().len() as usize];
        file.read_exact_at(&mut bytes, 0).map(|()| bytes).unwrap_or_default()
    };
    assert!(read() == noise(0, 50_000));
    // Edited, longer, shorter, emptied and filled again.
    for (n, length) in [50_000, 80_000, 3, 120_000, 40_000].into_iter().enumerate() {
        let bytes = noise(n as u64 + 1, length);
        pair.a.save("f", &bytes);
        until("the descriptor shows it", || read() == bytes);
    }
    drop(file);
    pair.finish();
}

#[test]
fn a_descriptor_of_a_writer_shows_remote_edits() {
    let pair = Pair::mounted();
    pair.a.save("f", b"before");
    pair.a.flush();
    let file = File::options().read(true).write(true).open(pair.b.path("f")).unwrap();
    let read = || {
        let mut bytes = [0; 6];
        file.read_exact_at(&mut bytes, 0).map(|()| bytes).unwrap()
    };
    assert_eq!(&read(), b"before");
    pair.a.save("f", b"after!");
    until("the descriptor shows it", || &read() == b"after!");
    file.write_all_at(b"AF", 0).unwrap();
    drop(file);
    until("A has the answer", || pair.a.has("f", b"AFter!"));
    assert_eq!(pair.finish().len(), 1);
}

#[test]
fn a_file_that_was_not_there_is_found_when_it_comes() {
    let pair = Pair::mounted();
    for n in 0..5 {
        let name = format!("new {n}");
        assert!(!pair.b.path(&name).exists());
        pair.a.save(&name, b"here");
        until("B finds it", || pair.b.has(&name, b"here"));
        std::fs::remove_file(pair.a.path(&name)).unwrap();
        until("B sees it go", || !pair.b.path(&name).exists());
    }
    // By another name, too.
    assert!(!pair.b.path("target").exists());
    pair.a.save("source", b"x");
    std::fs::rename(pair.a.path("source"), pair.a.path("target")).unwrap();
    until("B finds the new name", || pair.b.has("target", b"x"));
    assert!(!pair.b.path("source").exists());
    pair.finish();
}

#[test]
fn ls_shows_what_the_other_host_adds_renames_and_removes() {
    let pair = Pair::mounted();
    let shows = |names: &[&str]| until(&format!("ls shows {names:?}"), || pair.b.ls() == names);
    shows(&[]);
    pair.a.run(&["touch", "one", "two", "three"]);
    shows(&["one", "three", "two"]);
    pair.a.run(&["mv", "one", "uno"]);
    shows(&["three", "two", "uno"]);
    pair.a.run(&["mv", "two", "three"]);
    shows(&["three", "uno"]);
    pair.a.run(&["rm", "three"]);
    shows(&["uno"]);
    pair.a.run(&["sh", "-c", "seq 1 1000 | xargs touch; rm uno"]);
    until("ls shows a thousand", || pair.b.ls().len() == 1000);
    pair.a.run(&["sh", "-c", "rm *"]);
    shows(&[]);
    pair.finish();
}

#[test]
fn sizes_and_times_in_ls_are_those_of_the_last_edit() {
    let pair = Pair::mounted();
    let show = |host: &crate::rig::Host| host.run(&["stat", "-c", "%s %y %a", "f"]);
    for n in 1..6u64 {
        pair.a.save("f", &noise(n, n as usize * 1_234));
        until("B shows it", || pair.b.path("f").exists() && show(&pair.b) == show(&pair.a));
    }
    pair.finish();
}

#[test]
fn a_large_new_file_is_listed_whole_at_once_and_readable_from_the_middle() {
    let mut pair = Pair::new();
    const SIZE: usize = 96_000_000;
    let bytes = noise(1, SIZE);
    std::fs::write(pair.a.path("large"), &bytes).unwrap();
    pair.a.start();
    pair.b.start();
    let size = wait_for("it is listed", || pair.b.path("large").metadata().ok().map(|m| m.size()));
    assert_eq!(size, SIZE as u64);
    let file = File::open(pair.b.path("large")).unwrap();
    let mut found = vec![0; 5_000];
    for at in [SIZE - 5_000, SIZE / 2, SIZE / 3, 0] {
        file.read_exact_at(&mut found, at as u64).unwrap();
        assert!(found == bytes[at..at + 5_000], "at {at}");
    }
    let missing = pair.b.status()["missing_chunks"].as_u64().unwrap();
    assert!(missing > 0, "it was all there already: make it larger");
    drop(file);
    // A file not wholly held lies nowhere under its own name, and comes after the next start.
    assert!(pair.b.unmount().success());
    assert!(!pair.b.path("large").exists(), "{missing} chunks were missing");
    pair.b.start();
    pair.finish();
}
