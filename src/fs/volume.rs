//! A flat directory of files as the kernel asks for it, in terms that never saw FUSE.
//!
//! The adapter decodes a request, calls one method here and sends the answer. Inode 1 is the
//! directory; every other inode is a file. No method sleeps on the network: what must wait for the
//! peer comes back as [`Answer::Later`].

use super::error::Error;
use std::fs::File;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

pub type Ino = u64;
pub const ROOT: Ino = 1;

pub type Result<T> = std::result::Result<T, Error>;

/// An answer that is here, or one that a task will bring.
pub enum Answer<T> {
    Now(Result<T>),
    Later(Pin<Box<dyn Future<Output = Result<T>> + Send>>),
}

/// Who asks. `thread` is the kernel's thread id, not the process's; 0 where the kernel itself asks.
#[derive(Clone, Copy, Debug)]
pub struct Caller {
    pub uid: u32,
    pub gid: u32,
    pub thread: u32,
}

/// What `stat` shows. Sizes in bytes, `blocks` in units of 512 bytes.
#[derive(Clone, Copy, Debug)]
pub struct Attr {
    pub ino: Ino,
    pub size: u64,
    pub blocks: u64,
    pub atime: SystemTime,
    pub mtime: SystemTime,
    pub ctime: SystemTime,
    pub is_dir: bool,
    /// Permission bits, set-id and sticky bits included.
    pub mode: u32,
    pub nlink: u32,
    pub uid: u32,
    pub gid: u32,
}

/// What `setattr` may change; `None` leaves as is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    pub mode: Option<u32>,
    pub uid: Option<u32>,
    pub gid: Option<u32>,
    pub size: Option<u64>,
    pub atime: Option<SystemTime>,
    pub mtime: Option<SystemTime>,
}

/// An open file. `backing` is there when all reads may go straight to that descriptor: the file is
/// wholly held and stays so while the handle lives.
pub struct Opened {
    /// Less than 2^62: the adapter keeps the open mode in the other bits.
    pub handle: u64,
    pub backing: Option<Arc<File>>,
}

/// One name in the directory.
pub struct Entry {
    pub name: Vec<u8>,
    pub attr: Attr,
}

/// Flags of one write.
#[derive(Clone, Copy, Debug, Default)]
pub struct WriteMode {
    /// Bytes go to the end of the file, whatever offset was given (`O_APPEND`).
    pub append: bool,
    /// Pages written back from a mapping: they carry bytes nobody wrote, too.
    pub from_mapping: bool,
    /// The kernel asks to clear the set-id bits.
    pub kill_suid: bool,
}

/// A byte-range or whole-file lock. `end` is inclusive, `u64::MAX` for "to the end".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lock {
    pub start: u64,
    pub end: u64,
    pub kind: LockKind,
    pub pid: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LockKind {
    Shared,
    Exclusive,
    Unlock,
}

/// File-system figures for `statfs`, in blocks of `block` bytes.
#[derive(Clone, Copy, Debug)]
pub struct StatFs {
    pub block: u32,
    pub blocks: u64,
    pub free: u64,
    pub available: u64,
    pub files: u64,
    pub files_free: u64,
}

/// The directory. `flags` are those of open(2).
pub trait Volume: Send + Sync + 'static {
    fn lookup(&self, name: &[u8]) -> Result<Attr>;
    /// The kernel dropped `count` references to `ino`.
    fn forget(&self, ino: Ino, count: u64);
    fn getattr(&self, ino: Ino, handle: Option<u64>) -> Result<Attr>;
    fn setattr(&self, caller: Caller, ino: Ino, handle: Option<u64>, set: SetAttr) -> Result<Attr>;
    /// Creates and opens; an existing name is opened instead, unless `O_EXCL`.
    fn create(&self, caller: Caller, name: &[u8], mode: u32, flags: i32) -> Result<(Attr, Opened)>;
    /// A regular file by mknod(2), not opened.
    fn mknod(&self, caller: Caller, name: &[u8], mode: u32) -> Result<Attr>;
    fn open(&self, caller: Caller, ino: Ino, flags: i32) -> Result<Opened>;
    /// `handle` was opened for writing while others read past us: what is stored into a mapping of it
    /// goes to the backing file unseen.
    fn stores_unseen(&self, _handle: u64) {}
    fn read(&self, handle: u64, offset: u64, size: u32) -> Answer<Vec<u8>>;
    fn write(&self, handle: u64, offset: u64, data: &[u8], mode: WriteMode) -> Result<u32>;
    /// One close(2) of a descriptor; `owner` is the lock owner whose record locks go.
    fn flush(&self, handle: u64, owner: u64) -> Result<()>;
    /// The last reference to an open file went; `flock_owner` where a flock(2) lock goes with it.
    fn release(&self, handle: u64, flock_owner: Option<u64>);
    fn fsync(&self, handle: u64, data_only: bool) -> Result<()>;
    fn fsync_dir(&self) -> Result<()>;
    fn unlink(&self, name: &[u8]) -> Result<()>;
    /// `flags` are those of renameat2(2).
    fn rename(&self, from: &[u8], to: &[u8], flags: u32) -> Result<()>;
    /// A snapshot of all names, sorted by nothing in particular; `.` and `..` not among them.
    fn list(&self) -> Vec<(Vec<u8>, Ino)>;
    fn statfs(&self) -> Result<StatFs>;
    fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>>;
    /// `flags`: `XATTR_CREATE`, `XATTR_REPLACE` or 0.
    fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], flags: i32) -> Result<()>;
    fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()>;
    fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>>;
    /// `mode` is that of fallocate(2).
    fn fallocate(&self, handle: u64, offset: u64, len: u64, mode: i32) -> Result<()>;
    /// `SEEK_DATA` and `SEEK_HOLE`.
    fn lseek(&self, handle: u64, offset: u64, whence: i32) -> Result<u64>;
    fn copy_range(&self, from: u64, from_offset: u64, to: u64, to_offset: u64, len: u64) -> Answer<u64>;
    /// The lock that stands in the way of `lock`, if any.
    fn getlk(&self, handle: u64, owner: u64, lock: Lock) -> Result<Option<Lock>>;
    /// `wait`: come back later rather than with `WouldBlock`. `flock`: a flock(2) lock.
    fn setlk(&self, handle: u64, owner: u64, lock: Lock, wait: bool, flock: bool) -> Answer<()>;
}
