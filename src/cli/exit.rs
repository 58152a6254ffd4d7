//! How a command ends: one exit code and, unless all went well, one message.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

pub use crate::api::failure::{Exit, Failure};

pub type Outcome = Result<Exit, Failure>;

/// Prints what is to be said and gives the code to end with.
pub fn end(outcome: Outcome) -> ExitCode {
    let exit = outcome.unwrap_or_else(|failure| {
        complain(&failure);
        failure.exit
    });
    ExitCode::from(exit as u8)
}

/// One message on stderr; a closed stderr is no reason to fail.
pub fn complain(message: &dyn fmt::Display) {
    let _ = writeln!(anstream::stderr(), "syncfs: {message}");
}

/// One line on stdout; a reader that went away (`| head`) is no reason to fail.
pub fn say(line: impl fmt::Display) {
    let mut out = anstream::stdout();
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}
