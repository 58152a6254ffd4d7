//! Which inodes are open, in which mode, with which backing file.
//!
//! Invariants: modes are decided under one lock; all backed opens of an inode share one backing id,
//! which is closed when the last of them is released; a file that the volume does not hold wholly is
//! never read past us.

use super::kernel::Kernel;
use super::modes::{Access, Mode, Opens};
use super::volume::{Ino, Opened};
use fuser::BackingId;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

pub struct OpenFiles {
    /// Cleared for good when the kernel refuses us backing files altogether.
    passthrough: AtomicBool,
    kernel: Kernel,
    inodes: Mutex<HashMap<Ino, Inode>>,
}

#[derive(Default)]
struct Inode {
    opens: Opens,
    backing: Option<Backing>,
    /// A mapping may have stored into the backing file, beneath pages that the kernel caches.
    unseen_stores: bool,
}

struct Backing {
    id: Arc<BackingId>,
    /// Device and inode: another file must not be read through this id.
    file: (u64, u64),
}

/// A decision: the mode, and the backing id to name to the kernel if the mode is backed.
pub struct Admitted {
    pub mode: Mode,
    pub backing: Option<Arc<BackingId>>,
}

impl OpenFiles {
    pub fn new(passthrough: bool, kernel: Kernel) -> OpenFiles {
        OpenFiles { passthrough: AtomicBool::new(passthrough), kernel, inodes: Mutex::default() }
    }

    /// Decides on one open of `ino` and counts it. `register` makes a backing id of a descriptor.
    pub fn admit(
        &self,
        ino: Ino,
        access: Access,
        opened: &Opened,
        register: impl FnOnce(BorrowedFd<'_>) -> io::Result<BackingId>,
    ) -> Admitted {
        let wanted = opened
            .backing
            .as_ref()
            .filter(|_| self.passthrough.load(Relaxed))
            .map(|fd| (fd, identity(&**fd)));
        let mut inodes = self.inodes.lock();
        let inode = inodes.entry(ino).or_default();
        // Only a reader on an idle inode can start the backed family.
        if inode.opens.none()
            && access == Access::Read
            && let Some((fd, Some(file))) = &wanted
        {
            match register(fd.as_fd()) {
                Ok(id) => inode.backing = Some(Backing { id: Arc::new(id), file: *file }),
                Err(e) => self.refused(&e),
            }
        }
        let same = match (&inode.backing, &wanted) {
            (Some(backing), Some((_, Some(file)))) => backing.file == *file,
            _ => false,
        };
        let mode = inode.opens.admit(access, same);
        inode.unseen_stores |= mode == Mode::DirectBacked && access == Access::ReadWrite;
        Admitted { mode, backing: inode.backing.as_ref().map(|backing| backing.id.clone()) }
    }

    pub fn release(&self, ino: Ino, mode: Mode) {
        let mut inodes = self.inodes.lock();
        let Entry::Occupied(mut entry) = inodes.entry(ino) else { return };
        let inode = entry.get_mut();
        inode.opens.release(mode);
        if !inode.opens.any_backed() {
            inode.backing = None;
            if std::mem::take(&mut inode.unseen_stores) {
                self.kernel.inval_inode(ino);
            }
        }
        if inode.opens.none() {
            entry.remove();
        }
    }

    fn refused(&self, error: &io::Error) {
        let for_good = [libc::EPERM, libc::ENOTTY, libc::EOPNOTSUPP, libc::ELOOP];
        if error.raw_os_error().is_some_and(|errno| for_good.contains(&errno)) {
            self.passthrough.store(false, Relaxed);
            tracing::info!("reads go through syncfs itself: the kernel refuses passthrough ({error})");
        } else {
            tracing::warn!("no passthrough for one file: {error}");
        }
    }
}

fn identity(fd: &impl AsFd) -> Option<(u64, u64)> {
    rustix::fs::fstat(fd).ok().map(|stat| (stat.st_dev, stat.st_ino))
}
