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

    /// Whether process `pid` was killed and some thread of it has yet to leave the kernel.
    pub fn is_dying(pid: Pid) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
        // The state follows the name, which is in parentheses and may hold any others.
        stat.is_ok_and(|s| s.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
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
