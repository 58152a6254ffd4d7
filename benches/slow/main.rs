//! What it is like to share over a slow link, and what that costs where the link is fast.
//!
//!     cargo bench --bench slow
//!     SYNCFS_ONLY=text SYNCFS_RATE_MBIT=1 cargo bench --bench slow
//!
//! Two real mounts at the ends of `benches/link`, both of which hold everything; `fast` needs no link, its two mounts are joined
//! over loopback. Each row is a story, in a file of its own.
//!
//! | in the environment | |
//! |---|---|
//! | `SYNCFS_ONLY` | one row |
//! | `SYNCFS_DELAY_MS`, `SYNCFS_RATE_MBIT` | the link: one way (25), each way (2) |
//! | `SYNCFS_FAST_MB`, `SYNCFS_FAST_RUNS` | what crosses in each run of `fast` (300), and how many runs of each kind (5) |
//!
//! Needs what `tests/mounts` needs, and root.

#[path = "../link/mod.rs"]
#[allow(dead_code)]
mod link;
#[path = "../../tests/common/rig.rs"]
mod rig;

mod edit;
mod fast;
mod hosts;
mod text;

use link::{Link, Terms, Yardstick};
use std::time::Duration;

fn main() {
    let only = std::env::var("SYNCFS_ONLY").ok();
    let rows = ["text", "edit", "fast"];
    assert!(only.iter().all(|only| rows.contains(&only.as_str())), "no such row: {only:?}");
    let wanted = |row: &str| only.as_deref().is_none_or(|only| only == row);
    let delay = Duration::from_secs_f64(number("SYNCFS_DELAY_MS", 25.0) / 1e3);
    let rate = number("SYNCFS_RATE_MBIT", 2.0) * 1e6;
    let link = Link::new(Terms { delay, rate });
    let yardstick = Yardstick::of(&link, (rate / 2.0) as u64);
    println!(
        "the link, made for {:.0} ms there and back and {:.1} Mbit/s: ping {:.2} ms, plain TCP {:.2} Mbit/s",
        delay.as_secs_f64() * 2e3,
        rate / 1e6,
        yardstick.rtt.as_secs_f64() * 1e3,
        yardstick.throughput * 8.0 / 1e6,
    );
    if wanted("text") {
        text::run(&link);
    }
    if wanted("edit") {
        edit::run(&link);
    }
    if wanted("fast") {
        fast::run();
    }
}

/// A number from the environment.
fn number(name: &str, default: f64) -> f64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{name}: a number")))
}
