//! Disks that fail: what can't be done is told to who asked, once and for all, and never made up for later.

use crate::disk::{self, Disk, Kind, World};
use crate::rig::{Host, Pair, errno, noise};
use crate::strace::{Fault, Tracer};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

fn trace(host: &mut Host, call: &'static str, what: &'static str) -> Tracer {
    Tracer::attach(host.daemon().id(), &Fault::error(call, what))
}

#[test]
fn a_failed_fsync_is_told_and_never_becomes_a_success() {
    for call in ["fsync", "fdatasync"] {
        if !crate::able(&["strace", "setpriv"]) {
            return;
        }
        let mut pair = Pair::mounted();
        pair.a.save("f", &noise(1, 5_000));
        pair.a.save("other", &noise(2, 5_000));
        pair.a.flush();
        let file = File::options().read(true).write(true).open(pair.a.path("f")).unwrap();
        file.write_all_at(&noise(3, 3_000), 500).unwrap();
        let tracer = trace(&mut pair.a, call, "error=EIO");
        // The first write to a file that the peer has waits for the disk itself, and is told so.
        let told = file.write_all_at(&noise(6, 10), 4_000).and_then(|()| file.sync_all());
        assert_eq!(errno(told), libc::EIO, "{call} failed below");
        drop(tracer);
        // The disk says yes again, but what it failed to write is not written.
        assert_eq!(errno(file.sync_all()), libc::EIO, "after {call} failed");
        assert_eq!(errno(File::open(pair.a.path("other")).unwrap().sync_all()), libc::EIO);
        // Reading goes on, and the daemon lives.
        assert!(pair.a.has("other", &noise(2, 5_000)));
        assert!(!pair.a.status()["replica"].is_null());
        drop(file);
        // A new start begins anew with what is there.
        pair.a.kill();
        pair.a.start();
        let mut wanted = noise(1, 5_000);
        wanted[500..3_500].copy_from_slice(&noise(3, 3_000));
        let mut found = pair.a.read("f");
        // Written or not: nothing was promised of these.
        found[4_000..4_010].copy_from_slice(&wanted[4_000..4_010]);
        assert!(found == wanted);
        File::open(pair.a.path("f")).unwrap().sync_all().unwrap();
        let found = pair.finish();
        assert_eq!(found.len(), 2, "nobody made {:?}", found.keys());
    }
}

#[test]
fn a_write_that_the_disk_refuses_is_told_and_changes_nothing() {
    if !crate::able(&["strace", "setpriv"]) {
        return;
    }
    for (what, number) in
        [("error=EIO", libc::EIO), ("error=ENOSPC", libc::ENOSPC), ("error=EDQUOT", libc::EDQUOT)]
    {
        let mut pair = Pair::mounted();
        let bytes = noise(1, 5_000);
        pair.a.save("f", &bytes);
        pair.a.flush();
        let file = File::options().read(true).write(true).open(pair.a.path("f")).unwrap();
        let tracer = trace(&mut pair.a, "pwrite64", what);
        let refused: Vec<(&str, io::Result<()>)> = vec![
            ("write", file.write_all_at(&noise(2, 3_000), 500)),
            ("append", file.write_all_at(&noise(3, 3_000), 5_000)),
            ("truncate", file.set_len(2_000)),
            ("create", File::create_new(pair.a.path("new")).map(drop)),
            ("rename", std::fs::rename(pair.a.path("f"), pair.a.path("g"))),
            ("unlink", std::fs::remove_file(pair.a.path("f"))),
        ];
        drop(tracer);
        for (call, result) in refused {
            assert_eq!(result.err().and_then(|e| e.raw_os_error()), Some(number), "{call} with {what}");
        }
        assert!(pair.a.has("f", &bytes), "{what}: {}", crate::user::difference(&bytes, &pair.a.read("f")));
        // Where the disk is well again, so is the share.
        file.write_all_at(&noise(4, 100), 0).unwrap();
        pair.a.save("next", b"next");
        drop(file);
        let found = pair.finish();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["f", "next"]);
        assert!(found[std::ffi::OsStr::new("f")].bytes[100..] == bytes[100..]);
    }
}

enum End {
    Killed,
    Unmounted,
}

