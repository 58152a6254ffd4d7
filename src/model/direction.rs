//! Which way changes go between the two hosts.
//!
//! Invariant: what a receiver changes reaches nobody, and gives way to the sender wherever they meet; so a sender's users need
//! not know that there is a receiver.

/// What this host does with its own changes and the peer's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Tells and takes.
    #[default]
    Both,
    /// Tells; the peer has nothing to tell.
    Send,
    /// Takes; what changes here stays here.
    Receive,
}

impl Direction {
    pub const ALL: [Direction; 3] = [Direction::Both, Direction::Send, Direction::Receive];

    /// The same, seen from the other side.
    pub fn from_the_peer(self) -> Direction {
        match self {
            Direction::Both => Direction::Both,
            Direction::Send => Direction::Receive,
            Direction::Receive => Direction::Send,
        }
    }

    /// Whether nothing that changes here is told.
    pub fn receives(self) -> bool {
        self == Direction::Receive
    }

    /// Whether this side's version stays, where that is not for the stamps to say.
    pub fn prefers_ours(self) -> Option<bool> {
        match self {
            Direction::Both => None,
            Direction::Send => Some(true),
            Direction::Receive => Some(false),
        }
    }

    /// Its word on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Direction::Both => "both",
            Direction::Send => "send",
            Direction::Receive => "receive",
        }
    }

    /// Why this is not the same as what the peer has in mind, for users of either side.
    pub fn disagreement(self, theirs: &str) -> String {
        let (ours, wanted) = (self.word(), self.from_the_peer().word());
        format!(
            "the two hosts disagree on which way changes go: one was mounted with --direction {ours}, so the other needs \
             --direction {wanted}, and has {theirs}; mount one of them anew"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seen_from_the_peer_twice_it_is_itself_and_one_of_two_tells() {
        for direction in Direction::ALL {
            assert_eq!(direction.from_the_peer().from_the_peer(), direction);
            assert!(!direction.receives() || !direction.from_the_peer().receives());
        }
    }
}
