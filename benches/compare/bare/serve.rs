//! Each request becomes the same system call on the directory below.

use super::inodes::{Admitted, Inodes};
use fuser::{
    BsdFileFlags, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request,
    TimeOrNow, WriteFlags,
};
use parking_lot::{Mutex, RwLock};
use rustix::fs::{
    AtFlags, Dir, Mode, OFlags, Stat, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, fstat, openat, statat,
};
use rustix::io::Errno as Failure;
use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const TTL: Duration = Duration::from_secs(86_400);
const TRANSFER: u32 = 1 << 20;
const COPY: u64 = 1 << 30;
const ROOT: u64 = 1;
/// What of an open goes on to the file below.
const PASSED: OFlags =
    OFlags::RWMODE.union(OFlags::TRUNC).union(OFlags::APPEND).union(OFlags::SYNC).union(OFlags::DSYNC);

type Result<T> = std::result::Result<T, Failure>;
type Listing = Vec<(OsString, u64)>;

/// Bytes appended to the log for a write or a name.
const ENTRY: [u8; 64] = [1; 64];

thread_local! {
    static OLD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

pub struct Serve {
    dir: File,
    log: Option<File>,
    inodes: Mutex<Inodes>,
    files: RwLock<HashMap<u64, Arc<OwnedFd>>>,
    listings: Mutex<HashMap<u64, Option<Arc<Listing>>>>,
    next: AtomicU64,
}

impl Serve {
    pub fn new(dir: File, log: Option<File>) -> Serve {
        let (inodes, files, listings) = Default::default();
        Serve { dir, log, inodes, files, listings, next: AtomicU64::new(1) }
    }

    fn stat(&self, name: &OsStr) -> Result<Stat> {
        statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW)
    }

    fn name(&self, ino: INodeNo) -> Result<OsString> {
        self.inodes.lock().name(ino.0).ok_or(Failure::STALE)
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<OwnedFd>> {
        self.files.read().get(&handle.0).cloned().ok_or(Failure::BADF)
    }

    /// What of the flags of an open goes on to the file below.
    fn passed(&self, flags: OFlags) -> OFlags {
        let writes = flags & OFlags::RWMODE == OFlags::WRONLY;
        let passed = flags & PASSED;
        // Who compares reads, too.
        if writes && self.log.is_some() { (passed - OFlags::RWMODE) | OFlags::RDWR } else { passed }
    }

    /// Before so many bytes are written.
    fn log_write(&self, file: &OwnedFd, offset: u64, length: usize) -> Result<()> {
        if self.log.is_some() {
            OLD.with_borrow_mut(|old| {
                old.resize(length, 0);
                rustix::io::pread(file, &mut old[..], offset)
            })?;
        }
        self.log()
    }

    /// Before a name changes.
    fn log(&self) -> Result<()> {
        self.log.as_ref().map_or(Ok(()), |mut log| log.write_all(&ENTRY).map_err(|_| Failure::IO))
    }

    fn attr(&self, ino: INodeNo, handle: Option<FileHandle>) -> Result<FileAttr> {
        match handle {
            Some(handle) => fstat(self.file(handle)?),
            None if ino.0 == ROOT => fstat(&self.dir),
            None => self.stat(&self.name(ino)?),
        }
        .map(|stat| attr(&stat))
    }

    fn set(
        &self,
        ino: INodeNo,
        handle: Option<FileHandle>,
        mode: Option<u32>,
        size: Option<u64>,
        times: Option<Timestamps>,
    ) -> Result<FileAttr> {
        let file = match handle {
            Some(handle) => self.file(handle)?,
            None => {
                let access = if size.is_some() { OFlags::WRONLY } else { OFlags::RDONLY };
                Arc::new(openat(&self.dir, self.name(ino)?, access | OFlags::CLOEXEC, Mode::empty())?)
            }
        };
        mode.map_or(Ok(()), |mode| rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777)))?;
        size.map_or(Ok(()), |size| rustix::fs::ftruncate(&file, size))?;
        times.map_or(Ok(()), |times| rustix::fs::futimens(&file, &times))?;
        fstat(file).map(|stat| attr(&stat))
    }

    /// The rows from `offset` on: inode, cookie of the next, name.
    fn rows(&self, listing: FileHandle, offset: u64) -> Result<Arc<Listing>> {
        if offset > 0
            && let Some(rows) = self.listings.lock().get(&listing.0).cloned().flatten()
        {
            return Ok(rows);
        }
        let mut rows: Listing = vec![(".".into(), ROOT), ("..".into(), ROOT)];
        for entry in Dir::read_from(&self.dir)? {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name != "." && name != ".." {
                rows.push((name.to_owned(), entry.ino()));
            }
        }
        let rows = Arc::new(rows);
        self.listings.lock().insert(listing.0, Some(rows.clone()));
        Ok(rows)
    }

    fn keep(&self, file: OwnedFd) -> FileHandle {
        let handle = self.next.fetch_add(1, Relaxed);
        self.files.write().insert(handle, Arc::new(file));
        FileHandle(handle)
    }
}

