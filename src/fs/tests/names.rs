//! Names: creating, finding, renaming, removing, listing, and changes from behind.

use super::rig::Rig;
use crate::fs::replayer::Change;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering::Relaxed;

#[test]
fn names_come_and_go() {
    let rig = Rig::new();
    fs::write(rig.at("a"), "one").unwrap();
    fs::write(rig.at("b"), "two").unwrap();
    assert_eq!(fs::read(rig.raw("a")).unwrap(), b"one");
    let rename = |from, to, flags| renameat_with(CWD, rig.at(from), CWD, rig.at(to), flags);
    assert_eq!(rename("a", "b", RenameFlags::NOREPLACE), Err(rustix::io::Errno::EXIST));
    rename("a", "b", RenameFlags::EXCHANGE).unwrap();
    assert_eq!(fs::read(rig.at("a")).unwrap(), b"two");
    assert_eq!(fs::read(rig.at("b")).unwrap(), b"one");
    rename("a", "c", RenameFlags::NOREPLACE).unwrap();
    fs::rename(rig.at("c"), rig.at("b")).unwrap();
    assert_eq!(fs::read(rig.at("b")).unwrap(), b"two");
    assert_eq!(fs::read(rig.at("c")).unwrap_err().kind(), ErrorKind::NotFound);
    fs::remove_file(rig.at("b")).unwrap();
    assert_eq!(fs::remove_file(rig.at("b")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(fs::read_dir(rig.at("")).unwrap().count(), 0);
    rig.done();
}

#[test]
fn a_file_lives_while_it_is_open() {
    let rig = Rig::new();
    let mut file = File::create_new(rig.at("a")).unwrap();
    assert_eq!(File::create_new(rig.at("a")).unwrap_err().kind(), ErrorKind::AlreadyExists);
    fs::remove_file(rig.at("a")).unwrap();
    file.write_all(b"still here").unwrap();
    assert_eq!(file.metadata().unwrap().len(), 10);
    assert_eq!(file.metadata().unwrap().nlink(), 0);
    drop(file);
    rig.done();
}

#[test]
fn what_a_flat_directory_cannot_have_is_refused() {
    let rig = Rig::new();
    fs::write(rig.at("a"), "").unwrap();
    let refused = |result: std::io::Result<()>| result.unwrap_err().raw_os_error();
    assert_eq!(refused(fs::create_dir(rig.at("d"))), Some(libc::EPERM));
    assert_eq!(refused(fs::hard_link(rig.at("a"), rig.at("l"))), Some(libc::EPERM));
    assert_eq!(refused(std::os::unix::fs::symlink("a", rig.at("s"))), Some(libc::EPERM));
    assert_eq!(refused(fs::remove_dir(rig.at("a"))), Some(libc::ENOTDIR));
    assert_eq!(refused(fs::remove_dir(rig.at("d"))), Some(libc::ENOENT));
    assert_eq!(refused(fs::write(rig.at("a/b"), "")), Some(libc::ENOTDIR));
    let mknod = |kind| {
        let mode = rustix::fs::Mode::from_raw_mode(0o600);
        rustix::fs::mknodat(CWD, rig.at("n"), kind, mode, 0)
    };
    assert_eq!(mknod(rustix::fs::FileType::Fifo), Err(rustix::io::Errno::PERM));
    mknod(rustix::fs::FileType::RegularFile).unwrap();
    rig.done();
}

#[test]
fn five_thousand_names_are_listed_once_each() {
    let rig = Rig::new();
    let names: BTreeSet<String> = (0..5000).map(|n| format!("name-{n:05}")).collect();
    names.iter().for_each(|name| fs::write(rig.raw(name), "").unwrap());
    let list = || fs::read_dir(rig.at("")).unwrap().map(|entry| entry.unwrap());
    let seen: Vec<String> = list().map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(seen.len(), 5000);
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), names);
    // With attributes, and with names that vanish on the way.
    let gone: Vec<String> = (2000..3000).map(|n| format!("name-{n:05}")).collect();
    let mut count = 0;
    for (index, entry) in list().enumerate() {
        count += usize::from(entry.metadata().is_ok());
        if index == 0 {
            gone.iter().for_each(|name| fs::remove_file(rig.raw(name)).unwrap());
        }
    }
    assert!((4000..=5000).contains(&count), "{count}");
    // Listings are the kernel's, until it hears that they are of yesterday.
    gone.iter().for_each(|name| rig.kernel.inval_entry(name.as_bytes()));
    rig.kernel.drain();
    assert_eq!(list().count(), 4000);
    // What was looked up and not taken was given back.
    std::process::Command::new("sync").status().unwrap();
    fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
    super::rig::soon("all is forgotten", || rig.volume.left().1 == 0);
    rig.done();
}

#[test]
fn an_absent_name_is_remembered_until_it_comes() {
    let rig = Rig::new();
    assert!(!rig.at("a").exists());
    let before = rig.volume.seen.lookups.load(Relaxed);
    (0..10).for_each(|_| assert!(!rig.at("a").exists()));
    assert_eq!(rig.volume.seen.lookups.load(Relaxed), before);
    fs::write(rig.raw("a"), "from afar").unwrap();
    rig.kernel.inval_entry(b"a");
    rig.kernel.drain();
    assert_eq!(fs::read(rig.at("a")).unwrap(), b"from afar");
    // And a name is made here after it was absent.
    assert!(!rig.at("b").exists());
    fs::write(rig.at("b"), "made here").unwrap();
    assert_eq!(fs::read(rig.at("b")).unwrap(), b"made here");
    rig.done();
}

#[test]
fn changes_from_behind_are_seen_when_told() {
    let rig = Rig::new();
    fs::write(rig.at("a"), "before").unwrap();
    let mut open = File::open(rig.at("a")).unwrap();
    let ino = open.metadata().unwrap().ino();
    let mut bytes = Vec::new();
    open.read_to_end(&mut bytes).unwrap();
    // Replaced, as an apply does it.
    fs::write(rig.raw("new"), "after, and longer").unwrap();
    fs::rename(rig.raw("new"), rig.raw("a")).unwrap();
    rig.kernel.inval_entry(b"a");
    rig.kernel.inval_inode(ino);
    rig.kernel.drain();
    assert_eq!(fs::read(rig.at("a")).unwrap(), b"after, and longer");
    assert_eq!(open.metadata().unwrap().nlink(), 0);
    // Removed.
    fs::remove_file(rig.raw("a")).unwrap();
    rig.kernel.inval_entry(b"a");
    rig.kernel.drain();
    assert!(!rig.at("a").exists());
    // Orders about what nobody knows do no harm.
    rig.kernel.inval_inode(999_999_999);
    rig.kernel.inval_entry(b"nobody");
    rig.kernel.changed(Change::Deleted(b"nobody".to_vec(), 999_999_999));
    rig.kernel.drain();
    drop(open);
    rig.done();
}
