//! Bytes to values and back: the only module that calls bincode.
//!
//! The encoding is bincode's legacy one (fixed-width little-endian integers, `u64` lengths), with a
//! bound on the memory that decoding may claim. Invariants: decoding never panics, never claims more
//! than [`DECODE_BYTES`], and refuses bytes left over. Types that are decoded are neither recursive
//! nor of size zero in a sequence.

use super::limits::DECODE_BYTES;
use bincode::config::{Configuration, Fixint, Limit, LittleEndian};
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

/// The bytes of `value`. Values built within the limits always encode.
pub fn encode<T: Encode>(value: &T) -> Vec<u8> {
    bincode::encode_to_vec(value, CONFIG).expect("a value within the limits encodes")
}

/// The value that `bytes` hold, all of them.
pub fn decode<T: Decode<()>>(bytes: &[u8]) -> Result<T, CodecError> {
    match bincode::decode_from_slice(bytes, CONFIG)? {
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
    fn bytes_left_over_are_refused() {
        let mut bytes = encode(&7u64);
        bytes.push(0);
        assert!(matches!(decode::<u64>(&bytes), Err(CodecError::Trailing(1))));
    }
}
