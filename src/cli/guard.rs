//! A small process that stands by while a daemon lives, and breaks its connection to the kernel when it dies.
//!
//! A daemon that is killed may be unable to end: a thread of it waits in the kernel for the directory, for good; a
//! program that asked the daemon something has the directory; and the connection, with which all of it would end, lasts as long as
//! that thread. So somebody else must break it. After an orderly end nothing is left to break.
//!
//! Invariant: what is broken is the daemon's own connection, never one that came later.

use super::args;
use super::exit::{Exit, Outcome};
use super::signals::Signals;
use crate::fs::mount;
use anyhow::Context;
use rustix::process::{Pid, Signal};
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use tokio::runtime::{Builder, Handle};
use tokio::signal::unix::{SignalKind, signal};

/// Starts the guard of the mount at `target`. To be called on the thread that lives as long as this process.
pub fn post(target: &Path) -> anyhow::Result<()> {
    // Its words have the cause in them.
    let breaker = mount::breaker(target).map_err(|e| anyhow::anyhow!("{e}"))?;
    let mut guard = Command::new(std::env::current_exe().context("can't find this program")?);
    guard.arg("guard").arg(std::process::id().to_string());
    guard.stdin(Stdio::null()).stdout(breaker).stderr(Stdio::null());
    guard.spawn().context("can't start a process")?;
    Ok(())
}

/// What the guard does. Its standard output is the breaker.
pub fn run(args: args::Guard) -> Outcome {
    rustix::process::setsid().context("can't leave the session")?;
    let runtime = Builder::new_current_thread().enable_all().build().context("can't wait for signals")?;
    runtime.block_on(async {
        let mut death = signal(SignalKind::user_defined1()).context("can't catch signals")?;
        // Whoever ends all that belongs to the daemon ends the daemon, and so its guard.
        let _deaf = Signals::new(&Handle::current())?;
        rustix::process::set_parent_process_death_signal(Some(Signal::USR1)).context("can't watch")?;
        if rustix::process::getppid() == Pid::from_raw(args.daemon) {
            death.recv().await;
        }
        anyhow::Ok(())
    })?;
    // Refused where the connection is gone.
    let _ = std::io::stdout().write_all(b"1\n");
    Ok(Exit::Ok)
}
