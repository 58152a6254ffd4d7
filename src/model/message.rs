//! What two replicas say to each other, and what it means. How it travels is the wire's matter.

use super::cut::{Cut, Piece};
use super::ids::{FileId, LogPosition, Seq};
use super::limits::{ACKS, CUT_RANGES, RETRIEVE_BYTES};
use super::version::Version;
use super::{chunk, ids::ReplicaId};
use bincode::{Decode, Encode};

/// First word of each side inside TLS, before anything about files is said.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Hello {
    pub replica: ReplicaId,
    /// Grows with every start of the daemon; a newer one replaces a half-open connection.
    pub boot: u64,
    /// Wall clock, milliseconds since 1970; reported, never trusted.
    pub clock_ms: i64,
    /// What the sender can do, by name. Unknown names are ignored.
    pub features: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Message {
    /// "Of your log I have made durable all up to this": asks for everything since.
    Sync {
        since: Option<LogPosition>,
    },
    /// A new version of a consistency group.
    Announce(Cut),
    /// The cut can't be completed here, for its content was given up there: announce it anew.
    Dropped {
        seq: Seq,
    },
    /// These cuts are decided here, and these versions durable, content included.
    Thanks {
        cuts: Vec<Seq>,
        acks: Vec<Ack>,
    },
    /// Asks for chunks of one version.
    Retrieve {
        request: u64,
        file: FileId,
        version: Version,
        start: u64,
        end: u64,
        urgent: bool,
        /// SHA-256 of what the asker has there: if it is the same, it need not travel.
        digest: Option<[u8; 32]>,
    },
    /// Answers a `Retrieve`: what the digest told is right.
    Same {
        request: u64,
    },
    /// Answers a `Retrieve`. Chunks left out of the pieces have since changed: a later cut
    /// brings them.
    Deliver {
        request: u64,
        pieces: Vec<Piece>,
        sha256: [u8; 32],
    },
    /// The sender can't serve that file at that version.
    Superseded {
        request: u64,
    },
    /// "Announce that file anew": what stood in its way here is gone.
    Tell {
        file: FileId,
    },
    /// Answers a `Tell`: there is no such file.
    Unknown {
        file: FileId,
    },
    /// "Tell me when everything of yours is durable here and all of mine there."
    Flush {
        request: u64,
    },
    Flushed {
        request: u64,
    },
    /// Heartbeat, answered at once with the same number.
    Ping {
        nonce: u64,
    },
    Pong {
        nonce: u64,
    },
}

/// A file's registers that are durable: the number of the receiver's last cut that each includes,
/// 0 where nothing is said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Ack {
    pub file: FileId,
    pub place: Seq,
    pub body: Seq,
}

impl Message {
    /// Checks what decoding could not; see [`Cut::check`].
    pub fn check(&self) -> Result<(), &'static str> {
        match self {
            Message::Announce(cut) => cut.check(),
            Message::Thanks { acks, cuts } if acks.len() > ACKS || cuts.len() > ACKS => {
                Err("too many acknowledgements")
            }
            Message::Retrieve { start, end, .. }
                if start >= end || (end - start).saturating_mul(1000) > RETRIEVE_BYTES =>
            {
                Err("a retrieval of nothing, or of too much")
            }
            Message::Deliver { pieces, .. } => {
                let sane = |p: &Piece| {
                    !p.bytes.is_empty() && p.first.checked_add(chunk::count(p.bytes.len() as u64)).is_some()
                };
                let sorted = |w: &[Piece]| w[0].chunks().end <= w[1].first;
                if pieces.iter().all(sane) && pieces.windows(2).all(sorted) && pieces.len() <= CUT_RANGES {
                    Ok(())
                } else {
                    Err("pieces out of order")
                }
            }
            _ => Ok(()),
        }
    }

    /// Small words that overtake bulk ones: what a reader or a program waits for. Thanks keep their place
    /// among announcements: after them the peer forgets files that an earlier announcement may name.
    pub fn is_urgent(&self) -> bool {
        !matches!(self, Message::Announce(_) | Message::Thanks { .. } | Message::Deliver { .. })
    }
}
