//! Random work on both sides against an independent byte model.
//!
//! A failing seed is printed; `SYNCFS_SEED=n cargo test --test random` replays it, `SYNCFS_ROUNDS` sets
//! how long a run is.

mod common;
use common::{Pair, Side, noise};
use std::collections::BTreeMap;
use syncfs::fs::volume::Volume;

type Model = BTreeMap<String, Vec<u8>>;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn size(&mut self) -> usize {
        match self.roll(12) {
            0 => 0,
            1..=5 => self.roll(3_000) as usize,
            6..=9 => self.roll(60_000) as usize,
            10 => self.roll(1_500_000) as usize,
            _ => self.roll(4_000_000) as usize,
        }
    }
}

/// One random operation of one user, on the volume and on the model.
fn step(side: &Side, model: &mut Model, dice: &mut Dice, names: &[&str]) {
    let name = names[dice.roll(names.len() as u64) as usize].to_string();
    let other = names[dice.roll(names.len() as u64) as usize].to_string();
    let host = side.host();
    let op = dice.roll(10);
    tracing::debug!(op, name, other, size = ?model.get(&name).map(Vec::len), "step");
    match op {
        0 | 1 => {
            let bytes = noise(dice.roll(u64::MAX), dice.size());
            side.save(&name, &bytes);
            model.insert(name, bytes);
        }
        2..=4 => {
            let Some(bytes) = model.get_mut(&name) else { return };
            let at = dice.roll(bytes.len() as u64 + 2_000) as usize;
            let size = dice.size();
            let new = noise(dice.roll(u64::MAX), size);
            side.patch(&name, at as u64, &new);
            if !new.is_empty() {
                bytes.resize(bytes.len().max(at + new.len()), 0);
                bytes[at..at + new.len()].copy_from_slice(&new);
            }
        }
        5 => {
            let Some(bytes) = model.get_mut(&name) else { return };
            let size = dice.roll(bytes.len() as u64 * 3 / 2 + 1_000);
            side.truncate(&name, size);
            bytes.resize(size as usize, 0);
        }
        6 | 7 => {
            let Some(bytes) = model.remove(&name) else { return };
            host.rename(name.as_bytes(), other.as_bytes(), 0).unwrap();
            model.insert(other, bytes);
        }
        8 => {
            if name != other && model.contains_key(&name) && model.contains_key(&other) {
                host.rename(name.as_bytes(), other.as_bytes(), 2).unwrap();
                let (x, y) = (model.remove(&name).unwrap(), model.remove(&other).unwrap());
                model.insert(name, y);
                model.insert(other, x);
            }
        }
        _ => {
            if model.remove(&name).is_some() {
                host.unlink(name.as_bytes()).unwrap();
            }
        }
    }
}

fn assert_model(pair: &Pair, model: &Model) {
    let files: Model = pair.assert_equal().into_iter().collect();
    let names = |m: &Model| m.iter().map(|(n, b)| format!("{n}:{}", b.len())).collect::<Vec<_>>();
    assert_eq!(names(&files), names(model));
    assert!(&files == model, "same names and sizes, other bytes");
}

fn rounds() -> u64 {
    std::env::var("SYNCFS_ROUNDS").map_or(12, |s| s.parse().unwrap())
}

fn seeds() -> Vec<u64> {
    match std::env::var("SYNCFS_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => vec![1, 2],
    }
}

/// Two users who keep to their own files, through restarts and offline time: both directories are
/// exactly what they made.
#[test]
fn apart_nobody_ever_sees_anything_but_what_was_made() {
    for seed in seeds() {
        println!("SYNCFS_SEED={seed}");
        let mut dice = Dice(seed);
        let mut pair = Pair::started();
        let mut model = Model::new();
        for _ in 0..rounds() {
            for _ in 0..dice.roll(30) {
                if dice.roll(2) == 0 {
                    step(&pair.a, &mut model, &mut dice, &["a1", "a2", "a3", "a4", "a5"]);
                } else {
                    step(&pair.b, &mut model, &mut dice, &["b1", "b2", "b3", "b4", "b5"]);
                }
            }
            match dice.roll(6) {
                0 => {
                    pair.a.stop();
                    for _ in 0..dice.roll(10) {
                        step(&pair.b, &mut model, &mut dice, &["b1", "b2", "b3", "b4", "b5"]);
                    }
                    pair.a.start(&pair.runtime);
                }
                1 => {
                    pair.b.stop();
                    for _ in 0..dice.roll(10) {
                        step(&pair.a, &mut model, &mut dice, &["a1", "a2", "a3", "a4", "a5"]);
                    }
                    pair.b.start(&pair.runtime);
                }
                2 | 3 => {
                    pair.flush();
                    assert_model(&pair, &model);
                }
                _ => {}
            }
        }
        pair.flush();
        assert_model(&pair, &model);
    }
}

/// Two users take turns on the same files.
#[test]
fn in_turns_each_finds_what_the_other_left() {
    for seed in seeds() {
        println!("SYNCFS_SEED={seed}");
        let mut dice = Dice(seed);
        let pair = Pair::started();
        let mut model = Model::new();
        for round in 0..rounds() {
            let side = if round % 2 == 0 { &pair.a } else { &pair.b };
            for _ in 0..dice.roll(20) {
                step(side, &mut model, &mut dice, &["x", "y", "z", "w"]);
            }
            pair.flush();
            assert_model(&pair, &model);
        }
    }
}

/// Two users on the same files at the same time, out of each other's sight: afterwards both directories are
/// equal, and every file as each of them left it is somewhere, whole.
#[test]
fn on_the_same_files_both_versions_are_kept() {
    for seed in seeds() {
        println!("SYNCFS_SEED={seed}");
        let mut dice = Dice(seed);
        let mut pair = Pair::started();
        for _ in 0..rounds() {
            let base: Model = pair.assert_equal().into_iter().collect();
            let names: Vec<&str> = vec!["x", "y", "z"];
            pair.b.stop();
            let mut of_a = base.clone();
            for _ in 0..1 + dice.roll(4) {
                step(&pair.a, &mut of_a, &mut dice, &names);
            }
            pair.a.stop();
            pair.b.start(&pair.runtime);
            let mut of_b = base.clone();
            for _ in 0..1 + dice.roll(4) {
                step(&pair.b, &mut of_b, &mut dice, &names);
            }
            pair.a.start(&pair.runtime);
            pair.flush();
            let files = pair.assert_equal();
            for (who, model) in [("a", &of_a), ("b", &of_b)] {
                for (name, bytes) in model {
                    // What only stayed as it was may have been changed or removed by the other.
                    let edited = !base.values().any(|old| old == bytes);
                    let kept = files.iter().any(|f| f.1 == *bytes);
                    assert!(kept || !edited, "{name} of {who} is lost ({} bytes)", bytes.len());
                }
            }
            for (name, bytes) in &files {
                let known = [&of_a, &of_b].iter().any(|m| m.values().any(|b| b == bytes));
                assert!(known, "{name}: bytes that nobody wrote ({})", bytes.len());
            }
        }
    }
}
