//! Finding content again that moved: the signature of a *basis*, what of other content lies in it, and the recipe that
//! makes the one from the other.
//!
//! Who needs content and has something like it signs that: a weak and a strong hash of each of its blocks. Who has the
//! content rolls over it and finds the blocks at any offset. What is put together is held against its whole digest, so
//! the hashes only have to make false matches rare. Invariants:
//! - parts add up to the range they were asked for, whatever the bytes and whatever the signature;
//! - no signature makes a scan slow: candidates of one weak hash are few, and strong hashes that turn out different
//!   are bounded for a scan.

use super::limits::{BLOCK_BYTES, CHUNK, FILE_BYTES, GROUP_BYTES, PARTS, SIGNATURE_BLOCKS, SPAN_BYTES};
use super::rolling::Rolling;
use bincode::{Decode, Encode};
use sha2::{Digest, Sha256};
use std::ops::Range;

/// Blocks of one weak hash that are looked at.
const CANDIDATES: usize = 4;
/// A scan hashes this many times its own length in vain, and then takes the rest as it comes.
const PATIENCE: usize = 4;
/// Bits of the weak hash that say at once that there is no such block.
const FILTER_BITS: u32 = 20;

/// What a receiver has, block by block.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Signature {
    /// Bytes of the basis.
    pub size: u64,
    /// Bytes of a block, a multiple of a chunk; the last block may be short.
    pub block: u64,
    pub sums: Vec<Sum>,
}

/// Both hashes of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Sum {
    pub weak: u32,
    /// The first bytes of its SHA-256.
    pub strong: [u8; 8],
}

/// How to make some content: bytes that are new, and bytes of the basis.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub enum Part {
    Bytes(Vec<u8>),
    /// `len` bytes of the basis, from byte `from` on.
    Copy {
        from: u64,
        len: u64,
    },
}

/// Content from chunk `first` on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Recipe {
    pub first: u64,
    pub parts: Vec<Part>,
}

/// What a user wrote does not go into a log.
impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Part::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Part::Copy { from, len } => write!(f, "{len} bytes from {from}"),
        }
    }
}

