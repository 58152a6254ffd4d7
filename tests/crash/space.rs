//! Disks that are full, on either side or both, and quotas that are used up: the writer is told, the daemon lives,
//! what is held stays whole, and all goes on by itself when there is room.

use crate::disk::{self, Disk, Kind, World};
use crate::rig::{Host, Pair, errno, noise, run};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::Path;

/// Disks of this many megabytes, of which the ballast takes so many at first.
const SMALL: u64 = 64;
const BALLAST: u64 = 30;
const FILE: usize = 700_000;

#[test]
fn a_full_disk_here_tells_the_writer_and_heals() {
    full(true, false);
}

#[test]
fn a_full_disk_at_the_peer_leaves_what_it_holds_whole_and_heals() {
    full(false, true);
}

#[test]
fn full_disks_on_both_sides_heal() {
    full(true, true);
}

fn full(a_small: bool, b_small: bool) {
    if !disk::able(Kind::Ext4) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let Some(_world) = World::new(root.path()) else { return };
    let small = [a_small, b_small];
    let disks = small.map(|small| Disk::new(Kind::Ext4, if small { SMALL } else { 320 }));
    for disk in disks.iter().zip(small).filter(|d| d.1).map(|d| d.0) {
        run(&disk.dir, &["fallocate", "-l", &format!("{BALLAST}M"), "ballast"]);
    }
    let mut pair = Pair::of([disks[0].share(), disks[1].share()], tempfile::tempdir().unwrap());
    pair.a.start();
    pair.b.start();
    let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for n in 0..4 {
        let (name, bytes) = (format!("kept {n}"), noise(n, 20_000));
        pair.a.save(&name, &bytes);
        model.insert(name, bytes);
    }
    pair.assert_same();

    // Far more than fits.
    let told = fill(&pair.a, "of a", &mut model);
    assert_eq!(told.is_some(), a_small, "whether the writer on A ran out of space");
    let new: Vec<u8> = noise(99, 20_000);
    // What B holds is changed while there is no room.
    let changed = std::fs::write(pair.a.path("kept 0"), &new);
    let old = model["kept 0"].clone();
    match changed {
        Ok(()) => drop(model.insert("kept 0".into(), new.clone())),
        Err(error) => {
            assert!(a_small && error.raw_os_error() == Some(libc::ENOSPC), "{error}");
            // As any disk, it has taken what it had room for.
            model.insert("kept 0".into(), pair.a.read("kept 0"));
        }
    }
    if b_small {
        let output = pair.a.syncfs(&["flush", "--timeout", "3"]);
        assert_eq!(output.status.code(), Some(5), "{}", String::from_utf8_lossy(&output.stderr));
        let told = fill(&pair.b, "of b", &mut model);
        assert!(told.is_some(), "the writer on B ran out of space");
    }
    for (host, full) in [(&pair.a, a_small), (&pair.b, b_small)] {
        assert!(!host.status()["replica"].is_null(), "the daemon answers");
        for n in 1..4 {
            assert!(host.has(format!("kept {n}"), &model[&format!("kept {n}")]), "what is held can be read");
        }
        let seen = host.read("kept 0");
        let states = [&old, &new, &model["kept 0"]];
        assert!(states.iter().any(|state| **state == seen), "a state that never was (full: {full})");
    }

    for disk in disks.iter().zip(small).filter(|d| d.1).map(|d| d.0) {
        std::fs::remove_file(disk.dir.join("ballast")).unwrap();
    }
    // Room for all of it only where somebody removes some; that must work on a disk that was full.
    if a_small != b_small {
        let mut seen = 0;
        model.retain(|name, _| {
            seen += usize::from(name.starts_with("of a"));
            let keep = !name.starts_with("of a") || seen <= 30;
            if !keep {
                std::fs::remove_file(pair.a.path(name)).unwrap();
            }
            keep
        });
    }
    let found = pair.assert_same();
    let names: Vec<_> = found.keys().map(|n| n.to_str().unwrap()).collect();
    assert_eq!(names, model.keys().collect::<Vec<_>>());
    for (name, bytes) in &model {
        let item = &found[std::ffi::OsStr::new(name)];
        assert!(item.bytes == *bytes, "{name}: {}", crate::user::difference(bytes, &item.bytes));
    }
    pair.finish();
}

