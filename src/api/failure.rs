//! What went wrong: an exit code for scripts, and one message for people.

use std::fmt;

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
