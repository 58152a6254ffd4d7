//! The disk of this machine: a directory, reached only through descriptors held here.
//!
//! Invariants: after [`RealDisk::open`] no system call names the directory by its path, since the daemon
//! mounts over it; one daemon holds a store; no call follows a symbolic link, whatever a stranger puts under
//! a name.

use super::disk::{Content, Dir, Disk, File, Kind, Space, Stat, Time};
use super::error::{Error, Result};
use crate::model::name::STATE_DIR;
use rustix::fs::{AtFlags, FallocateFlags, FileType, FlockOperation, Gid, Mode, OFlags, RawDir, RenameFlags};
use rustix::fs::{SeekFrom, StatxFlags, StatxTimestamp, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// NONBLOCK so that a FIFO under the name does not hold us up before we see what it is.
const CONTENT: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
/// Bytes of directory entries read at once.
const ENTRIES: usize = 64 << 10;
/// So many threads look at files where there are many, and so many files are worth a thread.
const STAT_THREADS: usize = 4;
const STAT_LEAST: usize = 1024;

/// The store's directories. Dropping it gives up the lock.
#[derive(Debug)]
pub struct RealDisk {
    root: OwnedFd,
    state: OwnedFd,
    journal: OwnedFd,
    partial: OwnedFd,
    staging: OwnedFd,
    trash: OwnedFd,
    before: OwnedFd,
    /// Held for its flock.
    _lock: std::fs::File,
}

/// A file of the kernel's.
#[derive(Debug)]
struct RealFile(Arc<std::fs::File>);

impl RealDisk {
    /// Opens the store in `dir`, which must exist, and takes its lock; makes what is missing of the
    /// state directory. Errors: [`Error::Locked`] where another daemon has it.
    pub fn open(dir: &Path) -> Result<RealDisk> {
        let at = dir.display();
        // The path is the user's and may be a link; below it none is followed.
        let root = rustix::fs::open(dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .map_err(Error::io(format!("cannot open the directory {at}")))?;
        let device =
            rustix::fs::fstat(&root).map_err(Error::io(format!("cannot look at the directory {at}")))?.st_dev;
        let state = subdirectory(root.as_fd(), STATE_DIR, device, &format!("{at}/{STATE_DIR}"))?;
        let lock = lock(state.as_fd(), dir)?;
        let below =
            |name: &str| subdirectory(state.as_fd(), name, device, &format!("{at}/{STATE_DIR}/{name}"));
        let (journal, partial) = (below("journal")?, below("partial")?);
        let (staging, trash, before) = (below("staging")?, below("trash")?, below("before")?);
        // What was just made must outlive power loss before anything is promised in it.
        rustix::fs::fsync(&state)
            .and_then(|()| rustix::fs::fsync(&root))
            .map_err(Error::io(format!("cannot sync the state directory {at}/{STATE_DIR}")))?;
        Ok(RealDisk { root, state, journal, partial, staging, trash, before, _lock: lock })
    }

    /// `.syncfs`.
    pub fn state(&self) -> BorrowedFd<'_> {
        self.state.as_fd()
    }

    fn dir(&self, dir: Dir) -> BorrowedFd<'_> {
        match dir {
            Dir::Root => self.root.as_fd(),
            Dir::State => self.state.as_fd(),
            Dir::Journal => self.journal.as_fd(),
            Dir::Partial => self.partial.as_fd(),
            Dir::Staging => self.staging.as_fd(),
            Dir::Trash => self.trash.as_fd(),
            Dir::Before => self.before.as_fd(),
        }
    }
}

impl Disk for RealDisk {
    /// A file of ours that lacks the permission bits gets them for the instant of opening, which moves its
    /// ctime.
    fn open(&self, dir: Dir, name: &[u8], write: bool) -> io::Result<Content> {
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let dir = self.dir(dir);
        let open = |flags| rustix::fs::openat(dir, name, access | CONTENT | flags, Mode::empty());
        let opened = match write {
            true => open(OFlags::empty()),
            // Only the owner of a file may look at it so.
            false => open(OFlags::NOATIME).or_else(|error| match error {
                Errno::PERM => open(OFlags::empty()),
                other => Err(other),
            }),
        };
        let opened = match opened {
            Err(Errno::ACCESS) => open_against_mode(dir, name, access),
            other => other,
        };
        Ok(content(opened?))
    }

