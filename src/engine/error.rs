//! What can go wrong in the engine as a whole. What goes wrong for one system call is an
//! [`fs::error::Error`](crate::fs::error::Error).

use crate::{fs, store, wire};

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Wire(#[from] wire::Error),
    #[error("{0} holds something this version of syncfs does not understand; was it made by a newer one?")]
    Unreadable(&'static str),
    #[error(
        "{missing} of the {files} files are missing from the directory; nothing was deleted. Is it the right directory, and is its \
         disk mounted? If they were removed on purpose, mount with --adopt-deletes --max-delete {missing}; mounted without \
         --adopt-deletes, they come back from the peer. Missing are: {names}"
    )]
    ManyMissing { missing: u64, files: u64, names: String },
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

/// Why `flush` did not come to an end.
#[derive(Debug, thiserror::Error)]
pub enum FlushError {
    #[error("the peer is not connected")]
    NotConnected,
    #[error("not everything reached the other side in time")]
    TimedOut,
    #[error("{0} deletes of the peer wait for somebody")]
    Paused(u64),
    #[error(transparent)]
    Disk(store::Error),
}

/// Why something did not come back from the trash.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("{0} is not in the trash; `syncfs trash list` shows what is")]
    Unknown(String),
    #[error("there is a file {0} already; restore under another name with --as NAME")]
    Taken(String),
    #[error("{0} can't be the name of a file")]
    BadName(String),
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Why what is held of a file does not become other.
#[derive(Debug, thiserror::Error)]
pub enum ResidencyError {
    #[error("there is no file {0} in the share")]
    NoSuchFile(String),
    #[error("it takes {size} bytes; the cache has {limit}, of which {pins} are pinned already")]
    TooLarge { size: u64, pins: u64, limit: u64 },
    #[error("the peer, which holds the rest, is not there")]
    NotConnected,
    #[error("this host holds everything; mounted with --cache-size it would not")]
    HoldsAll,
    #[error("the peer has not said yet that it holds everything; until then nothing goes from here")]
    PeerHoldsLess,
    #[error("it is pinned")]
    Pinned,
    #[error("the cache is full of what can't go: pinned, open, or not yet on the peer")]
    Full,
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// Why a verification did not begin, or came to no end.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("the peer is not there")]
    NotConnected,
    #[error("the connection with the peer was lost before all was compared")]
    Disconnected,
    #[error("changes are under way: {0}")]
    NotLevel(String),
    #[error("changes are under way on the peer")]
    PeerNotLevel,
    #[error("both sides are being verified already")]
    Busy,
    #[error("{0}")]
    Failed(String),
}

impl From<store::Error> for fs::error::Error {
    fn from(error: store::Error) -> fs::error::Error {
        fs::error::Error::Io(std::io::Error::from_raw_os_error(error.errno()))
    }
}
