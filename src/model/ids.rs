//! Who and what: replicas, writers, files, log positions.
//!
//! Invariant: no number is ever used twice. A replica takes a new [`WriterId`] whenever it may have
//! forgotten what the old one counted.

use bincode::{Decode, Encode};
use serde::{Deserialize, Serialize};
use std::fmt;

/// One host's copy of the share; random, kept for life.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct ReplicaId(pub u128);

/// Who counts in versions; random, renewed after any loss of state and every unclean boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct WriterId(pub u64);

/// A file for life, whatever it is called: the writer that made it and a number of that writer's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode, Serialize, Deserialize)]
pub struct FileId {
    pub writer: WriterId,
    pub counter: u64,
}

impl FileId {
    /// The inode number that the file takes where no other has it: below 2^63 and above the root's, the same for ever.
    pub fn usual_ino(self) -> u64 {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&self.writer.0.to_le_bytes());
        bytes[8..].copy_from_slice(&self.counter.to_le_bytes());
        (xxhash_rust::xxh3::xxh3_64(&bytes) >> 1).max(2)
    }
}

/// A position in a replica's log of cuts; the first cut is 1.
pub type Seq = u64;

/// How far one replica has followed the other's log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct LogPosition {
    pub writer: WriterId,
    pub seq: Seq,
}

impl fmt::Debug for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Display for ReplicaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl ReplicaId {
    /// The first eight digits: what people see in conflict names and messages.
    pub fn short(&self) -> String {
        format!("{:08x}", (self.0 >> 96) as u32)
    }
}

impl fmt::Debug for WriterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// The form used as a file name under `.syncfs/partial`.
impl fmt::Display for FileId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}-{:x}", self.writer.0, self.counter)
    }
}

impl std::str::FromStr for FileId {
    type Err = ();

    fn from_str(text: &str) -> Result<FileId, ()> {
        let (writer, counter) = text.split_once('-').ok_or(())?;
        Ok(FileId {
            writer: WriterId(u64::from_str_radix(writer, 16).map_err(drop)?),
            counter: u64::from_str_radix(counter, 16).map_err(drop)?,
        })
    }
}
