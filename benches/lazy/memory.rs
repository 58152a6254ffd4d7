//! What B's daemon takes of memory for very many files, and for a huge one, of which it holds little.

use crate::figures::{awaited, scaled, timed};
use crate::hosts::Hosts;
use crate::link::{Link, Yardstick, number};
use crate::pattern::Pattern;
use crate::rig::wait_for;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::Duration;
use syncfs::model::limits::GROUP_BYTES;

const READERS: u64 = 16;
/// What is above the limit has so long to go.
const CALM: Duration = Duration::from_secs(20);

pub fn run(link: &Link, _: &Yardstick) {
    many(link);
    huge(link);
}

fn many(link: &Link) {
    let limit = 10_000_000;
    let mut hosts = Hosts::new(link, limit);
    let files = scaled(100_000);
    for n in 0..files {
        Pattern::dense(n, 2_000).write(&hosts.a.path(format!("file {n}")));
    }
    hosts.a.start();
    hosts.b.start();
    let [before, _] = memory(&mut hosts);
    let (there, time) = awaited(|| hosts.b.status()["files"] == files);
    assert!(there, "B has {} of {files} files", hosts.b.status()["files"]);
    let [now, most] = memory(&mut hosts);
    println!(
        "  {files} files of 2,000 bytes, there after {:.1} s: {} ({:.1} MB at the start), {:.0} bytes a file",
        time.as_secs_f64(),
        shown([now, most]),
        before as f64 / 1e6,
        (now - before) as f64 / files as f64,
    );
    println!("  {}", held(&hosts));
    if hosts.b.status()["cache"]["used"].as_u64() > Some(limit) {
        std::thread::sleep(CALM);
        println!("  the limit is {limit} bytes; {} s later: {}", CALM.as_secs(), held(&hosts));
    }
    hosts.end();
}

fn huge(link: &Link) {
    let huge = Pattern { seed: 1, size: scaled(1 << 40), every: 1009 };
    let groups = huge.size / GROUP_BYTES;
    let held_groups = (groups as f64 * number("SYNCFS_HELD_PERCENT", 1.0) / 100.0) as u64;
    let mut hosts = Hosts::new(link, 2 * held_groups * GROUP_BYTES + 100_000_000);
    huge.write(&hosts.a.path("huge"));
    hosts.start(1);
    let start = memory(&mut hosts);
    let path = hosts.b.path("huge");
    let ((), time) = timed(|| {
        std::thread::scope(|scope| {
            for reader in 0..READERS {
                let path = &path;
                scope.spawn(move || {
                    let file = File::open(path).unwrap();
                    let mut bytes = vec![0; GROUP_BYTES as usize];
                    for n in (reader..held_groups).step_by(READERS as usize) {
                        let at = n * groups / held_groups * GROUP_BYTES;
                        file.read_exact_at(&mut bytes, at).unwrap();
                        huge.check(at, &bytes);
                    }
                });
            }
        });
    });
    println!(
        "  a file of {:.2} TB, {held_groups} groups read ({:.2} GB, {:.2} %, {:.0} s): {}; before {}",
        huge.size as f64 / 1e12,
        (held_groups * GROUP_BYTES) as f64 / 1e9,
        held_groups as f64 * 100.0 / groups as f64,
        time.as_secs_f64(),
        shown(memory(&mut hosts)),
        shown(start),
    );
    println!("  {}", held(&hosts));
    hosts.end();
}

/// Bytes that B's daemon takes, and the most that it took.
fn memory(hosts: &mut Hosts) -> [u64; 2] {
    let id = hosts.b.daemon().id();
    let status =
        wait_for("the daemon's state", || std::fs::read_to_string(format!("/proc/{id}/status")).ok());
    ["VmRSS:", "VmHWM:"].map(|what| {
        let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("a daemon has memory");
        1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
    })
}

fn shown([now, most]: [u64; 2]) -> String {
    format!("VmRSS {:.1} MB, VmHWM {:.1} MB", now as f64 / 1e6, most as f64 / 1e6)
}

/// What B says that it holds.
fn held(hosts: &Hosts) -> String {
    let status = hosts.b.status();
    format!("held: {} bytes, missing: {} chunks", status["cache"]["used"], status["missing_chunks"])
}
