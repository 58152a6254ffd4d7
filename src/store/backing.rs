//! The backing directory: names, content files, the lock.
//!
//! Invariants: after [`Backing::open`] the directory is reached only through descriptors held here,
//! since the daemon mounts over its path; one daemon holds a store; no call follows a symbolic link or
//! opens anything but a regular file, whatever a stranger puts under a name.

use super::error::{Error, Result};
use super::latch::Latch;
use crate::model::ids::FileId;
use crate::model::name::{Name, STATE_DIR};
use bincode::{Decode, Encode};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags, RawDir, RenameFlags, Stat, StatVfs};
use rustix::io::Errno;
use std::borrow::Cow;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

const DIRECTORY: OFlags =
    OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);
/// NONBLOCK so that a FIFO under the name does not hold us up before we see what it is.
const CONTENT: OFlags = OFlags::NOFOLLOW.union(OFlags::CLOEXEC).union(OFlags::NONBLOCK).union(OFlags::NOCTTY);
/// Bytes of directory entries read at once.
const ENTRIES: usize = 64 << 10;

/// Where content lies.
#[derive(Clone, Copy, Debug)]
pub enum At<'a> {
    /// In the share, wholly held.
    Name(&'a Name),
    /// Not wholly held: `.syncfs/partial/<FileId>`.
    Partial(FileId),
    /// Not yet complete: `.syncfs/staging/<name>`; the name holds no slash.
    Staging(&'a str),
}

/// Identity of content: differs where somebody edited or replaced a file behind our back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Stamp {
    pub ino: u64,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime: i64,
    /// Nanoseconds since 1970.
    pub ctime: i64,
}

/// What lies in the share's directory.
#[derive(Debug, Default)]
pub struct Listing {
    /// Regular files with one link, in no order.
    pub files: Vec<(Name, Stamp)>,
    /// Directories, links, special files and hard-linked files: not shared, not touched.
    pub left_alone: usize,
}

/// The open store. Dropping it gives up the lock.
#[derive(Debug)]
pub struct Backing {
    root: OwnedFd,
    state: OwnedFd,
    journal: OwnedFd,
    partial: OwnedFd,
    staging: OwnedFd,
    latch: Latch,
    /// Held for its flock.
    _lock: File,
}

/// The stamp of what `stat` describes.
pub fn stamp(stat: &Stat) -> Stamp {
    Stamp {
        ino: stat.st_ino,
        size: u64::try_from(stat.st_size).unwrap_or(0),
        mtime: nanoseconds(stat.st_mtime, stat.st_mtime_nsec),
        ctime: nanoseconds(stat.st_ctime, stat.st_ctime_nsec),
    }
}

/// A time of the kernel's in one number; those before 1677 and after 2262 stop at the ends.
pub(crate) fn nanoseconds<N: Into<u64>>(seconds: i64, nanoseconds: N) -> i64 {
    let nanoseconds = i64::try_from(nanoseconds.into()).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
}

impl Backing {
    /// Opens the store in `dir`, which must exist, and takes its lock; makes what is missing of the
    /// state directory. Errors: [`Error::Locked`] where another daemon has it.
    pub fn open(dir: &Path) -> Result<Backing> {
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
        let (journal, partial, staging) = (below("journal")?, below("partial")?, below("staging")?);
        let backing =
            Backing { root, state, journal, partial, staging, latch: Latch::default(), _lock: lock };
        // What was just made must outlive power loss before anything is promised in it.
        backing.latch.run("cannot sync the state directory", || {
            rustix::fs::fsync(&backing.state).and_then(|()| rustix::fs::fsync(&backing.root))
        })?;
        Ok(backing)
    }

