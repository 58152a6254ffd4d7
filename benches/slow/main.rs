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

use link::{Link, only};

fn main() {
    let only = only(&["text", "edit", "fast"]);
    let wanted = |row: &str| only.as_deref().is_none_or(|only| only == row);
    let (link, _) = Link::wanted(2.0, |rate| (rate / 2.0) as u64);
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
