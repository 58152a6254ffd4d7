//! What editors and the usual tools do to files.

use crate::rig::{Item, PATIENCE, Pair, Program, errno, noise, run, until};
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::Instant;

#[test]
fn tail_f_follows_a_log_that_the_other_host_writes() {
    let pair = Pair::mounted();
    let mut log = File::create(pair.a.path("log")).unwrap();
    writeln!(log, "line 0").unwrap();
    until("the log is on B", || pair.b.has("log", b"line 0\n"));
    let tail = Program::start(&pair.b.dir, &["tail", "-n", "+1", "-s", "0.05", "-f", "log"]);
    assert_eq!(tail.line(), "line 0");
    // The writer never closes the file: what it writes comes over within a second or so.
    for n in 1..=3 {
        writeln!(log, "line {n}").unwrap();
        assert_eq!(tail.line(), format!("line {n}"));
    }
    // With a sync it comes at once; so does what another program appends.
    for n in 4..=10 {
        writeln!(log, "line {n}").unwrap();
        log.sync_all().unwrap();
        assert_eq!(tail.line(), format!("line {n}"));
    }
    for n in 11..=20 {
        pair.a.run(&["sh", "-c", &format!("echo line {n} >> log")]);
        assert_eq!(tail.line(), format!("line {n}"));
    }
    drop((tail, log));
    pair.finish();
}

#[test]
fn two_hosts_append_to_one_log_in_turn() {
    let pair = Pair::mounted();
    pair.a.save("log", b"");
    pair.a.flush();
    let open = |path| OpenOptions::new().append(true).open(path).unwrap();
    // Both keep it open all the time.
    let (mut of_a, mut of_b) = (open(pair.a.path("log")), open(pair.b.path("log")));
    let mut whole = String::new();
    for n in 0..12 {
        let (host, log) = if n % 2 == 0 { (&pair.a, &mut of_a) } else { (&pair.b, &mut of_b) };
        let line = format!("line {n} of {}\n", host.dir.file_name().unwrap().display());
        whole += &line;
        log.write_all(line.as_bytes()).unwrap();
        host.flush();
        assert_eq!(String::from_utf8_lossy(&pair.a.read("log")), whole);
        assert_eq!(String::from_utf8_lossy(&pair.b.read("log")), whole);
    }
    drop((of_a, of_b));
    assert_eq!(pair.finish().len(), 1);
}

#[test]
fn an_editor_saves_by_writing_aside_and_renaming() {
    let pair = Pair::mounted();
    pair.a.save("text", b"first\n");
    until("B has the first", || pair.b.has("text", b"first\n"));
    for n in 0..5 {
        let text = noise(n, 30_000);
        // With a backup, as vim does it.
        std::fs::rename(pair.a.path("text"), pair.a.path("text~")).unwrap();
        let mut aside = File::create_new(pair.a.path(".text.swp")).unwrap();
        aside.write_all(&text).unwrap();
        aside.sync_all().unwrap();
        drop(aside);
        std::fs::rename(pair.a.path(".text.swp"), pair.a.path("text")).unwrap();
        std::fs::remove_file(pair.a.path("text~")).unwrap();
        until("B has the save", || pair.b.has("text", &text));
        // And in one step over the old one.
        let text = noise(n + 100, 20_000);
        pair.a.save("4913", &text);
        File::open(pair.a.path("4913")).unwrap().sync_all().unwrap();
        std::fs::rename(pair.a.path("4913"), pair.a.path("text")).unwrap();
        until("B has the second save", || pair.b.has("text", &text));
    }
    assert_eq!(pair.finish().len(), 1);
}

#[test]
fn a_save_never_leaves_the_name_empty_on_the_other_host() {
    saves_while_reading(|pair, text| until("B has the save", || pair.b.has("text", text)));
}

#[test]
fn saves_in_quick_succession_never_leave_the_name_empty_on_the_other_host() {
    saves_while_reading(|_, _| {});
}

/// Saves on A by renaming over, with `after` each save, while somebody opens the file on B all the time.
fn saves_while_reading(after: impl Fn(&Pair, &[u8])) {
    const SAVES: usize = 30;
    let pair = Pair::mounted();
    let texts: Vec<Vec<u8>> = (0..=SAVES as u64).map(|n| noise(n, 50_000)).collect();
    pair.a.save("text", &texts[0]);
    pair.a.flush();
    let on_b = &pair.b.path("text");
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut last = 0;
            while last < SAVES {
                let found = std::fs::read(on_b).unwrap();
                // The state of a save, whole, and never an earlier one than before.
                last = (last..=SAVES).find(|n| texts[*n] == found).expect("a whole save, and no older one");
            }
        });
        for text in &texts[1..] {
            pair.a.save("aside", text);
            std::fs::rename(pair.a.path("aside"), pair.a.path("text")).unwrap();
            after(&pair, text);
        }
        reader.join().unwrap();
    });
    pair.finish();
}

