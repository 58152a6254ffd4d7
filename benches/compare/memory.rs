//! What a daemon takes of memory.

use crate::figure::{Figure, Goal, Unit};
use crate::rig::{Host, Pair};
use std::collections::BTreeMap;

pub const LOCAL: &str = "memory-local";
/// What is allowed for all, and for each file.
const ALLOWED: u64 = 150_000_000;
const EACH: u64 = 300;

/// The most that both daemons took, since they began.
pub fn of(name: &str, title: &str, pair: &mut Pair) -> Figure {
    let goal = Goal::AtMost((ALLOWED + EACH * pair.a.status()["files"].as_u64().unwrap_or(0)) as f64);
    Figure::new(name, title, Unit::Bytes, [goal]).measured(|figure| {
        let [ours, theirs] = [&mut pair.a, &mut pair.b].map(|host| taken(host, "VmHWM:") as f64);
        figure.rounds = vec![BTreeMap::from([("syncfs".into(), ours), ("its peer".into(), theirs)])];
    })
}

/// Bytes, as `/proc/PID/status` has them: `VmRSS:` now, `VmHWM:` at most.
pub fn taken(host: &mut Host, what: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", host.daemon().id())).expect("a daemon");
    let line = status.lines().find_map(|line| line.strip_prefix(what)).expect("it has memory");
    1024 * line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number")
}
