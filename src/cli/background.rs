//! Going into the background: fork, and a pipe that says when the daemon is ready.
//!
//! Invariants: the fork happens while this process has one thread; the one who started the daemon
//! learns how it went, even if the daemon dies without a word; the daemon keeps no terminal, no
//! directory and no descriptor of its starter.

use super::exit::{Exit, Failure, Outcome};
use anyhow::Context;
use std::cell::Cell;
use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};

/// The daemon's line to the one who started it; good for one message.
pub struct Herald(Cell<Option<PipeWriter>>);

impl Herald {
    /// The mount is ready. Fails if the one who started the daemon did not wait for it.
    pub fn ready(&self) -> io::Result<()> {
        self.tell(Exit::Ok, "")
    }

    /// It did not work. Nothing happens if [`Herald::ready`] was said before.
    pub fn failed(&self, failure: &Failure) {
        let _ = self.tell(failure.exit, &failure.message);
    }

    fn tell(&self, exit: Exit, message: &str) -> io::Result<()> {
        match self.0.take() {
            Some(mut pipe) => pipe.write_all(&[&[exit as u8], message.as_bytes()].concat()),
            None => Ok(()),
        }
    }
}

/// Runs `daemon` in a process of its own; returns when it said that it is ready, or failed.
pub fn start(daemon: impl FnOnce(&Herald) -> Result<(), Failure>) -> Outcome {
    let (reader, writer) = io::pipe().context("can't make a pipe")?;
    // SAFETY: this process has one thread (see the invariants), so the child is a whole copy of it:
    // no lock is held by a thread that does not exist there.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()).context("can't start a background process")?,
        0 => {
            drop(reader);
            let herald = Herald(Cell::new(Some(writer)));
            let result = leave_terminal().map_err(Failure::from).and_then(|()| daemon(&herald));
            let exit = result.map_or_else(
                |failure| {
                    herald.failed(&failure);
                    failure.exit
                },
                |()| Exit::Ok,
            );
            std::process::exit(i32::from(exit as u8))
        }
        _ => {
            drop(writer);
            listen(reader)
        }
    }
}

fn listen(mut reader: PipeReader) -> Outcome {
    let mut message = Vec::new();
    reader.read_to_end(&mut message).context("can't hear from the daemon")?;
    match message.split_first() {
        Some((&0, _)) => Ok(Exit::Ok),
        Some((&exit, text)) => {
            Err(Failure::new(Exit::from_number(exit), String::from_utf8_lossy(text).into_owned()))
        }
        None => Err(Failure::new(Exit::Fatal, "the daemon died before the mount was ready")),
    }
}

fn leave_terminal() -> anyhow::Result<()> {
    rustix::process::setsid().context("can't leave the terminal")?;
    rustix::process::chdir("/").context("can't leave the working directory")?;
    let null = File::options().read(true).write(true).open("/dev/null").context("can't open /dev/null")?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(&null)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(say: impl FnOnce(&Herald)) -> Outcome {
        let (reader, writer) = io::pipe().unwrap();
        say(&Herald(Cell::new(Some(writer))));
        listen(reader)
    }

    #[test]
    fn the_starter_learns_how_it_went() {
        assert_eq!(told(|herald| herald.ready().unwrap()), Ok(Exit::Ok));
        let failure = Failure::new(Exit::TryAgain, "port taken");
        assert_eq!(told(|herald| herald.failed(&failure)), Err(failure.clone()));
        assert_eq!(told(|_| {}).unwrap_err().exit, Exit::Fatal);
    }

    #[test]
    fn only_the_first_message_counts() {
        let late = Failure::other("late");
        let outcome = told(|herald| {
            herald.ready().unwrap();
            herald.failed(&late);
        });
        assert_eq!(outcome, Ok(Exit::Ok));
    }

    #[test]
    fn a_starter_that_went_away_is_noticed() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        assert!(Herald(Cell::new(Some(writer))).ready().is_err());
    }
}
