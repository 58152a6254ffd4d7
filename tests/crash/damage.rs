//! State that is torn, rotten or gone: nothing becomes a delete, no content is lost, both sides become the same.
//!
//! `SYNCFS_DAMAGES` is how many random damages the journal gets; `SYNCFS_SEED` replays them.

use crate::rig::{Pair, noise, until};
use crate::user::Dice;
use crate::{able, number, seed};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// What each name may read as: the last content, or on the way to it an earlier one.
type Model = BTreeMap<String, Vec<u8>>;

/// Files of both sides that are level, others that the peer has not got, and a daemon on A that was killed.
fn killed_on_a(seed: u64) -> (Pair, Model) {
    let mut pair = Pair::mounted();
    let mut model = Model::new();
    let mut save = |host: &crate::rig::Host, name: String, bytes: Vec<u8>| {
        host.save(&name, &bytes);
        model.insert(name, bytes);
    };
    for n in 0..5 {
        save(&pair.a, format!("of a {n}"), noise(seed + n, 3_000 * (n as usize + 1)));
        save(&pair.b, format!("of b {n}"), noise(seed + n + 10, 5_000));
    }
    pair.assert_same();
    assert_eq!(pair.b.unmount().code(), Some(0));
    for n in 3..8 {
        save(&pair.a, format!("of a {n}"), noise(seed + n + 20, 4_000));
    }
    pair.a.run(&["mv", "of b 0", "moved by a"]);
    let moved = model.remove("of b 0").unwrap();
    model.insert("moved by a".into(), moved);
    pair.a.kill();
    rustix::mount::unmount(&pair.a.dir, rustix::mount::UnmountFlags::DETACH).unwrap();
    (pair, model)
}

/// Both sides come back; every content is there, under its name or as a copy in conflict.
fn comes_back(mut pair: Pair, model: &Model, what: &str) {
    pair.a.start();
    pair.b.start();
    pair.a.flush_with_conflicts();
    pair.b.flush_with_conflicts();
    let found = pair.compare();
    for (name, bytes) in model {
        assert!(found.values().any(|item| item.bytes == *bytes), "{what}: the content of {name} is lost");
        // A rename may be forgotten with the record of it.
        let there = found.contains_key(std::ffi::OsStr::new(name)) || name == "moved by a";
        assert!(there, "{what}: {name} is gone");
    }
}

fn last_segment(dir: &Path) -> PathBuf {
    let mut all: Vec<_> =
        fs::read_dir(dir.join(".syncfs/journal")).unwrap().map(|e| e.unwrap().path()).collect();
    all.sort();
    all.pop().expect("a journal has a segment")
}

#[test]
fn a_torn_or_rotten_journal_deletes_nothing() {
    if !able(&["setpriv"]) {
        return;
    }
    let mut dice = Dice(seed());
    for round in 0..number("SYNCFS_DAMAGES", 3) {
        let (pair, model) = killed_on_a(round * 100);
        let path = last_segment(&pair.a.dir);
        let mut bytes = fs::read(&path).unwrap();
        let at = dice.roll(bytes.len() as u64) as usize;
        let what = match dice.roll(3) {
            0 => {
                bytes.truncate(at);
                format!("journal torn at {at}")
            }
            1 => {
                bytes[at] ^= 1 << dice.roll(8);
                format!("a bit of the journal flipped at {at}")
            }
            _ => {
                // A disk that has the length but not the content.
                bytes[at..].fill(0);
                format!("journal all zero from {at}")
            }
        };
        fs::write(&path, bytes).unwrap();
        comes_back(pair, &model, &what);
    }
}

#[test]
fn lost_or_damaged_metadata_deletes_nothing() {
    if !able(&["setpriv"]) {
        return;
    }
    type Damage = fn(&Path);
    let damages: [(&str, Damage); 6] = [
        ("meta.db removed", |state| fs::remove_file(state.join("meta.db")).unwrap()),
        ("meta.db emptied", |state| drop(fs::File::create(state.join("meta.db")).unwrap())),
        ("meta.db overwritten", |state| fs::write(state.join("meta.db"), noise(7, 30_000)).unwrap()),
        ("meta.db torn in half", |state| {
            let bytes = fs::read(state.join("meta.db")).unwrap();
            fs::write(state.join("meta.db"), &bytes[..bytes.len() / 2]).unwrap();
        }),
        ("meta.db-wal overwritten", |state| fs::write(state.join("meta.db-wal"), noise(8, 9_000)).unwrap()),
        ("journal and metadata removed", |state| {
            fs::remove_file(state.join("meta.db")).unwrap();
            fs::remove_dir_all(state.join("journal")).unwrap();
        }),
    ];
    for (n, (what, damage)) in damages.into_iter().enumerate() {
        let (pair, model) = killed_on_a(n as u64 * 1000);
        damage(&pair.a.dir.join(".syncfs"));
        comes_back(pair, &model, what);
    }
}

#[test]
fn sigterm_in_mid_transfer_ends_well_and_the_transfer_goes_on_later() {
    if !able(&["setpriv"]) {
        return;
    }
    for side in 0..2 {
        let mut pair = Pair::new();
        // Slow enough to be seen on its way, though the machine may stop for seconds to write back.
        pair.a.option("--bwlimit", "4M".as_ref());
        pair.a.start();
        pair.b.start();
        pair.a.flush();
        let bytes = noise(5, 32 << 20);
        pair.a.save("large", &bytes);
        until("it is in mid-transfer", || pair.b.status()["missing_chunks"] != 0);
        let host = if side == 0 { &mut pair.a } else { &mut pair.b };
        host.daemon().signal(Signal::TERM);
        assert_eq!(host.ended().code(), Some(0), "{}", host.log_text());
        host.start();
        until("the rest has come", || pair.b.status()["missing_chunks"] == 0);
        let found = pair.finish();
        assert!(found[std::ffi::OsStr::new("large")].bytes == bytes);
    }
}
