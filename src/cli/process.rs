//! Waiting for another process to end.
//!
//! Invariant: it is that process that is waited for, never one that took its number later.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// A process, dead or alive.
pub struct Process(OwnedFd);

impl Process {
    /// The process that has this number now.
    pub fn new(pid: Pid) -> io::Result<Process> {
        Ok(Process(pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// Waits for its end; false if it did not end in time.
    pub fn ends_within(&self, patience: Duration) -> io::Result<bool> {
        let timeout = Timespec::try_from(patience).ok();
        let wait = || poll(&mut [PollFd::new(&self.0, PollFlags::IN)], timeout.as_ref());
        Ok(rustix::io::retry_on_intr(wait)? > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_end_is_noticed_and_a_long_life_is_not_waited_for() {
        let mut child =
            std::process::Command::new("cat").stdin(std::process::Stdio::piped()).spawn().unwrap();
        let process = Process::new(Pid::from_child(&child)).unwrap();
        assert!(!process.ends_within(Duration::from_millis(10)).unwrap());
        drop(child.stdin.take());
        assert!(process.ends_within(Duration::from_secs(60)).unwrap());
        child.wait().unwrap();
    }
}
