//! The metadata store as the engine holds it: what is in it beside the files, and who writes it.
//!
//! Invariant: only who holds `meta` writes to the store, one checkpoint at a time.

use crate::model::share::Header;
use crate::store::MetaStore;
use bincode::{Decode, Encode};
use parking_lot::{Condvar, Mutex};

/// What the metadata store holds beside the files.
#[derive(Clone, Debug, PartialEq, Encode, Decode)]
pub struct Stored {
    pub header: Header,
    /// The daemon that wrote this ended in order.
    pub clean: bool,
    /// The boot of the machine it ran in.
    pub machine_boot: String,
}

/// The metadata store in the checkpointer's hands, and the word for it to stop.
pub struct Checkpointer {
    pub(super) meta: Mutex<Box<dyn MetaStore>>,
    pub(super) machine_boot: String,
    pub(super) stop: Mutex<bool>,
    pub(super) stopped: Condvar,
}

impl Checkpointer {
    pub(super) fn new(meta: Box<dyn MetaStore>, machine_boot: String) -> Checkpointer {
        Checkpointer {
            meta: Mutex::new(meta),
            machine_boot,
            stop: Mutex::new(false),
            stopped: Condvar::new(),
        }
    }

    pub(super) fn stop(&self) {
        *self.stop.lock() = true;
        self.stopped.notify_all();
    }
}
