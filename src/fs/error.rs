//! What can go wrong at the kernel's door, and the one table that maps it to errno.

use std::io;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("no such file")]
    NotFound,
    /// The kernel asks for an inode by a name that has moved on; it looks the name up again.
    #[error("the name leads elsewhere by now")]
    Stale,
    #[error("the name is taken")]
    Exists,
    #[error("not possible in a flat shared directory")]
    NotPermitted,
    #[error("invalid argument")]
    Invalid,
    #[error("name too long")]
    NameTooLong,
    #[error("no such handle")]
    BadHandle,
    #[error("no such attribute")]
    NoAttribute,
    #[error("a lock stands in the way")]
    WouldBlock,
    #[error("interrupted")]
    Interrupted,
    #[error("not supported")]
    NotSupported,
    #[error("offset past the end")]
    PastEnd,
    #[error("file too large")]
    TooLarge,
    #[error("content is on the peer, which did not deliver it in time")]
    NotHere,
    #[error("the cache is full of what can't go")]
    NoRoom,
    #[error("the journal can't be written; syncfs refuses changes: {0}")]
    Stopped(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Error {
    /// The errno a program sees.
    pub fn errno(&self) -> i32 {
        match self {
            Error::NotFound => libc::ENOENT,
            Error::Stale => libc::ESTALE,
            Error::Exists => libc::EEXIST,
            Error::NotPermitted => libc::EPERM,
            Error::Invalid => libc::EINVAL,
            Error::NameTooLong => libc::ENAMETOOLONG,
            Error::BadHandle => libc::EBADF,
            Error::NoAttribute => libc::ENODATA,
            Error::WouldBlock => libc::EAGAIN,
            Error::Interrupted => libc::EINTR,
            Error::NotSupported => libc::EOPNOTSUPP,
            Error::PastEnd => libc::ENXIO,
            Error::TooLarge => libc::EFBIG,
            Error::NoRoom => libc::ENOSPC,
            Error::NotHere | Error::Stopped(_) => libc::EIO,
            Error::Io(e) => e.raw_os_error().unwrap_or(libc::EIO),
        }
    }
}

impl From<rustix::io::Errno> for Error {
    fn from(e: rustix::io::Errno) -> Error {
        Error::Io(e.into())
    }
}