#[test]
fn a_rename_that_the_disk_refuses_has_not_happened() {
    if !crate::able(&["strace", "setpriv"]) {
        return;
    }
    let mut pair = Pair::mounted();
    let bytes = noise(1, 5_000);
    pair.a.save("f", &bytes);
    pair.a.flush();
    let tracer = trace(&mut pair.a, "renameat2", "error=ENOSPC");
    let refused = std::fs::rename(pair.a.path("f"), pair.a.path("g"));
    drop(tracer);
    assert_eq!(errno(refused), libc::ENOSPC);
    assert_eq!(pair.a.ls(), ["f"]);
    std::fs::rename(pair.a.path("f"), pair.a.path("h")).unwrap();
    pair.a.save("f", b"another");
    let found = pair.finish();
    assert_eq!(found.keys().collect::<Vec<_>>(), ["f", "h"]);
    assert!(found[std::ffi::OsStr::new("h")].bytes == bytes);
}

#[test]
fn a_peer_whose_disk_refuses_a_change_shows_the_old_state_and_heals() {
    if !crate::able(&["strace", "setpriv"]) {
        return;
    }
    let calls = ["pwrite64", "fsync", "fdatasync", "renameat2", "ftruncate", "fchmod"];
    let cases = calls.map(|call| (call, End::Killed)).into_iter().chain([("renameat2", End::Unmounted)]);
    for (call, end) in cases {
        let mut pair = Pair::mounted();
        let (old, new) = (noise(1, 50_000), noise(2, 40_000));
        pair.a.save("f", &old);
        pair.a.save("g", &old);
        pair.a.flush();
        let tracer = trace(&mut pair.b, call, "error=EIO");
        std::fs::write(pair.a.path("f.new"), &new).unwrap();
        std::fs::rename(pair.a.path("f.new"), pair.a.path("f")).unwrap();
        pair.a.save("g", &new);
        let _ = pair.a.syncfs(&["flush", "--timeout", "1"]);
        for name in ["f", "g"] {
            let seen = pair.b.read(name);
            assert!(
                seen == old || seen == new,
                "{name} after {call}: {}",
                crate::user::difference(&new, &seen)
            );
        }
        drop(tracer);
        // Where it is tried again, nothing of what the disk made of it comes back.
        let _ = pair.a.syncfs(&["flush", "--timeout", "3"]);
        assert!(pair.a.has("f", &new) && pair.a.has("g", &new), "after {call}");
        // A sync that failed is not tried again, nor a name that was not moved: for that the daemon starts anew.
        match end {
            End::Killed => pair.b.kill(),
            End::Unmounted => {
                assert!(!pair.b.unmount().success(), "after {call}");
                assert!(pair.b.log_text().ends_with("check the disk, then mount again\n"));
            }
        }
        pair.b.start();
        let found = pair.finish();
        assert_eq!(found.keys().collect::<Vec<_>>(), ["f", "g"], "after {call}");
        assert!(found.values().all(|item| item.bytes == new), "after {call}");
    }
}

#[test]
fn a_disk_that_turns_read_only_fails_writers_and_serves_readers() {
    if !disk::able(Kind::Ext4) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let Some(mut world) = World::new(root.path()) else { return };
    let disk = Disk::new(Kind::Ext4, 100);
    let mut pair = Pair::of([disk.share(), root.path().join("b")], tempfile::tempdir().unwrap());
    std::fs::create_dir(&pair.b.dir).unwrap();
    world.boot();
    pair.a.start();
    pair.b.start();
    let (old, new) = (noise(1, 50_000), noise(2, 50_000));
    pair.a.save("f", &old);
    pair.a.save("g", &old);
    pair.a.flush();
    // What the kernel does when it meets an error on the disk.
    disk.remount("abort");
    let refused = [
        std::fs::write(pair.a.path("f"), &new),
        std::fs::write(pair.a.path("new"), &new),
        std::fs::rename(pair.a.path("f"), pair.a.path("h")),
        std::fs::remove_file(pair.a.path("f")),
    ];
    for result in refused {
        let number = errno(result);
        assert!(number == libc::EROFS || number == libc::EIO, "{number}");
    }
    pair.b.save("g", &new);
    let output = pair.b.syncfs(&["flush", "--timeout", "1"]);
    assert_eq!(output.status.code(), Some(5), "what can't be stored is not acknowledged");
    assert!(pair.a.has("f", &old) && pair.a.has("g", &old), "what is held can be read");
    // The disk is mended and the host boots.
    world.cut_power(&mut pair.a, &disk);
    pair.a.start();
    let found = pair.finish();
    assert!(found[std::ffi::OsStr::new("f")].bytes == old);
    assert!(found[std::ffi::OsStr::new("g")].bytes == new);
}