/// Writes files until there is no more room, or far more than a small disk holds; notes what was accepted.
fn fill(host: &Host, prefix: &str, model: &mut BTreeMap<String, Vec<u8>>) -> Option<i32> {
    for n in 0..(2 * SMALL as usize * 1_000_000 / FILE / 2) {
        let name = format!("{prefix} {n:03}");
        let bytes = noise(n as u64 + 1000, FILE);
        let mut file = match std::fs::File::create(host.path(&name)) {
            Ok(file) => file,
            Err(error) => return Some(no_space(&error)),
        };
        let mut taken = 0;
        let mut told = None;
        while taken < bytes.len() {
            match file.write(&bytes[taken..bytes.len().min(taken + 50_000)]) {
                Ok(more) => taken += more,
                Err(error) => {
                    told = Some(no_space(&error));
                    break;
                }
            }
        }
        model.insert(name, bytes[..taken].to_vec());
        if told.is_some() {
            return told;
        }
    }
    None
}

fn no_space(error: &std::io::Error) -> i32 {
    let number = error.raw_os_error().unwrap_or(0);
    assert!(number == libc::ENOSPC || number == libc::EDQUOT, "{error}");
    number
}

#[test]
fn a_full_disk_can_be_emptied_through_the_mount() {
    if !disk::able(Kind::Ext4) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let Some(_world) = World::new(root.path()) else { return };
    let disks = [Disk::new(Kind::Ext4, SMALL), Disk::new(Kind::Ext4, 320)];
    let mut pair = Pair::of([disks[0].share(), disks[1].share()], tempfile::tempdir().unwrap());
    pair.a.start();
    pair.b.start();
    let mut model = BTreeMap::new();
    assert_eq!(fill(&pair.a, "of a", &mut model), Some(libc::ENOSPC));
    // To the last byte.
    let mut rest = std::fs::File::create(pair.a.path("rest")).ok();
    while rest.as_mut().is_some_and(|file| file.write(&[1; 100]).is_ok()) {}
    drop(rest);
    for name in model.keys() {
        std::fs::remove_file(pair.a.path(name)).unwrap_or_else(|e| panic!("rm {name}: {e}"));
    }
    pair.a.save("after", b"there is room");
    let names: Vec<_> = pair.assert_same().into_keys().collect();
    assert!(names.iter().all(|name| name == "after" || name == "rest"), "{names:?}");
    pair.finish();
}

#[test]
fn a_quota_that_is_used_up_tells_the_writer_and_heals() {
    if !disk::able(Kind::Ext4) || !crate::able(&["setquota", "setpriv"]) {
        return;
    }
    let root = tempfile::tempdir().unwrap();
    let Some(_world) = World::new(root.path()) else { return };
    let Some(limited) = Disk::with(Kind::Ext4, 100, &["-O", "quota"], "loop,usrquota") else { return };
    let dir = limited.dir.to_str().unwrap().to_owned();
    let limit =
        move |blocks: &str| run(Path::new("/"), &["setquota", "-u", "root", "0", blocks, "0", "0", &dir]);
    limit("20000");
    let mut pair = Pair::of([limited.share(), root.path().join("b")], tempfile::tempdir().unwrap());
    std::fs::create_dir(&pair.b.dir).unwrap();
    // Root may exceed any quota where it keeps this capability.
    pair.a.around =
        ["setpriv", "--bounding-set", "-sys_resource", "--inh-caps", "-sys_resource"].map(Into::into).into();
    pair.a.start();
    pair.b.start();
    let mut model = BTreeMap::new();
    assert_eq!(fill(&pair.a, "of a", &mut model), Some(libc::EDQUOT));
    assert_eq!(errno(std::fs::write(pair.a.path("more"), [1; 100_000])), libc::EDQUOT);
    assert!(!pair.a.status()["replica"].is_null(), "the daemon answers");
    limit("0");
    let more = pair.a.has("more", &[]) || pair.a.path("more").exists();
    let found = pair.assert_same();
    for (name, bytes) in &model {
        assert!(found[std::ffi::OsStr::new(name)].bytes == *bytes, "{name}");
    }
    assert_eq!(found.len(), model.len() + usize::from(more));
    pair.finish();
}