#[test]
fn sed_cp_and_mv_arrive() {
    let pair = Pair::mounted();
    pair.a.save("poem", b"roses are red\nviolets are blue\n");
    pair.a.run(&["chmod", "640", "poem"]);
    pair.a.run(&["setfattr", "-n", "user.colour", "-v", "red", "poem"]);
    pair.a.run(&["sed", "-i", "s/roses/tulips/", "poem"]);
    until("B has the new words", || pair.b.has("poem", b"tulips are red\nviolets are blue\n"));
    pair.a.run(&["setfattr", "-n", "user.colour", "-v", "red", "poem"]);
    pair.a.run(&["touch", "-d", "2001-02-03 04:05:06.789012345", "poem"]);
    pair.a.run(&["cp", "-p", "poem", "copy"]);
    pair.a.run(&["cp", "-a", "poem", "twin"]);
    pair.a.run(&["mv", "poem", "verse"]);
    let files = pair.assert_same();
    assert_eq!(pair.b.ls(), ["copy", "twin", "verse"]);
    assert_eq!(files["copy".as_ref() as &std::ffi::OsStr].mtime, (981_173_106, 789_012_345));
    assert_eq!(pair.b.run(&["getfattr", "--only-values", "-n", "user.colour", "twin"]), "red");
    // From outside and back, over file systems.
    let outside = pair.root.path().join("outside");
    std::fs::write(&outside, noise(1, 300_000)).unwrap();
    let before = Item::of(&outside);
    run(&pair.a.dir, &["mv", outside.to_str().unwrap(), "moved"]);
    pair.a.flush();
    assert_eq!(Item::of(&pair.b.path("moved")), before);
    run(&pair.b.dir, &["mv", "moved", outside.to_str().unwrap()]);
    assert_eq!(Item::of(&outside), before);
    until("A sees it leave", || !pair.a.path("moved").exists());
    pair.finish();
}

#[test]
fn rsync_copies_once_and_has_nothing_to_do_the_second_time() {
    let pair = Pair::mounted();
    let source = pair.root.path().join("source");
    std::fs::create_dir(&source).unwrap();
    for n in 0..30u64 {
        std::fs::write(source.join(format!("file {n}")), noise(n, (n * n * 300) as usize)).unwrap();
    }
    let rsync = |host: &Path| {
        let (from, to) = (format!("{}/", source.display()), format!("{}/", host.display()));
        run(Path::new("/"), &["rsync", "-a", "-X", "-i", &from, &to])
    };
    let files = |report: String| report.lines().filter(|line| line.starts_with(">f")).count();
    assert_eq!(files(rsync(&pair.a.dir)), 30);
    assert_eq!(rsync(&pair.a.dir), "");
    pair.a.flush();
    // The other host has them just so: times, modes and all.
    assert_eq!(files(rsync(&pair.b.dir)), 0);
    // A change is found and sent over the old file.
    std::fs::write(source.join("file 7"), "new\n").unwrap();
    assert_eq!(files(rsync(&pair.a.dir)), 1);
    until("B has the change", || pair.b.has("file 7", b"new\n"));
    run(&source, &["sh", "-c", "printf more >> 'file 29'"]);
    let inplace = format!("{}/", pair.a.dir.display());
    run(&source, &["rsync", "-a", "--inplace", "--no-whole-file", "file 29", &inplace]);
    assert_eq!(pair.finish().len(), 30);
}

#[test]
fn a_flat_archive_unpacks_with_times_and_modes() {
    let pair = Pair::mounted();
    let source = pair.root.path().join("source");
    std::fs::create_dir(&source).unwrap();
    for n in 0..40u64 {
        std::fs::write(source.join(format!("f{n}")), noise(n, (n * 700) as usize)).unwrap();
    }
    run(&source, &["chmod", "600", "f1", "f2", "f3"]);
    run(&source, &["chmod", "4755", "f4"]);
    run(&source, &["touch", "-d", "1999-12-31 23:59:59.5", "f5", "f6"]);
    run(&source, &["setfattr", "-n", "user.note", "-v", "kept", "f7"]);
    run(&source, &["sh", "-c", "tar --xattrs --format=posix -cf ../flat.tar f*"]);
    pair.a.run(&["tar", "--xattrs", "-xpf", "../flat.tar"]);
    let files = pair.assert_same();
    assert_eq!(files.len(), 40);
    for (name, item) in files {
        assert_eq!(item, Item::of(&source.join(&name)), "{name:?}");
    }
    pair.finish();
}

