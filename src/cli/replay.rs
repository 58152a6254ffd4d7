//! The process that shows programs that watch a mount what the peer does: [`crate::fs::replayer`] says why it is one.
//!
//! Invariant: it lives as long as its daemon, however that ends, and no longer.

use super::exit::{Exit, Outcome};
use super::signals::Signals;
use crate::fs::replayer::{self, Replayer};
use anyhow::Context;
use std::process::{Command, Stdio};
use tokio::runtime::Builder;

/// Starts it for a mount of this process.
pub fn start() -> anyhow::Result<Replayer> {
    let mut process = Command::new(std::env::current_exe().context("can't find this program")?);
    process.arg("replay").stdout(Stdio::null()).stderr(Stdio::null());
    Replayer::start(process).context("can't start a process")
}

/// What the process does. Its standard input says what to show.
pub fn run() -> Outcome {
    rustix::process::setsid().context("can't leave the session")?;
    // Whoever ends all that belongs to the daemon ends the daemon, and so this.
    let runtime = Builder::new_current_thread().enable_all().build().context("can't catch signals")?;
    let _deaf = Signals::new(runtime.handle())?;
    replayer::obey(std::io::stdin()).context("can't obey")?;
    Ok(Exit::Ok)
}
