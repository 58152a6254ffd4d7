//! Every decoder over the seeds of its fuzz target, with the stable compiler. How to fuzz is in
//! docs/testing.md.

#[path = "../fuzz/src/lib.rs"]
mod fuzz;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds")
}

#[test]
fn no_seed_breaks_a_decoder() {
    for (target, run) in fuzz::TARGETS {
        let mut count = 0;
        for entry in fs::read_dir(seeds().join(target)).unwrap() {
            let path = entry.unwrap().path();
            // Last line before a failure: which seed it was.
            println!("{}", path.display());
            run(&fs::read(&path).unwrap());
            count += 1;
        }
        assert!(count > 0, "no seed for {target}");
    }
}

#[test]
fn the_seeds_are_what_syncfs_makes_today() {
    let made = fuzz::seeds::all();
    let wanted: BTreeSet<PathBuf> =
        made.iter().map(|(target, name, _)| seeds().join(target).join(name)).collect();
    assert_eq!(wanted.len(), made.len(), "two seeds of one name");
    for (target, name, bytes) in made {
        let path = seeds().join(target).join(name);
        let there = fs::read(&path).unwrap_or_default();
        assert!(there == bytes, "{} is stale: cargo test --test seeds -- --ignored", path.display());
    }
    for (target, _) in fuzz::TARGETS {
        for entry in fs::read_dir(seeds().join(target)).unwrap() {
            let path = entry.unwrap().path();
            let found = path.file_name().unwrap().to_string_lossy().starts_with("found-");
            assert!(found || wanted.contains(&path), "{} belongs to nothing", path.display());
        }
    }
}

/// Not a test: `cargo test --test seeds -- --ignored` writes fuzz/seeds.
#[test]
#[ignore = "writes fuzz/seeds"]
fn write_the_seeds() {
    for (target, name, bytes) in fuzz::seeds::all() {
        let dir = seeds().join(target);
        fs::create_dir_all(&dir).unwrap();
        fs::write(dir.join(name), bytes).unwrap();
    }
}
