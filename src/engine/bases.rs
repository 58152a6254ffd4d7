//! What is here that may be like content that is being fetched, and how far comparing the two has come.
//!
//! First the peer is asked whether chunks are the same at the same place. Once it says that some are not, the basis is
//! signed, and the peer finds what of it lies anywhere in the content. Invariants:
//! - nothing but a digest over all that was put together makes it content;
//! - what proves to be unlike is of no use for the rest of that fetch, so comparing ends.

use crate::model::chunk::ChunkSet;
use crate::model::delta::Recipe;
use crate::model::ids::{FileId, Seq};
use crate::model::limits::{CHUNK, GROUP, HINTS, SPAN_BYTES};
use crate::model::message::Message;
use std::collections::BTreeMap;

/// After so many new bytes an eighth of them must have been copied: else looking for more is not worth the work.
const PATIENCE: u64 = 256 << 20;

/// Where delivered chunks go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Target {
    /// Into the file, which lacks them.
    Missing,
    /// To the applier, for the peer's cut of this number.
    Staged(Seq),
}

/// One fetch of a file.
pub(super) type Key = (Target, FileId);

/// How chunks are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// With `Retrieve`.
    Plain,
    /// With `Compare`; the digest that was sent.
    Compare(Option<[u8; 32]>),
    /// With `Match`, against the signature of this number, of a basis of `size` bytes.
    Match { basis: u64, size: u64 },
}

/// What the matcher is to do; see there.
pub(super) enum Job {
    /// Adds the digest to a `Compare`, and sends it.
    Compare(Message),
    Sign(Key),
    /// The peer has what the `Compare` was of.
    Same {
        request: u64,
    },
    /// The peer says how to make what a `Match` was for.
    Make {
        request: u64,
        end: u64,
        recipes: Vec<Recipe>,
        sha256: [u8; 32],
    },
    Stop,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Comparing,
    /// Nothing is asked for until it is signed.
    Signing,
    /// `before`: for an earlier fetch; it may have changed since.
    Signed {
        number: u64,
        size: u64,
        before: bool,
    },
    Useless,
}

struct Basis {
    source: FileId,
    stage: Stage,
    copied: u64,
    new: u64,
    /// The last answer was new for the most part: smaller parts are asked for, so that as much is under way as without
    /// a basis.
    poor: bool,
}

/// The bases of all that is being fetched.
#[derive(Default)]
pub(super) struct Bases {
    bases: BTreeMap<Key, Basis>,
    /// Which file may be like which.
    hints: BTreeMap<FileId, FileId>,
    /// To be signed.
    unsigned: Vec<Key>,
    /// What was signed in this session: number and size.
    signed: BTreeMap<FileId, (u64, u64)>,
}

impl Bases {
    /// The content of `file` may be like that of `basis`.
    pub fn hint(&mut self, file: FileId, basis: FileId) {
        if self.hints.len() >= HINTS && !self.hints.contains_key(&file) {
            self.hints.pop_first();
        }
        self.hints.insert(file, basis);
    }

    pub fn hinted(&self, file: FileId) -> Option<FileId> {
        self.hints.get(&file).copied()
    }

    /// `source` may be of use for a fetch; where it is known already nothing changes.
    pub fn begin(&mut self, key: Key, source: FileId) {
        if self.bases.get(&key).is_some_and(|basis| basis.source == source) {
            return;
        }
        // Of its own old content a file has nothing at the same place: these chunks changed.
        let stage = match self.signed.get(&source) {
            _ if source == key.1 => Stage::Signing,
            Some(&(number, size)) => Stage::Signed { number, size, before: true },
            None => Stage::Comparing,
        };
        if stage == Stage::Signing {
            self.unsigned.push(key);
        }
        self.bases.insert(key, Basis { source, stage, copied: 0, new: 0, poor: false });
    }

    /// How to ask for chunks now; `None`: not yet.
    pub fn way(&self, key: &Key) -> Option<Way> {
        match self.bases.get(key).map(|basis| basis.stage) {
            None | Some(Stage::Useless) => Some(Way::Plain),
            Some(Stage::Comparing) => Some(Way::Compare(None)),
            Some(Stage::Signing) => None,
            Some(Stage::Signed { number, size, .. }) => Some(Way::Match { basis: number, size }),
        }
    }

    /// Chunks that may be asked for at once.
    pub fn span(&self, key: &Key) -> u64 {
        match self.bases.get(key) {
            Some(basis) if basis.stage != Stage::Useless && !basis.poor => SPAN_BYTES / CHUNK,
            _ => GROUP,
        }
    }

    pub fn source(&self, key: &Key) -> Option<FileId> {
        self.bases.get(key).map(|basis| basis.source)
    }

