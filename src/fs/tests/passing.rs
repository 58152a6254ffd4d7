//! The simplest [`Volume`]: every call goes to a directory on disk, every answer comes from there.

use crate::fs::error::Error;
use crate::fs::locks::{Kind, LockTable, Taker};
use crate::fs::volume::*;
use parking_lot::Mutex;
use rustix::fs::{
    AtFlags, FallocateFlags, Mode, OFlags, RenameFlags, SeekFrom, StatVfs, Timestamps, XattrFlags,
};
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

pub struct Passing {
    dir: OwnedFd,
    nodes: Mutex<HashMap<Ino, Arc<Node>>>,
    handles: Mutex<HashMap<u64, Arc<Node>>>,
    next: AtomicU64,
    locks: LockTable,
    /// Whether files are given for reading past us.
    pub whole: AtomicBool,
    /// Milliseconds that every read is late.
    pub late: AtomicU64,
    pub seen: Seen,
}

/// How often what was called.
#[derive(Default)]
pub struct Seen {
    pub lookups: AtomicU64,
    pub reads: AtomicU64,
    pub writes: AtomicU64,
    pub mapped: AtomicU64,
    pub fsyncs: AtomicU64,
    pub unseen: AtomicU64,
}

struct Node {
    ino: Ino,
    fd: Arc<OwnedFd>,
    known: AtomicU64,
    end: Mutex<()>,
}

impl Passing {
    pub fn new(dir: &Path) -> Passing {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Passing {
            dir: rustix::fs::open(dir, flags, Mode::empty()).expect("opens"),
            nodes: Mutex::default(),
            handles: Mutex::default(),
            next: AtomicU64::new(1),
            locks: LockTable::new(),
            whole: AtomicBool::new(true),
            late: AtomicU64::new(0),
            seen: Seen::default(),
        }
    }

    fn enter(&self, name: &[u8], flags: OFlags, mode: u32) -> Result<Arc<Node>> {
        let flags = flags | OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = match rustix::fs::openat(&self.dir, name, flags, Mode::from_raw_mode(mode)) {
            Ok(fd) => fd,
            Err(rustix::io::Errno::NOENT) => return Err(Error::NotFound),
            Err(e) => return Err(e.into()),
        };
        let ino = rustix::fs::fstat(&fd)?.st_ino;
        let new =
            || Arc::new(Node { ino, fd: Arc::new(fd), known: AtomicU64::new(0), end: Mutex::default() });
        let node = self.nodes.lock().entry(ino).or_insert_with(new).clone();
        node.known.fetch_add(1, Relaxed);
        Ok(node)
    }

    fn node(&self, ino: Ino) -> Result<Arc<Node>> {
        self.nodes.lock().get(&ino).cloned().ok_or(Error::NotFound)
    }

    fn handle(&self, handle: u64) -> Result<Arc<Node>> {
        self.handles.lock().get(&handle).cloned().ok_or(Error::BadHandle)
    }

    fn opened(&self, node: &Arc<Node>) -> Opened {
        let handle = self.next.fetch_add(1, Relaxed);
        self.handles.lock().insert(handle, node.clone());
        Opened { handle, backing: self.whole.load(Relaxed).then(|| node.fd.clone()) }
    }

    pub fn locked(&self, ino: Ino) -> bool {
        self.locks.held(ino)
    }

    pub fn locks(&self) -> &LockTable {
        &self.locks
    }

    /// Open handles and known inodes; both are 0 when all was closed and forgotten.
    pub fn left(&self) -> (usize, u64) {
        (self.handles.lock().len(), self.nodes.lock().values().map(|node| node.known.load(Relaxed)).sum())
    }
}

fn time(seconds: i64, nanos: u64) -> SystemTime {
    let nanos = Duration::from_nanos(nanos);
    match u64::try_from(seconds) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds) + nanos,
        Err(_) => UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()) + nanos,
    }
}

fn timespec(time: Option<SystemTime>) -> rustix::fs::Timespec {
    let Some(time) = time else { return rustix::fs::Timespec { tv_sec: 0, tv_nsec: rustix::fs::UTIME_OMIT } };
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => {
            rustix::fs::Timespec { tv_sec: after.as_secs() as i64, tv_nsec: after.subsec_nanos().into() }
        }
        Err(before) => {
            let before = before.duration();
            let borrow = i64::from(before.subsec_nanos() > 0);
            let tv_nsec = (1_000_000_000 - i64::from(before.subsec_nanos())) * borrow;
            rustix::fs::Timespec { tv_sec: -(before.as_secs() as i64) - borrow, tv_nsec }
        }
    }
}

