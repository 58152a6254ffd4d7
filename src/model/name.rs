//! Names of files in the share.
//!
//! Invariant: a [`Name`] is 1 to 255 bytes without `/` and NUL, is not `.`, `..` or the state
//! directory. Nothing else can be built, so nothing a peer sends can name a path outside the share.

use super::limits::NAME_BYTES;
use bincode::de::Decoder;
use bincode::error::DecodeError;
use bincode::{Decode, Encode};
use std::ffi::OsStr;
use std::fmt;
use std::os::unix::ffi::OsStrExt;

/// The directory that holds the state of syncfs, invisible through the mount.
pub const STATE_DIR: &str = ".syncfs";

/// A valid name; cheap to compare, bytes and not text.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Encode)]
pub struct Name(Box<[u8]>);

/// Why bytes are not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadName {
    #[error("empty name")]
    Empty,
    #[error("name longer than 255 bytes")]
    TooLong,
    #[error("name holds a slash or a NUL")]
    BadByte,
    #[error("reserved name")]
    Reserved,
}

impl Name {
    /// The one way in.
    pub fn new(bytes: &[u8]) -> Result<Name, BadName> {
        match bytes {
            [] => Err(BadName::Empty),
            _ if bytes.len() > NAME_BYTES => Err(BadName::TooLong),
            _ if bytes.iter().any(|b| matches!(b, b'/' | 0)) => Err(BadName::BadByte),
            b"." | b".." => Err(BadName::Reserved),
            _ if bytes == STATE_DIR.as_bytes() => Err(BadName::Reserved),
            _ => Ok(Name(bytes.into())),
        }
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn as_os_str(&self) -> &OsStr {
        OsStr::from_bytes(&self.0)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", String::from_utf8_lossy(&self.0))
    }
}

impl<C> Decode<C> for Name {
    fn decode<D: Decoder<Context = C>>(decoder: &mut D) -> Result<Self, DecodeError> {
        let bytes = Vec::<u8>::decode(decoder)?;
        Name::new(&bytes).map_err(|_| DecodeError::Other("not a name"))
    }
}

bincode::impl_borrow_decode!(Name);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_leads_out_of_the_share() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0", b".syncfs", &[b'x'; 256]] {
            assert!(Name::new(bad).is_err(), "{bad:?}");
        }
        for good in [&b"a"[..], b"...", b".syncfsignore", b"\xff\xfe", &[b'x'; 255]] {
            assert_eq!(Name::new(good).unwrap().as_bytes(), good);
        }
    }
}
