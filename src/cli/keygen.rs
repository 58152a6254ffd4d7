//! `syncfs keygen`: makes the key that both hosts of a share need.

use super::args;
use super::exit::{Exit, Failure, Outcome, say};
use super::place::Places;
use crate::wire::key::Key;

pub fn run(args: args::Keygen) -> Outcome {
    let path = Places::here().key_at(args.key_file.as_deref())?;
    Key::generate(&path).map_err(Failure::other)?;
    let dir = path.parent().unwrap_or(&path).display();
    let path = path.display();
    say(format_args!(
        "The key is in {path}.\nCopy it to the other host, for instance with\n  \
         ssh OTHERHOST mkdir -p {dir} && scp -p {path} OTHERHOST:{path}"
    ));
    Ok(Exit::Ok)
}
