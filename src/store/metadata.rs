//! The metadata store as the engine sees it: one header, one value per file, and the journal position they
//! stand for.
//!
//! Contract: a commit moves header, files and position together or not at all. It survives the death of
//! the process, and power loss once [`MetaStore::sync`] returned; of commits since, a prefix does.

use super::error::Result;
use super::journal::Lsn;
use crate::model::ids::FileId;

/// What opening a store found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// Nothing: a store was begun.
    Fresh,
    Existing,
    /// A damaged store, which lies now at `.syncfs/meta.db.damaged-<n>`: another was begun.
    Rebuilt,
}

/// Everything in the store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// The journal position that the rest stands for; 0 in a fresh store.
    pub lsn: Lsn,
    pub header: Option<Vec<u8>>,
    /// In no order.
    pub files: Vec<(FileId, Vec<u8>)>,
}

pub trait MetaStore: Send {
    /// The journal position that the store stands for, and the header.
    fn head(&mut self) -> Result<(Lsn, Option<Vec<u8>>)>;

    /// Tells every file that was committed.
    fn each_file(&mut self, tell: &mut dyn FnMut(FileId, &[u8])) -> Result<()>;

    /// Everything that was committed, at once.
    fn load(&mut self) -> Result<Stored> {
        let (lsn, header) = self.head()?;
        let mut files = Vec::new();
        self.each_file(&mut |id, value| files.push((id, value.to_vec())))?;
        Ok(Stored { lsn, header, files })
    }

    /// Puts `puts`, removes `gone` and moves to position `lsn`, in one transaction. On an error
    /// nothing is changed, and the same commit may be tried again unless the store is stopped.
    fn commit(
        &mut self,
        lsn: Lsn,
        header: &[u8],
        puts: &mut dyn Iterator<Item = (FileId, Vec<u8>)>,
        gone: &[FileId],
    ) -> Result<()>;

    /// Returns when everything committed is durable.
    fn sync(&mut self) -> Result<()>;
}
