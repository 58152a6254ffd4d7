//! Bytes to values and back: the only module that calls bincode.
//!
//! The encoding is bincode's legacy one (fixed-width little-endian integers, `u64` lengths), with a
//! bound on the memory that decoding may claim. Invariants: decoding never panics, never claims more
//! than [`DECODE_BYTES`] ([`OWN_DECODE_BYTES`] for what our own disk holds), and refuses bytes left over. Types that are decoded are neither recursive
//! nor of size zero in a sequence.

use super::limits::{DECODE_BYTES, OWN_DECODE_BYTES};
use bincode::config::{Config, Configuration, Fixint, Limit, LittleEndian};
use bincode::{Decode, Encode};

/// What could not be understood.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("malformed: {0}")]
    Malformed(#[from] bincode::error::DecodeError),
    #[error("{0} bytes left over")]
    Trailing(usize),
}

const CONFIG: Configuration<LittleEndian, Fixint, Limit<DECODE_BYTES>> =
    bincode::config::legacy().with_limit::<DECODE_BYTES>();

const OWN_SMALL_BYTES: usize = DECODE_BYTES / 32;

/// The bytes of `value`. Values built within the limits always encode.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, CONFIG).expect("a value within the limits encodes")
}

/// The value that `bytes` of a peer hold, all of them.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    decode_within(bytes, CONFIG)
}

/// The value that `bytes` of our own disk hold, all of them. What we wrote must be read again, however
/// large it has become.
pub fn decode_own<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    // No value takes 32 times the memory that its bytes take: only a large one needs more than a peer's.
    match bytes.len() {
        ..=OWN_SMALL_BYTES => decode_within(bytes, CONFIG),
        _ => decode_within(bytes, bincode::config::legacy().with_limit::<OWN_DECODE_BYTES>()),
    }
}

fn decode_within<T: Decode<()>>(bytes: &[u8], config: impl Config) -> Result<T, CodecError> {
    match bincode::decode_from_slice(bytes, config)? {
        (value, used) if used == bytes.len() => Ok(value),
        (_, used) => Err(CodecError::Trailing(bytes.len() - used)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lying_length_is_refused_before_memory_is_claimed() {
        let mut bytes = encode(&vec![7u8; 3]);
        bytes[..8].copy_from_slice(&(1u64 << 40).to_le_bytes());
        assert!(decode::<Vec<u8>>(&bytes).is_err());
    }

    #[test]
    fn what_a_peer_may_not_send_is_still_read_from_our_own_disk() {
        let large = vec![7u64; DECODE_BYTES / 8 + 1];
        let bytes = encode(&large);
        assert!(decode::<Vec<u64>>(&bytes).is_err());
        assert!(decode_own::<Vec<u64>>(&bytes).is_ok_and(|again| again == large));
    }

    #[test]
    fn bytes_left_over_are_refused() {
        let mut bytes = encode(&7u64);
        bytes.push(0);
        assert!(matches!(decode::<u64>(&bytes), Err(CodecError::Trailing(1))));
    }
}
