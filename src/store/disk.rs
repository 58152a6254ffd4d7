//! What the store needs of a disk, so that tests can put one under it that tears.
//!
//! A disk is seven flat directories of regular files. Contract: a change is seen by every later call at
//! once and survives the death of the process. It survives power loss only after a sync: content, size and
//! attributes after one of their file, a name after one of its directory; until then any part of it may be
//! missing, in any order.

use rustix::fs::RenameFlags;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;

/// The directories of a store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dir {
    /// The shared directory itself.
    Root,
    /// `.syncfs`
    State,
    /// `.syncfs/journal`
    Journal,
    /// `.syncfs/partial`
    Partial,
    /// `.syncfs/staging`
    Staging,
    /// `.syncfs/trash`
    Trash,
    /// `.syncfs/before`
    Before,
}

/// What a name stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    File,
    Directory,
    /// A link or a special file.
    Other,
    /// A listing need not tell; [`Disk::stat`] does.
    Unknown,
}

/// A time as the disk keeps it, before 1970 with negative seconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    pub seconds: i64,
    /// Below 10^9.
    pub nanos: u32,
}

/// What stat(2) tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    pub kind: Kind,
    /// Which file it is: the inode's number and its birth in one, so that no other file ever has the same,
    /// though file systems use numbers again.
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Of 512 bytes.
    pub blocks: u64,
    /// Permission, set-id and sticky bits.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
    pub atime: Time,
    pub mtime: Time,
    pub ctime: Time,
}

/// Space on the disk, as statvfs(2) tells it: in blocks of `block` bytes, and in files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Space {
    pub block: u64,
    pub blocks: u64,
    pub free: u64,
    pub available: u64,
    pub files: u64,
    pub files_free: u64,
}

/// An open file. It has no position; any number of threads may use it.
pub type Content = Arc<dyn File>;

pub trait Disk: Send + Sync {
    /// Opens what lies there for reading, with `write` also for writing; no link is followed. May be
    /// something else than a file: its stat tells. Without `write` the time of access stays as it is: who looks at a
    /// whole directory would have the disk write every inode of it.
    fn open(&self, dir: Dir, name: &[u8], write: bool) -> io::Result<Content>;
    /// Makes a new empty file with exactly the bits `mode`, open for reading and writing; `EEXIST` where
    /// something is.
    fn create(&self, dir: Dir, name: &[u8], mode: u32) -> io::Result<Content>;
    /// Links are not followed.
    fn stat(&self, dir: Dir, name: &[u8]) -> io::Result<Stat>;
    fn rename(&self, from: (Dir, &[u8]), to: (Dir, &[u8]), flags: RenameFlags) -> io::Result<()>;
    fn unlink(&self, dir: Dir, name: &[u8]) -> io::Result<()>;
    /// All names but `.` and `..`, in no order.
    fn list(&self, dir: Dir) -> io::Result<Vec<(Vec<u8>, Kind)>>;
    /// What [`Disk::stat`] says of each name, in this order.
    fn stat_all(&self, dir: Dir, names: &[Vec<u8>]) -> Vec<io::Result<Stat>> {
        names.iter().map(|name| self.stat(dir, name)).collect()
    }
    /// Whether it pays to do two things on it at a time.
    fn bears_company(&self) -> bool {
        false
    }
    /// Makes all names of a directory durable.
    fn sync_dir(&self, dir: Dir) -> io::Result<()>;
    /// Makes everything durable.
    fn sync_all(&self) -> io::Result<()>;
    /// Of [`Dir::Root`] itself.
    fn root_stat(&self) -> io::Result<Stat>;
    fn set_root_times(&self, atime: Option<Time>, mtime: Option<Time>) -> io::Result<()>;
    fn space(&self) -> io::Result<Space>;
    /// The time of day, by which it stamps what changes.
    fn now(&self) -> Time;
}

