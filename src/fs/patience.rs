//! How long a caller waits: until its answer, or until a signal wants it.
//!
//! The kernel can't call off a request that we have read, so a killed program hangs until we answer.
//! We look for the signal ourselves, in the caller's own record.

use super::error::Error;
use super::volume::{Caller, Result};
use std::future::Future;
use std::time::Duration;

/// How often we look; a killed caller waits this much longer.
const GLANCE: Duration = Duration::from_millis(200);

/// Which signals end a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    /// Those that kill; a read must not fail for others.
    Death,
    /// All that the caller lets through; so fcntl(2) tells of `EINTR`.
    AnySignal,
}

/// Answers what `work` answers, or `Interrupted`, dropping it, when `caller` is wanted elsewhere.
pub async fn wait<T>(caller: Caller, ends: Ends, work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::pin!(work);
    // One whose record we can't see, because it lives in another namespace or is the kernel's own,
    // waits for its answer.
    let watched = record(caller.thread).is_some();
    loop {
        match tokio::time::timeout(GLANCE, &mut work).await {
            Ok(result) => return result,
            // A read ahead outlives who caused it: no record any more means dead.
            Err(_) if watched && record(caller.thread).is_none_or(|record| pending(&record, ends)) => {
                return Err(Error::Interrupted);
            }
            Err(_) => {}
        }
    }
}

/// What the kernel says of a thread.
fn record(thread: u32) -> Option<String> {
    (thread != 0).then(|| std::fs::read_to_string(format!("/proc/{thread}/status")).ok())?
}

/// Whether a signal is pending that ends a wait.
fn pending(status: &str, ends: Ends) -> bool {
    let mask = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok()).unwrap_or(0)
    };
    let (own, shared, blocked) = (mask("SigPnd"), mask("ShdPnd"), mask("SigBlk"));
    let kill = 1 << (libc::SIGKILL - 1);
    match ends {
        // The kernel turns every signal that is about to kill into SIGKILL for each thread.
        Ends::Death => own & kill != 0,
        Ends::AnySignal => own & kill != 0 || (own | shared) & !blocked != 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_from_the_record() {
        let record = |own, shared, blocked| {
            format!("Name:\tx\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t{blocked:016x}\n")
        };
        let (kill, alarm) = (1u64 << 8, 1u64 << 13);
        assert!(!pending(&record(0, 0, 0), Ends::AnySignal));
        assert!(pending(&record(kill, 0, 0), Ends::Death));
        assert!(!pending(&record(0, alarm, 0), Ends::Death));
        assert!(pending(&record(0, alarm, 0), Ends::AnySignal));
        assert!(!pending(&record(0, alarm, alarm), Ends::AnySignal));
        assert!(!pending("", Ends::AnySignal));
    }
}