    fn create(&self, dir: Dir, name: &[u8], mode: u32) -> io::Result<Content> {
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | CONTENT;
        // Who dies right after it leaves a file that is as it should be, ...
        let mode = Mode::from_raw_mode(mode & 0o7777);
        let file = rustix::fs::openat(self.dir(dir), name, flags, mode)?;
        // ... but for what the umask, or the directory, has its say in.
        let set = || match rustix::fs::fstat(&file)?.st_mode & 0o7777 == mode.as_raw_mode() {
            true => Ok(()),
            false => rustix::fs::fchmod(&file, mode),
        };
        if let Err(e) = set() {
            let _ = rustix::fs::unlinkat(self.dir(dir), name, AtFlags::empty());
            return Err(e.into());
        }
        Ok(content(file))
    }

    fn stat(&self, dir: Dir, name: &[u8]) -> io::Result<Stat> {
        stat(self.dir(dir), name)
    }

    fn rename(&self, from: (Dir, &[u8]), to: (Dir, &[u8]), flags: RenameFlags) -> io::Result<()> {
        Ok(rustix::fs::renameat_with(self.dir(from.0), from.1, self.dir(to.0), to.1, flags)?)
    }

    fn unlink(&self, dir: Dir, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(self.dir(dir), name, AtFlags::empty())?)
    }

    fn list(&self, dir: Dir) -> io::Result<Vec<(Vec<u8>, Kind)>> {
        // An open file description of its own: the held one has one position for all threads.
        let fresh = rustix::fs::openat(self.dir(dir), ".", DIRECTORY, Mode::empty())?;
        let mut buffer = Vec::with_capacity(ENTRIES);
        let mut entries = RawDir::new(fresh, buffer.spare_capacity_mut());
        let mut names = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            match entry.file_name().to_bytes() {
                b"." | b".." => {}
                name => names.push((name.to_vec(), kind(entry.file_type()))),
            }
        }
        Ok(names)
    }

    fn stat_all(&self, dir: Dir, names: &[Vec<u8>]) -> Vec<io::Result<Stat>> {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(STAT_THREADS));
        let part = names.len().div_ceil(threads).max(STAT_LEAST);
        let look = |names: &[Vec<u8>]| names.iter().map(|name| self.stat(dir, name)).collect::<Vec<_>>();
        std::thread::scope(|scope| {
            let mut parts = names.chunks(part);
            let own = parts.next().unwrap_or_default();
            let others: Vec<_> = parts.map(|names| scope.spawn(move || look(names))).collect();
            let others = others.into_iter().flat_map(|part| part.join().expect("it only looks"));
            let mut stats = look(own);
            stats.extend(others);
            stats
        })
    }

    fn bears_company(&self) -> bool {
        std::thread::available_parallelism().is_ok_and(|n| n.get() > 1)
    }

    fn sync_dir(&self, dir: Dir) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.dir(dir))?)
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(rustix::fs::syncfs(&self.root)?)
    }

    fn root_stat(&self) -> io::Result<Stat> {
        stat(self.root.as_fd(), b"")
    }

    fn set_root_times(&self, atime: Option<Time>, mtime: Option<Time>) -> io::Result<()> {
        Ok(rustix::fs::futimens(&self.root, &timestamps(atime, mtime))?)
    }

    fn space(&self) -> io::Result<Space> {
        let fs = rustix::fs::fstatvfs(&self.root)?;
        Ok(Space {
            block: fs.f_frsize,
            blocks: fs.f_blocks,
            free: fs.f_bfree,
            available: fs.f_bavail,
            files: fs.f_files,
            files_free: fs.f_ffree,
        })
    }

    fn now(&self) -> Time {
        // A clock set before 1970 is taken for 1970: nobody deletes anything by it.
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        Time { seconds: since.as_secs().try_into().unwrap_or(i64::MAX), nanos: since.subsec_nanos() }
    }
}

impl File for RealFile {
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        self.0.write_at(bytes, offset)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn stat(&self) -> io::Result<Stat> {
        stat(self.0.as_fd(), b"")
    }

    fn set_mode(&self, mode: u32) -> io::Result<()> {
        Ok(rustix::fs::fchmod(&self.0, Mode::from_raw_mode(mode & 0o7777))?)
    }

