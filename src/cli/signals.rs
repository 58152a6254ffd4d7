//! The signals that ask a process to end: SIGTERM, SIGINT, SIGHUP.
//!
//! Invariant: from the moment a [`Signals`] is made, none of them kills the process by itself, and
//! one that comes before somebody waits for it is not lost.

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::signal::unix::{Signal, SignalKind, signal};

pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub fn new(runtime: &Handle) -> anyhow::Result<Signals> {
        let _inside = runtime.enter();
        let on = |kind| signal(kind).context("can't catch signals");
        Ok(Signals {
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
            hangup: on(SignalKind::hangup())?,
        })
    }

    /// Returns when one of them came.
    pub async fn any(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}
