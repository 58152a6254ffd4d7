//! Version vectors.
//!
//! A version maps writers to the number of the last cut of theirs that it includes. Invariants:
//! entries are sorted by writer and none counts zero; the same file at the same version has the
//! same bytes on every replica, for ever.
//!
//! Source: D. S. Parker et al., "Detection of Mutual Inconsistency in Distributed Systems", 1983.

use super::ids::{Seq, WriterId};
use super::limits::WRITERS;
use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};
use std::fmt;

/// How two versions stand to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Equal,
    Before,
    After,
    Concurrent,
}

/// A version vector; the empty one is the version of what does not exist yet.
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
pub struct Version(Box<[(WriterId, Seq)]>);

impl Version {
    /// Of entries that are sorted, none of which counts zero.
    pub(super) fn of(entries: Box<[(WriterId, Seq)]>) -> Version {
        Version(entries)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The number of the last cut of `writer` that this version includes; 0 for none.
    pub fn get(&self, writer: WriterId) -> Seq {
        self.0.binary_search_by_key(&writer, |e| e.0).map_or(0, |i| self.0[i].1)
    }

    /// This version as who has heard of `writers` no more than `base` says may know it.
    pub fn of_others(&self, writers: &[WriterId], base: &Version) -> Version {
        let ours = |writer: &WriterId| writers.contains(writer);
        let entry = |&(writer, seq): &(WriterId, Seq)| match ours(&writer) {
            true => Some((writer, base.get(writer))).filter(|entry| entry.1 > 0),
            false => Some((writer, seq)),
        };
        Version(self.0.iter().filter_map(entry).collect::<Vec<_>>().into())
    }

    /// This version with cut `seq` of `writer` on top.
    pub fn with(&self, writer: WriterId, seq: Seq) -> Version {
        let mut entries = self.0.to_vec();
        match entries.binary_search_by_key(&writer, |e| e.0) {
            Ok(i) => entries[i].1 = entries[i].1.max(seq),
            Err(i) => entries.insert(i, (writer, seq)),
        }
        Version(entries.into())
    }

    /// The least version that includes both.
    pub fn join(&self, other: &Version) -> Version {
        other.0.iter().fold(self.clone(), |v, &(w, n)| v.with(w, n))
    }

    /// How `self` stands to `other`: `Before` means that `other` includes `self`.
    pub fn order(&self, other: &Version) -> Order {
        match (self.includes(other), other.includes(self)) {
            (true, true) => Order::Equal,
            (true, false) => Order::After,
            (false, true) => Order::Before,
            (false, false) => Order::Concurrent,
        }
    }

    /// Whether every cut in `other` is in `self`.
    pub fn includes(&self, other: &Version) -> bool {
        other.0.iter().all(|&(w, n)| self.get(w) >= n)
    }

    /// Checks what a peer tells. Not part of decoding: our own next cut may take a version past the limit,
    /// and must still be read after a restart.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.0.len() > WRITERS { Err("a version of too many writers") } else { Ok(()) }
    }

    pub fn entries(&self) -> &[(WriterId, Seq)] {
        &self.0
    }
}

impl fmt::Debug for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(w, n)| (w, n))).finish()
    }
}

impl<C> Decode<C> for Version {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let entries = Vec::<(WriterId, Seq)>::decode(decoder)?;
        let sorted = entries.windows(2).all(|w| w[0].0 < w[1].0);
        if !sorted || entries.iter().any(|e| e.1 == 0) {
            return Err(DecodeError::Other("not a version"));
        }
        Ok(Version(entries.into()))
    }
}

bincode::impl_borrow_decode!(Version);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_what_they_include() {
        let (a, b) = (WriterId(1), WriterId(2));
        let zero = Version::default();
        let a1 = zero.with(a, 1);
        let a1b5 = a1.with(b, 5);
        assert_eq!(zero.order(&a1), Order::Before);
        assert_eq!(a1b5.order(&a1), Order::After);
        assert_eq!(a1.order(&a1.clone()), Order::Equal);
        assert_eq!(a1.with(a, 2).order(&a1b5), Order::Concurrent);
        assert_eq!(a1.with(a, 2).join(&a1b5), zero.with(b, 5).with(a, 2));
    }
}