#[test]
fn dd_truncate_and_fallocate_change_a_file_in_place() {
    let pair = Pair::mounted();
    let mut bytes = noise(1, 1_000_000);
    pair.a.save("disk", &bytes);
    pair.a.flush();
    let same = |bytes: &[u8], what: &str| {
        assert!(pair.a.has("disk", bytes), "A: {what}");
        until(what, || pair.b.has("disk", bytes));
    };
    let patch = pair.root.path().join("patch");
    std::fs::write(&patch, noise(2, 5_000)).unwrap();
    let from = format!("if={}", patch.display());
    pair.a.run(&["dd", &from, "of=disk", "bs=1000", "seek=123", "conv=notrunc", "status=none"]);
    bytes[123_000..128_000].copy_from_slice(&noise(2, 5_000));
    same(&bytes, "dd into the middle");
    pair.a.run(&["truncate", "-s", "600500", "disk"]);
    bytes.truncate(600_500);
    same(&bytes, "shorter");
    pair.a.run(&["truncate", "-s", "700123", "disk"]);
    bytes.resize(700_123, 0);
    same(&bytes, "longer, and no old bytes come back");
    pair.a.run(&["fallocate", "-p", "-o", "100000", "-l", "250000", "disk"]);
    bytes[100_000..350_000].fill(0);
    same(&bytes, "a hole");
    pair.a.run(&["fallocate", "-o", "700000", "-l", "50000", "disk"]);
    bytes.resize(750_000, 0);
    same(&bytes, "allocated beyond the end");
    pair.a.run(&["fallocate", "-n", "-o", "0", "-l", "900000", "disk"]);
    same(&bytes, "allocated without growing");
    pair.a.run(&["sh", "-c", "printf new > disk"]);
    same(b"new", "emptied by opening and written anew");
    // Far out, and a hole before it.
    let far = OpenOptions::new().write(true).open(pair.a.path("disk")).unwrap();
    far.write_all_at(b"far", 5_000_000_000).unwrap();
    drop(far);
    pair.a.flush();
    let on_b = File::open(pair.b.path("disk")).unwrap();
    assert_eq!(on_b.metadata().unwrap().len(), 5_000_000_003);
    let mut tail = [0; 4];
    on_b.read_exact_at(&mut tail, 4_999_999_999).unwrap();
    assert_eq!(&tail, b"\0far");
    drop(on_b);
    pair.b.run(&["truncate", "-s", "3", "disk"]);
    assert_eq!(pair.finish()["disk".as_ref() as &std::ffi::OsStr].bytes, b"new");
}

#[test]
fn holes_are_found_and_skipped() {
    let pair = Pair::mounted();
    let file = File::create_new(pair.a.path("sparse")).unwrap();
    file.write_all_at(&[1; 4096], 0).unwrap();
    file.write_all_at(&[2; 4096], 8 << 20).unwrap();
    file.set_len(16 << 20).unwrap();
    let seek = |file: &File, from| rustix::fs::seek(file, from);
    use rustix::fs::SeekFrom::{Data, Hole};
    use rustix::io::Errno;
    let check = |file: &File, slack: u64| {
        assert_eq!(seek(file, Data(0)), Ok(0));
        let hole = seek(file, Hole(0)).unwrap();
        assert!((4096..=4096 + slack).contains(&hole), "{hole}");
        let data = seek(file, Data(1 << 20)).unwrap();
        assert!(((8 << 20) - slack..=8 << 20).contains(&data), "{data}");
        let hole = seek(file, Hole(8 << 20)).unwrap();
        assert!(((8 << 20) + 4096..=(8 << 20) + 4096 + slack).contains(&hole), "{hole}");
        assert_eq!(seek(file, Data(15 << 20)), Err(Errno::NXIO));
        assert_eq!(seek(file, Hole(15 << 20)), Ok(15 << 20));
        assert_eq!(seek(file, Hole(16 << 20)), Err(Errno::NXIO));
    };
    check(&file, 0);
    drop(file);
    pair.a.flush();
    // A hole stays one over there: what is not there takes no room.
    let on_b = File::open(pair.b.path("sparse")).unwrap();
    check(&on_b, 1 << 20);
    drop(on_b);
    let copy = pair.root.path().join("copy");
    pair.b.run(&["cp", "--sparse=auto", "sparse", copy.to_str().unwrap()]);
    assert_eq!(std::fs::read(&copy).unwrap(), pair.a.read("sparse"));
    assert!(copy.metadata().unwrap().blocks() * 512 < 4 << 20);
    pair.finish();
}

