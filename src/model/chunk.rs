//! Chunk arithmetic and sets of chunks.
//!
//! Chunk `n` is the bytes `[1000 n, 1000 (n + 1))` of a file, cut off at its end.

use super::limits::{CHUNK, GROUP};
use bincode::de::Decoder;
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{Decode, Encode};
use rangemap::RangeSet;
use std::ops::Range;

/// The chunks that the bytes `[offset, offset + len)` touch; empty for no bytes.
pub fn touched(offset: u64, len: u64) -> Range<u64> {
    if len == 0 {
        return offset / CHUNK..offset / CHUNK;
    }
    offset / CHUNK..(offset + len).div_ceil(CHUNK)
}

/// The number of chunks in a file of `size` bytes.
pub fn count(size: u64) -> u64 {
    size.div_ceil(CHUNK)
}

/// The bytes of `chunks` in a file of `size` bytes.
pub fn bytes(chunks: &Range<u64>, size: u64) -> Range<u64> {
    (chunks.start * CHUNK).min(size)..(chunks.end * CHUNK).min(size)
}

/// `range` cut at the borders of chunk groups.
pub fn groups(range: Range<u64>) -> impl Iterator<Item = Range<u64>> {
    spans(range, GROUP)
}

/// `range` cut where a multiple of `span` chunks is.
pub fn spans(range: Range<u64>, span: u64) -> impl Iterator<Item = Range<u64>> {
    let mut start = range.start;
    std::iter::from_fn(move || {
        let end = ((start / span + 1) * span).min(range.end);
        let part = start..end;
        start = end;
        (!part.is_empty()).then_some(part)
    })
}

/// A set of chunks (or of bytes: any `u64`), kept as disjoint ranges, and counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChunkSet {
    ranges: RangeSet<u64>,
    len: u64,
}

impl ChunkSet {
    pub fn new() -> ChunkSet {
        ChunkSet::default()
    }

    pub fn of(range: Range<u64>) -> ChunkSet {
        let mut set = ChunkSet::new();
        set.insert(range);
        set
    }

    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// Adds a range; an empty one is no harm.
    pub fn insert(&mut self, range: Range<u64>) {
        if !range.is_empty() {
            self.len += range.end - range.start - self.len_within(&range);
            self.ranges.insert(range);
        }
    }

    pub fn remove(&mut self, range: Range<u64>) {
        if !range.is_empty() && !self.is_empty() {
            self.len -= self.len_within(&range);
            self.ranges.remove(range);
        }
    }

    pub fn contains(&self, n: u64) -> bool {
        self.ranges.contains(&n)
    }

    pub fn overlaps(&self, range: &Range<u64>) -> bool {
        !range.is_empty() && self.ranges.overlaps(range)
    }

    pub fn iter(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.ranges.iter().cloned()
    }

    /// The parts of `range` that are in the set.
    pub fn within(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        if range.is_empty() {
            return Vec::new();
        }
        self.overlapping(range).collect()
    }

    /// The parts of `range` that are not in the set.
    pub fn gaps(&self, range: &Range<u64>) -> Vec<Range<u64>> {
        if range.is_empty() {
            return Vec::new();
        }
        self.ranges.gaps(range).collect()
    }

    /// How many numbers are in the set.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// In how many pieces.
    pub fn pieces(&self) -> usize {
        self.ranges.len()
    }

    fn len_within(&self, range: &Range<u64>) -> u64 {
        self.overlapping(range).map(|r| r.end - r.start).sum()
    }

    fn overlapping(&self, range: &Range<u64>) -> impl Iterator<Item = Range<u64>> {
        let (start, end) = (range.start, range.end);
        self.ranges.overlapping(start..end).map(move |r| r.start.max(start)..r.end.min(end))
    }

    pub fn extend(&mut self, other: &ChunkSet) {
        other.iter().for_each(|r| self.insert(r));
    }

    pub fn subtract(&mut self, other: &ChunkSet) {
        other.iter().for_each(|r| self.remove(r));
    }
}

impl FromIterator<Range<u64>> for ChunkSet {
    fn from_iter<I: IntoIterator<Item = Range<u64>>>(ranges: I) -> ChunkSet {
        let mut set = ChunkSet::new();
        ranges.into_iter().for_each(|r| set.insert(r));
        set
    }
}

impl Encode for ChunkSet {
    fn encode<E: Encoder>(&self, encoder: &mut E) -> Result<(), EncodeError> {
        let ranges: Vec<(u64, u64)> = self.ranges.iter().map(|r| (r.start, r.end)).collect();
        ranges.encode(encoder)
    }
}

impl<C> Decode<C> for ChunkSet {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let ranges = Vec::<(u64, u64)>::decode(decoder)?;
        if ranges.iter().any(|r| r.0 >= r.1) {
            return Err(DecodeError::Other("not a range"));
        }
        Ok(ranges.into_iter().map(|(start, end)| start..end).collect())
    }
}

bincode::impl_borrow_decode!(ChunkSet);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_touch_the_chunks_they_lie_in() {
        assert_eq!(touched(0, 0), 0..0);
        assert_eq!(touched(0, 1), 0..1);
        assert_eq!(touched(999, 2), 0..2);
        assert_eq!(touched(1000, 1000), 1..2);
        assert_eq!(count(0), 0);
        assert_eq!(count(1001), 2);
        assert_eq!(bytes(&(1..2), 1500), 1000..1500);
    }

    #[test]
    fn a_set_knows_what_it_holds_of_a_range() {
        let set: ChunkSet = [2..4, 6..9].into_iter().collect();
        assert_eq!(set.within(&(3..7)), vec![3..4, 6..7]);
        assert_eq!(set.gaps(&(3..7)), vec![4..6]);
        assert_eq!(set.len(), 5);
        assert!(set.within(&(5..5)).is_empty());
    }
}
