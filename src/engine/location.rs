//! Where content lies on the disk.
//!
//! Invariant: a file not wholly held never lies under its own name.

use crate::model::file;
use crate::model::ids::FileId;
use crate::store::At;

/// Where a file's content lies.
pub(super) fn location(id: FileId, file: &file::File) -> Option<At<'_>> {
    if file.partial {
        return Some(At::Partial(id));
    }
    file.name.as_ref().map(At::Name)
}