pub trait File: Send + Sync {
    /// As pread(2): may give less than asked for, nothing at the end.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// As pwrite(2): may take less than given.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    /// Makes content, size and attributes durable.
    fn sync(&self) -> io::Result<()>;
    /// Makes content and size durable.
    fn sync_data(&self) -> io::Result<()>;
    fn stat(&self) -> io::Result<Stat>;
    fn set_mode(&self, mode: u32) -> io::Result<()>;
    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()>;
    fn set_times(&self, atime: Option<Time>, mtime: Option<Time>) -> io::Result<()>;
    /// The value of an extended attribute, of at most as many bytes as `buf` (`ERANGE` beyond).
    fn xattr(&self, name: &[u8], buf: &mut [u8]) -> io::Result<usize>;
    /// The names of the extended attributes, each with a NUL behind.
    fn xattrs(&self) -> io::Result<Vec<u8>>;
    /// `flags` as setxattr(2) takes them.
    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> io::Result<()>;
    fn remove_xattr(&self, name: &[u8]) -> io::Result<()>;
    /// `mode` as fallocate(2) takes it.
    fn allocate(&self, mode: u32, offset: u64, len: u64) -> io::Result<()>;
    /// The next data from `offset` on; `ENXIO` where there is none.
    fn seek_data(&self, offset: u64) -> io::Result<u64>;
    /// The next hole from `offset` on; the end counts as one.
    fn seek_hole(&self, offset: u64) -> io::Result<u64>;
    /// The file in the kernel, where there is one.
    fn descriptor(&self) -> Option<&Arc<std::fs::File>>;
}

impl dyn File {
    /// Fills `buf` from `offset`; gives back how many bytes, fewer only at the end of the file.
    pub fn read_full_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let mut done = 0;
        while done < buf.len() {
            match self.read_at(&mut buf[done..], offset + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(done)
    }

    /// Fills `buf`. Errors: `UnexpectedEof` where the file ends before.
    pub fn read_exact_at(&self, buf: &mut [u8], offset: u64) -> io::Result<()> {
        match self.read_full_at(buf, offset)? {
            got if got == buf.len() => Ok(()),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }

    pub fn write_all_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.write_most_at(bytes, offset).1
    }

    /// Writes as much as there is room for; how many bytes that were, and why not all.
    pub fn write_most_at(&self, bytes: &[u8], offset: u64) -> (usize, io::Result<()>) {
        let mut done = 0;
        while done < bytes.len() {
            match self.write_at(&bytes[done..], offset + done as u64) {
                // Regular files take nothing only when the disk or a quota is full.
                Ok(0) => return (done, Err(io::Error::from_raw_os_error(libc::ENOSPC))),
                Ok(n) => done += n,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return (done, Err(e)),
            }
        }
        (done, Ok(()))
    }

    /// Has the disk begin with bytes that were written there, so that a sync has less to wait for. Nothing is durable for it.
    pub fn begin_writing(&self, offset: u64, len: u64) {
        let (Some(file), Ok(offset), Ok(len)) = (self.descriptor(), offset.try_into(), len.try_into()) else {
            return;
        };
        // SAFETY: numbers, of a file that is open.
        unsafe { libc::sync_file_range(file.as_raw_fd(), offset, len, libc::SYNC_FILE_RANGE_WRITE) };
    }

    /// Bytes.
    pub fn len(&self) -> io::Result<u64> {
        Ok(self.stat()?.size)
    }
}

impl Time {
    /// Nanoseconds since 1970; times before 1677 and after 2262 stop at the ends.
    pub fn nanoseconds(self) -> i64 {
        self.seconds.saturating_mul(1_000_000_000).saturating_add(self.nanos.into())
    }

    pub fn from_nanoseconds(nanoseconds: i64) -> Time {
        Time {
            seconds: nanoseconds.div_euclid(1_000_000_000),
            nanos: nanoseconds.rem_euclid(1_000_000_000) as u32,
        }
    }
}
