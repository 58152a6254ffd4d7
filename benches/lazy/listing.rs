//! A host joins a share of 20 GiB, one file of which is half, with a cache of 200 MB: how soon it shows all of it,
//! how soon it reads from it, and what it takes on the disk while two readers are at work.

use crate::figures::{GIB, awaited, random, scaled, timed};
use crate::hosts::{DiskUse, Hosts};
use crate::link::{Link, Yardstick, number};
use crate::pattern::{BLOCK, Pattern};
use crate::rig::{run as tool, until};
use crate::sshfs::Sshfs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use syncfs::model::limits::GROUP_BYTES;

const LIMIT: u64 = 200_000_000;
const READERS: u64 = 2;
const PIECE: u64 = 256 << 10;

pub fn run(link: &Link, yardstick: &Yardstick) {
    let mut hosts = Hosts::new(link, LIMIT);
    let large = Pattern { seed: 1, size: scaled(10 * GIB), every: 5 };
    large.write(&hosts.a.path("large"));
    let files = scaled(number("SYNCFS_FILES", 10_000.0) as u64);
    let mean = scaled(10 * GIB) / files;
    for n in 0..files {
        let size = mean / 2 + n * 7_919 % mean;
        let file = File::create_new(hosts.a.path(format!("file {n}"))).unwrap();
        file.set_len(size).unwrap();
        file.write_all_at(&Pattern::dense(2 + n, 1000).bytes(0..1000), 0).unwrap();
    }
    let all = listed(&hosts.a.dir);
    hosts.a.start();
    hosts.b.start();
    until("both are connected", || hosts.b.status()["peer"]["connected"] == true);
    // Who looks again and again holds up what they wait for.
    let ((whole, shown), ours) = timed(|| {
        let (whole, _) = awaited(|| hosts.b.status()["files"] == files + 1);
        (whole, listed(&hosts.b.dir))
    });
    assert!(whole && shown == all, "B lists {shown:?} of {all:?}");
    let (received, joined) = (hosts.received(), DiskUse::of(&hosts.store));
    let sshfs = Sshfs::mount(Some(link), &hosts.a.dir);
    let beside = |text: &dyn Fn(&Sshfs) -> String| sshfs.as_ref().map_or(String::new(), text);
    println!(
        "  {} files, {:.1} GB: {:.2} s from connecting to a whole `ls -l`, {:.1} MB received{}; as a copy {:.0} s",
        all.0,
        all.1 as f64 / 1e9,
        ours.as_secs_f64(),
        received as f64 / 1e6,
        beside(&|sshfs| {
            let (found, theirs) = timed(|| listed(&sshfs.dir));
            assert_eq!(found, all);
            format!("; sshfs {:.2} s, mounted already", theirs.as_secs_f64())
        }),
        all.1 as f64 / yardstick.throughput,
    );
    println!("  then on B's disk: {joined}; the limit is {:.1} MB", LIMIT as f64 / 1e6);

    let middle = large.size / 2 / BLOCK / large.every * large.every * BLOCK;
    let first = |dir: &Path| {
        let file = File::open(dir.join("large")).unwrap();
        let mut byte = [0];
        let ((), time) = timed(|| file.read_exact_at(&mut byte, middle).unwrap());
        large.check(middle, &byte);
        yardstick.rtts(time)
    };
    println!(
        "  the first byte in the middle of {:.1} GB: {:.2} RTT{}",
        large.size as f64 / 1e9,
        first(&hosts.b.dir),
        beside(&|sshfs| format!("; sshfs {:.2} RTT", first(&sshfs.dir))),
    );
    drop(sshfs);

    let before = DiskUse::of(&hosts.store);
    let total = (number("SYNCFS_READ_GIB", 1.0) * GIB as f64) as u64;
    let (most, time) = timed(|| most_while(&hosts.store, || read_at_random(&large, &hosts.b.dir, total)));
    let used = hosts.b.status()["cache"]["used"].as_u64().unwrap_or(0);
    println!(
        "  {READERS} readers, {:.1} GB at random, {:.1} MB/s; {:.1} MB used in the end",
        total as f64 / 1e9,
        total as f64 / 1e6 / time.as_secs_f64(),
        used as f64 / 1e6,
    );
    println!(
        "  on B's disk at most {most}; before {before}; limit and a group for each open file: {:.1} MB",
        (LIMIT + READERS * GROUP_BYTES) as f64 / 1e6,
    );
    hosts.end();
}

/// Files and bytes that `ls -l` shows.
fn listed(dir: &Path) -> (usize, u64) {
    let lines = tool(dir, &["ls", "-l"]);
    let sizes = lines.lines().filter_map(|line| line.split_ascii_whitespace().nth(4)?.parse::<u64>().ok());
    sizes.fold((0, 0), |(files, bytes), size| (files + 1, bytes + size))
}

/// Half of the reads go to where there is noise.
fn read_at_random(large: &Pattern, dir: &Path, total: u64) {
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            scope.spawn(move || {
                let file = File::open(dir.join("large")).unwrap();
                let mut bytes = vec![0; PIECE as usize];
                for (n, at) in random(reader, total / READERS / PIECE).into_iter().enumerate() {
                    let noisy = large.size / BLOCK / large.every;
                    let at = match n % 2 {
                        0 => at % noisy * large.every * BLOCK + at % (BLOCK - PIECE),
                        _ => at % (large.size - PIECE),
                    };
                    file.read_exact_at(&mut bytes, at).unwrap();
                    large.check(at, &bytes);
                }
            });
        }
    });
}

/// The most that a directory took on the disk during some work.
fn most_while(dir: &Path, work: impl FnOnce()) -> DiskUse {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let watcher = scope.spawn(|| {
            let mut most = DiskUse::default();
            while !over.load(Relaxed) {
                let begun = Instant::now();
                most = most.most(DiskUse::of(dir));
                // A fifth of the time at most goes into looking.
                std::thread::sleep(Duration::from_millis(100).max(4 * begun.elapsed()));
            }
            most
        });
        work();
        over.store(true, Relaxed);
        watcher.join().unwrap()
    })
}
