//! `syncfs flush`: returns when both sides are level and durable.

use super::args;
use super::client::{self, AT_ONCE};
use super::exit::{Exit, Outcome, complain};
use crate::api::request::Request;

pub fn run(args: args::Flush) -> Outcome {
    let mut client = client::find(args.dir.as_deref())?;
    let timeout_ms = args.timeout.map(|t| u64::try_from(t.as_millis()).unwrap_or(u64::MAX));
    // The daemon keeps the time; we only notice when the daemon itself hangs.
    let patience = args.timeout.map(|t| t.saturating_add(AT_ONCE));
    let level = client.ask(&Request::post("/flush").with_some("timeout_ms", timeout_ms), patience)?;
    match level["conflicts"].as_u64() {
        None | Some(0) => Ok(Exit::Ok),
        Some(n) => {
            complain(&format_args!(
                "both sides are level, but conflict copies wait for you: {n}; see `syncfs conflicts`"
            ));
            Ok(Exit::Conflicts)
        }
    }
}
