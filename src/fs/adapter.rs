//! FUSE requests into calls of a [`Volume`], and its answers back.
//!
//! Decodes, calls, replies; decides nothing but how a file is opened, which [`super::opens`] does.
//!
//! Invariants: every request is answered exactly once, even if a handler panics; no handler waits
//! for the network; mounting and unmounting are never left to the library.

use super::error::Error;
use super::kernel::Kernel;
use super::modes::{Access, Mode};
use super::mount::is_mounted;
use super::opens::{Admitted, OpenFiles};
use super::patience::{self, Ends};
use super::replay::{self, INERT, Replay};
use super::replayer::{Change, Replayer, SECRET};
use super::volume::{
    Answer, Attr, Caller, Ino, Lock, LockKind, Opened, ROOT, Result, SetAttr, Volume, WriteMode,
};
use fuser::{
    AccessFlags, BsdFileFlags, Config, CopyFileRangeFlags, Errno, FileAttr, FileHandle, FileType, FopenFlags,
    Generation, INodeNo, InitFlags, IoctlFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr,
    ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl,
    ReplyLock, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite, ReplyXattr, Request, Session, SessionACL,
    TimeOrNow, WriteFlags,
};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long the kernel believes what it was told: whoever changes it says so.
const TTL: Duration = Duration::from_secs(86_400);
/// The most bytes of one write, and of one read ahead; the kernel's own limit.
const TRANSFER: u32 = 1 << 20;
/// The most bytes of one copy_file_range: the answer has 32 bits, and wants whole pages.
const COPY: u64 = 1 << 30;
const GENERATION: Generation = Generation(0);

/// How to serve. `target` is where the mount is; `threads` read requests, about as many as there are CPUs; `passthrough`: read wholly
/// held files past us where the kernel lets us; `replayer` shows programs that watch the mount what the peer does.
#[derive(Debug)]
pub struct Settings {
    pub target: PathBuf,
    pub threads: usize,
    pub passthrough: bool,
    pub replayer: Option<Replayer>,
    pub owner: Owner,
}

/// Whom all files seem to belong to, whoever they belong to: a user, a group. `None`: whom they do belong to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Owner {
    pub uid: Option<u32>,
    pub gid: Option<u32>,
}

/// A mount that is being served. It ends when it is unmounted, from wherever.
pub struct Serving {
    pub kernel: Kernel,
    target: PathBuf,
    session: JoinHandle<io::Result<()>>,
    telling: Vec<JoinHandle<()>>,
}

impl Serving {
    /// Returns when the mount is gone and all request threads have ended.
    pub fn wait(self) -> io::Result<()> {
        let ended = |_| io::Error::other("a thread of the mount panicked");
        let mut result = self.session.join().map_err(ended).and_then(|result| result);
        // What a lazy unmount comes to when its last user goes.
        let aborted = result.as_ref().is_err_and(|e| e.raw_os_error() == Some(libc::ECONNABORTED));
        if aborted && is_mounted(&self.target).is_ok_and(|mounted| !mounted) {
            result = Ok(());
        }
        self.kernel.detach();
        for thread in self.telling {
            thread.join().map_err(ended)?;
        }
        result
    }
}

/// Serves `volume` on the connection that [`super::mount::mount`] made. What must wait is waited for
/// on `runtime`. From now on `kernel` leads to this mount.
pub fn serve<V: Volume>(
    volume: Arc<V>,
    connection: OwnedFd,
    runtime: tokio::runtime::Handle,
    kernel: Kernel,
    settings: Settings,
) -> io::Result<Serving> {
    let Settings { target, threads, passthrough, replayer, owner } = settings;
    let opens = OpenFiles::new(passthrough, kernel.clone());
    let replay = Arc::new(Replay::new()?);
    let (listings, next) = (Mutex::default(), AtomicU64::new(1));
    let adapter =
        Adapter { volume, opens, runtime, passthrough, owner, replay: replay.clone(), listings, next };
    let mut config = Config::default();
    config.n_threads = Some(threads.max(1));
    // A second descriptor per thread spares a lock, but opening the device may be root's alone.
    config.clone_fd = std::fs::File::options().read(true).write(true).open("/dev/fuse").is_ok();
    // Who may enter is the kernel's to judge (allow_other); the library would also refuse the
    // close and unlock of a program that changed its user.
    let session = Session::from_fd(adapter, connection, SessionACL::All, config)?;
    let telling = kernel.attach(session.notifier(), target.clone(), replay, replayer)?;
    let session = std::thread::Builder::new().name("fs-serve".into()).spawn(move || session.run())?;
    Ok(Serving { kernel, target, session, telling })
}

