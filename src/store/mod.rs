//! The door to disk: the backing directory, the journal, the metadata store.
//!
//! Nothing here knows what the bytes mean. Below everything lies [`disk`], a trait: [`real`] is this
//! machine's, `torn` one that loses power. Invariants of the whole room: what a `sync` returned
//! for survives power loss; a sync that failed once fails for ever, because the kernel forgets the
//! pages that it could not write.

pub mod attrs;
pub mod backing;
pub mod data;
pub mod disk;
pub mod error;
pub mod identity;
pub mod journal;
mod latch;
mod meta;
pub mod metadata;
pub mod real;
pub mod site;
#[cfg(any(test, feature = "simulation"))]
pub mod torn;

pub use attrs::{apply_attrs, read_attrs};
pub use backing::{At, Backing, Beside, Listing, Stamp, is_shareable, stamp};
pub use data::copy_range;
pub use disk::{Content, Dir, Disk, File, Kind, Space, Stat, Time};
pub use error::{Error, Result};
pub use identity::{Identity, load_or_create};
pub use journal::{Journal, Lsn, Records};
pub use metadata::{MetaStore, Opened, Stored};
pub use real::RealDisk;
pub use site::{Random, Site};
