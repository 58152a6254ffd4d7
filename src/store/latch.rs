//! Remembers that a sync failed.
//!
//! After a failed fsync the kernel marks the pages clean and lets the next fsync succeed, though
//! nothing was written. Invariant: once a sync under a latch has failed, every later one fails too.

use super::error::{Error, Result};
use crate::model::sabotage::{Bug, planted};
use std::io;
use std::sync::OnceLock;

#[derive(Debug, Default)]
pub(crate) struct Latch(OnceLock<String>);

impl Latch {
    /// Fails where an earlier sync failed.
    pub fn check(&self) -> Result<()> {
        match self.0.get() {
            None => Ok(()),
            Some(_) if planted(Bug::RetryFailedSync) => Ok(()),
            Some(why) => Err(Error::Stopped { why: why.clone() }),
        }
    }

    /// Remembers the first failure, and gives back what every later call gets.
    pub fn stop(&self, why: String) -> Error {
        Error::Stopped { why: self.0.get_or_init(|| why).clone() }
    }

    /// Runs `sync`, unless one failed before; `what` is what could not be done if it fails.
    pub fn run<E: Into<io::Error>>(
        &self,
        what: &str,
        sync: impl FnOnce() -> std::result::Result<(), E>,
    ) -> Result<()> {
        self.check()?;
        sync().map_err(|e| self.stop(format!("{what}: {}", e.into())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_sync_is_never_retried_into_success() {
        let latch = Latch::default();
        latch.run("cannot sync", || io::Result::Ok(())).unwrap();
        assert!(latch.run("cannot sync", || Err(io::Error::from_raw_os_error(libc::EIO))).is_err());
        let again = latch.run("cannot sync", || io::Result::Ok(())).unwrap_err();
        assert!(matches!(again, Error::Stopped { why } if why.contains("cannot sync")));
    }
}
