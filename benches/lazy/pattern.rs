//! Files of which every byte is known, though they are larger than the disk: blocks of noise between holes.

use crate::rig::noise;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use xxhash_rust::xxh3::Xxh3;

pub const BLOCK: u64 = 1 << 20;

#[derive(Clone, Copy)]
pub struct Pattern {
    pub seed: u64,
    pub size: u64,
    /// Of so many blocks the first is noise, the others are holes.
    pub every: u64,
}

impl Pattern {
    /// Noise all through.
    pub fn dense(seed: u64, size: u64) -> Pattern {
        Pattern { seed, size, every: 1 }
    }

    pub fn write(&self, path: &Path) {
        let file = File::create_new(path).unwrap();
        file.set_len(self.size).unwrap();
        for block in self.blocks().step_by(self.every as usize) {
            file.write_all_at(&self.block(block), block * BLOCK).unwrap();
        }
    }

    /// What lies in a part of the file.
    pub fn bytes(&self, range: Range<u64>) -> Vec<u8> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        for block in range.start / BLOCK..range.end.div_ceil(BLOCK) {
            let at = |offset: u64| offset.clamp(block * BLOCK, (block + 1) * BLOCK) - block * BLOCK;
            let part = at(range.start) as usize..at(range.end) as usize;
            match block.is_multiple_of(self.every) {
                true => bytes.extend(&self.block(block)[part]),
                false => bytes.resize(bytes.len() + part.len(), 0),
            }
        }
        bytes
    }

    pub fn digest(&self) -> u64 {
        let mut digest = Xxh3::new();
        for block in self.blocks() {
            digest.update(&self.bytes(block * BLOCK..((block + 1) * BLOCK).min(self.size)));
        }
        digest.digest()
    }

    #[track_caller]
    pub fn check(&self, at: u64, found: &[u8]) {
        assert!(self.bytes(at..at + found.len() as u64) == found, "other bytes at {at} of {}", self.size);
    }

    fn blocks(&self) -> Range<u64> {
        0..self.size.div_ceil(BLOCK)
    }

    fn block(&self, block: u64) -> Vec<u8> {
        let length = (self.size - block * BLOCK).min(BLOCK);
        noise(self.seed << 32 | block, length as usize)
    }
}