    /// The directory of the share.
    pub fn root(&self) -> BorrowedFd<'_> {
        self.root.as_fd()
    }

    /// `.syncfs`.
    pub fn state(&self) -> BorrowedFd<'_> {
        self.state.as_fd()
    }

    /// `.syncfs/journal`.
    pub fn journal_dir(&self) -> BorrowedFd<'_> {
        self.journal.as_fd()
    }

    /// Everything in the share's directory. Files that come and go meanwhile may or may not be in it.
    pub fn list(&self) -> Result<Listing> {
        let mut listing = Listing::default();
        each_entry(self.root(), |name, kind| {
            if name == STATE_DIR.as_bytes() {
                return Ok(());
            }
            // Most kernels tell the type with the name, which saves a stat of everything else.
            let file = match kind {
                FileType::RegularFile | FileType::Unknown => self.shareable(name)?,
                _ => Entry::LeftAlone,
            };
            match file {
                Entry::File(name, stamp) => listing.files.push((name, stamp)),
                Entry::LeftAlone => listing.left_alone += 1,
                Entry::Vanished => {}
            }
            Ok(())
        })
        .map_err(Error::io("cannot list the shared directory"))?;
        Ok(listing)
    }

    fn shareable(&self, bytes: &[u8]) -> io::Result<Entry> {
        let Ok(name) = Name::new(bytes) else { return Ok(Entry::LeftAlone) };
        match rustix::fs::statat(&self.root, bytes, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) if is_regular(&stat) && stat.st_nlink == 1 => Ok(Entry::File(name, stamp(&stat))),
            Ok(_) => Ok(Entry::LeftAlone),
            Err(Errno::NOENT) => Ok(Entry::Vanished),
            Err(e) => Err(e.into()),
        }
    }

    /// The files in `partial/`, in no order; names that are no FileId are passed over.
    pub fn list_partial(&self) -> Result<Vec<FileId>> {
        let mut ids = Vec::new();
        each_entry(self.partial.as_fd(), |name, _| {
            if let Some(id) = std::str::from_utf8(name).ok().and_then(|text| text.parse::<FileId>().ok())
                && id.to_string().as_bytes() == name
            {
                ids.push(id);
            }
            Ok(())
        })
        .map_err(Error::io("cannot list .syncfs/partial"))?;
        Ok(ids)
    }

    /// Opens a regular file for reading, with `write` also for writing. A file of ours that lacks the
    /// permission bits for that gets them for the instant of opening, which moves its ctime.
    pub fn open_file(&self, at: At, write: bool) -> Result<File> {
        let (dir, name) = self.resolve(at).map_err(Error::io(format!("cannot open {at}")))?;
        let access = if write { OFlags::RDWR } else { OFlags::RDONLY };
        let opened = match rustix::fs::openat(dir, &*name, access | CONTENT, Mode::empty()) {
            Err(Errno::ACCESS) => open_against_mode(dir, &name, access),
            other => other,
        };
        let file = match opened {
            // A link, a socket, a directory opened for writing.
            Err(Errno::LOOP | Errno::NXIO | Errno::ISDIR) => {
                return Err(Error::NotRegular { what: at.to_string() });
            }
            other => File::from(other.map_err(Error::io(format!("cannot open {at}")))?),
        };
        let stat = rustix::fs::fstat(&file).map_err(Error::io(format!("cannot look at {at}")))?;
        if is_regular(&stat) { Ok(file) } else { Err(Error::NotRegular { what: at.to_string() }) }
    }

    /// Makes a new empty file, open for reading and writing, with exactly the permission bits `mode`.
    /// An existing one is an error (`EEXIST`).
    pub fn create(&self, at: At, mode: u32) -> Result<File> {
        let create = |at| -> io::Result<File> {
            let (dir, name) = self.resolve(at)?;
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | CONTENT;
            let file = rustix::fs::openat(dir, &*name, flags, Mode::RUSR | Mode::WUSR)?;
            // Not left to open(2), where the umask would have its say.
            if let Err(e) = rustix::fs::fchmod(&file, Mode::from_raw_mode(mode & 0o7777)) {
                let _ = rustix::fs::unlinkat(dir, &*name, AtFlags::empty());
                return Err(e.into());
            }
            Ok(file.into())
        };
        create(at).map_err(Error::io(format!("cannot create {at}")))
    }

    /// What lies there, links not followed. Cheap: the errors of a missing file are not dressed up.
    pub fn stat(&self, at: At) -> io::Result<Stat> {
        let (dir, name) = self.resolve(at)?;
        Ok(rustix::fs::statat(dir, &*name, AtFlags::SYMLINK_NOFOLLOW)?)
    }

    /// Moves content; without flags it replaces what lies at `to`. Durable after [`Backing::sync_names`].
    pub fn rename(&self, from: At, to: At, flags: RenameFlags) -> Result<()> {
        let rename = || -> io::Result<()> {
            let ((from_dir, from), (to_dir, to)) = (self.resolve(from)?, self.resolve(to)?);
            Ok(rustix::fs::renameat_with(from_dir, &*from, to_dir, &*to, flags)?)
        };
        rename().map_err(Error::io(format!("cannot rename {from} to {to}")))
    }

    /// Removes a name; a missing one is an error (`ENOENT`). Durable after [`Backing::sync_names`].
    pub fn unlink(&self, at: At) -> Result<()> {
        let unlink = || -> io::Result<()> {
            let (dir, name) = self.resolve(at)?;
            Ok(rustix::fs::unlinkat(dir, &*name, AtFlags::empty())?)
        };
        unlink().map_err(Error::io(format!("cannot remove {at}")))
    }

    /// Makes every name durable: what was created, renamed and removed before the call.
    pub fn sync_names(&self) -> Result<()> {
        [&self.root, &self.partial, &self.staging].into_iter().try_for_each(|dir| {
            self.latch.run("cannot sync a directory of the share", || rustix::fs::fsync(dir))
        })
    }

    /// Makes the content and attributes of one file durable.
    pub fn sync_file(&self, file: &File) -> Result<()> {
        self.latch.run("cannot sync a file", || file.sync_all())
    }

    /// Makes everything on this file system durable.
    pub fn sync_all(&self) -> Result<()> {
        self.latch.run("cannot sync the file system", || rustix::fs::syncfs(&self.root))
    }

    /// Space and limits of the file system below.
    pub fn statvfs(&self) -> Result<StatVfs> {
        rustix::fs::fstatvfs(&self.root).map_err(Error::io("cannot ask for the free space of the share"))
    }

    fn resolve<'a>(&self, at: At<'a>) -> io::Result<(BorrowedFd<'_>, Cow<'a, OsStr>)> {
        match at {
            At::Name(name) => Ok((self.root.as_fd(), Cow::Borrowed(name.as_os_str()))),
            At::Partial(id) => Ok((self.partial.as_fd(), Cow::Owned(id.to_string().into()))),
            At::Staging("" | "." | "..") => Err(io::ErrorKind::InvalidInput.into()),
            At::Staging(name) if name.contains('/') => Err(io::ErrorKind::InvalidInput.into()),
            At::Staging(name) => Ok((self.staging.as_fd(), Cow::Borrowed(OsStr::new(name)))),
        }
    }

    /// Incoming cuts die with the daemon that received them, once recovery has used what it can of them.
    pub fn clear_staging(&self) -> Result<()> {
        let mut names = Vec::new();
        each_entry(self.staging.as_fd(), |name, _| {
            names.push(OsStr::from_bytes(name).to_owned());
            Ok(())
        })
        .map_err(Error::io("cannot list .syncfs/staging"))?;
        for name in names {
            rustix::fs::unlinkat(&self.staging, &name, AtFlags::empty())
                .map_err(Error::io(format!("cannot remove .syncfs/staging/{}", name.display())))?;
        }
        Ok(())
    }
}

