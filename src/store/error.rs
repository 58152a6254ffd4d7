//! What can go wrong at the disk, told so that a person knows what to do.
//!
//! Invariant: no error here was preceded by a guess; whoever gets one may rely on the store being as
//! it was, except after [`Error::Stopped`], when the store must be opened anew.

use std::io;
use std::path::PathBuf;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A system call failed; `what` is the whole sentence before the colon.
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error(
        "{} is in use by another syncfs daemon (process {pid}): unmount it there first, or name another directory with --store",
        dir.display()
    )]
    Locked { dir: PathBuf, pid: String },
    /// Bytes on the disk that no version of syncfs wrote so.
    #[error("{what}")]
    Corrupt { what: String },
    #[error("{what} was written by a newer syncfs: upgrade syncfs on this host, nothing was changed")]
    NewerFormat { what: String },
    #[error(
        "{what} is not a regular file: syncfs leaves it alone, move it away to share a file of that name"
    )]
    NotRegular { what: String },
    #[error("the metadata store .syncfs/meta.db: {what}: {source}")]
    Database { what: &'static str, source: rusqlite::Error },
    /// A sync failed, now or earlier: nobody knows what is on the disk.
    #[error("the store stopped because the disk failed ({why}): check the disk, then mount again")]
    Stopped { why: String },
}

impl Error {
    /// `map_err` for system calls: `what` says what could not be done and to which file.
    pub(crate) fn io<E: Into<io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Error {
        move |source| Error::Io { what: what.into(), source: source.into() }
    }

    /// The errno that a program gets whose request failed so.
    pub fn errno(&self) -> i32 {
        match self {
            Error::Io { source, .. } => source.raw_os_error().unwrap_or(libc::EIO),
            Error::Locked { .. } => libc::EBUSY,
            Error::NotRegular { .. } => libc::EPERM,
            Error::Database { source, .. }
                if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull) =>
            {
                libc::ENOSPC
            }
            _ => libc::EIO,
        }
    }

    /// The disk is full: the same request may succeed later.
    pub fn is_full(&self) -> bool {
        matches!(self.errno(), libc::ENOSPC | libc::EDQUOT)
    }

    pub fn is_not_found(&self) -> bool {
        self.errno() == libc::ENOENT
    }
}
