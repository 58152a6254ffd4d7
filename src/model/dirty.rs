//! Which chunks of a file the peer does not have yet, and since when.
//!
//! Each dirty chunk carries a tag: the number of the first cut that can include its last change.
//! Invariant: a chunk changed after cut `n` has a tag above `n`; so the chunks that cut `n` left
//! unchanged are those tagged `n` or less, and `Thanks` for cut `n` clears exactly these.

use super::cut::Changed;
use super::ids::Seq;
use super::sabotage::{Bug, planted};
use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};
use rangemap::RangeMap;
use std::ops::Range;

/// Dirty chunks with their tags, and how many there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    ranges: RangeMap<u64, Seq>,
    len: u64,
}

impl Dirty {
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many chunks are dirty.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// In how many pieces they lie.
    pub fn pieces(&self) -> usize {
        self.ranges.len()
    }

    pub fn mark(&mut self, chunks: Range<u64>, tag: Seq) {
        if !chunks.is_empty() {
            self.len += chunks.end - chunks.start - self.len_within(&chunks);
            self.ranges.insert(chunks, tag);
        }
    }

    pub fn clear(&mut self, chunks: Range<u64>) {
        if !chunks.is_empty() && !self.is_empty() {
            self.len -= self.len_within(&chunks);
            self.ranges.remove(chunks);
        }
    }

    fn len_within(&self, chunks: &Range<u64>) -> u64 {
        let len = |r: &Range<u64>| r.end.min(chunks.end) - r.start.max(chunks.start);
        self.ranges.overlapping(chunks).map(|(r, _)| len(r)).sum()
    }

    /// Clears what cut `seq` brought to the peer.
    pub fn thank(&mut self, seq: Seq) {
        let thanked = |tag| tag <= seq || planted(Bug::ThanksClearAll);
        let done: Vec<Range<u64>> =
            self.ranges.iter().filter(|&(_, &tag)| thanked(tag)).map(|(r, _)| r.clone()).collect();
        done.into_iter().for_each(|r| self.clear(r));
    }

    /// The parts of `chunks` not changed since cut `seq`.
    pub fn unchanged_since(&self, seq: Seq, chunks: &Range<u64>) -> Vec<Range<u64>> {
        let mut set = super::chunk::ChunkSet::new();
        set.insert(chunks.clone());
        if !chunks.is_empty() {
            for (range, _) in self.ranges.overlapping(chunks).filter(|&(_, &tag)| tag > seq) {
                set.remove(range.clone());
            }
        }
        set.iter().collect()
    }

    /// Chunks changed after cut `seq`.
    pub fn since(&self, seq: Seq) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().filter(move |&(_, &tag)| tag > seq).map(|(r, _)| r.clone())
    }

    pub fn changed(&self) -> Vec<Changed> {
        self.ranges.iter().map(|(r, &seq)| Changed { start: r.start, end: r.end, seq }).collect()
    }

    /// The latest tag, 0 where nothing is dirty.
    pub fn latest(&self) -> Seq {
        self.ranges.iter().map(|(_, &tag)| tag).max().unwrap_or(0)
    }
}

impl Encode for Dirty {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        self.changed().encode(encoder)
    }
}

impl<C> Decode<C> for Dirty {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let mut dirty = Dirty::default();
        for c in Vec::<Changed>::decode(decoder)? {
            if c.start >= c.end {
                return Err(DecodeError::Other("not a range"));
            }
            dirty.mark(c.start..c.end, c.seq);
        }
        Ok(dirty)
    }
}

bincode::impl_borrow_decode!(Dirty);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thanks_clear_exactly_what_was_not_changed_since() {
        let mut dirty = Dirty::default();
        dirty.mark(0..10, 1);
        dirty.mark(3..5, 2);
        assert_eq!(dirty.unchanged_since(1, &(0..10)), vec![0..3, 5..10]);
        dirty.thank(1);
        assert_eq!(dirty.changed(), vec![Changed { start: 3, end: 5, seq: 2 }]);
        dirty.thank(2);
        assert!(dirty.is_empty());
    }
}