impl std::fmt::Display for At<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            At::Name(name) => write!(f, "{name}"),
            At::Partial(id) => write!(f, "{STATE_DIR}/partial/{id}"),
            At::Staging(name) => write!(f, "{STATE_DIR}/staging/{name}"),
        }
    }
}

enum Entry {
    File(Name, Stamp),
    LeftAlone,
    Vanished,
}

fn is_regular(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile
}

/// Opens a directory of ours, made if missing, on the file system of the share: renames out of it
/// must work.
fn subdirectory(parent: BorrowedFd<'_>, name: &str, device: u64, path: &str) -> Result<OwnedFd> {
    match rustix::fs::mkdirat(parent, name, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(e) => return Err(Error::io(format!("cannot make the directory {path}"))(e)),
    }
    let open = || -> rustix::io::Result<(OwnedFd, Stat)> {
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

fn lock(state: BorrowedFd<'_>, dir: &Path) -> Result<File> {
    let what = || format!("cannot lock {}/{STATE_DIR}/lock", dir.display());
    let flags = OFlags::RDWR | OFlags::CREATE | CONTENT;
    let mut file = File::from(
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
fn open_against_mode(dir: BorrowedFd<'_>, name: &OsStr, access: OFlags) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let place = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&place)?;
    if !is_regular(&stat) || stat.st_uid != rustix::process::geteuid().as_raw() {
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

/// Calls `visit` with every entry but `.` and `..`.
fn each_entry(
    dir: BorrowedFd<'_>,
    mut visit: impl FnMut(&[u8], FileType) -> io::Result<()>,
) -> io::Result<()> {
    // An open file description of its own: the held one has one position for all threads.
    let fresh = rustix::fs::openat(dir, ".", DIRECTORY, Mode::empty())?;
    let mut buffer = Vec::with_capacity(ENTRIES);
    let mut entries = RawDir::new(fresh, buffer.spare_capacity_mut());
    while let Some(entry) = entries.next() {
        let entry = entry?;
        match entry.file_name().to_bytes() {
            b"." | b".." => {}
            name => visit(name, entry.file_type())?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::WriterId;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn id(counter: u64) -> FileId {
        FileId { writer: WriterId(0xabc), counter }
    }

    fn store() -> (tempfile::TempDir, Backing) {
        let dir = tempfile::tempdir().unwrap();
        let backing = Backing::open(dir.path()).unwrap();
        (dir, backing)
    }

    #[test]
    fn a_second_daemon_is_refused_and_told_who_has_the_store() {
        let (dir, backing) = store();
        let refused = Backing::open(dir.path()).unwrap_err().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        assert!(refused.contains(&dir.path().display().to_string()), "{refused}");
        drop(backing);
        Backing::open(dir.path()).unwrap();
    }

    #[test]
    fn a_missing_directory_is_named_in_the_message() {
        let missing = Backing::open(Path::new("/nowhere/at/all")).unwrap_err();
        assert!(missing.is_not_found() && missing.to_string().contains("/nowhere/at/all"));
    }

    #[test]
    fn only_plain_files_are_shared_and_the_rest_is_counted() {
        let (dir, backing) = store();
        let path = |name: &str| dir.path().join(name);
        fs::write(path("plain"), "12345").unwrap();
        fs::write(path("linked"), "x").unwrap();
        fs::hard_link(path("linked"), path("twin")).unwrap();
        fs::create_dir(path("subdirectory")).unwrap();
        symlink("plain", path("symlink")).unwrap();
        rustix::fs::mknodat(rustix::fs::CWD, path("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let listing = backing.list().unwrap();
        assert_eq!(listing.left_alone, 5);
        let stat = backing.stat(At::Name(&name("plain"))).unwrap();
        assert_eq!(listing.files, [(name("plain"), stamp(&stat))]);
        assert_eq!(listing.files[0].1.size, 5);
        // A second listing sees it all again.
        assert_eq!(backing.list().unwrap().files.len(), 1);
        for odd in ["symlink", "fifo", "subdirectory"] {
            for write in [false, true] {
                let refused = backing.open_file(At::Name(&name(odd)), write).unwrap_err();
                assert!(matches!(&refused, Error::NotRegular { what } if what == odd), "{refused}");
            }
        }
    }

    #[test]
    fn the_state_is_for_its_owner_only_and_never_listed() {
        let (dir, backing) = store();
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
        for path in [".syncfs", ".syncfs/journal", ".syncfs/partial", ".syncfs/staging"] {
            assert_eq!(mode(path), 0o700, "{path}");
        }
        let listing = backing.list().unwrap();
        assert!(listing.files.is_empty() && listing.left_alone == 0);
        // Even where somebody opened it up meanwhile.
        drop(backing);
        fs::set_permissions(dir.path().join(".syncfs"), fs::Permissions::from_mode(0o755)).unwrap();
        Backing::open(dir.path()).unwrap();
        assert_eq!(mode(".syncfs"), 0o700);
    }

    #[test]
    fn a_state_directory_that_is_a_link_is_refused() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(elsewhere.path(), dir.path().join(".syncfs")).unwrap();
        assert!(Backing::open(dir.path()).is_err());
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }

    #[test]
    fn content_moves_from_staging_to_its_name_and_to_partial() {
        let (dir, backing) = store();
        let (staged, named, part) = (At::Staging("1"), name("file"), At::Partial(id(7)));
        backing.create(staged, 0o640).unwrap();
        assert!(backing.create(staged, 0o640).is_err(), "made twice");
        backing.rename(staged, At::Name(&named), RenameFlags::NOREPLACE).unwrap();
        assert_eq!(backing.list().unwrap().files.len(), 1);
        backing.rename(At::Name(&named), part, RenameFlags::empty()).unwrap();
        fs::write(dir.path().join(".syncfs/partial/not-an-id"), "").unwrap();
        fs::write(dir.path().join(".syncfs/partial/abc-7"), "").unwrap();
        assert_eq!(backing.list_partial().unwrap(), [id(7)]);
        backing.sync_names().unwrap();
        backing.sync_all().unwrap();
        backing.unlink(part).unwrap();
        assert!(backing.unlink(part).unwrap_err().is_not_found());
        assert!(backing.statvfs().unwrap().f_blocks > 0);
    }

    #[test]
    fn rename_without_replacing_spares_what_is_there() {
        let (dir, backing) = store();
        fs::write(dir.path().join("old"), "old").unwrap();
        fs::write(dir.path().join("new"), "new").unwrap();
        let (old, new) = (name("old"), name("new"));
        let refused = backing.rename(At::Name(&new), At::Name(&old), RenameFlags::NOREPLACE).unwrap_err();
        assert_eq!(refused.errno(), libc::EEXIST);
        assert_eq!(fs::read(dir.path().join("old")).unwrap(), b"old");
    }

    #[test]
    fn a_staging_name_cannot_lead_out_of_staging() {
        let (_dir, backing) = store();
        for bad in ["", ".", "..", "../meta.db", "/etc/passwd"] {
            assert!(backing.create(At::Staging(bad), 0o600).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_new_file_has_the_mode_asked_for_whatever_the_umask() {
        let (_dir, backing) = store();
        for mode in [0o666, 0o000, 0o4755, 0o444] {
            let file = backing.create(At::Staging(&mode.to_string()), mode).unwrap();
            assert_eq!(file.metadata().unwrap().permissions().mode() & 0o7777, mode);
            (&file).write_all(b"writable all the same").unwrap();
        }
    }

    #[test]
    fn a_read_only_file_of_ours_opens_for_writing_and_stays_read_only() {
        let (_dir, backing) = store();
        let file = name("read-only");
        backing.create(At::Name(&file), 0o444).unwrap();
        // Called directly too: root never meets EACCES.
        let opened = open_against_mode(backing.root(), file.as_os_str(), OFlags::RDWR).unwrap();
        (&File::from(opened)).write_all(b"x").unwrap();
        (&backing.open_file(At::Name(&file), true).unwrap()).write_all(b"y").unwrap();
        let mode = backing.stat(At::Name(&file)).unwrap().st_mode & 0o777;
        assert_eq!(mode, 0o444);
    }

    #[test]
    fn what_was_staged_is_there_after_a_restart_until_recovery_clears_it() {
        let (dir, backing) = store();
        backing.create(At::Staging("half"), 0o600).unwrap();
        drop(backing);
        let backing = Backing::open(dir.path()).unwrap();
        assert!(backing.stat(At::Staging("half")).is_ok());
        backing.clear_staging().unwrap();
        assert!(backing.stat(At::Staging("half")).is_err());
    }

    #[test]
    fn the_store_works_on_after_its_directory_is_moved_or_covered() {
        let parent = tempfile::tempdir().unwrap();
        let (before, after) = (parent.path().join("before"), parent.path().join("after"));
        fs::create_dir(&before).unwrap();
        let backing = Backing::open(&before).unwrap();
        fs::rename(&before, &after).unwrap();
        fs::create_dir(&before).unwrap();
        fs::write(before.join("decoy"), "").unwrap();
        let file = name("file");
        backing.create(At::Staging("s"), 0o600).unwrap();
        backing.rename(At::Staging("s"), At::Name(&file), RenameFlags::empty()).unwrap();
        (&backing.open_file(At::Name(&file), true).unwrap()).write_all(b"here").unwrap();
        assert_eq!(backing.list().unwrap().files.len(), 1);
        assert_eq!(fs::read(after.join("file")).unwrap(), b"here");
        assert_eq!(fs::read_dir(&before).unwrap().count(), 1);
    }

    #[test]
    fn a_hundred_thousand_files_would_be_listed_in_a_moment() {
        let (dir, backing) = store();
        for i in 0..3000 {
            fs::write(dir.path().join(format!("{i:0200}")), "").unwrap();
        }
        assert_eq!(backing.list().unwrap().files.len(), 3000);
    }
}
