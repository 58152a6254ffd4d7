//! A cut: the state of a consistency group at one instant, as it is told to the peer.
//!
//! A file has two registers, each with a version of its own: its *place* (the name it has, or that
//! it is gone) and its *body* (content and attributes). A rename changes a place, a write a body, and
//! the two never conflict.

use super::chunk::{self, ChunkSet};
use super::ids::{FileId, Seq, WriterId};
use super::limits::{CUT_FILES, CUT_RANGES, FILE_BYTES, XATTR_BYTES, XATTRS};
use super::name::Name;
use super::version::Version;
use bincode::{Decode, Encode};

/// One version of a consistency group. Applied as a whole or not at all.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Cut {
    /// Position in the sender's log.
    pub seq: Seq,
    /// The writer whose numbers the tags of changed ranges are.
    pub writer: WriterId,
    /// Earlier cuts of the sender that must be applied first, though large.
    pub after: Vec<Seq>,
    pub files: Vec<FileCut>,
}

/// What became of one file.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct FileCut {
    pub file: FileId,
    pub place: Option<Place>,
    pub body: Option<BodyCut>,
}

/// Where a file is: the first register.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Place {
    /// `None`: unlinked.
    pub name: Option<Name>,
    pub version: Version,
    /// With an unlink: the body that was given up. A later one is an edit that stays.
    pub seen: Version,
}

/// Content and attributes: the second register.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct BodyCut {
    pub version: Version,
    /// What the receiver is known to hold; `changed` is complete for any version that includes it.
    pub base: Version,
    pub attrs: Attrs,
    /// Decides which of two concurrent versions keeps the name; never goes back along one history.
    pub stamp: i64,
    /// Every range of chunks changed since `base`, with the sender's cut that changed it last.
    pub changed: Vec<Changed>,
    /// Chunks that the sender does not hold itself, and can't give.
    pub lacks: ChunkSet,
    /// Content of some of the changed chunks.
    pub pieces: Vec<Piece>,
    /// SHA-256 over the pieces' bytes in order.
    pub sha256: [u8; 32],
}

/// Chunks `[start, end)`, last changed in the sender's cut `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Changed {
    pub start: u64,
    pub end: u64,
    pub seq: Seq,
}

/// Consecutive whole chunks (the last one of a file may be short), starting at chunk `first`.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Piece {
    pub first: u64,
    pub bytes: Vec<u8>,
}

/// What travels of a file beside its content. Times in nanoseconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Attrs {
    pub size: u64,
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    pub mtime: i64,
    /// `user.*` attributes, sorted by name.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

impl Piece {
    /// The chunks that the piece covers.
    pub fn chunks(&self) -> std::ops::Range<u64> {
        self.first..self.first + chunk::count(self.bytes.len() as u64)
    }
}

impl Cut {
    /// Checks everything that decoding could not: ranges in order and inside the file, limits,
    /// pieces of whole chunks. What passes can be applied without further doubt about its shape.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.seq == 0 || self.files.is_empty() || self.files.len() > CUT_FILES {
            return Err("a cut without number or files, or with too many");
        }
        let mut ids: Vec<FileId> = self.files.iter().map(|f| f.file).collect();
        ids.sort_unstable();
        if ids.windows(2).any(|w| w[0] == w[1]) {
            return Err("a file twice in one cut");
        }
        self.files.iter().try_for_each(FileCut::check)
    }

    /// Content bytes that travel inside.
    pub fn inline_bytes(&self) -> u64 {
        let pieces = self.files.iter().filter_map(|f| f.body.as_ref()).flat_map(|b| &b.pieces);
        pieces.map(|p| p.bytes.len() as u64).sum()
    }
}

impl FileCut {
    fn check(&self) -> Result<(), &'static str> {
        if let Some(place) = &self.place
            && place.version.is_empty()
        {
            return Err("a place without version");
        }
        self.body.as_ref().map_or(Ok(()), BodyCut::check)
    }
}

impl BodyCut {
    fn check(&self) -> Result<(), &'static str> {
        if self.version.is_empty() || !self.version.includes(&self.base) {
            return Err("a body without version or older than its base");
        }
        self.attrs.check()?;
        let chunks = chunk::count(self.attrs.size);
        if self.changed.len() > CUT_RANGES
            || self.changed.iter().any(|c| c.start >= c.end || c.end > chunks || c.seq == 0)
            || self.changed.windows(2).any(|w| w[0].end > w[1].start)
        {
            return Err("changed ranges out of order or outside the file");
        }
        let whole = |p: &Piece| {
            !p.bytes.is_empty()
                && p.first < chunks
                && p.chunks().end <= chunks
                && p.bytes.len() as u64 == {
                    let bytes = chunk::bytes(&p.chunks(), self.attrs.size);
                    bytes.end - bytes.start
                }
        };
        if !self.pieces.iter().all(whole) || self.pieces.windows(2).any(|w| w[0].chunks().end > w[1].first) {
            return Err("pieces out of order or not of whole chunks");
        }
        Ok(())
    }

    /// The chunks that differ for a receiver whose body includes cut `since` of the cut's writer;
    /// `None` where it lacks the base and needs every chunk.
    pub fn delta(&self, writer: WriterId, held: &Version) -> ChunkSet {
        if !held.includes(&self.base) {
            return ChunkSet::of(0..chunk::count(self.attrs.size));
        }
        let since = held.get(writer);
        self.changed.iter().filter(|c| c.seq > since).map(|c| c.start..c.end).collect()
    }
}

impl Attrs {
    pub fn check(&self) -> Result<(), &'static str> {
        let sorted = self.xattrs.windows(2).all(|w| w[0].0 < w[1].0);
        let good = |(name, value): &(Vec<u8>, Vec<u8>)| {
            name.starts_with(b"user.")
                && name.len() <= 255
                && !name.contains(&0)
                && value.len() <= XATTR_BYTES
        };
        if self.size > FILE_BYTES || self.mode & !0o7777 != 0 {
            return Err("a size or mode that no file has");
        }
        if !sorted || self.xattrs.len() > XATTRS || !self.xattrs.iter().all(good) {
            return Err("extended attributes out of order, too many or not user.*");
        }
        Ok(())
    }
}
