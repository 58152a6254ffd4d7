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
    /// The sender's cut that last changed it, to thank for; 0 where it is not the sender's change.
    pub told: Seq,
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
    /// As [`Place::told`].
    pub told: Seq,
}

/// Chunks `[start, end)`, last changed in the sender's cut `seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Changed {
    pub start: u64,
    pub end: u64,
    pub seq: Seq,
}

/// Consecutive whole chunks (the last one of a file may be short), starting at chunk `first`.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
pub struct Piece {
    pub first: u64,
    pub bytes: Vec<u8>,
}

/// What a user wrote does not go into a log.
impl std::fmt::Debug for Piece {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Piece({} bytes from chunk {})", self.bytes.len(), self.first)
    }
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
        let mut names: Vec<&Name> = self.names().collect();
        names.sort_unstable();
        if names.windows(2).any(|w| w[0] == w[1]) {
            return Err("a name twice in one cut");
        }
        self.files.iter().try_for_each(FileCut::check)
    }

    /// The names that its files shall have.
    pub fn names(&self) -> impl Iterator<Item = &Name> {
        self.files.iter().filter_map(|f| f.place.as_ref()?.name.as_ref())
    }

    /// Content bytes that travel inside.
    pub fn inline_bytes(&self) -> u64 {
        let pieces = self.files.iter().filter_map(|f| f.body.as_ref()).flat_map(|b| &b.pieces);
        pieces.map(|p| p.bytes.len() as u64).sum()
    }
}

impl FileCut {
    fn check(&self) -> Result<(), &'static str> {
        if let Some(place) = &self.place {
            place.version.check()?;
            place.seen.check()?;
            if place.version.is_empty() {
                return Err("a place without version");
            }
            if place.name.is_none() && self.body.is_some() {
                return Err("content of a file that is gone");
            }
        }
        self.body.as_ref().map_or(Ok(()), BodyCut::check)
    }
}

impl BodyCut {
    fn check(&self) -> Result<(), &'static str> {
        self.version.check()?;
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
                && (6..=255).contains(&name.len())
                && !name.contains(&0)
                && value.len() <= XATTR_BYTES
        };
        // The owner of all ones means "leave it" to the system calls.
        if self.size > FILE_BYTES || self.mode & !0o7777 != 0 || u32::MAX == self.uid.max(self.gid) {
            return Err("a size, mode or owner that no file has");
        }
        if !sorted || self.xattrs.len() > XATTRS || !self.xattrs.iter().all(good) {
            return Err("extended attributes out of order, too many or not user.*");
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec;
    use super::super::limits::WRITERS;
    use super::*;

    const WRITER: WriterId = WriterId(1);

    fn version() -> Version {
        Version::default().with(WRITER, 1)
    }

    fn file(counter: u64, name: Option<&str>) -> FileCut {
        let name = name.map(|n| Name::new(n.as_bytes()).unwrap());
        let place = Place { name, version: version(), seen: Version::default(), told: 1 };
        FileCut { file: FileId { writer: WRITER, counter }, place: Some(place), body: None }
    }

    fn body() -> BodyCut {
        let attrs = Attrs { size: 1_500, mode: 0o644, uid: 0, gid: 0, mtime: 0, xattrs: Vec::new() };
        let (changed, pieces) = (vec![Changed { start: 0, end: 2, seq: 1 }], Vec::new());
        let lacks = ChunkSet::new();
        BodyCut {
            version: version(),
            base: version(),
            attrs,
            stamp: 0,
            changed,
            lacks,
            pieces,
            sha256: [0; 32],
            told: 1,
        }
    }

    fn checked(files: Vec<FileCut>) -> Result<(), &'static str> {
        Cut { seq: 1, writer: WRITER, after: Vec::new(), files }.check()
    }

    fn with_body(change: impl FnOnce(&mut BodyCut)) -> Result<(), &'static str> {
        let mut body = body();
        change(&mut body);
        checked(vec![FileCut { body: Some(body), ..file(1, Some("a")) }])
    }

    #[test]
    fn two_files_of_a_cut_never_get_one_name() {
        assert_eq!(checked(vec![file(1, Some("a")), file(2, Some("b")), file(3, None)]), Ok(()));
        assert!(checked(vec![file(1, Some("a")), file(2, Some("a"))]).is_err());
        assert!(checked(vec![file(1, Some("a")), file(1, Some("b"))]).is_err());
    }

    #[test]
    fn a_file_that_is_gone_has_no_content() {
        assert!(checked(vec![FileCut { body: Some(body()), ..file(1, None) }]).is_err());
    }

    #[test]
    fn what_no_file_can_be_is_refused() {
        assert_eq!(with_body(|_| ()), Ok(()));
        assert!(with_body(|b| b.attrs.uid = u32::MAX).is_err());
        assert!(with_body(|b| b.attrs.gid = u32::MAX).is_err());
        assert!(with_body(|b| b.attrs.size = FILE_BYTES + 1).is_err());
        assert!(with_body(|b| b.attrs.xattrs = vec![(b"user.".to_vec(), Vec::new())]).is_err());
        assert!(with_body(|b| b.changed[0].end = 3).is_err());
        assert!(with_body(|b| b.pieces = vec![Piece { first: u64::MAX, bytes: vec![0] }]).is_err());
        assert!(with_body(|b| b.pieces = vec![Piece { first: 0, bytes: vec![0; 999] }]).is_err());
    }

    #[test]
    fn a_version_of_too_many_writers_is_refused_but_read_again_where_it_is_our_own() {
        let most = (1..=WRITERS as u64).fold(Version::default(), |v, n| v.with(WriterId(n), 1));
        let more = most.with(WriterId(0), 1);
        assert_eq!(with_body(|b| b.version = most), Ok(()));
        assert!(with_body(|b| b.version = more.clone()).is_err());
        assert!(with_body(|b| (b.base, b.version) = (more.clone(), more.clone())).is_err());
        assert_eq!(codec::decode::<Version>(&codec::encode(&more)).ok(), Some(more));
    }
}
