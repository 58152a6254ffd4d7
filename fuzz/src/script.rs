//! The fuzzer's bytes as a series of small choices: one byte, one choice, so that seeds can be written by
//! hand and a mutated byte changes one thing.

/// What is left of the input; past its end every choice is 0.
pub struct Script<'a>(&'a [u8]);

impl<'a> Script<'a> {
    pub fn new(input: &'a [u8]) -> Script<'a> {
        Script(input)
    }

    pub fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// A number below `sides`, which is 1 to 256.
    pub fn below(&mut self, sides: u64) -> u64 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        u64::from(*first) % sides
    }

    /// Mostly a number below `sides`; at times one of those where sums overflow.
    pub fn number(&mut self, sides: u64) -> u64 {
        match self.below(256) {
            255 => u64::MAX - self.below(3),
            254 => (1 << 62) / 1000 + self.below(3),
            n => n % sides,
        }
    }

    pub fn coin(&mut self) -> bool {
        self.below(2) == 1
    }

    /// As many bytes as the next byte says, or as are left.
    pub fn bytes(&mut self) -> &'a [u8] {
        let length = (self.below(256) as usize).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    /// All that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
