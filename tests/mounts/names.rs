//! Names: which there can be, and what becomes of them.

use crate::rig::{Pair, errno, until};
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

#[test]
fn odd_names_arrive_as_they_are() {
    let pair = Pair::mounted();
    let mut names: Vec<OsString> = [
        " a  b ",
        "new\nline",
        "tab\tquote'\"\\",
        "*?[a]",
        "-rf",
        "...",
        "..a",
        ".hidden",
        "ä€𝄞",
        "a,b=c;d",
        ".syncfs2",
        "syncfs",
        ".SYNCFS",
        "con",
        "a.sync-conflictless",
    ]
    .map(OsString::from)
    .into();
    names.push(OsString::from_vec(b"not \xff\xfe utf-8".to_vec()));
    names.push(OsString::from_vec((1..=31).chain(127..=255).collect()));
    names.push(OsString::from_vec(vec![b'n'; 255]));
    names.push(OsString::from_vec("ä".repeat(127).into_bytes()));
    for (n, name) in names.iter().enumerate() {
        let host = [&pair.a, &pair.b][n % 2];
        host.save(name, name.as_bytes());
    }
    pair.assert_same();
    // And again under each other's names.
    let target = |name: &OsStr| {
        let mut bytes = name.as_bytes().to_vec();
        bytes.reverse();
        OsString::from_vec(bytes)
    };
    for (n, name) in names.iter().enumerate() {
        let host = [&pair.b, &pair.a][n % 2];
        std::fs::rename(host.path(name), host.path(target(name))).unwrap();
    }
    let files = pair.finish();
    assert_eq!(files.len(), names.len());
    for name in names {
        assert_eq!(files[&target(&name)].bytes, name.as_bytes());
    }
}

#[test]
fn too_long_a_name_is_refused() {
    let pair = Pair::mounted();
    let name = "n".repeat(256);
    assert_eq!(errno(File::create(pair.a.path(&name))), libc::ENAMETOOLONG);
    pair.a.save("f", b"");
    assert_eq!(errno(std::fs::rename(pair.a.path("f"), pair.a.path(&name))), libc::ENAMETOOLONG);
    assert_eq!(errno(pair.a.path(&name).metadata()), libc::ENAMETOOLONG);
    pair.finish();
}

#[test]
fn directories_and_links_are_refused() {
    let pair = Pair::mounted();
    pair.a.save("f", b"");
    let path = |name: &str| pair.a.path(name);
    assert_eq!(errno(std::fs::create_dir(path("d"))), libc::EPERM);
    assert_eq!(errno(std::os::unix::fs::symlink("f", path("s"))), libc::EPERM);
    assert_eq!(errno(std::fs::hard_link(path("f"), path("h"))), libc::EPERM);
    assert_eq!(errno(std::os::unix::net::UnixListener::bind(path("u"))), libc::EPERM);
    let fifo = rustix::fs::mknodat(CWD, path("p"), rustix::fs::FileType::Fifo, 0o600.into(), 0);
    assert_eq!(fifo, Err(rustix::io::Errno::PERM));
    for (words, errors) in [
        (["mkdir", "d", "e"], "Operation not permitted"),
        (["ln", "f", "h"], "Operation not permitted"),
        (["rmdir", "f", "f"], "Not a directory"),
    ] {
        let output = crate::rig::try_run(&pair.a.dir, &words);
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains(errors), "{said}");
    }
    assert_eq!(pair.a.ls(), ["f"]);
    pair.finish();
}

#[test]
fn renames_keep_to_their_flags() {
    let pair = Pair::mounted();
    let rename = |from: &str, to: &str, flags| {
        renameat_with(CWD, pair.a.path(from), CWD, pair.a.path(to), flags).map_err(|e| e.raw_os_error())
    };
    pair.a.save("one", b"1");
    pair.a.save("two", b"2");
    pair.a.flush();
    assert_eq!(rename("one", "two", RenameFlags::NOREPLACE), Err(libc::EEXIST));
    assert_eq!(rename("one", "none", RenameFlags::EXCHANGE), Err(libc::ENOENT));
    assert_eq!(rename("none", "one", RenameFlags::empty()), Err(libc::ENOENT));
    assert_eq!(rename("one", "three", RenameFlags::WHITEOUT), Err(libc::EINVAL));
    assert_eq!(rename("one", "two", RenameFlags::EXCHANGE | RenameFlags::NOREPLACE), Err(libc::EINVAL));
    assert_eq!(rename("one", "one", RenameFlags::empty()), Ok(()));
    assert_eq!(rename("one", "two", RenameFlags::EXCHANGE), Ok(()));
    until("B sees them swapped", || pair.b.has("one", b"2") && pair.b.has("two", b"1"));
    assert_eq!(rename("one", "three", RenameFlags::NOREPLACE), Ok(()));
    until("B sees it move", || pair.b.ls() == ["three", "two"]);
    assert_eq!(rename("three", "two", RenameFlags::empty()), Ok(()));
    assert_eq!(pair.finish()[OsStr::new("two")].bytes, b"2");
}

#[test]
fn the_state_directory_is_invisible_and_out_of_reach() {
    let pair = Pair::mounted();
    pair.a.save("f", b"f");
    assert_eq!(pair.a.run(&["ls", "-a"]), ".\n..\nf\n");
    let state: PathBuf = pair.a.path(".syncfs");
    assert!(!state.exists());
    assert_eq!(errno(state.read_dir()), libc::ENOENT);
    assert_eq!(errno(state.join("lock").metadata()), libc::ENOENT);
    assert_eq!(errno(File::open(pair.a.path(".syncfs/meta.db"))), libc::ENOENT);
    for refused in [
        errno(File::create(&state)),
        errno(File::create_new(&state)),
        errno(std::fs::create_dir(&state)),
        errno(std::fs::rename(pair.a.path("f"), &state)),
    ] {
        assert_eq!(refused, libc::EPERM);
    }
    assert_eq!(errno(std::fs::remove_file(&state)), libc::ENOENT);
    assert_eq!(errno(std::fs::rename(&state, pair.a.path("g"))), libc::ENOENT);
    assert_eq!(errno(std::fs::remove_dir_all(&state)), libc::ENOENT);
    pair.finish();
}
