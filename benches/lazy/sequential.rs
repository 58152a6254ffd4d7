//! A large file that is not held is read from its beginning to its end, and then once more. sshfs reads only the
//! first of it: far away it is slow.

use crate::figures::{GIB, MIB, scaled, timed};
use crate::hosts::Hosts;
use crate::link::{Link, Yardstick};
use crate::pattern::Pattern;
use crate::sshfs::Sshfs;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

pub fn run(link: &Link, _: &Yardstick) {
    let (large, hosts) = Hosts::with_large(link, scaled(2 * GIB), 2 * scaled(2 * GIB));
    let speed = |dir: &Path, part: &Pattern| {
        let digest = part.digest();
        let (found, time) = timed(|| read(&dir.join("large"), part.size));
        assert_eq!(found, digest, "what was read is what was written");
        part.size as f64 / time.as_secs_f64()
    };
    let before = hosts.received();
    let ours = speed(&hosts.b.dir, &large);
    let received = hosts.received() - before;
    let held = speed(&hosts.b.dir, &large);
    let first = Pattern { size: large.size.min(100 * MIB), ..large };
    let theirs = Sshfs::mount(Some(link), &hosts.a.dir).map(|sshfs| speed(&sshfs.dir, &first));
    // The link as it was just now: others work on this machine, too.
    let plain = Yardstick::of(link, large.size).throughput;
    let share = |speed: f64| format!("{:.1} MB/s, {:.0} % of plain TCP", speed / 1e6, speed * 100.0 / plain);
    println!("  {:.2} GB, plain TCP {:.1} MB/s", large.size as f64 / 1e9, plain / 1e6);
    println!("  syncfs {}; received {:.3} of the content", share(ours), received as f64 / large.size as f64);
    if let Some(theirs) = theirs {
        println!("  sshfs {}; syncfs is {:.2} times as fast", share(theirs), ours / theirs);
    }
    println!("  syncfs again, held: {}", share(held));
    hosts.end();
}

/// A digest of the first bytes of a file.
pub fn read(path: &Path, most: u64) -> u64 {
    let (mut file, mut digest) = (File::open(path).unwrap().take(most), Xxh3::new());
    let mut bytes = vec![0; 1 << 20];
    while let length @ 1.. = file.read(&mut bytes).unwrap() {
        digest.update(&bytes[..length]);
    }
    digest.digest()
}
