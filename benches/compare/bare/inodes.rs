//! What the kernel knows of: names by inode, and how each inode is open. The rule which opens may be beside each other is that of
//! `src/fs/modes.rs`.

use fuser::{BackingId, FopenFlags};
use rustix::fs::OFlags;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::sync::Arc;

#[derive(Default)]
pub struct Inodes(HashMap<u64, Inode>);

#[derive(Default)]
struct Inode {
    name: OsString,
    lookups: u64,
    /// Opens that are backed by a file that the kernel reads, and others.
    backed: u64,
    plain: u64,
    backing: Option<Arc<BackingId>>,
}

/// How an open is answered.
pub struct Admitted {
    pub flags: FopenFlags,
    pub backing: Option<Arc<BackingId>>,
}

impl Inodes {
    pub fn looked_up(&mut self, ino: u64, name: &OsStr) {
        let inode = self.0.entry(ino).or_default();
        inode.lookups += 1;
        if inode.name != name {
            inode.name = name.to_owned();
        }
    }

    pub fn renamed(&mut self, ino: u64, name: &OsStr) {
        if let Some(inode) = self.0.get_mut(&ino) {
            inode.name = name.to_owned();
        }
    }

    pub fn name(&self, ino: u64) -> Option<OsString> {
        self.0.get(&ino).map(|inode| inode.name.clone())
    }

    pub fn forget(&mut self, ino: u64, count: u64) {
        let Some(inode) = self.0.get_mut(&ino) else { return };
        inode.lookups = inode.lookups.saturating_sub(count);
        self.tidy(ino);
    }

    /// `register` has the kernel know the file.
    pub fn admit(
        &mut self,
        ino: u64,
        flags: OFlags,
        register: impl FnOnce() -> std::io::Result<BackingId>,
    ) -> Admitted {
        let inode = self.0.entry(ino).or_default();
        let access = flags & OFlags::RWMODE;
        if access == OFlags::RDONLY && inode.plain == 0 && inode.backed == 0 {
            inode.backing = register().ok().map(Arc::new);
        }
        let backing = inode.backing.clone();
        *(if backing.is_some() { &mut inode.backed } else { &mut inode.plain }) += 1;
        let flags = match (&backing, access) {
            (Some(_), OFlags::RDONLY) => FopenFlags::empty(),
            (None, OFlags::RDONLY | OFlags::RDWR) => FopenFlags::FOPEN_KEEP_CACHE,
            _ => FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES,
        };
        Admitted { flags, backing }
    }

    pub fn released(&mut self, ino: u64) {
        let Some(inode) = self.0.get_mut(&ino) else { return };
        // All opens of an inode are of one kind.
        let count = if inode.backing.is_some() { &mut inode.backed } else { &mut inode.plain };
        *count = count.saturating_sub(1);
        if inode.backed == 0 {
            inode.backing = None;
        }
        self.tidy(ino);
    }

    fn tidy(&mut self, ino: u64) {
        if self.0.get(&ino).is_some_and(|inode| inode.lookups + inode.backed + inode.plain == 0) {
            self.0.remove(&ino);
        }
    }
}