impl fuser::Filesystem for Serve {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        let _ = config.set_max_write(TRANSFER);
        if let Err(most) = config.set_max_readahead(TRANSFER) {
            let _ = config.set_max_readahead(most);
        }
        for capability in [
            InitFlags::FUSE_PARALLEL_DIROPS,
            InitFlags::FUSE_ATOMIC_O_TRUNC,
            InitFlags::FUSE_AUTO_INVAL_DATA,
            InitFlags::FUSE_DO_READDIRPLUS,
            InitFlags::FUSE_READDIRPLUS_AUTO,
            InitFlags::FUSE_POSIX_LOCKS,
            InitFlags::FUSE_PASSTHROUGH,
        ] {
            let _ = config.add_capabilities(capability);
        }
        let _ = config.set_max_stack_depth(1);
        Ok(())
    }

    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.stat(name) {
            Ok(stat) => {
                self.inodes.lock().looked_up(stat.st_ino, name);
                reply.entry(&TTL, &attr(&stat), Generation(0));
            }
            Err(Failure::NOENT) => reply.entry(&TTL, &nothing(), Generation(0)),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        self.inodes.lock().forget(ino.0, count);
    }

    fn getattr(&self, _: &Request, ino: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        reply_attr(reply, self.attr(ino, handle));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        handle: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let times = (atime.is_some() || mtime.is_some())
            .then(|| Timestamps { last_access: time(atime), last_modification: time(mtime) });
        reply_attr(reply, self.set(ino, handle, mode, size, times));
    }

    fn unlink(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let unlink = |()| rustix::fs::unlinkat(&self.dir, name, AtFlags::empty());
        reply_empty(reply, self.log().and_then(unlink));
    }

    fn rename(
        &self,
        _: &Request,
        _: INodeNo,
        name: &OsStr,
        _: INodeNo,
        new: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        let rename = |()| rustix::fs::renameat_with(&self.dir, name, &self.dir, new, flags);
        let renamed = self.log().and_then(rename);
        if renamed.is_ok()
            && let Ok(stat) = self.stat(new)
        {
            self.inodes.lock().renamed(stat.st_ino, new);
        }
        reply_empty(reply, renamed);
    }

    fn create(
        &self,
        _: &Request,
        _: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let flags = OFlags::from_bits_retain(flags as u32);
        let passed = self.passed(flags) | flags & OFlags::EXCL | OFlags::CREATE | OFlags::CLOEXEC;
        let make = |()| openat(&self.dir, name, passed, Mode::from_raw_mode(mode & 0o7777));
        let made = self.log().and_then(make);
        match made.and_then(|file| Ok((fstat(&file)?, file))) {
            Ok((stat, file)) => {
                let mut inodes = self.inodes.lock();
                inodes.looked_up(stat.st_ino, name);
                let Admitted { flags, backing } =
                    inodes.admit(stat.st_ino, flags, || reply.open_backing(&file));
                drop(inodes);
                let (handle, attr, generation) = (self.keep(file), attr(&stat), Generation(0));
                match backing {
                    Some(id) => reply.created_passthrough(&TTL, &attr, generation, handle, flags, &id),
                    None => reply.created(&TTL, &attr, generation, handle, flags),
                }
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let flags = OFlags::from_bits_retain(flags.0 as u32);
        let opened = self
            .name(ino)
            .and_then(|name| openat(&self.dir, name, self.passed(flags) | OFlags::CLOEXEC, Mode::empty()));
        match opened {
            Ok(file) => {
                let admitted = self.inodes.lock().admit(ino.0, flags, || reply.open_backing(&file));
                let handle = self.keep(file);
                match admitted.backing {
                    Some(id) => reply.opened_passthrough(handle, admitted.flags, &id),
                    None => reply.opened(handle, admitted.flags),
                }
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn read(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        match self.file(handle).and_then(|file| rustix::io::pread(file, &mut bytes, offset)) {
            Ok(length) => reply.data(&bytes[..length]),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let write = |file: Arc<OwnedFd>| {
            self.log_write(&file, offset, data.len())?;
            rustix::io::pwrite(&*file, data, offset)
        };
        match self.file(handle).and_then(write) {
            Ok(length) => reply.written(length as u32),
            Err(e) => reply.error(errno(e)),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.inodes.lock().released(ino.0);
        let file = self.files.write().remove(&handle.0);
        drop(file);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty) {
        let synced = self.file(handle).and_then(|file| match data_only {
            true => rustix::fs::fdatasync(file),
            false => rustix::fs::fsync(file),
        });
        reply_empty(reply, synced);
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let listing = self.next.fetch_add(1, Relaxed);
        self.listings.lock().insert(listing, None);
        reply.opened(FileHandle(listing), FopenFlags::empty());
    }

    fn releasedir(&self, _: &Request, _: INodeNo, listing: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings.lock().remove(&listing.0);
        reply.ok();
    }

    fn readdir(&self, _: &Request, _: INodeNo, listing: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        match self.rows(listing, offset) {
            Ok(rows) => {
                for (next, (name, ino)) in (1..).zip(rows.iter()).skip(offset as usize) {
                    let kind = if *ino == ROOT { FileType::Directory } else { FileType::RegularFile };
                    if reply.add(INodeNo(*ino), next, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        listing: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        match self.rows(listing, offset) {
            Ok(rows) => {
                for (next, (name, ino)) in (1..).zip(rows.iter()).skip(offset as usize) {
                    let found = if *ino == ROOT { fstat(&self.dir) } else { self.stat(name) };
                    let Ok(stat) = found else { continue };
                    let mut attr = attr(&stat);
                    if *ino == ROOT {
                        attr.ino = INodeNo(ROOT);
                    }
                    if reply.add(attr.ino, next, name, &TTL, &attr, Generation(0)) {
                        break;
                    }
                    if *ino != ROOT {
                        self.inodes.lock().looked_up(stat.st_ino, name);
                    }
                }
                reply.ok();
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        match rustix::fs::fstatvfs(&self.dir) {
            Ok(s) => {
                let block = s.f_bsize as u32;
                reply.statfs(s.f_blocks, s.f_bfree, s.f_bavail, s.f_files, s.f_ffree, block, 255, block);
            }
            Err(e) => reply.error(errno(e)),
        }
    }

    fn copy_file_range(
        &self,
        _: &Request,
        _: INodeNo,
        from: FileHandle,
        mut from_offset: u64,
        _: INodeNo,
        to: FileHandle,
        mut to_offset: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        let copied = self.file(from).and_then(|from| {
            let to = self.file(to)?;
            let length = length.min(COPY) as usize;
            rustix::fs::copy_file_range(from, Some(&mut from_offset), to, Some(&mut to_offset), length)
        });
        match copied {
            Ok(length) => reply.written(length as u32),
            Err(e) => reply.error(errno(e)),
        }
    }
}

fn errno(failure: Failure) -> Errno {
    Errno::from_i32(failure.raw_os_error())
}

fn reply_empty(reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

fn reply_attr(reply: ReplyAttr, result: Result<FileAttr>) {
    match result {
        Ok(attr) => reply.attr(&TTL, &attr),
        Err(e) => reply.error(errno(e)),
    }
}

fn attr(stat: &Stat) -> FileAttr {
    let time = |seconds: i64, nanos| UNIX_EPOCH + Duration::new(seconds.max(0) as u64, nanos as u32);
    let is_dir = rustix::fs::FileType::from_raw_mode(stat.st_mode).is_dir();
    FileAttr {
        ino: INodeNo(if is_dir { ROOT } else { stat.st_ino }),
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: time(stat.st_atime, stat.st_atime_nsec),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind: if is_dir { FileType::Directory } else { FileType::RegularFile },
        perm: (stat.st_mode & 0o7777) as u16,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

/// A name that leads nowhere.
fn nothing() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn time(time: Option<TimeOrNow>) -> Timespec {
    match time {
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        Some(TimeOrNow::Now) => Timespec { tv_sec: 0, tv_nsec: UTIME_NOW },
        Some(TimeOrNow::SpecificTime(time)) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            Timespec { tv_sec: since.as_secs() as i64, tv_nsec: since.subsec_nanos().into() }
        }
    }
}
