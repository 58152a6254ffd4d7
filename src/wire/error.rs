//! What can go wrong at the network's door, in words that tell a user what to do.

use crate::model::codec::CodecError;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

pub type Result<T> = std::result::Result<T, Error>;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "no key at {path}. Pair the two hosts: say on one of them\n  \
         syncfs pair --key-file {path}\nand on the other what that shows. Or make a key with\n  \
         syncfs keygen --key-file {path}\non one of them only, and copy it to the other as that says",
        path = path.display()
    )]
    KeyMissing { path: PathBuf },
    #[error("{} exists already; a key in use is never overwritten: remove it or name another file", path.display())]
    KeyExists { path: PathBuf },
    #[error("others on this host can read the key; mend it with\n  chmod 600 {}", path.display())]
    KeyExposed { path: PathBuf },
    #[error("{} is not a key: a key is a file of 32 bytes, made by syncfs keygen", path.display())]
    NotAKey { path: PathBuf },
    #[error("can't use the key file {}: {source}", path.display())]
    KeyFile { path: PathBuf, source: io::Error },

    #[error("can't listen on {address}: {source}; name another address with --listen ADDR:PORT")]
    Listen { address: SocketAddr, source: io::Error },
    #[error("{text:?} is not a peer: write HOST, HOST:PORT, [IPV6]:PORT, or auto for HOST")]
    PeerAddress { text: String },
    #[error("can't find the peer {peer}: {source}")]
    Resolve { peer: String, source: io::Error },
    #[error("can't search the local network for the peer: {0}")]
    Search(String),
    #[error(
        "no host with this share's key and port {port} announces itself on the local network; is it up, mounted with \
         --peer auto as well, and UDP port 5353 open?"
    )]
    NotSeen { port: u16 },
    #[error("can't reach the peer at {address}: {source}")]
    Connect { address: SocketAddr, source: io::Error },
    #[error("peer at {address} does not hold this share's key: copy the key file from one host to the other")]
    WrongKey { address: SocketAddr },
    #[error("what answers at {address} is not syncfs, or of another kind: {detail}")]
    NotSyncfs { address: SocketAddr, detail: String },
    #[error("peer at {address} did not finish the greeting within {seconds} s")]
    Slow { address: SocketAddr, seconds: u64 },
    #[error(
        "{address} is this replica itself: name the other host with --peer, and never copy .syncfs \
         from host to host"
    )]
    Myself { address: SocketAddr },
    #[error("peer at {address} can't be let in: {reason}")]
    NotAdmitted { address: SocketAddr, reason: String },
    #[error("peer at {address} refuses us: {reason}")]
    Refused { address: SocketAddr, reason: String },
    /// Not a failure: another connection to the same peer lives.
    #[error("the connection to {address} is not needed, another one lives")]
    Superfluous { address: SocketAddr },

    #[error("that is not a code: a code is eight digits, as in 1234-5678")]
    NotACode,
    #[error("what answers at {address} shows no code: say `syncfs pair` there")]
    NotPairing { address: SocketAddr },
    #[error(
        "that is not the code that {address} shows, or somebody between the two hosts pretends to be the other one"
    )]
    WrongCode { address: SocketAddr },
    #[error("somebody at {} tried a wrong code", address.ip())]
    Guessed { address: SocketAddr },
    #[error("{} could not keep the key, and says why", address.ip())]
    NotKept { address: SocketAddr },
    #[error("the connection to {} was lost before that host said that it has the key", address.ip())]
    Unconfirmed { address: SocketAddr },

    #[error("the peer sent a frame of {0} bytes, more than is allowed")]
    FrameTooLong(usize),
    #[error("the peer sent a frame with unknown flags {0:#04x}")]
    UnknownFlags(u8),
    #[error("the peer sent a compressed frame that can't be used: {0}")]
    Compressed(&'static str),
    #[error("the peer sent what can't be understood: {0}")]
    Malformed(#[from] CodecError),
    #[error("the peer sent what makes no sense: {0}")]
    Senseless(&'static str),
    #[error("the peer closed the connection")]
    Closed,
    #[error("nothing was heard from the peer for {0} s")]
    Silent(u64),
    #[error("the connection broke: {0}")]
    Broken(#[from] io::Error),
    /// The session was ended on this side.
    #[error("{0}")]
    Ended(String),
}
