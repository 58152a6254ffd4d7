//! The short code that people carry from one host to the other.
//!
//! Eight digits: every keyboard has them and they can be said over a telephone. Whoever guesses has one of
//! [`PAIR_TRIES`](crate::model::limits::PAIR_TRIES) in a hundred million.

use super::error::{Error, Result};
use super::system;
use std::fmt;
use std::io;

const DIGITS: usize = 8;

/// Eight digits, shown as `1234-5678`.
#[derive(Clone, PartialEq, Eq)]
pub struct Code([u8; DIGITS]);

impl Code {
    /// A new one.
    ///
    /// # Errors
    /// Where the system gives no random numbers.
    pub fn random() -> io::Result<Code> {
        let mut bytes = [0; 8];
        system::random(&mut bytes)?;
        let mut rest = u64::from_le_bytes(bytes);
        Ok(Code([(); DIGITS].map(|()| {
            let digit = (rest % 10) as u8;
            rest /= 10;
            b'0' + digit
        })))
    }

    pub(super) fn digits(&self) -> &[u8] {
        &self.0
    }
}

impl std::str::FromStr for Code {
    type Err = Error;

    /// With or without dashes and spaces, wherever they are.
    fn from_str(text: &str) -> Result<Code> {
        let digits: Vec<u8> = text.bytes().filter(|byte| !matches!(byte, b'-' | b' ')).collect();
        match <[u8; DIGITS]>::try_from(digits) {
            Ok(digits) if digits.iter().all(u8::is_ascii_digit) => Ok(Code(digits)),
            _ => Err(Error::NotACode),
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (first, second) = self.0.split_at(DIGITS / 2);
        write!(f, "{}-{}", String::from_utf8_lossy(first), String::from_utf8_lossy(second))
    }
}

/// Nothing that is logged says it.
impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Code(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_understood_however_it_is_typed() {
        let code = Code(*b"01234567");
        assert_eq!(code.to_string(), "0123-4567");
        for typed in ["0123-4567", "01234567", "0123 4567", " 01-23-45-67 "] {
            assert_eq!(typed.parse::<Code>().unwrap(), code, "{typed}");
        }
        for typed in ["", "0123-456", "0123-45678", "0123_4567", "0123-456x", "٠١٢٣٤٥٦٧"] {
            assert!(matches!(typed.parse::<Code>(), Err(Error::NotACode)), "{typed}");
        }
    }

    #[test]
    fn codes_are_random_in_every_digit() {
        let codes: Vec<Code> = (0..200).map(|_| Code::random().unwrap()).collect();
        for place in 0..DIGITS {
            let seen: std::collections::HashSet<u8> = codes.iter().map(|code| code.0[place]).collect();
            assert!(seen.len() == 10, "{seen:?}");
        }
    }
}
