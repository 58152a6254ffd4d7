use super::super::metadata::Stored;
use super::*;
use crate::store::torn::Dice;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;

fn id(n: u64) -> FileId {
    FileId { writer: WriterId(u64::MAX - n % 3), counter: n }
}

fn value(n: u64) -> Vec<u8> {
    vec![n as u8; (n * 31 % 700) as usize]
}

fn fill(meta: &mut Meta, n: u64) {
    meta.commit(n, b"header", &mut (0..n).map(|n| (id(n), value(n))), &[]).unwrap();
}

fn files(stored: Stored) -> BTreeMap<FileId, Vec<u8>> {
    stored.files.into_iter().collect()
}

fn open(dir: &Path) -> (RealDisk, Meta, Opened) {
    let backing = RealDisk::open(dir).unwrap();
    let (meta, opened) = Meta::open(&backing).unwrap();
    (backing, meta, opened)
}

/// A store of 2000 files, closed, all of it in the main file.
fn filled() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    let (_backing, mut meta, _) = open(dir.path());
    fill(&mut meta, 2000);
    meta.sync().unwrap();
    dir
}

#[test]
fn ten_thousand_files_come_back_as_they_were_put() {
    let dir = tempfile::tempdir().unwrap();
    let (backing, mut meta, opened) = open(dir.path());
    assert_eq!((opened, meta.load().unwrap()), (Opened::Fresh, Stored::default()));
    fill(&mut meta, 10_000);
    let gone = [id(6), id(7), id(99_999)];
    meta.commit(u64::MAX, b"", &mut [(id(5), b"new".to_vec())].into_iter(), &gone).unwrap();
    drop((meta, backing));
    let (_backing, mut meta, opened) = open(dir.path());
    assert_eq!(opened, Opened::Existing);
    let stored = meta.load().unwrap();
    assert_eq!((stored.lsn, stored.header.as_deref()), (u64::MAX, Some(&b""[..])));
    let mut wanted: BTreeMap<_, _> = (0..10_000).map(|n| (id(n), value(n))).collect();
    wanted.insert(id(5), b"new".to_vec());
    wanted.remove(&id(6));
    wanted.remove(&id(7));
    assert!(files(stored) == wanted);
}

#[test]
fn the_store_works_on_after_the_directory_is_moved_or_covered() {
    let parent = tempfile::tempdir().unwrap();
    let (before, after) = (parent.path().join("before"), parent.path().join("after"));
    fs::create_dir(&before).unwrap();
    let (backing, mut meta, _) = open(&before);
    fs::rename(&before, &after).unwrap();
    fs::create_dir_all(before.join(".syncfs")).unwrap();
    for n in 1..=50 {
        fill(&mut meta, n * 20);
        if n % 7 == 0 {
            meta.sync().unwrap();
        }
    }
    let log = after.join(".syncfs/meta.db-wal");
    assert!(fs::metadata(&log).unwrap().len() > 0);
    drop(meta);
    assert!(log.exists(), "closing must not delete by path");
    assert_eq!(fs::read_dir(before.join(".syncfs")).unwrap().count(), 0, "written to the covering directory");
    assert!(!after.join(".syncfs/meta.db-shm").exists());
    drop(backing);
    let (_backing, mut meta, opened) = open(&after);
    assert_eq!((opened, meta.load().unwrap().lsn), (Opened::Existing, 1000));
}

#[test]
fn what_was_synced_is_in_the_main_file_alone() {
    let dir = filled();
    fs::remove_file(dir.path().join(".syncfs/meta.db-wal")).unwrap();
    let (_backing, mut meta, opened) = open(dir.path());
    assert_eq!((opened, meta.load().unwrap().files.len()), (Opened::Existing, 2000));
}

