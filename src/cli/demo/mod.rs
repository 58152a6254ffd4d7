//! `syncfs demo`: two daemons on this machine, as if on two hosts, and what they do, live.
//!
//! Reading order: [`story`] (what is shown), [`stage`] (the directories and the daemons), [`files`]
//! (content to show it with).
//!
//! Invariant: however it ends, with an error or by Ctrl-C, nothing stays mounted and the stage is
//! removed.

mod files;
mod stage;
mod story;

use super::args;
use super::exit::{Exit, Outcome, complain, say};
use super::signals::Signals;
use anyhow::Context;
use stage::Stage;
use std::sync::Arc;
use tokio::runtime::{Builder, Runtime};

pub fn run(args: args::Demo) -> Outcome {
    let runtime = Builder::new_current_thread().enable_all().build().context("can't start threads")?;
    let mut signals = Signals::new(runtime.handle())?;
    let stage = Arc::new(Stage::set().context("can't set the stage")?);
    let result = perform(&runtime, &mut signals, &stage, args.exit);
    // Without waiting for a show that was broken off: what it reads goes away under it.
    runtime.shutdown_background();
    if result.as_ref().is_err_and(|error| !error.is::<Interrupted>()) {
        stage.logs().iter().for_each(|log| complain(log));
    }
    let cleared = stage.clear().context("can't clear up");
    result.and(cleared)?;
    say("Nothing stays mounted, and the demo's files are removed.");
    Ok(Exit::Ok)
}

/// Somebody did not want to see more.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
struct Interrupted;

fn perform(runtime: &Runtime, signals: &mut Signals, stage: &Arc<Stage>, exit: bool) -> anyhow::Result<()> {
    act(runtime, signals, stage, story::show).unwrap_or_else(|| Err(Interrupted.into()))?;
    if !exit {
        story::invite(stage);
        // Enter and Ctrl-C are both a good end here.
        act(runtime, signals, stage, |_| Ok(std::io::stdin().read_line(&mut String::new()).map(drop)?));
    }
    act(runtime, signals, stage, story::end).unwrap_or_else(|| Err(Interrupted.into()))
}

/// One part of the show, on a thread of its own, so that a signal can break it off: then `None`.
fn act(
    runtime: &Runtime,
    signals: &mut Signals,
    stage: &Arc<Stage>,
    part: impl FnOnce(&Stage) -> anyhow::Result<()> + Send + 'static,
) -> Option<anyhow::Result<()>> {
    let stage = stage.clone();
    let part = runtime.spawn_blocking(move || part(&stage));
    runtime.block_on(async {
        tokio::select! {
            result = part => Some(result.context("the demo broke off").and_then(|shown| shown)),
            () = signals.any() => None,
        }
    })
}
