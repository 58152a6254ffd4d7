//! `syncfs resume`: lets deletes of the peer through that wait because they are many.

use super::args;
use super::client::{self, AT_ONCE};
use super::exit::{Exit, Outcome, say};
use super::units::many;
use crate::api::request::Request;

pub fn run(args: args::Resume) -> Outcome {
    let resumed = client::find(args.dir.as_deref())?.ask(&Request::post("/resume"), Some(AT_ONCE))?;
    match resumed["deletes"].as_u64() {
        Some(n) => say(format_args!("resumed: {} of the peer pass", many(n, "delete"))),
        None => say("nothing is paused"),
    }
    Ok(Exit::Ok)
}
