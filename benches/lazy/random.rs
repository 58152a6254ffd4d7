//! Small reads here and there in a large file that is not held.

use crate::figures::{GIB, Times, random, scaled, timed};
use crate::hosts::Hosts;
use crate::link::{Link, Yardstick};
use crate::pattern::Pattern;
use crate::sshfs::Sshfs;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use syncfs::model::limits::GROUP_BYTES;

const PIECE: u64 = 4096;

pub fn run(link: &Link, yardstick: &Yardstick) {
    let (large, hosts) = Hosts::with_large(link, scaled(GIB), 200_000_000);
    let places = places(&large, scaled(500));
    let read = |dir: &Path| {
        let file = File::open(dir.join("large")).unwrap();
        let mut bytes = vec![0; PIECE as usize];
        let read = |at: &u64| {
            let ((), time) = timed(|| file.read_exact_at(&mut bytes, *at).unwrap());
            large.check(*at, &bytes);
            time
        };
        Times::of(places.iter().map(read).collect()).shown(yardstick)
    };
    let each = |bytes: u64| bytes as f64 / places.len() as f64;
    println!("  {} reads of {PIECE} bytes, each in another group", places.len());
    let before = hosts.received();
    let times = read(&hosts.b.dir);
    let ours = each(hosts.received() - before);
    println!("  syncfs {ours:.0} bytes received for each, {times}");
    if let Some(sshfs) = Sshfs::mount(Some(link), &hosts.a.dir) {
        let before = link.carried();
        let times = read(&sshfs.dir);
        let theirs = each(link.carried() - before);
        println!(
            "  sshfs {theirs:.0} bytes both ways, {times}; syncfs takes {:.2} of its bytes",
            ours / theirs
        );
    }
    hosts.end();
}

/// Where to read: pages, each in another group, so that nothing of it came with an earlier one.
fn places(large: &Pattern, count: u64) -> Vec<u64> {
    let groups = large.size / GROUP_BYTES;
    assert!(count <= groups, "there are as many groups");
    let mut order: Vec<(u64, u64)> = random(1, groups).into_iter().zip(0..groups).collect();
    order.sort();
    order.truncate(count as usize);
    order
        .into_iter()
        .map(|(random, group)| (group * GROUP_BYTES + random % (GROUP_BYTES - PIECE)).next_multiple_of(PIECE))
        .collect()
}