    fn set_owner(&self, uid: Option<u32>, gid: Option<u32>) -> io::Result<()> {
        Ok(rustix::fs::fchown(&self.0, uid.map(Uid::from_raw), gid.map(Gid::from_raw))?)
    }

    fn set_times(&self, atime: Option<Time>, mtime: Option<Time>) -> io::Result<()> {
        Ok(rustix::fs::futimens(&self.0, &timestamps(atime, mtime))?)
    }

    fn xattr(&self, name: &[u8], buf: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::fs::fgetxattr(&self.0, name, buf)?)
    }

    fn xattrs(&self) -> io::Result<Vec<u8>> {
        loop {
            let mut names = vec![0; rustix::fs::flistxattr_query(&self.0)?];
            if names.is_empty() {
                return Ok(names);
            }
            match rustix::fs::flistxattr(&self.0, &mut names[..]) {
                // Grown between the two calls.
                Err(Errno::RANGE) => {}
                used => {
                    names.truncate(used?);
                    return Ok(names);
                }
            }
        }
    }

    fn set_xattr(&self, name: &[u8], value: &[u8], flags: u32) -> io::Result<()> {
        Ok(rustix::fs::fsetxattr(&self.0, name, value, XattrFlags::from_bits_retain(flags))?)
    }

    fn remove_xattr(&self, name: &[u8]) -> io::Result<()> {
        Ok(rustix::fs::fremovexattr(&self.0, name)?)
    }

    fn allocate(&self, mode: u32, offset: u64, len: u64) -> io::Result<()> {
        Ok(rustix::fs::fallocate(&self.0, FallocateFlags::from_bits_retain(mode), offset, len)?)
    }

    fn seek_data(&self, offset: u64) -> io::Result<u64> {
        Ok(rustix::fs::seek(&self.0, SeekFrom::Data(offset))?)
    }

    fn seek_hole(&self, offset: u64) -> io::Result<u64> {
        Ok(rustix::fs::seek(&self.0, SeekFrom::Hole(offset))?)
    }

    fn descriptor(&self) -> Option<&Arc<std::fs::File>> {
        Some(&self.0)
    }
}

/// A descriptor as the store's content.
pub(crate) fn content(file: impl Into<std::fs::File>) -> Content {
    Arc::new(RealFile(Arc::new(file.into())))
}

/// What statx(2) tells of `name` in `dir`, or of `dir` itself where the name is empty.
fn stat(dir: BorrowedFd<'_>, name: &[u8]) -> io::Result<Stat> {
    let mut flags = AtFlags::SYMLINK_NOFOLLOW;
    flags.set(AtFlags::EMPTY_PATH, name.is_empty());
    let stat = rustix::fs::statx(dir, name, flags, StatxFlags::BASIC_STATS | StatxFlags::BTIME)?;
    let time = |time: StatxTimestamp| Time { seconds: time.tv_sec, nanos: time.tv_nsec };
    let born =
        if stat.stx_mask & StatxFlags::BTIME.bits() != 0 { time(stat.stx_btime).nanoseconds() } else { 0 };
    let mut identity = [0; 16];
    identity[..8].copy_from_slice(&stat.stx_ino.to_le_bytes());
    identity[8..].copy_from_slice(&born.to_le_bytes());
    Ok(Stat {
        kind: kind(FileType::from_raw_mode(stat.stx_mode.into())),
        ino: xxhash_rust::xxh3::xxh3_64(&identity),
        size: stat.stx_size,
        blocks: stat.stx_blocks,
        mode: u32::from(stat.stx_mode) & 0o7777,
        nlink: stat.stx_nlink,
        uid: stat.stx_uid,
        gid: stat.stx_gid,
        atime: time(stat.stx_atime),
        mtime: time(stat.stx_mtime),
        ctime: time(stat.stx_ctime),
    })
}

fn kind(file_type: FileType) -> Kind {
    match file_type {
        FileType::RegularFile => Kind::File,
        FileType::Directory => Kind::Directory,
        FileType::Unknown => Kind::Unknown,
        _ => Kind::Other,
    }
}