struct Adapter<V> {
    volume: Arc<V>,
    opens: OpenFiles,
    runtime: tokio::runtime::Handle,
    passthrough: bool,
    owner: Owner,
    replay: Arc<Replay>,
    listings: Mutex<HashMap<u64, Option<Arc<Listing>>>>,
    next: AtomicU64,
}

/// The names as they were when a reader of the directory started at its beginning.
type Listing = Vec<(Vec<u8>, Ino)>;

impl<V: Volume> Adapter<V> {
    fn attr(&self, attr: &Attr) -> FileAttr {
        FileAttr {
            ino: INodeNo(attr.ino),
            size: attr.size,
            blocks: attr.blocks,
            atime: attr.atime,
            mtime: attr.mtime,
            ctime: attr.ctime,
            crtime: UNIX_EPOCH,
            kind: if attr.is_dir { FileType::Directory } else { FileType::RegularFile },
            perm: (attr.mode & 0o7777) as u16,
            nlink: attr.nlink,
            uid: self.owner.uid.unwrap_or(attr.uid),
            gid: self.owner.gid.unwrap_or(attr.gid),
            rdev: 0,
            blksize: 4096,
            flags: 0,
        }
    }

    fn reply_attr(&self, reply: ReplyAttr, result: Result<Attr>) {
        match result {
            Ok(attr) => reply.attr(&TTL, &self.attr(&attr)),
            Err(e) => reply.error(errno(&e)),
        }
    }

    /// Later answers on the runtime, ready ones here.
    fn answer<T: Send + 'static>(
        &self,
        request: &Request,
        ends: Ends,
        answer: Answer<T>,
        reply: impl FnOnce(Result<T>) + Send + 'static,
    ) {
        match answer {
            Answer::Now(result) => reply(result),
            Answer::Later(work) => {
                let caller = caller(request);
                self.runtime.spawn(async move { reply(patience::wait(caller, ends, work).await) });
            }
        }
    }

    /// The rows of a directory from `offset` on: cookie, inode, name. `.` and `..` come first.
    fn rows(&self, listing: u64, offset: u64) -> Arc<Listing> {
        let mut listings = self.listings.lock();
        let kept = listings.get(&listing).cloned().flatten();
        match kept {
            // rewinddir(3) looks anew.
            Some(rows) if offset > 0 => rows,
            _ => {
                let mut rows = vec![(b".".to_vec(), ROOT), (b"..".to_vec(), ROOT)];
                rows.extend(self.volume.list());
                let rows = Arc::new(rows);
                listings.insert(listing, Some(rows.clone()));
                rows
            }
        }
    }

    /// Answers ourselves, who look up a name to do once more what is done.
    fn look_again(&self, name: &[u8], reply: ReplyEntry) {
        let found = match self.replay.lookup(name) {
            replay::Answer::Secret => return reply.error(Errno::from_i32(SECRET.raw_os_error())),
            replay::Answer::Nothing => Err(Error::NotFound),
            replay::Answer::Gone(ino) => Ok(replay::gone(&*self.volume, ino, nothing())),
            replay::Answer::As(other) => self.volume.lookup(&other),
            replay::Answer::Plainly => self.volume.lookup(name),
        };
        match found {
            // For this moment only.
            Ok(attr) => reply.entry(&Duration::ZERO, &self.attr(&attr), GENERATION),
            Err(Error::NotFound) => reply.entry(&Duration::ZERO, &self.attr(&nothing()), GENERATION),
            Err(e) => reply.error(errno(&e)),
        }
    }

    /// Admits an open of ours, which is no way to any content, beside whatever else is open.
    fn open_again(&self, ino: Ino) -> (FileHandle, Admitted) {
        let none = Opened { handle: INERT, backing: None };
        let refuse = |_: BorrowedFd| Err(io::Error::other("nothing is read by this"));
        let admitted = self.opens.admit(ino, Access::Write, &none, refuse);
        (FileHandle(admitted.mode.tag(INERT).expect("it has room")), admitted)
    }

    /// Whether a request of ours, which does `change` once more, may seem to be done.
    fn done_again(&self, change: Change) -> Result<()> {
        if self.replay.allows(&change) { Ok(()) } else { Err(Error::NotFound) }
    }

    /// The file handle for the kernel. A volume's handle that has no room for the mode is closed again.
    fn tag(&self, ino: Ino, mode: Mode, access: Access, handle: u64) -> Result<FileHandle> {
        match mode.tag(handle) {
            Some(tagged) => {
                if mode == Mode::DirectBacked && access == Access::ReadWrite {
                    self.volume.stores_unseen(handle);
                }
                Ok(FileHandle(tagged))
            }
            None => {
                self.opens.release(ino, mode);
                self.volume.release(handle, None);
                Err(Error::Io(io::Error::other("a file handle out of range")))
            }
        }
    }
}

