//! syncfs beside what users would take instead, and beside what is under it. `benches/run` builds and calls this; its
//! arguments are those of `Options`.
//!
//! Invariants: a row never fails the run; it says why it was left out, and the next one goes on. All is mounted in a mount
//! namespace of this process alone, so however the process ends, no mount is left, and no loop device.

#[path = "../link/mod.rs"]
#[allow(dead_code)]
mod link;
#[path = "../../tests/common/rig.rs"]
mod rig;
#[path = "../sshfs/mod.rs"]
mod sshfs;

mod bare;
#[allow(dead_code)]
mod figure;
mod ground;
mod hosts;
mod idle;
mod local;
mod memory;
#[allow(dead_code)]
mod options;
mod peers;
mod report;
mod scale;
mod two;

use clap::Parser;
use figure::Figure;
use options::Options;
use rustix::mount::{MountPropagationFlags, mount_change};
use rustix::thread::{UnshareFlags, unshare_unsafe};

/// Rows that share what they run on: a name that `--only` may say, and what measures of them what `options` want.
type Group = (&'static str, fn(&Options) -> Vec<Figure>);

/// All groups, in the order of the table. A folder adds its own here.
const GROUPS: &[&[Group]] = &[local::GROUPS, two::GROUPS, idle::GROUPS, scale::GROUPS];

fn main() {
    if let Some(task) = bare::asked_for() {
        return bare::run(&task);
    }
    let options = Options::parse();
    stand_apart();
    for (name, measure) in GROUPS.iter().copied().flatten() {
        let found = measure(&options.within(name));
        report::table::print(&found);
        // What ends in the middle has measured something.
        if options.write {
            report::write(&options, found);
        }
    }
}

/// From now on nobody else sees what is mounted here.
fn stand_apart() {
    // SAFETY: there is only one thread yet, and its descriptors stay as they are.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.expect("a mount namespace, which takes root");
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    mount_change("/", private).expect("mounts that nobody else sees");
}
