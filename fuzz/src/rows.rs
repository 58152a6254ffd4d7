//! What the metadata store holds: its header and its files.

use super::same_again;
use syncfs::engine::metadata::Stored;
use syncfs::model::codec::decode_own;
use syncfs::model::file::File;

/// Which kind of row, and the row.
pub fn run(input: &[u8]) {
    match input.split_first() {
        Some((0, row)) => same_again::<Stored>(decode_own, row),
        Some((_, row)) => same_again::<File>(decode_own, row),
        None => {}
    }
}