impl Part {
    /// Bytes that it makes.
    pub fn len(&self) -> u64 {
        match self {
            Part::Bytes(bytes) => bytes.len() as u64,
            Part::Copy { len, .. } => *len,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Recipe {
    /// Bytes that it makes.
    pub fn len(&self) -> u64 {
        self.parts.iter().map(Part::len).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// The chunks that it makes.
    pub fn chunks(&self) -> Range<u64> {
        self.first..self.first + super::chunk::count(self.len())
    }

    /// The bytes that it takes from the basis.
    pub fn copied(&self) -> u64 {
        self.parts.iter().filter(|p| matches!(p, Part::Copy { .. })).map(Part::len).sum()
    }

    /// Checks what decoding could not: no part is empty, nothing lies where no file has anything, and all together is
    /// no more than may be asked for at once.
    pub fn check(recipes: &[Recipe]) -> Result<(), &'static str> {
        let mut left = SPAN_BYTES;
        let mut parts = PARTS;
        let mut next = 0;
        for recipe in recipes {
            parts = parts.checked_sub(recipe.parts.len()).ok_or("a recipe of too many parts")?;
            let begin = left;
            for part in &recipe.parts {
                let within = |from: u64| from.checked_add(part.len()).is_some_and(|end| end <= FILE_BYTES);
                if part.is_empty() || matches!(part, Part::Copy { from, .. } if !within(*from)) {
                    return Err("a recipe with an empty part, or from where no file has bytes");
                }
                left = left.checked_sub(part.len()).ok_or("a recipe for more than may be asked for")?;
            }
            let end = recipe.first.checked_add((begin - left).div_ceil(CHUNK));
            if begin == left || recipe.first < next || end.is_none_or(|end| end > FILE_BYTES.div_ceil(CHUNK))
            {
                return Err("recipes out of order, empty, or for what no file has");
            }
            next = end.unwrap_or(u64::MAX);
        }
        Ok(())
    }
}

impl Sum {
    pub fn of(block: &[u8]) -> Sum {
        Sum { weak: Rolling::of(block).hash(), strong: strong(block) }
    }
}

/// Bytes in a block of a basis of `size` bytes: twice the square root, where the signature and what travels for a few
/// edits cost about the same.
pub fn block_of(size: u64) -> u64 {
    (size.isqrt() * 2).next_multiple_of(CHUNK).clamp(CHUNK, BLOCK_BYTES)
}

/// Blocks that a signature of `size` bytes in blocks of `block` has; of the largest files it covers the beginning.
pub fn blocks_of(size: u64, block: u64) -> u64 {
    size.div_ceil(block).min(SIGNATURE_BLOCKS)
}

impl Signature {
    /// Of all of `basis`.
    pub fn of(basis: &[u8]) -> Signature {
        let (size, block) = (basis.len() as u64, block_of(basis.len() as u64));
        let blocks = basis.chunks(block as usize).take(SIGNATURE_BLOCKS as usize);
        Signature { size, block, sums: blocks.map(Sum::of).collect() }
    }

    /// Checks what decoding could not.
    pub fn check(&self) -> Result<(), &'static str> {
        let whole = self.block.is_multiple_of(CHUNK) && (CHUNK..=BLOCK_BYTES).contains(&self.block);
        if !whole || self.size > FILE_BYTES || self.sums.len() as u64 != blocks_of(self.size, self.block) {
            return Err("a signature that is of no file");
        }
        Ok(())
    }

    /// The bytes of block `n`.
    fn block(&self, n: usize) -> Range<u64> {
        let start = n as u64 * self.block;
        start..(start + self.block).min(self.size)
    }
}

/// The first bytes of a block's SHA-256.
fn strong(block: &[u8]) -> [u8; 8] {
    let whole: [u8; 32] = Sha256::digest(block).into();
    let mut first = [0; 8];
    first.copy_from_slice(&whole[..8]);
    first
}

/// A signature, ready to be searched.
pub struct Index {
    signature: Signature,
    /// Whole blocks by their weak hash, few of each.
    sorted: Vec<(u32, u32)>,
    /// Whether any block has a weak hash that begins so.
    filter: Vec<u64>,
}

/// A block found: where in the content, how long, and where in the basis.
struct Found {
    at: usize,
    len: usize,
    from: u64,
}

impl Index {
    /// `signature` has passed its check.
    pub fn new(signature: Signature) -> Index {
        let whole = (signature.size / signature.block).min(signature.sums.len() as u64) as usize;
        let mut all: Vec<(u32, u32)> = (0..whole).map(|n| (signature.sums[n].weak, n as u32)).collect();
        all.sort_unstable();
        let mut sorted: Vec<(u32, u32)> = Vec::with_capacity(all.len());
        for (weak, n) in all {
            let strong = signature.sums[n as usize].strong;
            let same = sorted.iter().rev().take_while(|s| s.0 == weak);
            let mut count = 0;
            let mut again = false;
            for (_, other) in same.take(CANDIDATES) {
                count += 1;
                again |= signature.sums[*other as usize].strong == strong;
            }
            if count < CANDIDATES && !again {
                sorted.push((weak, n));
            }
        }
        let mut filter = vec![0u64; 1 << (FILTER_BITS - 6)];
        for (weak, _) in &sorted {
            let bit = weak >> (32 - FILTER_BITS);
            filter[(bit >> 6) as usize] |= 1 << (bit & 63);
        }
        Index { signature, sorted, filter }
    }

    /// Bytes in a block.
    pub fn block(&self) -> u64 {
        self.signature.block
    }

    /// Blocks that are kept in memory for it.
    pub fn blocks(&self) -> usize {
        self.signature.sums.len()
    }

    #[inline(always)]
    fn may_have(&self, weak: u32) -> bool {
        let bit = weak >> (32 - FILTER_BITS);
        self.filter[(bit >> 6) as usize] & 1 << (bit & 63) != 0
    }

    /// What of `bytes[want]` lies in the basis. The bytes around `want` are looked at, so that a block that reaches out
    /// of it is found as well. The parts make a beginning of `want`, in whole chunks from its start where it is not all
    /// of it: once more than a chunk group of bytes is new, the rest is left for another time.
    pub fn scan(&self, bytes: &[u8], want: Range<usize>) -> Vec<Part> {
        let (found, reached) = self.find(bytes, &want);
        let end = match reached < want.end {
            true => want.start + (reached - want.start) / CHUNK as usize * CHUNK as usize,
            false => want.end,
        };
        let mut parts = Vec::new();
        let mut at = want.start;
        for Found { at: start, len, from } in found {
            let clipped = start.max(at)..(start + len).min(end);
            if clipped.is_empty() {
                continue;
            }
            if at < clipped.start {
                parts.push(Part::Bytes(bytes[at..clipped.start].to_vec()));
            }
            let from = from + (clipped.start - start) as u64;
            let more = clipped.len() as u64;
            match parts.last_mut() {
                Some(Part::Copy { from: before, len }) if *before + *len == from => *len += more,
                _ => parts.push(Part::Copy { from, len: more }),
            }
            at = clipped.end;
        }
        if at < end {
            parts.push(Part::Bytes(bytes[at..end].to_vec()));
        }
        parts
    }

    /// The blocks in `bytes`, in order and apart, and how far of `want` was looked at.
    fn find(&self, bytes: &[u8], want: &Range<usize>) -> (Vec<Found>, usize) {
        let block = self.signature.block as usize;
        let mut found: Vec<Found> = Vec::new();
        let (mut at, mut new) = (0, 0);
        let mut patience = bytes.len().saturating_mul(PATIENCE);
        if bytes.len() >= block && !self.sorted.is_empty() {
            let mut rolling = Rolling::of(&bytes[..block]);
            while at + block <= bytes.len() && at < want.end {
                let weak = rolling.hash();
                let next = found.last().filter(|f| f.at + f.len == at).map(|f| f.from + f.len as u64);
                let hit = (self.may_have(weak) && patience > 0)
                    .then(|| self.block_at(weak, &bytes[at..at + block], next, &mut patience))
                    .flatten();
                if let Some(n) = hit {
                    found.push(Found { at, len: block, from: n as u64 * self.signature.block });
                    at += block;
                    if at + block <= bytes.len() {
                        rolling.jump(&bytes[at..at + block]);
                    }
                    continue;
                }
                new += usize::from(at >= want.start);
                if new > GROUP_BYTES as usize {
                    return (found, at);
                }
                if at + block < bytes.len() {
                    rolling.roll(bytes[at], bytes[at + block]);
                }
                at += 1;
            }
        }
        let last = found.last().map_or(0, |f| f.at + f.len);
        if let Some((len, sum)) = self.tail().filter(|(len, _)| last + len <= bytes.len()) {
            let at = bytes.len() - len;
            if strong(&bytes[at..]) == sum.strong {
                found.push(Found { at, len, from: self.signature.size - len as u64 });
            }
        }
        (found, want.end)
    }

    /// The short block at the end of the basis, if it has one.
    fn tail(&self) -> Option<(usize, Sum)> {
        let n = self.signature.sums.len().checked_sub(1)?;
        let range = self.signature.block(n);
        let len = range.end - range.start;
        (len < self.signature.block && len > 0).then(|| (len as usize, self.signature.sums[n]))
    }

    /// The block that has these bytes: the one at `next` in the basis, if it has them.
    fn block_at(&self, weak: u32, bytes: &[u8], next: Option<u64>, patience: &mut usize) -> Option<usize> {
        let sums = &self.signature.sums;
        let first = self.sorted.partition_point(|s| s.0 < weak);
        let mut same =
            self.sorted[first..].iter().take_while(|s| s.0 == weak).map(|s| s.1 as usize).peekable();
        same.peek()?;
        let strong = strong(bytes);
        let next = next.map(|from| (from / self.signature.block) as usize);
        let fits = |n: &usize| sums.get(*n).is_some_and(|s| (s.weak, s.strong) == (weak, strong));
        let whole = |n: &usize| (*n as u64 + 1) * self.signature.block <= self.signature.size;
        let hit = next.filter(|n| whole(n) && fits(n)).or_else(|| same.find(|n| fits(n)));
        if hit.is_none() {
            *patience = patience.saturating_sub(bytes.len());
        }
        hit
    }
}

#[cfg(test)]
#[path = "delta_tests.rs"]
mod tests;