    /// What asking in that way has led to nothing.
    pub fn differs(&mut self, key: Key, way: Way) {
        let Some(basis) = self.bases.get_mut(&key) else { return };
        match (basis.stage, way) {
            (Stage::Comparing, Way::Compare(_)) => {
                basis.stage = Stage::Signing;
                self.unsigned.push(key);
            }
            (Stage::Signed { number, .. }, Way::Match { basis: of, .. }) if number == of => self.wrong(&key),
            _ => {}
        }
    }

    /// Nothing comes of its signature, or not what should. One that was made for an earlier fetch is made anew.
    pub fn wrong(&mut self, key: &Key) {
        let Some(basis) = self.bases.get_mut(key) else { return };
        basis.stage = match basis.stage {
            Stage::Signed { before: true, .. } => {
                self.signed.remove(&basis.source);
                self.unsigned.push(*key);
                Stage::Signing
            }
            Stage::Signing => Stage::Signing,
            _ => Stage::Useless,
        };
    }

    /// It can't be read, or is not what it was compared as.
    pub fn useless(&mut self, key: &Key) {
        if let Some(basis) = self.bases.get_mut(key) {
            basis.stage = Stage::Useless;
        }
    }

    /// What waits to be signed.
    pub fn take_unsigned(&mut self) -> Vec<Key> {
        std::mem::take(&mut self.unsigned)
    }

    pub fn is_signing(&self, key: &Key) -> bool {
        self.bases.get(key).is_some_and(|basis| basis.stage == Stage::Signing)
    }

    /// The peer has been sent the signature `number` of `size` bytes.
    pub fn signed(&mut self, key: &Key, number: u64, size: u64) {
        let Some(basis) = self.bases.get_mut(key).filter(|basis| basis.stage == Stage::Signing) else {
            return;
        };
        basis.stage = Stage::Signed { number, size, before: false };
        if self.signed.len() >= HINTS {
            self.signed.pop_first();
        }
        self.signed.insert(basis.source, (number, size));
    }

    /// It could not be signed.
    pub fn not_signed(&mut self, key: &Key) {
        if self.is_signing(key) {
            self.useless(key);
        }
    }

    /// An answer was made of that many bytes of the basis and that many new ones.
    pub fn took(&mut self, key: &Key, copied: u64, new: u64) {
        let Some(basis) = self.bases.get_mut(key) else { return };
        (basis.copied, basis.new, basis.poor) = (basis.copied + copied, basis.new + new, new > copied);
        if basis.new > PATIENCE && basis.new / 8 > basis.copied {
            basis.stage = Stage::Useless;
        }
    }

    /// Fetches of nothing that is in `live` are over.
    pub fn retain(&mut self, live: impl Fn(&Key) -> bool) {
        if self.bases.len() >= HINTS {
            self.bases.retain(|key, _| live(key));
        }
    }

    /// All of the file has come.
    pub fn end(&mut self, file: FileId) {
        self.bases.remove(&(Target::Missing, file));
        self.hints.remove(&file);
    }
}

/// A request that is not answered yet.
pub(super) struct Request {
    pub target: Target,
    pub file: FileId,
    pub version: crate::model::version::Version,
    /// Chunks asked for and still wanted.
    pub expect: ChunkSet,
    /// Chunks asked for, and the size of the file over there.
    pub asked: std::ops::Range<u64>,
    pub size: u64,
    pub way: Way,
    /// What it takes of the window; nothing where a reader waits for it.
    pub bytes: u64,
}

impl Request {
    pub fn key(&self) -> Key {
        (self.target, self.file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::WriterId;

    const FETCHES: [Key; 2] = [
        (Target::Missing, FileId { writer: WriterId(1), counter: 1 }),
        (Target::Staged(7), FileId { writer: WriterId(1), counter: 2 }),
    ];

    fn signed(bases: &mut Bases, key: Key, number: u64) {
        assert_eq!((bases.way(&key), bases.take_unsigned()), (None, vec![key]));
        bases.signed(&key, number, 5_000);
    }

    #[test]
    fn a_signature_serves_later_fetches_and_is_made_anew_once_where_the_basis_has_changed_since() {
        let mut bases = Bases::default();
        let source = FileId { writer: WriterId(1), counter: 3 };
        bases.begin(FETCHES[0], source);
        assert_eq!(bases.way(&FETCHES[0]), Some(Way::Compare(None)));
        bases.differs(FETCHES[0], Way::Compare(Some([0; 32])));
        signed(&mut bases, FETCHES[0], 1);
        bases.begin(FETCHES[1], source);
        assert_eq!(bases.way(&FETCHES[1]), Some(Way::Match { basis: 1, size: 5_000 }));
        bases.wrong(&FETCHES[1]);
        signed(&mut bases, FETCHES[1], 2);
        bases.wrong(&FETCHES[1]);
        assert_eq!(bases.way(&FETCHES[1]), Some(Way::Plain));
    }
}