fn attr(fd: &OwnedFd, ino: Ino) -> Result<Attr> {
    let s = rustix::fs::fstat(fd)?;
    Ok(Attr {
        ino,
        size: s.st_size as u64,
        blocks: s.st_blocks as u64,
        atime: time(s.st_atime, s.st_atime_nsec),
        mtime: time(s.st_mtime, s.st_mtime_nsec),
        ctime: time(s.st_ctime, s.st_ctime_nsec),
        is_dir: s.st_mode & libc::S_IFMT == libc::S_IFDIR,
        mode: s.st_mode & 0o7777,
        nlink: s.st_nlink as u32,
        uid: s.st_uid,
        gid: s.st_gid,
    })
}

fn user(name: &[u8]) -> Result<()> {
    if name.starts_with(b"user.") { Ok(()) } else { Err(Error::NotSupported) }
}

impl Volume for Passing {
    fn lookup(&self, name: &[u8]) -> Result<Attr> {
        self.seen.lookups.fetch_add(1, Relaxed);
        let node = self.enter(name, OFlags::empty(), 0)?;
        attr(&node.fd, node.ino)
    }

    fn forget(&self, ino: Ino, count: u64) {
        let mut nodes = self.nodes.lock();
        if let Some(node) = nodes.get(&ino)
            && node.known.fetch_sub(count, Relaxed) == count
        {
            nodes.remove(&ino);
        }
    }

    fn getattr(&self, ino: Ino, _: Option<u64>) -> Result<Attr> {
        if ino == ROOT { attr(&self.dir, ROOT) } else { attr(&self.node(ino)?.fd, ino) }
    }

    fn setattr(&self, _: Caller, ino: Ino, _: Option<u64>, set: SetAttr) -> Result<Attr> {
        if ino == ROOT {
            return Err(Error::NotPermitted);
        }
        let node = self.node(ino)?;
        if let Some(size) = set.size {
            rustix::fs::ftruncate(&node.fd, size)?;
        }
        if let Some(mode) = set.mode {
            rustix::fs::fchmod(&node.fd, Mode::from_raw_mode(mode))?;
        }
        let (uid, gid) = (set.uid.map(rustix::fs::Uid::from_raw), set.gid.map(rustix::fs::Gid::from_raw));
        rustix::fs::fchown(&node.fd, uid, gid)?;
        let times = Timestamps { last_access: timespec(set.atime), last_modification: timespec(set.mtime) };
        rustix::fs::futimens(&node.fd, &times)?;
        attr(&node.fd, ino)
    }

    fn create(&self, _: Caller, name: &[u8], mode: u32, flags: i32) -> Result<(Attr, Opened)> {
        let kept = OFlags::EXCL | OFlags::TRUNC;
        let flags = OFlags::from_bits_truncate(flags as u32) & kept | OFlags::CREATE;
        let node = self.enter(name, flags, mode)?;
        Ok((attr(&node.fd, node.ino)?, self.opened(&node)))
    }

    fn mknod(&self, _: Caller, name: &[u8], mode: u32) -> Result<Attr> {
        let node = self.enter(name, OFlags::CREATE | OFlags::EXCL, mode)?;
        attr(&node.fd, node.ino)
    }

    fn open(&self, _: Caller, ino: Ino, flags: i32) -> Result<Opened> {
        let node = self.node(ino)?;
        if flags & libc::O_TRUNC != 0 {
            rustix::fs::ftruncate(&node.fd, 0)?;
        }
        Ok(self.opened(&node))
    }

    fn stores_unseen(&self, _: u64) {
        self.seen.unseen.fetch_add(1, Relaxed);
    }

    fn read(&self, handle: u64, offset: u64, size: u32) -> Answer<Vec<u8>> {
        self.seen.reads.fetch_add(1, Relaxed);
        let node = self.handle(handle);
        let read = move || {
            let mut data = vec![0; size as usize];
            let read = rustix::io::pread(&node?.fd, &mut data, offset)?;
            data.truncate(read);
            Ok(data)
        };
        match self.late.load(Relaxed) {
            0 => Answer::Now(read()),
            late => Answer::Later(Box::pin(async move {
                tokio::time::sleep(Duration::from_millis(late)).await;
                read()
            })),
        }
    }

    fn write(&self, handle: u64, offset: u64, data: &[u8], mode: WriteMode) -> Result<u32> {
        self.seen.writes.fetch_add(1, Relaxed);
        self.seen.mapped.fetch_add(mode.from_mapping.into(), Relaxed);
        let node = self.handle(handle)?;
        let _end = node.end.lock();
        let offset = if mode.append { rustix::fs::fstat(&node.fd)?.st_size as u64 } else { offset };
        let stat = rustix::fs::fstat(&node.fd)?;
        if mode.kill_suid && stat.st_mode & 0o6000 != 0 {
            rustix::fs::fchmod(&node.fd, Mode::from_raw_mode(stat.st_mode & 0o1777))?;
        }
        Ok(rustix::io::pwrite(&node.fd, data, offset)? as u32)
    }

    fn flush(&self, handle: u64, owner: u64) -> Result<()> {
        self.locks.release_owner(self.handle(handle)?.ino, owner);
        Ok(())
    }

