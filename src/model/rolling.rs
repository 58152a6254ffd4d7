//! A weak hash of a window that rolls: moved on by a byte it costs two multiplications, whatever the length.
//!
//! The window's bytes are the digits of a number to an odd base, modulo 2^64; the upper half is the hash. Both hosts must
//! agree on it, so it is part of the protocol.

/// Odd, and without pattern in its bits.
const BASE: u64 = 0x9e37_79b9_7f4a_7c15;
/// Digits taken together, so that their multiplications don't wait for one another.
const STRIDE: usize = 8;
const POWERS: [u64; STRIDE + 1] = {
    let mut powers = [1u64; STRIDE + 1];
    let mut n = 1;
    while n <= STRIDE {
        powers[n] = powers[n - 1].wrapping_mul(BASE);
        n += 1;
    }
    powers
};

/// The hash of a window of fixed length.
#[derive(Clone, Copy)]
pub struct Rolling {
    value: u64,
    /// What the digit that leaves next is worth once the window has moved.
    leaving: u64,
}

impl Rolling {
    /// The hash of `window`.
    pub fn of(window: &[u8]) -> Rolling {
        let mut rolling = Rolling { value: 0, leaving: power(window.len()) };
        rolling.jump(window);
        rolling
    }

    /// To a window of the same length elsewhere.
    pub fn jump(&mut self, window: &[u8]) {
        let (strides, rest) = window.as_chunks::<STRIDE>();
        let stride = |value: u64, digits: &[u8; STRIDE]| {
            let digits = digits.iter().zip(POWERS[..STRIDE].iter().rev());
            let sum =
                digits.fold(0u64, |sum, (d, power)| sum.wrapping_add(u64::from(*d).wrapping_mul(*power)));
            value.wrapping_mul(POWERS[STRIDE]).wrapping_add(sum)
        };
        let value = strides.iter().fold(0, stride);
        self.value = rest.iter().fold(value, |v, d| v.wrapping_mul(BASE).wrapping_add(u64::from(*d)));
    }

    /// On by one byte: `out` leaves the window at its front, `into` enters it at its end.
    #[inline(always)]
    pub fn roll(&mut self, out: u8, into: u8) {
        let left = u64::from(out).wrapping_mul(self.leaving);
        self.value = self.value.wrapping_mul(BASE).wrapping_add(u64::from(into)).wrapping_sub(left);
    }

    #[inline(always)]
    pub fn hash(&self) -> u32 {
        (self.value >> 32) as u32
    }
}

/// The base to the power of `n`.
fn power(mut n: usize) -> u64 {
    let (mut result, mut square) = (1u64, BASE);
    while n > 0 {
        if n & 1 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        n >>= 1;
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn rolled_or_jumped_to_a_window_has_one_hash(
            bytes in proptest::collection::vec(any::<u8>(), 2..400),
            part in 1..100usize,
        ) {
            let len = (bytes.len() * part / 100).max(1);
            let mut rolled = Rolling::of(&bytes[..len]);
            for at in 1..=bytes.len() - len {
                rolled.roll(bytes[at - 1], bytes[at - 1 + len]);
                let mut jumped = Rolling::of(&bytes[..len]);
                jumped.jump(&bytes[at..at + len]);
                prop_assert_eq!(rolled.hash(), jumped.hash());
                prop_assert_eq!(rolled.hash(), Rolling::of(&bytes[at..at + len]).hash());
            }
        }
    }

    #[test]
    fn the_hash_is_the_one_that_the_protocol_page_names() {
        assert_eq!(Rolling::of(b"a").hash(), 0);
        assert_eq!(Rolling::of(b"0123456789").hash(), 0x03ef_71de);
    }
}
