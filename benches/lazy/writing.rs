//! Small writes here and there into a large file that is not held.

use crate::figures::{GIB, Times, random, scaled, timed};
use crate::hosts::Hosts;
use crate::link::{Link, Yardstick};
use crate::pattern::{BLOCK, Pattern};
use crate::rig::noise;
use crate::sshfs::Sshfs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;

const PIECE: u64 = 4096;

pub fn run(link: &Link, yardstick: &Yardstick) {
    let (large, hosts) = Hosts::with_large(link, scaled(GIB), 200_000_000);
    let writes: Vec<(u64, Vec<u8>)> = random(1, scaled(500))
        .into_iter()
        .map(|random| (random % (large.size - PIECE), noise(random, PIECE as usize)))
        .collect();
    let write = |dir: &Path, durable: &dyn Fn(&File)| {
        let file = File::options().write(true).open(dir.join("large")).unwrap();
        let write = |(at, bytes): &(u64, Vec<u8>)| timed(|| file.write_all_at(bytes, *at).unwrap()).1;
        let times = Times::of(writes.iter().map(write).collect()).shown(yardstick);
        let ((), after) = timed(|| durable(&file));
        format!("{times}, and {:.2} s until they are durable on A", after.as_secs_f64())
    };
    println!("  {} writes of {PIECE} bytes at any offset", writes.len());
    let before = hosts.received();
    let times = write(&hosts.b.dir, &|_| hosts.b.flush());
    let each = (hosts.received() - before) as f64 / writes.len() as f64;
    println!("  syncfs {each:.0} bytes received for each, {times}");
    check(&large, &writes, &hosts.a.path("large"));
    if let Some(sshfs) = Sshfs::mount(Some(link), &hosts.a.dir) {
        let before = link.carried();
        let times = write(&sshfs.dir, &|file| file.sync_all().unwrap());
        let theirs = (link.carried() - before) as f64 / writes.len() as f64;
        println!("  sshfs {theirs:.0} bytes both ways, {times}");
    }
    hosts.end();
}

/// A has what was written, and all else as it was.
fn check(large: &Pattern, writes: &[(u64, Vec<u8>)], path: &Path) {
    let file = File::open(path).unwrap();
    for start in (0..large.size).step_by(BLOCK as usize) {
        let end = (start + BLOCK).min(large.size);
        let mut expected = large.bytes(start..end);
        for (at, bytes) in writes {
            let (from, to) = (start.max(*at), end.min(at + PIECE));
            if from < to {
                let written = &bytes[(from - at) as usize..(to - at) as usize];
                expected[(from - start) as usize..(to - start) as usize].copy_from_slice(written);
            }
        }
        let mut found = vec![0; expected.len()];
        file.read_exact_at(&mut found, start).unwrap();
        assert!(found == expected, "other bytes behind {start}");
    }
}