impl<V: Volume> fuser::Filesystem for Adapter<V> {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // A kernel that lacks one of these does without; a limit beyond its own stays at its own.
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
            // Not FLOCK_LOCKS: the library does not tell flock from fcntl, and a program that takes
            // both on one file would wait for itself. The kernel keeps flock locks on its own.
            InitFlags::FUSE_POSIX_LOCKS,
        ] {
            let _ = config.add_capabilities(capability);
        }
        if self.passthrough {
            let _ = config.set_max_stack_depth(1);
            let _ = config.add_capabilities(InitFlags::FUSE_PASSTHROUGH);
        }
        Ok(())
    }

    fn lookup(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        if self.replay.is(request.pid()) {
            return guard("lookup", || self.look_again(name.as_bytes(), reply));
        }
        guard("lookup", || match in_root(parent).and_then(|()| self.volume.lookup(name.as_bytes())) {
            Ok(attr) => reply.entry(&TTL, &self.attr(&attr), GENERATION),
            // Inode 0 has the kernel remember that there is nothing.
            Err(Error::NotFound) => reply.entry(&TTL, &self.attr(&nothing()), GENERATION),
            Err(e) => reply.error(errno(&e)),
        });
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        guard("forget", || self.volume.forget(ino.0, count));
    }

    fn getattr(&self, _: &Request, ino: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        guard("getattr", || self.reply_attr(reply, known(self.volume.getattr(ino.0, handle.map(untag)))));
    }

    fn setattr(
        &self,
        request: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
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
        if self.replay.is(request.pid()) {
            return guard("setattr", || self.reply_attr(reply, known(self.volume.getattr(ino.0, None))));
        }
        guard("setattr", || {
            let mode = mode.map(|mode| mode & 0o7777);
            let (uid, gid) = match (given(uid, self.owner.uid), given(gid, self.owner.gid)) {
                (Ok(uid), Ok(gid)) => (uid, gid),
                (Err(e), _) | (_, Err(e)) => return reply.error(errno(&e)),
            };
            let set = SetAttr { mode, uid, gid, size, atime: atime.map(time), mtime: mtime.map(time) };
            let done = self.volume.setattr(caller(request), ino.0, handle.map(untag), set);
            self.reply_attr(reply, known(done));
        });
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        guard("mknod", || {
            let regular = match mode & libc::S_IFMT {
                0 | libc::S_IFREG => Ok(()),
                _ => Err(Error::NotPermitted),
            };
            let made = in_root(parent)
                .and(regular)
                .and_then(|()| self.volume.mknod(caller(request), name.as_bytes(), mode & 0o7777));
            match made {
                Ok(attr) => reply.entry(&TTL, &self.attr(&attr), GENERATION),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn mkdir(&self, _: &Request, _: INodeNo, _: &OsStr, _: u32, _: u32, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn symlink(&self, _: &Request, _: INodeNo, _: &OsStr, _: &Path, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn link(&self, _: &Request, _: INodeNo, _: INodeNo, _: &OsStr, reply: ReplyEntry) {
        reply.error(Errno::EPERM);
    }

    fn readlink(&self, _: &Request, _: INodeNo, reply: ReplyData) {
        reply.error(Errno::EINVAL);
    }

    fn rmdir(&self, _: &Request, _: INodeNo, _: &OsStr, reply: ReplyEmpty) {
        // The kernel looked the name up before: it is there, and no directory.
        reply.error(Errno::ENOTDIR);
    }

    fn unlink(&self, request: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guard("unlink", || {
            if self.replay.is(request.pid()) {
                return reply_empty(reply, self.done_again(Change::Deleted(name.as_bytes().to_owned(), 0)));
            }
            reply_empty(reply, in_root(parent).and_then(|()| self.volume.unlink(name.as_bytes())))
        });
    }

    fn rename(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        guard("rename", || {
            if self.replay.is(request.pid()) {
                let names = (name.as_bytes().to_owned(), new_name.as_bytes().to_owned());
                return reply_empty(reply, self.done_again(Change::Renamed(names.0, names.1)));
            }
            let renamed = in_root(parent)
                .and(in_root(new_parent))
                .and_then(|()| self.volume.rename(name.as_bytes(), new_name.as_bytes(), flags.bits()));
            reply_empty(reply, renamed);
        });
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        if self.replay.is(request.pid()) {
            return guard("create", || {
                let name = name.as_bytes();
                match self
                    .done_again(Change::Created(name.to_owned()))
                    .and_then(|()| self.volume.lookup(name))
                {
                    Ok(attr) => created(reply, &self.attr(&attr), self.open_again(attr.ino)),
                    Err(e) => reply.error(errno(&e)),
                }
            });
        }
        guard("create", || {
            let made = in_root(parent)
                .and_then(|()| self.volume.create(caller(request), name.as_bytes(), mode & 0o7777, flags))
                .and_then(|(attr, opened)| {
                    let access = Access::of(flags);
                    let admitted = self.opens.admit(attr.ino, access, &opened, |fd| reply.open_backing(fd));
                    let handle = self.tag(attr.ino, admitted.mode, access, opened.handle);
                    // The kernel never hears of this lookup if the reply is an error.
                    handle
                        .inspect_err(|_| self.volume.forget(attr.ino, 1))
                        .map(|handle| (attr, handle, admitted))
                });
            match made {
                Ok((attr, handle, admitted)) => created(reply, &self.attr(&attr), (handle, admitted)),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn open(&self, request: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        if self.replay.is(request.pid()) {
            return guard("open", || opened(reply, self.open_again(ino.0)));
        }
        guard("open", || {
            let admitted = known(self.volume.open(caller(request), ino.0, flags.0)).and_then(|opened| {
                let access = Access::of(flags.0);
                let admitted = self.opens.admit(ino.0, access, &opened, |fd| reply.open_backing(fd));
                self.tag(ino.0, admitted.mode, access, opened.handle).map(|handle| (handle, admitted))
            });
            match admitted {
                Ok(admitted) => opened(reply, admitted),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn read(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        guard("read", || {
            let answer = self.volume.read(untag(handle), offset, size);
            self.answer(request, Ends::Death, answer, move |result| match result {
                Ok(data) => reply.data(&data),
                Err(e) => reply.error(errno(&e)),
            });
        });
    }

    fn write(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        guard("write", || {
            let from_mapping = write_flags.contains(WriteFlags::FUSE_WRITE_CACHE);
            let mode = WriteMode {
                // Pages know their place; the handle they come with is any that was at hand.
                append: flags.0 & libc::O_APPEND != 0 && !from_mapping,
                from_mapping,
                // The kernel says so only where we promise to handle all cases; direct writes would
                // keep the bits.
                kill_suid: write_flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID)
                    || (request.uid() != 0 && !from_mapping),
            };
            let (open_mode, handle) = Mode::untag(handle.0);
            let written = self.volume.write(handle, offset, data, mode).and_then(|written| {
                // For direct writes the kernel leaves O_SYNC and O_DSYNC to us.
                if flags.0 & libc::O_DSYNC != 0 && open_mode != Mode::Cached {
                    self.volume.fsync(handle, flags.0 & libc::O_SYNC != libc::O_SYNC)?;
                }
                Ok(written)
            });
            match written {
                Ok(size) => reply.written(size),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn flush(&self, _: &Request, _: INodeNo, handle: FileHandle, owner: LockOwner, reply: ReplyEmpty) {
        if untag(handle) == INERT {
            return reply.ok();
        }
        guard("flush", || reply_empty(reply, self.volume.flush(untag(handle), owner.0)));
    }

    fn release(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        flock_owner: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        guard("release", || {
            let (mode, handle) = Mode::untag(handle.0);
            self.opens.release(ino.0, mode);
            if handle == INERT {
                return reply.ok();
            }
            self.volume.release(handle, flock_owner.map(|owner| owner.0));
            reply.ok();
        });
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty) {
        guard("fsync", || reply_empty(reply, self.volume.fsync(untag(handle), data_only)));
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        guard("fsyncdir", || reply_empty(reply, self.volume.fsync_dir()));
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let listing = self.next.fetch_add(1, Relaxed);
        self.listings.lock().insert(listing, None);
        // The kernel keeps what it was told, too, until a name comes or goes.
        reply.opened(FileHandle(listing), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn releasedir(&self, _: &Request, _: INodeNo, listing: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.listings.lock().remove(&listing.0);
        reply.ok();
    }

    fn readdir(&self, _: &Request, _: INodeNo, listing: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        guard("readdir", || {
            let rows = self.rows(listing.0, offset);
            for (name, ino, next) in from(&rows, offset) {
                let kind = if ino == ROOT { FileType::Directory } else { FileType::RegularFile };
                if reply.add(INodeNo(ino), next, kind, OsStr::from_bytes(name)) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn readdirplus(
        &self,
        _: &Request,
        _: INodeNo,
        listing: FileHandle,
        offset: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        guard("readdirplus", || {
            let rows = self.rows(listing.0, offset);
            for (name, ino, next) in from(&rows, offset) {
                let found =
                    if ino == ROOT { self.volume.getattr(ROOT, None) } else { self.volume.lookup(name) };
                // Gone since the listing was made.
                let Ok(attr) = found else { continue };
                let name = OsStr::from_bytes(name);
                if reply.add(INodeNo(attr.ino), next, name, &TTL, &self.attr(&attr), GENERATION) {
                    if ino != ROOT {
                        self.volume.forget(attr.ino, 1);
                    }
                    break;
                }
            }
            reply.ok();
        });
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        guard("statfs", || match self.volume.statfs() {
            Ok(s) => {
                let names = libc::NAME_MAX as u32;
                reply.statfs(s.blocks, s.free, s.available, s.files, s.files_free, s.block, names, s.block)
            }
            Err(e) => reply.error(errno(&e)),
        });
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _position: u32,
        reply: ReplyEmpty,
    ) {
        guard("setxattr", || {
            reply_empty(reply, known(self.volume.setxattr(ino.0, name.as_bytes(), value, flags)))
        });
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        guard("getxattr", || reply_bytes(reply, size, known(self.volume.getxattr(ino.0, name.as_bytes()))));
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        guard("listxattr", || {
            let names = known(self.volume.listxattr(ino.0)).map(|names| {
                names.into_iter().flat_map(|name| name.into_iter().chain([0])).collect::<Vec<u8>>()
            });
            reply_bytes(reply, size, names);
        });
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        guard("removexattr", || reply_empty(reply, known(self.volume.removexattr(ino.0, name.as_bytes()))));
    }

    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    fn fallocate(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        guard("fallocate", || reply_empty(reply, self.volume.fallocate(untag(handle), offset, length, mode)));
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        guard("lseek", || {
            let found = u64::try_from(offset)
                .map_err(|_| Error::PastEnd)
                .and_then(|offset| self.volume.lseek(untag(handle), offset, whence))
                .and_then(|found| i64::try_from(found).map_err(|_| Error::TooLarge));
            match found {
                Ok(found) => reply.offset(found),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn copy_file_range(
        &self,
        request: &Request,
        _: INodeNo,
        from: FileHandle,
        from_offset: u64,
        _: INodeNo,
        to: FileHandle,
        to_offset: u64,
        length: u64,
        _: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        guard("copy_file_range", || {
            let answer =
                self.volume.copy_range(untag(from), from_offset, untag(to), to_offset, length.min(COPY));
            self.answer(request, Ends::Death, answer, move |result| match result {
                Ok(copied) => reply.written(copied.min(COPY) as u32),
                Err(e) => reply.error(errno(&e)),
            });
        });
    }

    fn getlk(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        reply: ReplyLock,
    ) {
        guard("getlk", || {
            let wanted = lock(start, end, kind, pid);
            match wanted.and_then(|wanted| self.volume.getlk(untag(handle), owner.0, wanted)) {
                Ok(Some(held)) => {
                    let kind = if held.kind == LockKind::Shared { libc::F_RDLCK } else { libc::F_WRLCK };
                    reply.locked(held.start, held.end.min(END), kind, held.pid)
                }
                Ok(None) => reply.locked(start, end, libc::F_UNLCK, 0),
                Err(e) => reply.error(errno(&e)),
            }
        });
    }

    fn setlk(
        &self,
        request: &Request,
        _: INodeNo,
        handle: FileHandle,
        owner: LockOwner,
        start: u64,
        end: u64,
        kind: i32,
        pid: u32,
        sleep: bool,
        reply: ReplyEmpty,
    ) {
        guard("setlk", || match lock(start, end, kind, pid) {
            Ok(lock) => {
                let answer = self.volume.setlk(untag(handle), owner.0, lock, sleep, false);
                self.answer(request, Ends::AnySignal, answer, move |result| reply_empty(reply, result));
            }
            Err(e) => reply.error(errno(&e)),
        });
    }
}

fn open_flags(mode: Mode) -> FopenFlags {
    match mode {
        Mode::Cached => FopenFlags::FOPEN_KEEP_CACHE,
        Mode::Direct | Mode::DirectBacked => {
            FopenFlags::FOPEN_DIRECT_IO | FopenFlags::FOPEN_PARALLEL_DIRECT_WRITES
        }
        Mode::Passthrough => FopenFlags::empty(),
    }
}

fn opened(reply: ReplyOpen, (handle, Admitted { mode, backing }): (FileHandle, Admitted)) {
    match backing {
        Some(id) => reply.opened_passthrough(handle, open_flags(mode), &id),
        None => reply.opened(handle, open_flags(mode)),
    }
}

fn created(
    reply: ReplyCreate,
    attr: &FileAttr,
    (handle, Admitted { mode, backing }): (FileHandle, Admitted),
) {
    match backing {
        Some(id) => reply.created_passthrough(&TTL, attr, GENERATION, handle, open_flags(mode), &id),
        None => reply.created(&TTL, attr, GENERATION, handle, open_flags(mode)),
    }
}

/// What the kernel means by "to the end" of a lock.
const END: u64 = i64::MAX as u64;

/// Runs a handler; if it panics, its reply is dropped on the way out, which answers EIO.
fn guard(operation: &str, handler: impl FnOnce()) {
    if std::panic::catch_unwind(AssertUnwindSafe(handler)).is_err() {
        tracing::error!("{operation}: a handler panicked");
    }
}

fn in_root(parent: INodeNo) -> Result<()> {
    if parent.0 == ROOT { Ok(()) } else { Err(Error::Io(io::Error::from_raw_os_error(libc::ENOTDIR))) }
}

fn caller(request: &Request) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), thread: request.pid() }
}

fn untag(handle: FileHandle) -> u64 {
    Mode::untag(handle.0).1
}

fn errno(error: &Error) -> Errno {
    Errno::from_i32(error.errno())
}

/// What an inode was asked for. The kernel keeps names for long: by the time it asks for the inode, the
/// name may lead to another one, and a file that has been replaced is not missing. ESTALE has it look the name
/// up again, and only then there may be nothing.
fn known<T>(result: Result<T>) -> Result<T> {
    result.map_err(|error| if error.errno() == libc::ENOENT { Error::Stale } else { error })
}

fn reply_empty(reply: ReplyEmpty, result: Result<()>) {
    match result {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(&e)),
    }
}

/// `room` 0 asks for the length alone.
fn reply_bytes(reply: ReplyXattr, room: u32, result: Result<Vec<u8>>) {
    match result {
        Ok(bytes) => match u32::try_from(bytes.len()) {
            Ok(length) if room == 0 => reply.size(length),
            Ok(length) if length <= room => reply.data(&bytes),
            _ => reply.error(Errno::ERANGE),
        },
        Err(e) => reply.error(errno(&e)),
    }
}

/// The rows after `offset`, each with the cookie of the next.
fn from(rows: &Listing, offset: u64) -> impl Iterator<Item = (&[u8], Ino, u64)> {
    let skip = usize::try_from(offset).unwrap_or(usize::MAX);
    rows.iter().enumerate().skip(skip).map(|(index, (name, ino))| (name.as_slice(), *ino, index as u64 + 1))
}

fn lock(start: u64, end: u64, kind: i32, pid: u32) -> Result<Lock> {
    let kind = match kind {
        libc::F_RDLCK => LockKind::Shared,
        libc::F_WRLCK => LockKind::Exclusive,
        libc::F_UNLCK => LockKind::Unlock,
        _ => return Err(Error::Invalid),
    };
    Ok(Lock { start, end: if end >= END { u64::MAX } else { end }, kind, pid })
}

/// The library reads a time before 1970 as if its nanoseconds counted backwards.
fn time(time: TimeOrNow) -> SystemTime {
    match time {
        TimeOrNow::Now => SystemTime::now(),
        TimeOrNow::SpecificTime(time) => match UNIX_EPOCH.duration_since(time) {
            Err(_) => time,
            Ok(before) => {
                let nanos = Duration::from_nanos(before.subsec_nanos().into());
                UNIX_EPOCH
                    .checked_sub(Duration::from_secs(before.as_secs()))
                    .and_then(|seconds| seconds.checked_add(nanos))
                    .unwrap_or(UNIX_EPOCH)
            }
        },
    }
}

/// To whom a file is to be given, where all seem to belong to `shown`: nobody but them.
fn given(to: Option<u32>, shown: Option<u32>) -> Result<Option<u32>> {
    match (to, shown) {
        (Some(to), Some(shown)) if to != shown => Err(Error::NotPermitted),
        (Some(_), Some(_)) => Ok(None),
        (to, _) => Ok(to),
    }
}

/// The attributes of a name that leads nowhere; the kernel reads only the inode of them.
fn nothing() -> Attr {
    let (atime, mtime, ctime) = (UNIX_EPOCH, UNIX_EPOCH, UNIX_EPOCH);
    Attr { ino: 0, size: 0, blocks: 0, atime, mtime, ctime, is_dir: false, mode: 0, nlink: 0, uid: 0, gid: 0 }
}
