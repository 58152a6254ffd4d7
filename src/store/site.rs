//! The place a replica lives in: a disk, a metadata store on it, and what the machine says of itself.
//! Tests build one of their own.

use super::disk::Disk;
use super::error::Result;
use super::identity::{machine_boot, random};
use super::meta::Meta;
use super::metadata::{MetaStore, Opened};
use super::real::RealDisk;
use std::path::Path;
use std::sync::Arc;

/// Gives numbers that were never given before, here or anywhere.
pub type Random = Box<dyn FnMut() -> u128 + Send>;

pub struct Site {
    pub disk: Arc<dyn Disk>,
    pub meta: Box<dyn MetaStore>,
    pub opened: Opened,
    /// Names this boot of the machine.
    pub boot: String,
    pub random: Random,
}

impl Site {
    /// The store in `dir` on this machine, locked. Must be called before the directory is mounted over.
    ///
    /// # Errors
    /// [`Error::Locked`](super::Error::Locked) where another daemon has it,
    /// [`Error::NewerFormat`](super::Error::NewerFormat).
    pub fn open(dir: &Path) -> Result<Site> {
        let disk = RealDisk::open(dir)?;
        let (meta, opened) = Meta::open(&disk)?;
        Ok(Site {
            disk: Arc::new(disk),
            meta: Box::new(meta),
            opened,
            boot: machine_boot(),
            random: Box::new(random),
        })
    }
}
