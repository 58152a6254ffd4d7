//! Content in transit: read from a file, told by its digest, written into a staging file.
//!
//! Invariant: a piece is at most a chunk group long.

use crate::model::chunk::{self, ChunkSet};
use crate::model::cut::Piece;
use crate::model::ids::{FileId, Seq};
use crate::model::limits::{CHUNK, GROUP};
use crate::store::{self, Content};
use sha2::{Digest, Sha256};
use std::io;
use std::ops::Range;

/// With fewer bytes at a time the disk would only be busier.
const WORTH_BEGINNING: usize = 128 << 10;

/// The bytes of `chunks`, in pieces of at most a chunk group.
pub(super) fn read_pieces(file: &Content, chunks: &ChunkSet, size: u64) -> store::Result<Vec<Piece>> {
    let mut pieces = Vec::new();
    for range in chunks.iter() {
        let mut first = range.start;
        while first < range.end {
            let end = range.end.min(first + GROUP);
            let at = chunk::bytes(&(first..end), size);
            let mut bytes = vec![0; (at.end - at.start) as usize];
            file.read_exact_at(&mut bytes, at.start)
                .map_err(|source| store::Error::Io { what: "reading content for a cut".into(), source })?;
            pieces.push(Piece { first, bytes });
            first = end;
        }
    }
    Ok(pieces)
}

/// SHA-256 over the pieces' bytes in order.
pub(super) fn digest(pieces: &[Piece]) -> [u8; 32] {
    let mut hash = Sha256::new();
    pieces.iter().for_each(|p| hash.update(&p.bytes));
    hash.finalize().into()
}

/// The staging file's name for content of `file` that `cut` brings.
pub(super) fn staging_name(cut: Seq, file: FileId) -> String {
    format!("cut-{cut}-{file}")
}

/// The staging file's name for our version `number` of `file`, kept when `cut` writes over it.
pub(super) fn kept_name(cut: Seq, file: FileId, number: Seq) -> String {
    format!("kept-{file}+{cut:016x}-{number:016x}")
}

/// Whose version lies under that name in staging.
pub(super) fn kept_of(staging: &str) -> Option<FileId> {
    staging.strip_prefix("kept-")?.split_once('+')?.0.parse().ok()
}

/// What `pieces` hold of `chunks` of a file of `size` bytes, each range with its bytes.
fn parts<'a>(
    chunks: &'a ChunkSet,
    size: u64,
    pieces: &'a [Piece],
) -> impl Iterator<Item = (Range<u64>, u64, &'a [u8])> {
    let part = move |piece: &'a Piece, range: Range<u64>| {
        let bytes = chunk::bytes(&range, size);
        let from = (bytes.start - piece.first * CHUNK) as usize;
        (range, bytes.start, &piece.bytes[from..from + (bytes.end - bytes.start) as usize])
    };
    pieces.iter().flat_map(move |piece| {
        chunks.within(&piece.chunks()).into_iter().map(move |range| part(piece, range))
    })
}

/// Whether what a cut brings of `chunks` of a file of `size` bytes lies there already: all of its pieces, and all that
/// lies in staging for it.
pub(super) fn is_there(
    file: &Content,
    chunks: &ChunkSet,
    size: u64,
    pieces: &[Piece],
    staged: Option<(&Content, &ChunkSet)>,
) -> io::Result<bool> {
    let mut held = Vec::new();
    for (_, at, bytes) in parts(chunks, size, pieces) {
        held.resize(bytes.len(), 0);
        if file.read_full_at(&mut held, at)? < bytes.len() || held != bytes {
            return Ok(false);
        }
    }
    let Some((staged, have)) = staged else { return Ok(true) };
    let mut coming = Vec::new();
    for range in chunks.iter().flat_map(|r| have.within(&r)).flat_map(chunk::groups) {
        let bytes = chunk::bytes(&range, size);
        let len = (bytes.end - bytes.start) as usize;
        held.resize(len, 0);
        coming.resize(len, 0);
        staged.read_exact_at(&mut coming, bytes.start)?;
        if file.read_full_at(&mut held, bytes.start)? < len || held != coming {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Copies `chunks`, at their places, between two files of which the target is `size` bytes long.
pub(super) fn copy_chunks(from: &Content, to: &Content, chunks: &ChunkSet, size: u64) -> io::Result<()> {
    for range in chunks.iter() {
        let bytes = chunk::bytes(&range, size);
        store::copy_range(from, bytes.start, to, bytes.start, bytes.end - bytes.start)?;
    }
    Ok(())
}

/// Writes what a cut brings of `chunks` into a file of `size` bytes: its pieces, and what lies in staging for
/// it. Returns the chunks that were written.
pub(super) fn put(
    file: &Content,
    chunks: &ChunkSet,
    size: u64,
    pieces: &[Piece],
    staged: Option<(&Content, &ChunkSet)>,
) -> io::Result<ChunkSet> {
    let mut written = ChunkSet::new();
    for (range, at, bytes) in parts(chunks, size, pieces) {
        file.write_all_at(bytes, at)?;
        written.insert(range);
    }
    if let Some((staged, have)) = staged {
        let come = chunks.iter().flat_map(|r| have.within(&r)).collect();
        copy_chunks(staged, file, &come, size)?;
        written.extend(&come);
    }
    Ok(written)
}

/// Writes the pieces of a large cut into its staging file.
pub(super) fn write_pieces(file: &Content, pieces: &[Piece]) -> store::Result<()> {
    for piece in pieces {
        write_through(file, &piece.bytes, piece.first * CHUNK)
            .map_err(|source| store::Error::Io { what: "staging a cut".into(), source })?;
    }
    Ok(())
}

/// Writes what will have to be durable soon: the disk begins while more is on its way.
pub(super) fn write_through(file: &Content, bytes: &[u8], at: u64) -> io::Result<()> {
    file.write_all_at(bytes, at)?;
    if bytes.len() >= WORTH_BEGINNING {
        file.begin_writing(at, bytes.len() as u64);
    }
    Ok(())
}
