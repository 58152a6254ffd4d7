//! The door to disk: the backing directory, the journal, the metadata store.
//!
//! Nothing here knows what the bytes mean. Invariants of the whole room: after [`Backing::open`] no
//! system call names the directory by its path, for the daemon mounts over it; what a `sync` returned
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
pub mod meta;
pub mod torn;

pub use attrs::{apply_attrs, read_attrs};
pub use backing::{At, Backing, Listing, Stamp, stamp};
pub use data::{copy_range, read_full_at};
pub use disk::{Disk, RealDisk};
pub use error::{Error, Result};
pub use identity::{Identity, load_or_create, machine_boot, random_writer};
pub use journal::{Journal, Lsn, Records};
pub use meta::{Meta, Opened, Stored};
pub use torn::TornDisk;
