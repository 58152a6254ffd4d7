//! Pairs of hosts over loopback, and what lies in their directories.

use crate::rig::{Host, Pair};
use std::fs::{File, FileTimes};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// Rows delete what they made, and nobody is to be asked.
const STORM: &str = "1000000000";
/// How long many files may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// When all files were changed that are the same on both hosts.
const THEN: Duration = Duration::from_secs(1_700_000_000);

/// Two hosts over loopback, not yet running.
pub fn apart([a, b]: [&Path; 2]) -> Pair {
    let root = tempfile::tempdir().expect("a directory");
    let mut pair = Pair::of([a.to_owned(), b.to_owned()], root);
    for host in [&mut pair.a, &mut pair.b] {
        host.option("--max-delete", Path::new(STORM));
        host.patience = PATIENCE;
    }
    pair
}

/// Two hosts over loopback, connected.
pub fn connected(dirs: [&Path; 2]) -> Pair {
    let mut pair = apart(dirs);
    pair.a.start();
    pair.b.start();
    pair.a.flush();
    pair
}

/// Returns when both sides hold the same, durably: of many files that takes longer than a test would wait.
pub fn level(host: &Host) {
    let begun = Instant::now();
    while !host.syncfs(&["flush", "--timeout", "60"]).status.success() {
        let why = host.status()["peer"]["last_error"].to_string();
        assert!(begun.elapsed() < PATIENCE, "the two sides do not get level, the peer's last error is {why}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Makes so many files of this content, the same each time.
pub fn fill(dir: &Path, files: u64, content: &[u8]) {
    for n in 0..files {
        let mut file = File::create_new(dir.join(name(n))).expect("a file");
        file.write_all(content).expect("written");
        file.set_times(FileTimes::new().set_modified(UNIX_EPOCH + THEN)).expect("a time");
    }
}

pub fn name(n: u64) -> String {
    format!("file {n}")
}
