//! `syncfs resolve`: which version of a file in conflict keeps the name.

use super::args::{self, Keep};
use super::client::{self, AT_ONCE};
use super::exit::{Exit, Failure, Outcome, say};
use crate::api::request::Request;
use crate::api::versions::Decided;
use anyhow::Context;

pub fn run(args: args::Resolve) -> Outcome {
    let (mut client, name) = client::of_file(&args.file)?;
    let keep = match args.keep {
        Keep::This => "this",
        Keep::Other => "other",
        Keep::Both => "both",
    };
    let asked = Request::post("/resolve").with("name", name).with("keep", keep);
    let decided = client.ask(&asked, Some(AT_ONCE))?;
    let decided: Vec<Decided> =
        serde_json::from_value(decided).context("the daemon answered nonsense").map_err(Failure::from)?;
    for Decided { copy, became } in decided {
        match became {
            None => say(format_args!("removed {copy}")),
            Some(name) if args.keep == Keep::Both => {
                say(format_args!("{copy} is {name} now, and no conflict copy any more"));
            }
            Some(name) => say(format_args!("{copy} is {name} now")),
        }
    }
    Ok(Exit::Ok)
}