    fn release(&self, handle: u64, _: Option<u64>) {
        if let Some(node) = self.handles.lock().remove(&handle) {
            self.locks.release_handle(node.ino, handle);
        }
    }

    fn fsync(&self, handle: u64, _: bool) -> Result<()> {
        self.seen.fsyncs.fetch_add(1, Relaxed);
        self.handle(handle).map(|_| ())
    }

    fn fsync_dir(&self) -> Result<()> {
        Ok(())
    }

    fn unlink(&self, name: &[u8]) -> Result<()> {
        Ok(rustix::fs::unlinkat(&self.dir, name, AtFlags::empty())?)
    }

    fn rename(&self, from: &[u8], to: &[u8], flags: u32) -> Result<()> {
        Ok(rustix::fs::renameat_with(&self.dir, from, &self.dir, to, RenameFlags::from_bits_retain(flags))?)
    }

    fn list(&self) -> Vec<(Vec<u8>, Ino)> {
        let entries = rustix::fs::Dir::read_from(&self.dir).expect("reads");
        entries
            .filter_map(|entry| entry.ok())
            .map(|entry| (entry.file_name().to_bytes().to_owned(), entry.ino()))
            .filter(|(name, _)| name != b"." && name != b"..")
            .collect()
    }

    fn statfs(&self) -> Result<StatFs> {
        let StatVfs { f_bsize, f_blocks, f_bfree, f_bavail, f_files, f_ffree, .. } =
            rustix::fs::fstatvfs(&self.dir)?;
        let (blocks, free, available) = (f_blocks, f_bfree, f_bavail);
        Ok(StatFs { block: f_bsize as u32, blocks, free, available, files: f_files, files_free: f_ffree })
    }

    fn getxattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>> {
        user(name)?;
        let mut value = vec![0; 65_536];
        match rustix::fs::fgetxattr(&self.node(ino)?.fd, name, &mut value) {
            Ok(length) => value.truncate(length),
            Err(rustix::io::Errno::NODATA) => return Err(Error::NoAttribute),
            Err(e) => return Err(e.into()),
        }
        Ok(value)
    }

    fn setxattr(&self, ino: Ino, name: &[u8], value: &[u8], flags: i32) -> Result<()> {
        user(name)?;
        let flags = XattrFlags::from_bits_retain(flags as u32);
        Ok(rustix::fs::fsetxattr(&self.node(ino)?.fd, name, value, flags)?)
    }

    fn removexattr(&self, ino: Ino, name: &[u8]) -> Result<()> {
        user(name)?;
        Ok(rustix::fs::fremovexattr(&self.node(ino)?.fd, name)?)
    }

    fn listxattr(&self, ino: Ino) -> Result<Vec<Vec<u8>>> {
        let mut names = vec![0; 65_536];
        let length = rustix::fs::flistxattr(&self.node(ino)?.fd, &mut names)?;
        let names = names[..length].split(|b| *b == 0).filter(|name| name.starts_with(b"user."));
        Ok(names.map(<[u8]>::to_vec).collect())
    }

    fn fallocate(&self, handle: u64, offset: u64, len: u64, mode: i32) -> Result<()> {
        let mode = FallocateFlags::from_bits_retain(mode as u32);
        Ok(rustix::fs::fallocate(&self.handle(handle)?.fd, mode, offset, len)?)
    }

    fn lseek(&self, handle: u64, offset: u64, whence: i32) -> Result<u64> {
        let to = if whence == libc::SEEK_DATA { SeekFrom::Data(offset) } else { SeekFrom::Hole(offset) };
        Ok(rustix::fs::seek(&self.handle(handle)?.fd, to)?)
    }

    fn copy_range(&self, from: u64, from_offset: u64, to: u64, to_offset: u64, len: u64) -> Answer<u64> {
        let copy = || {
            let (from, to, mut from_offset, mut to_offset) =
                (self.handle(from)?, self.handle(to)?, from_offset, to_offset);
            let (from, to) = (&from.fd, &to.fd);
            let copied = rustix::fs::copy_file_range(
                from,
                Some(&mut from_offset),
                to,
                Some(&mut to_offset),
                len as usize,
            );
            Ok(copied? as u64)
        };
        Answer::Now(copy())
    }

    fn getlk(&self, handle: u64, owner: u64, lock: Lock) -> Result<Option<Lock>> {
        Ok(self.locks.test(self.handle(handle)?.ino, owner, lock))
    }

    fn setlk(&self, handle: u64, owner: u64, lock: Lock, wait: bool, flock: bool) -> Answer<()> {
        let kind = if flock { Kind::Flock } else { Kind::Fcntl };
        match self.handle(handle) {
            Ok(node) => self.locks.set(node.ino, Taker { owner, handle }, lock, kind, wait),
            Err(e) => Answer::Now(Err(e)),
        }
    }
}