#[test]
fn a_commit_outlives_the_daemon_without_any_sync() {
    let dir = tempfile::tempdir().unwrap();
    let (backing, mut meta, _) = open(dir.path());
    fill(&mut meta, 100);
    // As a SIGKILL leaves it: a copy of the files while they are open.
    let copy = tempfile::tempdir().unwrap();
    fs::create_dir(copy.path().join(".syncfs")).unwrap();
    for name in ["meta.db", "meta.db-wal"] {
        let name = format!(".syncfs/{name}");
        fs::copy(dir.path().join(&name), copy.path().join(&name)).unwrap();
    }
    drop((meta, backing));
    let (_backing, mut meta, opened) = open(copy.path());
    assert_eq!((opened, meta.load().unwrap().files.len()), (Opened::Existing, 100));
}

#[test]
fn a_damaged_store_is_moved_aside_and_not_lost() {
    let dir = filled();
    let state = dir.path().join(".syncfs");
    for n in 1..4 {
        let garbage = vec![n; 5000];
        fs::write(state.join("meta.db"), &garbage).unwrap();
        fs::write(state.join("meta.db-wal"), b"log").unwrap();
        let (_backing, mut meta, opened) = open(dir.path());
        assert_eq!((opened, meta.load().unwrap()), (Opened::Rebuilt, Stored::default()));
        fill(&mut meta, 10);
        assert_eq!(fs::read(state.join(format!("meta.db.damaged-{n}"))).unwrap(), garbage);
        assert_eq!(fs::read(state.join(format!("meta.db.damaged-{n}-wal"))).unwrap(), b"log");
    }
    // A log whose main file was lost.
    fs::write(state.join("meta.db"), b"").unwrap();
    assert!(fs::metadata(state.join("meta.db-wal")).unwrap().len() > 0);
    assert_eq!(open(dir.path()).2, Opened::Rebuilt);
}

#[test]
fn damage_anywhere_is_found_or_harmless() {
    let whole = fs::read(filled().path().join(".syncfs/meta.db")).unwrap();
    let wanted: BTreeMap<_, _> = (0..2000).map(|n| (id(n), value(n))).collect();
    let mut found = 0;
    for seed in 0..60 {
        let mut dice = Dice(seed);
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(".syncfs")).unwrap();
        let path = dir.path().join(".syncfs/meta.db");
        fs::write(&path, &whole).unwrap();
        let (at, bit) = (dice.roll(whole.len()), dice.roll(8));
        let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
        file.write_all_at(&[whole[at] ^ (1 << bit)], at as u64).unwrap();
        let backing = RealDisk::open(dir.path()).unwrap();
        let (mut meta, opened) = Meta::open(&backing).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
        match opened {
            Opened::Existing => assert!(files(meta.load().unwrap()) == wanted, "seed {seed}"),
            Opened::Rebuilt => found += 1,
            Opened::Fresh => panic!("seed {seed}: a damaged store was taken for none"),
        }
    }
    assert!(found > 30, "only {found} found");
}

#[test]
fn a_newer_store_is_left_alone() {
    let dir = filled();
    let db = Connection::open(dir.path().join(".syncfs/meta.db")).unwrap();
    db.pragma_update(None, "user_version", FORMAT + 1).unwrap();
    drop(db);
    let backing = RealDisk::open(dir.path()).unwrap();
    assert!(matches!(Meta::open(&backing), Err(Error::NewerFormat { .. })));
    assert!(!dir.path().join(".syncfs/meta.db.damaged-1").exists());
}

#[test]
fn another_program_cannot_open_a_store_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let (_backing, _meta, _) = open(dir.path());
    // Asked through an open file description: a process does not stand in its own way.
    let path = dir.path().join(".syncfs/meta.db");
    let taken = rustix::fs::open(&path, OFlags::RDWR, Mode::empty()).unwrap();
    let mut probe = libc::flock {
        l_type: libc::F_RDLCK as _,
        l_whence: libc::SEEK_SET as _,
        l_start: 0x4000_0000,
        l_len: 512,
        l_pid: 0,
    };
    // SAFETY: the structure is ours and outlives the call, which asks and changes nothing.
    let asked = unsafe { libc::fcntl(taken.as_raw_fd(), libc::F_OFD_GETLK, &mut probe) };
    assert_eq!((asked, probe.l_type), (0, libc::F_WRLCK as _));
}
