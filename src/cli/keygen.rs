//! `syncfs keygen`: makes the key that both hosts of a share need.

use super::args;
use super::exit::{Exit, Failure, Outcome, say};
use super::place::Places;
use crate::wire::key::Key;

pub fn run(args: args::Keygen) -> Outcome {
    let path = match args.key_file {
        // As the other host will need it spelled out, too.
        Some(path) => std::path::absolute(path).map_err(Failure::other)?,
        None => Places::here().key()?,
    };
    Key::generate(&path).map_err(Failure::other)?;
    let path = path.display();
    say(format_args!(
        "The key is in {path}.\nCopy it to the other host, for instance with\n  scp -p {path} OTHERHOST:{path}"
    ));
    Ok(Exit::Ok)
}
