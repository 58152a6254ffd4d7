//! How a command ends: one exit code and, unless all went well, one message.

use std::fmt;
use std::io::Write;
use std::process::ExitCode;

/// The exit codes that scripts may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    Other = 1,
    Usage = 2,
    /// The peer is not there, or time ran out: the same command may work later.
    TryAgain = 5,
    /// Trying again will not help.
    Fatal = 7,
    /// Done, but conflict copies wait for somebody to look at them.
    Conflicts = 11,
}

impl Exit {
    /// The code that `number` stands for; what no code is, is `Other`.
    pub fn from_number(number: u8) -> Exit {
        use Exit::*;
        [Ok, Usage, TryAgain, Fatal, Conflicts].into_iter().find(|e| *e as u8 == number).unwrap_or(Other)
    }
}

/// A message for the user and the code to end with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    pub message: String,
}

pub type Outcome = Result<Exit, Failure>;

impl Failure {
    pub fn new(exit: Exit, message: impl fmt::Display) -> Failure {
        Failure { exit, message: message.to_string() }
    }

    pub fn other(message: impl fmt::Display) -> Failure {
        Failure::new(Exit::Other, message)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Failure {
        Failure::other(format_args!("{error:#}"))
    }
}

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_way_through_a_number() {
        for exit in [Exit::Ok, Exit::Other, Exit::Usage, Exit::TryAgain, Exit::Fatal, Exit::Conflicts] {
            assert_eq!(Exit::from_number(exit as u8), exit);
        }
        assert_eq!(Exit::from_number(99), Exit::Other);
    }
}
