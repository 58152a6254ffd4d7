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
    for piece in pieces {
        for range in chunks.within(&piece.chunks()) {
            let bytes = chunk::bytes(&range, size);
            let from = (bytes.start - piece.first * CHUNK) as usize;
            let part = &piece.bytes[from..from + (bytes.end - bytes.start) as usize];
            file.write_all_at(part, bytes.start)?;
            written.insert(range);
        }
    }
    if let Some((staged, have)) = staged {
        for range in chunks.iter().flat_map(|r| have.within(&r)) {
            let bytes = chunk::bytes(&range, size);
            store::copy_range(staged, bytes.start, file, bytes.start, bytes.end - bytes.start)?;
            written.insert(range);
        }
    }
    Ok(written)
}

/// Writes the pieces of a large cut into its staging file.
pub(super) fn write_pieces(file: &Content, pieces: &[Piece]) -> store::Result<()> {
    for piece in pieces {
        file.write_all_at(&piece.bytes, piece.first * CHUNK)
            .map_err(|source| store::Error::Io { what: "staging a cut".into(), source })?;
    }
    Ok(())
}
