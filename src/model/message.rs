//! What two replicas say to each other, and what it means. How it travels is the wire's matter.

use super::cut::{Cut, Piece};
use super::delta::{Recipe, Signature};
use super::first::FirstSync;
use super::ids::{FileId, LogPosition, Seq};
use super::limits::{ACKS, CHUNK, CUT_RANGES, FILE_BYTES, RETRIEVE_BYTES, SPAN_BYTES};
use super::survey::{self, Answer};
use super::verify;
use super::version::Version;
use super::{chunk, ids::ReplicaId};
use bincode::{Decode, Encode};

/// Chunks in the largest file: past them numbers of bytes overflow.
const CHUNKS: u64 = FILE_BYTES.div_ceil(CHUNK);

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
    /// These cuts are decided here, and these versions durable, content included. Who keeps a cache only holds what it uses; that it
    /// knows of the versions is all it says.
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
    /// Answers a `Sync`. Nothing is told before both sides have said it.
    Begin(Begin),
    /// The sender's answers to one round of questions; both sides send theirs. `nonce` is that of its `Begin`.
    Survey {
        nonce: u64,
        answers: Vec<Answer>,
    },
    /// "The content of that file may be like that of this": a hint, before it is announced.
    Alike {
        file: FileId,
        basis: FileId,
    },
    /// Asks whether chunks of one version are what the asker has elsewhere, which has this SHA-256. The answer
    /// brings no content.
    Compare {
        request: u64,
        file: FileId,
        version: Version,
        start: u64,
        end: u64,
        urgent: bool,
        digest: [u8; 32],
    },
    /// Answers a `Compare`: they are not. Answers a `Match`: that signature is not there.
    Differs {
        request: u64,
    },
    /// What the sender has that may be like what it is about to ask for. Its numbers only grow.
    Signature {
        number: u64,
        signature: Signature,
    },
    /// Asks as `Retrieve`, for what can't be taken from what signature `basis` is of.
    Match {
        request: u64,
        file: FileId,
        version: Version,
        start: u64,
        end: u64,
        urgent: bool,
        basis: u64,
    },
    /// Answers a `Match`, up to chunk `end`: the rest is to be asked for anew. Chunks left out are as with `Deliver`; the
    /// SHA-256 is over all that is made.
    Recipes {
        request: u64,
        end: u64,
        recipes: Vec<Recipe>,
        sha256: [u8; 32],
    },
    /// Everything that the sender has acknowledged it holds, and it goes on so: if the receiver keeps a cache only, that is noted
    /// durably.
    HoldsAll,
    /// Of a verification, whose number `nonce` its asker has chosen.
    Verify {
        nonce: u64,
        word: verify::Word,
    },
}

/// How one side begins a session.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Begin {
    /// One of the two may lack what the other holds for known: they find out first what they have in common.
    pub anew: bool,
    /// The sender was together with this peer before.
    pub met: bool,
    /// How it wants to become one with a peer that it has not met.
    pub first: FirstSync,
    /// Owner and group are the sender's to keep.
    pub owner: bool,
    /// Random, for the names of what both turn out to have.
    pub nonce: u64,
    /// The end of the sender's log.
    pub head: LogPosition,
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
                if start >= end || (end - start).saturating_mul(CHUNK) > RETRIEVE_BYTES || *end > CHUNKS =>
            {
                Err("a retrieval of nothing, of too much, or of what no file has")
            }
            Message::Survey { answers, .. } => survey::check(answers),
            Message::Verify { word, .. } => word.check(),
            Message::Compare { start, end, .. } | Message::Match { start, end, .. }
                if start >= end || (end - start).saturating_mul(CHUNK) > SPAN_BYTES || *end > CHUNKS =>
            {
                Err("a retrieval of nothing, of too much, or of what no file has")
            }
            Message::Retrieve { version, .. }
            | Message::Compare { version, .. }
            | Message::Match { version, .. } => version.check(),
            Message::Signature { signature, .. } => signature.check(),
            Message::Recipes { recipes, .. } => Recipe::check(recipes),
            Message::Deliver { pieces, .. } => {
                let sane = |p: &Piece| {
                    let end = p.first.checked_add(chunk::count(p.bytes.len() as u64));
                    !p.bytes.is_empty() && end.is_some_and(|end| end <= CHUNKS)
                };
                let sorted = |w: &[Piece]| w[0].chunks().end <= w[1].first;
                if pieces.iter().all(sane) && pieces.windows(2).all(sorted) && pieces.len() <= CUT_RANGES {
                    Ok(())
                } else {
                    Err("pieces out of order, or where no file has any")
                }
            }
            _ => Ok(()),
        }
    }

    /// Small words that overtake bulk ones: what a reader or a program waits for. Thanks keep their place
    /// among announcements: after them the peer forgets files that an earlier announcement may name.
    pub fn is_urgent(&self) -> bool {
        !matches!(
            self,
            Message::Announce(_) | Message::Thanks { .. } | Message::Deliver { .. } | Message::Recipes { .. }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::ids::WriterId;
    use super::*;

    #[test]
    fn chunks_that_no_file_has_are_neither_asked_for_nor_delivered() {
        let retrieve = |start, end| {
            let file = FileId { writer: WriterId(1), counter: 1 };
            let version = Version::default();
            Message::Retrieve { request: 1, file, version, start, end, urgent: false, digest: None }.check()
        };
        let compare = |start, end| {
            let file = FileId { writer: WriterId(1), counter: 1 };
            let (version, digest) = (Version::default(), [0; 32]);
            Message::Compare { request: 1, file, version, start, end, urgent: false, digest }.check()
        };
        assert_eq!(compare(0, SPAN_BYTES / CHUNK), Ok(()));
        assert!(compare(0, SPAN_BYTES / CHUNK + 1).is_err());
        assert!(compare(CHUNKS, CHUNKS + 1).is_err());
        assert_eq!(retrieve(CHUNKS - 1, CHUNKS), Ok(()));
        assert!(retrieve(CHUNKS, CHUNKS + 1).is_err());
        assert!(retrieve(u64::MAX - 1, u64::MAX).is_err());
        let deliver = |first| {
            let pieces = vec![Piece { first, bytes: vec![0; 10] }];
            Message::Deliver { request: 1, pieces, sha256: [0; 32] }.check()
        };
        assert_eq!(deliver(CHUNKS - 1), Ok(()));
        assert!(deliver(CHUNKS).is_err());
        assert!(deliver(u64::MAX).is_err());
    }
}
