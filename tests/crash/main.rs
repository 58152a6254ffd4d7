//! The built syncfs on real mounts, and everything that may befall it: its daemons are killed between any two
//! system calls, the power goes, disks fill up and fail, state is damaged, the peer vanishes or freezes.
//!
//! Each test has a short run, which is the default, and a long one; docs/testing.md says how to ask for it. What a machine
//! can't do is told and passed over.

mod damage;
mod database;
mod disk;
mod errors;
mod kills;
mod memory;
mod power;
#[path = "../common/rig.rs"]
mod rig;
mod scribe;
mod silence;
mod space;
mod strace;
mod user;

/// Whether the machine can do what a test needs; says so where it can't.
fn able(tools: &[&str]) -> bool {
    if !rustix::process::geteuid().is_root() {
        println!("passed over: needs root");
        return false;
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    let there = |tool: &&str| std::env::split_paths(&path).any(|dir| dir.join(tool).exists());
    match tools.iter().find(|tool| !there(tool)) {
        Some(tool) => println!("passed over: {tool} is not installed"),
        None => return true,
    }
    false
}

/// A number from the environment, for longer runs.
fn number(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |n| n.parse().unwrap_or_else(|_| panic!("{name}={n}")))
}

/// The seed of this run: given, or a new one; printed for replay.
fn seed() -> u64 {
    let new = || std::time::UNIX_EPOCH.elapsed().map_or(1, |now| now.as_nanos() as u64 % 1_000_000_007);
    let seed = number("SYNCFS_SEED", new());
    println!("SYNCFS_SEED={seed}");
    seed
}

/// What a panic said.
fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic")
}
