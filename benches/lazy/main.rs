//! What it is like to work on a host that holds only what it needs, over a link with a delay, beside sshfs on the
//! same link.
//!
//!     cargo bench --bench lazy
//!     SYNCFS_ONLY=random SYNCFS_SCALE=0.1 cargo bench --bench lazy
//!
//! Two real mounts in two network namespaces, `benches/link`. A has the files; B is mounted with `--cache-size`.
//! Each row is one story, in a file of its own; every byte that B reads is compared. Figures of B's traffic are
//! from `syncfs status`, those of sshfs from the link.
//!
//! | in the environment | |
//! |---|---|
//! | `SYNCFS_ONLY` | one row |
//! | `SYNCFS_SCALE` | sizes and counts, times this (1) |
//! | `SYNCFS_DELAY_MS`, `SYNCFS_RATE_MBIT` | the link: one way (25), each way (1000) |
//! | `SYNCFS_FILES` | files in `listing` that have half of all content (10,000) |
//! | `SYNCFS_READ_GIB` | what is read at random in `listing` (1) |
//! | `SYNCFS_HELD_PERCENT` | what is held of the huge file in `memory` (1) |
//!
//! Needs what `tests/mounts` needs, root, and sshfs and sshd for the figures beside; 5 GB of disk in the directory
//! for temporary files, 15 GB for `memory`.

#[path = "../link/mod.rs"]
mod link;
#[path = "../../tests/common/rig.rs"]
mod rig;
#[path = "../sshfs/mod.rs"]
mod sshfs;

mod figures;
mod hosts;
mod listing;
mod memory;
mod once;
mod pattern;
mod random;
mod sequential;
mod writing;

use figures::MIB;
use link::{Link, Yardstick, only};

type Row = fn(&Link, &Yardstick);

const ROWS: [(&str, Row); 6] = [
    ("listing", listing::run),
    ("sequential", sequential::run),
    ("random", random::run),
    ("writing", writing::run),
    ("once", once::run),
    ("memory", memory::run),
];

fn main() {
    let (link, yardstick) = Link::wanted(1000.0, |_| 500 * MIB);
    let only = only(&ROWS.map(|(name, _)| name));
    for (name, row) in ROWS {
        if only.as_deref().is_none_or(|only| only == name) {
            println!("{name}:");
            row(&link, &yardstick);
        }
    }
}
