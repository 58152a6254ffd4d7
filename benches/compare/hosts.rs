//! Pairs of hosts over loopback, and what lies in their directories.

use crate::rig::Pair;
use std::fs::{File, FileTimes};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

/// Rows delete what they made, and nobody is to be asked.
const STORM: &str = "1000000000";
/// When all files were changed that are the same on both hosts.
const THEN: Duration = Duration::from_secs(1_700_000_000);

/// Two hosts over loopback, not yet running.
pub fn apart([a, b]: [&Path; 2]) -> Pair {
    let root = tempfile::tempdir().expect("a directory");
    let mut pair = Pair::of([a.to_owned(), b.to_owned()], root);
    for host in [&mut pair.a, &mut pair.b] {
        host.option("--max-delete", Path::new(STORM));
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
