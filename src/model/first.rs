//! How two directories that were never together become one.
//!
//! Invariant: both sides have the same in mind, each from its own point of view.

use bincode::{Decode, Encode};

/// What is kept where both have a name for different things, and whether what only one has stays.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum FirstSync {
    /// The union; of each name the later version keeps it.
    #[default]
    Newest,
    /// The union; this side's version keeps the name.
    Local,
    /// The union; the peer's version keeps the name.
    Peer,
    /// The peer becomes as this side is.
    MirrorLocal,
    /// This side becomes as the peer is.
    MirrorPeer,
}

impl FirstSync {
    /// The same, seen from the other side.
    pub fn from_the_peer(self) -> FirstSync {
        match self {
            FirstSync::Newest => FirstSync::Newest,
            FirstSync::Local => FirstSync::Peer,
            FirstSync::Peer => FirstSync::Local,
            FirstSync::MirrorLocal => FirstSync::MirrorPeer,
            FirstSync::MirrorPeer => FirstSync::MirrorLocal,
        }
    }

    /// Whether this side's version of a name keeps it, where that is not for the stamps to say.
    pub fn prefers_ours(self) -> Option<bool> {
        match self {
            FirstSync::Newest => None,
            FirstSync::Local | FirstSync::MirrorLocal => Some(true),
            FirstSync::Peer | FirstSync::MirrorPeer => Some(false),
        }
    }

    /// Its word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            FirstSync::Newest => "newest",
            FirstSync::Local => "local",
            FirstSync::Peer => "peer",
            FirstSync::MirrorLocal => "mirror-local",
            FirstSync::MirrorPeer => "mirror-peer",
        }
    }

    /// Why this is not the same as what the peer has in mind, for users of either side.
    pub fn disagreement(self, theirs: &str) -> String {
        let (ours, wanted) = (self.word(), self.from_the_peer().word());
        format!(
            "the two hosts disagree on how to become one: one was mounted with --first-sync {ours}, so the other needs \
             --first-sync {wanted}, and has {theirs}"
        )
    }

    pub const ALL: [FirstSync; 5] =
        [FirstSync::Newest, FirstSync::Local, FirstSync::Peer, FirstSync::MirrorLocal, FirstSync::MirrorPeer];
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seen_from_the_peer_twice_it_is_itself() {
        for mode in FirstSync::ALL {
            assert_eq!(mode.from_the_peer().from_the_peer(), mode);
            assert_eq!(mode.from_the_peer().prefers_ours(), mode.prefers_ours().map(|ours| !ours));
        }
    }
}
