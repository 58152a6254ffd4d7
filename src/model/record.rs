//! What the journal says: every change of the [`Share`](super::share::Share), one record each.
//!
//! Invariant: the state after a crash is the state of the last checkpoint with the journal's records
//! applied in order; nothing changes the share but [`Share::apply`](super::share::Share::apply).

use super::chunk::ChunkSet;
use super::cut::Cut;
use super::file::Shaky;
use super::ids::{FileId, LogPosition, ReplicaId, Seq, WriterId};
use super::message::Ack;
use super::name::Name;
use super::version::Version;
use bincode::{Decode, Encode};

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub enum Record {
    /// From here on this replica counts as `writer`.
    Began { writer: WriterId },
    /// This replica belongs together with `peer`: what each does not know of the other up to here it has yet to tell.
    Met { peer: ReplicaId, ours: LogPosition, theirs: LogPosition },
    /// The peer has followed our log up to here.
    Heard { since: LogPosition },
    /// A new file, wholly held, all its chunks dirty; `disk` is its inode under the mount.
    Created { file: FileId, name: Name, size: u64, disk: u64 },
    /// Names given and taken away, all at once. `None`: unlinked.
    Moved { moves: Vec<(FileId, Option<Name>)> },
    /// Chunks that were changed here, and the size after it.
    Wrote { file: FileId, chunks: ChunkSet, size: u64 },
    /// Bytes written into chunks that are not held: they outlive the arrival of the chunk.
    Scrapped { file: FileId, bytes: ChunkSet, size: u64 },
    /// A new size, whatever was there before.
    Resized { file: FileId, size: u64 },
    /// Rewritten with the bytes that it had; with `attrs`, its mode, owner, times or extended attributes were set.
    Touched { file: FileId, attrs: bool },
    /// Files that move together until the peer has them.
    Bonded { files: Vec<FileId> },
    /// A cut of ours; its files' registers take its number.
    Cut { seq: Seq, marks: Vec<CutMark> },
    /// The peer has made these durable.
    Thanked { acks: Vec<Ack> },
    /// What a peer's cut did here: to its files, what was kept beside them, and files that stay though the peer
    /// unlinked them.
    Took { from: LogPosition, files: Vec<Taken>, copies: Vec<Kept>, revived: Vec<FileId> },
    /// Chunks of a file that arrived.
    Present { file: FileId, chunks: ChunkSet },
    /// A peer's cut that is about to be applied: repeated after a crash unless `Took` follows.
    /// Content beside the pieces lies in `.syncfs/staging`: these chunks of these files.
    Redo { cut: Box<Cut>, staged: Vec<(FileId, ChunkSet)> },
    /// A file that left no trace to be told: unlinked and acknowledged, or never announced.
    Forgotten { file: FileId },
    /// The file's content is not on this disk any more: all of it is to be fetched.
    Absent { file: FileId },
    /// A file that is wholly held now lies under its own name.
    Published { file: FileId },
    /// After power loss: nobody knows what of the file is as the model has it. It is `size` bytes now. What of it
    /// is `shaky` counts as the peer has it, though it was changed here.
    Unsettled { file: FileId, size: u64, disk: u64, shaky: Shaky },
    /// What lies here counts, every byte of it. With `apart` it was changed before the peer could be asked, and
    /// does not stand above what the peer has, but beside it.
    Adopted { file: FileId, size: u64, apart: bool },
    /// These cuts of the peer are durable here, content included.
    Durable { cuts: Vec<Seq> },
    /// The inode under which a file now lies on the disk.
    Lies { file: FileId, disk: u64 },
    /// What records up to number `upto` say of the file's content and attributes is durable, content included.
    Synced { file: FileId, upto: u64 },
    /// A cut of ours: the peer may have nothing any more of what it once acknowledged, and hears of it again. No file is
    /// another version for that.
    Parted { seq: Seq },
    /// The peer has turned out to have these, as they are here.
    Known { files: Vec<FileId> },
    /// Files that both sides turned out to have are one from here on, each under an id that both came to.
    Merged { files: Vec<Merge> },
    /// The content now lies in `.syncfs/partial`, all of it, or is about to.
    Withdrawn { file: FileId },
    /// These chunks are held no more.
    Evicted { file: FileId, chunks: ChunkSet },
    /// Whether all of the file is to be held here, whatever the host is to hold.
    Pinned { file: FileId, pinned: bool },
    /// These chunks are kept in `.syncfs/before` as the peer knows them.
    KeptBefore { file: FileId, chunks: ChunkSet },
    /// Nothing of the file is kept there any more.
    DroppedBefore { file: FileId },
    /// Whether the peer knows that this host keeps a cache only, and holds everything.
    MayEvict { may: bool },
    /// Whether the peer may have acknowledged what it does not hold.
    PeerHoldsLess { less: bool },
    /// Against the peer's file of the same name this one counts as last modified then, ns since 1970.
    Stamped { file: FileId, stamp: i64 },
}

impl Record {
    /// The files whose names it changes.
    pub fn moves(&self) -> Vec<FileId> {
        match self {
            Record::Moved { moves } => moves.iter().map(|m| m.0).collect(),
            Record::Took { files, .. } => {
                files.iter().filter(|t| t.place.is_some()).map(|t| t.file).collect()
            }
            _ => Vec::new(),
        }
    }
}

/// Which registers of a file a cut includes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct CutMark {
    pub file: FileId,
    pub place: bool,
    pub body: bool,
    pub stamp: i64,
    /// The file's mtime at the cut, nanoseconds since 1970.
    pub mtime: i64,
}

/// What we agree on with the peer: its version, which includes our cut `seq`, and its size in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Agreed {
    pub seq: Seq,
    pub size: u64,
}

/// A file here and one of the peer's become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Merge {
    pub file: FileId,
    /// The id that both give it.
    pub into: FileId,
    /// Its attributes differ from the peer's and are the ones that stay.
    pub attrs: bool,
}

/// What a peer's cut did to one file.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Taken {
    pub file: FileId,
    pub place: Option<TakenPlace>,
    pub body: Option<TakenBody>,
}

/// Our version of a file, which lost, as a file of its own.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Kept {
    pub file: FileId,
    pub name: Name,
    /// Bytes.
    pub size: u64,
    /// Its inode on the disk: until it lies under its name it is in staging.
    pub disk: u64,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct TakenPlace {
    pub name: Option<Name>,
    pub version: Version,
}

#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct TakenBody {
    pub version: Version,
    pub stamp: i64,
    /// The file's mtime once it was taken, nanoseconds since 1970.
    pub mtime: i64,
    pub size: u64,
    /// Chunks whose content is now the peer's, held or not.
    pub changed: ChunkSet,
    /// Those of them that have yet to be fetched.
    pub missing: ChunkSet,
    /// The number to thank for once nothing is missing.
    pub owed: Seq,
    /// Our own concurrent version lost: what was dirty is so no more.
    pub yielded: bool,
    /// Our version stays, on top of the peer's: all that changes is that we agree again on the rest.
    pub agreed: Option<Agreed>,
    /// The content lies in `.syncfs/partial`.
    pub partial: bool,
    pub disk: u64,
}