/// Times to set; those not given stay.
fn timestamps(atime: Option<Time>, mtime: Option<Time>) -> Timestamps {
    let set = |time: Option<Time>| match time {
        Some(time) => Timespec { tv_sec: time.seconds, tv_nsec: time.nanos.into() },
        None => Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT as _ },
    };
    Timestamps { last_access: set(atime), last_modification: set(mtime) }
}

/// Opens a directory of ours, made if missing, on the file system of the share: renames out of it
/// must work.
fn subdirectory(parent: BorrowedFd<'_>, name: &str, device: u64, path: &str) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(Error::io(format!("cannot make the directory {path}"))(e)),
    }
    let open = || -> rustix::io::Result<(OwnedFd, rustix::fs::Stat)> {
        let fd = rustix::fs::openat(parent, name, DIRECTORY, Mode::empty())?;
        let stat = rustix::fs::fstat(&fd)?;
        if stat.st_mode & 0o777 != 0o700 {
            rustix::fs::fchmod(&fd, Mode::RWXU)?;
        }
        Ok((fd, stat))
    };
    match open().map_err(Error::io(format!("cannot open the state directory {path}")))? {
        (fd, stat) if stat.st_dev == device => Ok(fd),
        _ => Err(Error::io(format!("{path} must lie on the file system of the share"))(Errno::XDEV)),
    }
}

fn lock(state: BorrowedFd<'_>, dir: &Path) -> Result<std::fs::File> {
    let what = || format!("cannot lock {}/{STATE_DIR}/lock", dir.display());
    let flags = OFlags::RDWR | OFlags::CREATE | CONTENT;
    let mut file = std::fs::File::from(
        rustix::fs::openat(state, "lock", flags, Mode::RUSR | Mode::WUSR).map_err(Error::io(what()))?,
    );
    match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => {
            let mut pid = String::new();
            // Only for the message: the holder may not have written it yet.
            let _ = (&file).take(20).read_to_string(&mut pid);
            let pid = if pid.trim().is_empty() { "unknown".into() } else { pid.trim().to_owned() };
            return Err(Error::Locked { dir: dir.to_owned(), pid });
        }
        Err(e) => return Err(Error::io(what())(e)),
    }
    let written = file.set_len(0).and_then(|()| writeln!(file, "{}", std::process::id()));
    match written {
        // A full disk must not keep anybody from mounting; the pid is for people only.
        Err(e) if e.kind() != io::ErrorKind::StorageFull => Err(Error::io(what())(e)),
        _ => Ok(file),
    }
}

/// Opens a file of ours that its own mode keeps us out of. By way of a path descriptor, so that it is
/// one and the same file that is changed, opened and changed back.
fn open_against_mode(dir: BorrowedFd<'_>, name: &[u8], access: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&place)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
        || stat.st_uid != rustix::process::geteuid().as_raw()
    {
        return Err(Errno::ACCESS);
    }
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    let magic = format!("/proc/self/fd/{}", place.as_raw_fd());
    rustix::fs::chmod(&magic, mode | Mode::RUSR | Mode::WUSR)?;
    let flags = access | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = rustix::fs::open(&magic, flags, Mode::empty());
    rustix::fs::chmod(&magic, mode)?;
    opened
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_ours_opens_against_its_mode_and_keeps_it() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path()).unwrap();
        disk.create(Dir::Root, b"read-only", 0o444).unwrap();
        // Called directly: root never meets EACCES.
        let opened = open_against_mode(disk.dir(Dir::Root), b"read-only", OFlags::RDWR).unwrap();
        content(opened).write_all_at(b"x", 0).unwrap();
        assert_eq!(disk.stat(Dir::Root, b"read-only").unwrap().mode, 0o444);
    }

    #[test]
    fn what_is_only_looked_at_keeps_its_time_of_access() {
        let dir = tempfile::tempdir().unwrap();
        let disk = RealDisk::open(dir.path()).unwrap();
        let file = disk.create(Dir::Root, b"old", 0o644).unwrap();
        file.write_all_at(b"x", 0).unwrap();
        let old = Time { seconds: 1_000_000_000, nanos: 0 };
        file.set_times(Some(old), Some(old)).unwrap();
        disk.open(Dir::Root, b"old", false).unwrap().read_exact_at(&mut [0], 0).unwrap();
        assert_eq!(disk.stat(Dir::Root, b"old").unwrap().atime, old);
    }
}