#[test]
fn an_unlinked_file_lives_on_while_it_is_open() {
    let pair = Pair::mounted();
    pair.a.save("f", &noise(1, 100_000));
    pair.a.flush();
    let on_b = File::open(pair.b.path("f")).unwrap();
    let mut file = OpenOptions::new().read(true).write(true).open(pair.a.path("f")).unwrap();
    std::fs::remove_file(pair.a.path("f")).unwrap();
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    file.write_all(b"still").unwrap();
    file.seek(SeekFrom::Start(0)).unwrap();
    let mut found = Vec::new();
    file.read_to_end(&mut found).unwrap();
    let mut expected = noise(1, 100_000);
    expected[..5].copy_from_slice(b"still");
    assert!(found == expected);
    file.set_len(10).unwrap();
    file.sync_all().unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10);
    until("the name is gone on B", || !pair.b.path("f").exists());
    // Whoever has it open there keeps it as it was when the name went.
    let mut found = vec![0; 100_000];
    on_b.read_exact_at(&mut found, 0).unwrap();
    assert!(found == noise(1, 100_000));
    // A new file of that name is another one.
    pair.a.save("f", b"new");
    until("the new one is on B", || pair.b.has("f", b"new"));
    assert_eq!(file.metadata().unwrap().len(), 10);
    drop((file, on_b));
    pair.finish();
}

#[test]
fn mode_times_and_attributes_arrive_without_a_change_of_content() {
    let pair = Pair::mounted();
    pair.a.save("f", &noise(1, 3_000_000));
    pair.a.flush();
    let sent = || pair.a.status()["sent_bytes"].as_u64().unwrap();
    let before = sent();
    pair.a.run(&["chmod", "2751", "f"]);
    pair.a.run(&["touch", "-d", "1969-12-31 23:59:58.25 UTC", "f"]);
    pair.a.run(&["setfattr", "-n", "user.empty", "f"]);
    pair.a.run(&["setfattr", "-n", "user.odd", "-v", "0x00ff0a", "f"]);
    let item = pair.assert_same().remove("f".as_ref() as &std::ffi::OsStr).unwrap();
    assert_eq!((item.mode & 0o7777, item.mtime), (0o2751, (-2, 250_000_000)));
    assert_eq!(item.attributes["user.odd".as_ref() as &std::ffi::OsStr], [0, 0xff, 0x0a]);
    assert_eq!(pair.b.run(&["stat", "-c", "%a %Y", "f"]), "2751 -2\n");
    pair.b.run(&["setfattr", "-x", "user.odd", "f"]);
    pair.b.run(&["chmod", "600", "f"]);
    pair.assert_same();
    assert_eq!(pair.a.run(&["stat", "-c", "%a", "f"]), "600\n");
    let output = crate::rig::try_run(&pair.a.dir, &["getfattr", "-n", "user.odd", "f"]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("No such attribute"));
    assert!(sent() - before < 20_000, "{} bytes", sent() - before);
    pair.finish();
}

#[test]
fn exclusive_creation_works_on_both_sides() {
    let pair = Pair::mounted();
    // B has asked for the name before: the kernel remembers that there was none.
    assert!(!pair.b.path("lock").exists());
    File::create_new(pair.a.path("lock")).unwrap();
    assert_eq!(errno(File::create_new(pair.a.path("lock"))), libc::EEXIST);
    pair.a.flush();
    assert_eq!(errno(File::create_new(pair.b.path("lock"))), libc::EEXIST);
    std::fs::remove_file(pair.b.path("lock")).unwrap();
    pair.b.flush();
    File::create_new(pair.a.path("lock")).unwrap();
    pair.finish();
}

#[test]
fn a_close_is_seen_on_the_other_host_at_once() {
    let pair = Pair::mounted();
    pair.a.save("f", b"0");
    pair.a.flush();
    let mut slowest = 0;
    for n in 1..=20 {
        let text = format!("{n}");
        pair.a.save("f", text.as_bytes());
        let closed = Instant::now();
        until("B has it", || pair.b.has("f", text.as_bytes()));
        slowest = slowest.max(closed.elapsed().as_millis());
    }
    // Far below the second after which an open file is cut; the machine may be busy.
    assert!(slowest < 900 && slowest < PATIENCE.as_millis(), "{slowest} ms");
    pair.finish();
}

#[test]
fn a_write_through_is_on_the_other_host_when_a_flush_returns() {
    let pair = Pair::mounted();
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .custom_flags(libc::O_SYNC)
        .open(pair.a.path("f"));
    let file = file.unwrap();
    file.write_all_at(b"hello", 3).unwrap();
    pair.a.flush();
    assert_eq!(pair.b.read("f"), b"\0\0\0hello");
    drop(file);
    pair.finish();
}
