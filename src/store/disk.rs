//! What the journal needs of a disk, so that tests can put a disk under it that tears.
//!
//! A disk is a flat set of named files. Contract: a write is seen by every later read at once and
//! survives the death of the process; it survives power loss only after `sync` of its file, and a
//! name only after `sync_names`; until then any part of it may be missing, in any order.

use rustix::fs::{AtFlags, Mode, OFlags, RawDir};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;

pub trait Disk: Send + Sync + 'static {
    type File: Send + Sync + 'static;

    /// All names, in no order.
    fn list(&self) -> io::Result<Vec<String>>;
    /// Makes a new, empty file.
    fn create(&self, name: &str) -> io::Result<Self::File>;
    fn open(&self, name: &str) -> io::Result<Self::File>;
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes all creations and removals durable.
    fn sync_names(&self) -> io::Result<()>;

    /// Everything in the file.
    fn read(&self, file: &Self::File) -> io::Result<Vec<u8>>;
    /// One write; gives back how many bytes were taken.
    fn write_at(&self, file: &Self::File, bytes: &[u8], offset: u64) -> io::Result<usize>;
    fn truncate(&self, file: &Self::File, len: u64) -> io::Result<()>;
    /// Makes content and length durable.
    fn sync(&self, file: &Self::File) -> io::Result<()>;
}

/// Files in a real directory, reached only through its descriptor.
#[derive(Debug)]
pub struct RealDisk {
    dir: OwnedFd,
}

const FLAGS: OFlags = OFlags::RDWR.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl RealDisk {
    /// The disk in `dir`, whose descriptor is copied.
    pub fn new(dir: BorrowedFd<'_>) -> io::Result<RealDisk> {
        Ok(RealDisk { dir: dir.try_clone_to_owned()? })
    }
}

impl Disk for RealDisk {
    type File = File;

    fn list(&self) -> io::Result<Vec<String>> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fresh = rustix::fs::openat(&self.dir, ".", flags, Mode::empty())?;
        let mut buffer = Vec::with_capacity(8 << 10);
        let mut entries = RawDir::new(fresh, buffer.spare_capacity_mut());
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            match entry?.file_name().to_str() {
                Ok(".") | Ok("..") | Err(_) => {}
                Ok(name) => names.push(name.to_owned()),
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str) -> io::Result<File> {
        let flags = FLAGS | OFlags::CREATE | OFlags::EXCL;
        Ok(rustix::fs::openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    fn open(&self, name: &str) -> io::Result<File> {
        Ok(rustix::fs::openat(&self.dir, name, FLAGS, Mode::empty())?.into())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())?)
    }

    fn sync_names(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(&self.dir)?)
    }

    fn read(&self, mut file: &File) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    fn write_at(&self, file: &File, bytes: &[u8], offset: u64) -> io::Result<usize> {
        file.write_at(bytes, offset)
    }

    fn truncate(&self, file: &File, len: u64) -> io::Result<()> {
        file.set_len(len)
    }

    fn sync(&self, file: &File) -> io::Result<()> {
        file.sync_data()
    }
}
