//! What a huge file and a flood of files cost the daemons in memory, and that the former can be got rid of.

use crate::able;
use crate::rig::{Pair, wait_for};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;

const HUGE: u64 = 100 << 30;
/// Megabytes that a daemon may need at most.
const MOST: u64 = 400;

/// The most memory that a process ever had, in megabytes.
fn peak(pid: i32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a process of ours");
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

#[test]
fn a_hundred_gigabytes_of_holes_need_little_memory_on_either_side() {
    if !able(&["setpriv"]) {
        return;
    }
    let mut pair = Pair::mounted();
    let before = [pair.a.daemon().id(), pair.b.daemon().id()].map(peak);
    let file = File::create(pair.a.path("huge")).unwrap();
    file.set_len(HUGE).unwrap();
    for n in 0..2_000 {
        file.write_all_at(b"x", n * (HUGE / 2_000)).unwrap();
    }
    drop(file);
    wait_for("the name is at the peer", || pair.b.path("huge").exists().then_some(()));
    let huge = File::open(pair.b.path("huge")).unwrap();
    let mut byte = [0];
    wait_for("its end can be read there", || {
        huge.read_at(&mut byte, HUGE / 2_000 * 1_999).is_ok_and(|_| byte == *b"x").then_some(())
    });
    drop(huge);
    // The background copy at work; what is asked for here is a bound, not an end.
    std::thread::sleep(Duration::from_secs(crate::number("SYNCFS_HUGE", 5)));
    let after = [pair.a.daemon().id(), pair.b.daemon().id()].map(peak);
    println!("peak memory: A {} then {} MB, B {} then {} MB", before[0], after[0], before[1], after[1]);
    assert!(after.iter().all(|megabytes| *megabytes < MOST), "{after:?} MB");
    std::fs::remove_file(pair.a.path("huge")).unwrap();
    assert!(pair.finish().is_empty());
}

#[test]
fn who_waits_while_thousands_of_files_are_told_takes_no_memory_for_it() {
    let mut pair = Pair::new();
    // The same on both, but for their times, which have to travel.
    for host in [&pair.a, &pair.b] {
        for n in 0..20_000 {
            std::fs::write(host.path(format!("file {n}")), b"small").unwrap();
        }
    }
    pair.a.start();
    pair.b.start();
    pair.a.flush();
    let peaks = [pair.a.daemon().id(), pair.b.daemon().id()].map(peak);
    println!("peak memory: {peaks:?} MB");
    // Each time that something moved, all that was yet to be told was queued once more: 300 MB.
    assert!(peaks.iter().all(|megabytes| *megabytes < 120), "{peaks:?} MB");
    assert_eq!(pair.finish().len(), 20_000);
}
