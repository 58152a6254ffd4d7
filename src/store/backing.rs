//! The backing directory: names and content files, wherever they lie.
//!
//! Invariant: nothing but a regular file is ever opened or shared, whatever a stranger puts under a name.

use super::disk::{Content, Dir, Disk, Kind, Space, Stat, Time};
use super::error::{Error, Result};
use super::latch::Latch;
use crate::model::ids::FileId;
use crate::model::name::{Name, STATE_DIR};
use bincode::{Decode, Encode};
use parking_lot::Mutex;
use rustix::fs::RenameFlags;
use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

/// Where content lies.
#[derive(Clone, Copy, Debug)]
pub enum At<'a> {
    /// In the share, wholly held.
    Name(&'a Name),
    /// Not wholly held: `.syncfs/partial/<FileId>`.
    Partial(FileId),
    /// Not yet complete: `.syncfs/staging/<name>`; the name holds no slash.
    Staging(&'a str),
    /// Kept for a while though the peer did away with it: `.syncfs/trash/<name>`.
    Trash(&'a Name),
    /// As the peer knows it, though it is changed or gone here: `.syncfs/before/<FileId>`.
    Before(FileId),
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

/// The store's content, on a disk.
pub struct Backing {
    disk: Arc<dyn Disk>,
    latch: Latch,
    /// How often names in [`DIRS`] have changed.
    changed: [AtomicU64; DIRS.len()],
    /// As `changed`, when they were last synced; held during a sync, so that nobody returns before it is done.
    synced: [Mutex<u64>; DIRS.len()],
}

/// So many files are looked at together.
const LISTED: usize = 32 << 10;

/// The directories that content lies in.
const DIRS: [Dir; 5] = [Dir::Root, Dir::Partial, Dir::Staging, Dir::Trash, Dir::Before];

/// In [`Dir::State`]: deletes of the peer wait for somebody.
const PAUSED: &[u8] = b"paused";
/// In [`Dir::State`]: what was used when, and the same on its way there.
const CACHE: &[u8] = b"cache";
const NEW_CACHE: &[u8] = b"cache.new";

/// The stamp of what `stat` describes.
pub fn stamp(stat: &Stat) -> Stamp {
    Stamp { ino: stat.ino, size: stat.size, mtime: stat.mtime.nanoseconds(), ctime: stat.ctime.nanoseconds() }
}

/// A listing on its way. It ends with this.
pub struct Beside(Option<JoinHandle<Result<Listing>>>);

impl Beside {
    /// The directory as it was; `None` where it was not looked at.
    pub fn listing(mut self) -> Option<Result<Listing>> {
        Some(self.0.take()?.join().expect("it only looks"))
    }
}

impl Drop for Beside {
    fn drop(&mut self) {
        // It holds the lock of the disk.
        self.0.take().map(JoinHandle::join);
    }
}

fn list(disk: &dyn Disk) -> Result<Listing> {
    let fail = "cannot list the shared directory";
    let mut listing = Listing::default();
    let mut names = Vec::new();
    for (name, kind) in disk.list(Dir::Root).map_err(Error::io(fail))? {
        // Most kernels tell the kind with the name, which saves a stat of everything else.
        match kind {
            _ if name == STATE_DIR.as_bytes() => {}
            Kind::File | Kind::Unknown => names.push(name),
            Kind::Directory | Kind::Other => listing.left_alone += 1,
        }
    }
    listing.files.reserve(names.len());
    for names in names.chunks(LISTED) {
        for (name, stat) in names.iter().zip(disk.stat_all(Dir::Root, names)) {
            match (Name::new(name), stat) {
                (Ok(name), Ok(stat)) if is_shareable(&stat) => listing.files.push((name, stamp(&stat))),
                (_, Ok(_)) => listing.left_alone += 1,
                // Gone meanwhile.
                (_, Err(e)) if e.kind() == io::ErrorKind::NotFound => {}
                (_, Err(e)) => return Err(Error::io(fail)(e)),
            }
        }
    }
    Ok(listing)
}

/// Whether a file is one to share.
pub fn is_shareable(stat: &Stat) -> bool {
    stat.kind == Kind::File && stat.nlink == 1
}

impl Backing {
    pub fn new(disk: Arc<dyn Disk>) -> Backing {
        Backing {
            disk,
            latch: Latch::default(),
            // A crash may have left names that were never synced.
            changed: [const { AtomicU64::new(1) }; DIRS.len()],
            synced: [const { Mutex::new(0) }; DIRS.len()],
        }
    }

    /// Everything in the share's directory. Files that come and go meanwhile may or may not be in it.
    pub fn list(&self) -> Result<Listing> {
        list(&*self.disk)
    }

    /// As [`Backing::list`], beside what the caller does, where that pays.
    pub fn list_beside(&self) -> Beside {
        let disk = self.disk.clone();
        let listing = std::thread::Builder::new().name("listing".into());
        // Where there is no thread to be had the caller lists it himself.
        Beside(self.disk.bears_company().then(|| listing.spawn(move || list(&*disk)).ok()).flatten())
    }

    /// The files in `partial/`, in no order; names that are no FileId are passed over.
    pub fn list_partial(&self) -> Result<Vec<FileId>> {
        self.list_ids(Dir::Partial, "cannot list .syncfs/partial")
    }

    /// As [`Backing::list_partial`], of `before/`.
    pub fn list_before(&self) -> Result<Vec<FileId>> {
        self.list_ids(Dir::Before, "cannot list .syncfs/before")
    }

    fn list_ids(&self, dir: Dir, fail: &str) -> Result<Vec<FileId>> {
        let names = self.disk.list(dir).map_err(Error::io(fail))?;
        let id = |(name, _): (Vec<u8>, Kind)| {
            let id = std::str::from_utf8(&name).ok()?.parse::<FileId>().ok()?;
            (id.to_string().as_bytes() == name).then_some(id)
        };
        Ok(names.into_iter().filter_map(id).collect())
    }

    /// Opens a regular file for reading, with `write` also for writing.
    pub fn open_file(&self, at: At, write: bool) -> Result<Content> {
        let open = || -> io::Result<Option<Content>> {
            let (dir, name) = resolve(at)?;
            let file = self.disk.open(dir, &name, write)?;
            Ok((file.stat()?.kind == Kind::File).then_some(file))
        };
        match open() {
            Ok(Some(file)) => Ok(file),
            Ok(None) => Err(Error::NotRegular { what: at.to_string() }),
            // A link, a socket, a directory opened for writing.
            Err(e) if matches!(e.raw_os_error(), Some(libc::ELOOP | libc::ENXIO | libc::EISDIR)) => {
                Err(Error::NotRegular { what: at.to_string() })
            }
            Err(e) => Err(Error::io(format!("cannot open {at}"))(e)),
        }
    }

    /// Makes a new empty file, open for reading and writing, with exactly the permission bits `mode`.
    /// An existing one is an error (`EEXIST`).
    pub fn create(&self, at: At, mode: u32) -> Result<Content> {
        let create = || -> io::Result<Content> {
            let (dir, name) = resolve(at)?;
            let file = self.disk.create(dir, &name, mode)?;
            self.note_change(dir);
            Ok(file)
        };
        create().map_err(Error::io(format!("cannot create {at}")))
    }

    /// As `create`, where what an earlier attempt left may lie in its place.
    pub fn create_afresh(&self, at: At, mode: u32) -> Result<Content> {
        match self.create(at, mode) {
            Err(e) if e.errno() == libc::EEXIST => {
                self.unlink(at)?;
                self.create(at, mode)
            }
            other => other,
        }
    }

    /// What lies there, links not followed. Cheap: the errors of a missing file are not dressed up.
    pub fn stat(&self, at: At) -> io::Result<Stat> {
        let (dir, name) = resolve(at)?;
        self.disk.stat(dir, &name)
    }

    /// Moves content; without flags it replaces what lies at `to`. Durable after [`Backing::sync_names`].
    pub fn rename(&self, from: At, to: At, flags: RenameFlags) -> Result<()> {
        let rename = || -> io::Result<()> {
            let ((from_dir, from), (to_dir, to)) = (resolve(from)?, resolve(to)?);
            self.disk.rename((from_dir, &from), (to_dir, &to), flags)?;
            self.note_change(from_dir);
            self.note_change(to_dir);
            Ok(())
        };
        rename().map_err(Error::io(format!("cannot rename {from} to {to}")))
    }

    /// Removes a name; a missing one is an error (`ENOENT`). Durable after [`Backing::sync_names`].
    pub fn unlink(&self, at: At) -> Result<()> {
        let unlink = || -> io::Result<()> {
            let (dir, name) = resolve(at)?;
            self.disk.unlink(dir, &name)?;
            self.note_change(dir);
            Ok(())
        };
        unlink().map_err(Error::io(format!("cannot remove {at}")))
    }

    /// As `unlink`; what is not there is as good as removed.
    pub fn unlink_if_there(&self, at: At) -> Result<()> {
        match self.unlink(at) {
            Err(e) if e.is_not_found() => Ok(()),
            other => other,
        }
    }

    /// Makes every name durable: what was created, renamed and removed before the call.
    pub fn sync_names(&self) -> Result<()> {
        for ((dir, changed), synced) in DIRS.iter().zip(&self.changed).zip(&self.synced) {
            let mut synced = synced.lock();
            let now = changed.load(Ordering::Acquire);
            if *synced != now {
                self.latch.run("cannot sync a directory of the share", || self.disk.sync_dir(*dir))?;
                *synced = now;
            }
        }
        Ok(())
    }

    fn note_change(&self, dir: Dir) {
        if let Some(at) = DIRS.iter().position(|d| *d == dir) {
            self.changed[at].fetch_add(1, Ordering::Release);
        }
    }

    /// Makes the content and attributes of one file durable.
    pub fn sync_file(&self, file: &Content) -> Result<()> {
        self.latch.run("cannot sync a file", || file.sync())
    }

    /// Makes everything on this file system durable.
    pub fn sync_all(&self) -> Result<()> {
        self.latch.run("cannot sync the file system", || self.disk.sync_all())
    }

    /// Space and limits of the file system below.
    pub fn space(&self) -> Result<Space> {
        self.disk.space().map_err(Error::io("cannot ask for the free space of the share"))
    }

    /// Whether a pause was noted that nobody has ended since.
    pub fn is_paused(&self) -> bool {
        self.disk.stat(Dir::State, PAUSED).is_ok()
    }

    /// Notes durably that there is a pause, or none any more.
    pub fn set_paused(&self, paused: bool) -> Result<()> {
        if self.is_paused() == paused {
            return Ok(());
        }
        let note = || match paused {
            true => self.disk.create(Dir::State, PAUSED, 0o600).map(drop),
            false => self.disk.unlink(Dir::State, PAUSED),
        };
        note().map_err(Error::io("cannot note a pause in .syncfs/paused"))?;
        self.latch.run("cannot sync the state directory", || self.disk.sync_dir(Dir::State))
    }

    /// What [`Backing::save_cache`] kept.
    pub fn load_cache(&self) -> Result<Option<Vec<u8>>> {
        let read = || -> io::Result<Vec<u8>> {
            let file = self.disk.open(Dir::State, CACHE, false)?;
            let mut bytes = vec![0; usize::try_from(file.len()?).unwrap_or(0)];
            let len = file.read_full_at(&mut bytes, 0)?;
            bytes.truncate(len);
            Ok(bytes)
        };
        match read() {
            Ok(bytes) => Ok(Some(bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("cannot read .syncfs/cache")(e)),
        }
    }

    /// Keeps what a host that holds a cache only knows of its use. Not durable: nothing but time is lost with it.
    pub fn save_cache(&self, bytes: &[u8]) -> Result<()> {
        let write = || -> io::Result<()> {
            let _ = self.disk.unlink(Dir::State, NEW_CACHE);
            self.disk.create(Dir::State, NEW_CACHE, 0o600)?.write_all_at(bytes, 0)?;
            self.disk.rename((Dir::State, NEW_CACHE), (Dir::State, CACHE), RenameFlags::empty())
        };
        write().map_err(Error::io("cannot write .syncfs/cache"))
    }

    /// The time of day.
    pub fn now(&self) -> Time {
        self.disk.now()
    }

    /// The regular files in `trash/`, in no order; names that can't be ours are passed over.
    pub fn list_trash(&self) -> Result<Vec<(Name, Stat)>> {
        let names = self.disk.list(Dir::Trash).map_err(Error::io("cannot list .syncfs/trash"))?;
        let names = names.into_iter().filter_map(|(name, _)| Name::new(&name).ok());
        let with_stat = |name: Name| self.stat(At::Trash(&name)).ok().map(|stat| (name, stat));
        Ok(names.filter_map(with_stat).filter(|(_, stat)| stat.kind == Kind::File).collect())
    }

    /// The shared directory's own attributes.
    pub fn root(&self) -> io::Result<Stat> {
        self.disk.root_stat()
    }

    pub fn set_root_times(&self, atime: Option<Time>, mtime: Option<Time>) -> io::Result<()> {
        self.disk.set_root_times(atime, mtime)
    }

    /// The names in `staging/`, each with its inode, in no order.
    pub fn list_staging(&self) -> Result<Vec<(String, u64)>> {
        let names = self.disk.list(Dir::Staging).map_err(Error::io("cannot list .syncfs/staging"))?;
        let names = names.into_iter().filter_map(|(name, _)| String::from_utf8(name).ok());
        let with_inode = |name: String| self.stat(At::Staging(&name)).ok().map(|stat| (name, stat.ino));
        Ok(names.filter_map(with_inode).collect())
    }

    /// Incoming cuts die with the daemon that received them, once recovery has used what it can of them.
    pub fn clear_staging(&self) -> Result<()> {
        let names = self.disk.list(Dir::Staging).map_err(Error::io("cannot list .syncfs/staging"))?;
        for (name, _) in names {
            self.disk.unlink(Dir::Staging, &name).map_err(|e| {
                Error::io(format!("cannot remove .syncfs/staging/{}", String::from_utf8_lossy(&name)))(e)
            })?;
        }
        Ok(())
    }
}

fn resolve(at: At<'_>) -> io::Result<(Dir, Cow<'_, [u8]>)> {
    match at {
        At::Name(name) => Ok((Dir::Root, Cow::Borrowed(name.as_bytes()))),
        At::Partial(id) => Ok((Dir::Partial, Cow::Owned(id.to_string().into_bytes()))),
        At::Staging("" | "." | "..") => Err(io::ErrorKind::InvalidInput.into()),
        At::Staging(name) if name.contains('/') => Err(io::ErrorKind::InvalidInput.into()),
        At::Staging(name) => Ok((Dir::Staging, Cow::Borrowed(name.as_bytes()))),
        At::Trash(name) => Ok((Dir::Trash, Cow::Borrowed(name.as_bytes()))),
        At::Before(id) => Ok((Dir::Before, Cow::Owned(id.to_string().into_bytes()))),
    }
}

impl std::fmt::Display for At<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            At::Name(name) => write!(f, "{name}"),
            At::Partial(id) => write!(f, "{STATE_DIR}/partial/{id}"),
            At::Staging(name) => write!(f, "{STATE_DIR}/staging/{name}"),
            At::Trash(name) => write!(f, "{STATE_DIR}/trash/{name}"),
            At::Before(id) => write!(f, "{STATE_DIR}/before/{id}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ids::WriterId;
    use crate::store::real::RealDisk;
    use rustix::fs::{FileType, Mode};
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};
    use std::path::Path;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn id(counter: u64) -> FileId {
        FileId { writer: WriterId(0xabc), counter }
    }

    fn open(dir: &Path) -> Result<Backing> {
        Ok(Backing::new(Arc::new(RealDisk::open(dir)?)))
    }

    fn store() -> (tempfile::TempDir, Backing) {
        let dir = tempfile::tempdir().unwrap();
        let backing = open(dir.path()).unwrap();
        (dir, backing)
    }

    #[test]
    fn a_second_daemon_is_refused_and_told_who_has_the_store() {
        let (dir, backing) = store();
        let refused = open(dir.path()).err().unwrap().to_string();
        assert!(refused.contains(&format!("process {}", std::process::id())), "{refused}");
        assert!(refused.contains(&dir.path().display().to_string()), "{refused}");
        drop(backing);
        open(dir.path()).unwrap();
    }

    #[test]
    fn a_missing_directory_is_named_in_the_message() {
        let missing = open(Path::new("/nowhere/at/all")).err().unwrap();
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
                let refused = backing.open_file(At::Name(&name(odd)), write).err().unwrap();
                assert!(matches!(&refused, Error::NotRegular { what } if what == odd), "{refused}");
            }
        }
    }

    #[test]
    fn the_state_is_for_its_owner_only_and_never_listed() {
        let (dir, backing) = store();
        let mode = |path: &str| fs::metadata(dir.path().join(path)).unwrap().permissions().mode() & 0o777;
        for path in [".syncfs", ".syncfs/journal", ".syncfs/partial", ".syncfs/staging", ".syncfs/trash"] {
            assert_eq!(mode(path), 0o700, "{path}");
        }
        let listing = backing.list().unwrap();
        assert!(listing.files.is_empty() && listing.left_alone == 0);
        // Even where somebody opened it up meanwhile.
        drop(backing);
        fs::set_permissions(dir.path().join(".syncfs"), fs::Permissions::from_mode(0o755)).unwrap();
        open(dir.path()).unwrap();
        assert_eq!(mode(".syncfs"), 0o700);
    }

    #[test]
    fn a_state_directory_that_is_a_link_is_refused() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        symlink(elsewhere.path(), dir.path().join(".syncfs")).unwrap();
        assert!(open(dir.path()).is_err());
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
        assert!(backing.space().unwrap().blocks > 0);
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
            assert_eq!(file.stat().unwrap().mode, mode);
            file.write_all_at(b"writable all the same", 0).unwrap();
        }
    }

    #[test]
    fn a_read_only_file_opens_for_writing_and_stays_read_only() {
        let (_dir, backing) = store();
        let file = name("read-only");
        backing.create(At::Name(&file), 0o444).unwrap();
        backing.open_file(At::Name(&file), true).unwrap().write_all_at(b"y", 0).unwrap();
        assert_eq!(backing.stat(At::Name(&file)).unwrap().mode, 0o444);
    }

    #[test]
    fn what_was_staged_is_there_after_a_restart_until_recovery_clears_it() {
        let (dir, backing) = store();
        backing.create(At::Staging("half"), 0o600).unwrap();
        drop(backing);
        let backing = open(dir.path()).unwrap();
        assert!(backing.stat(At::Staging("half")).is_ok());
        backing.clear_staging().unwrap();
        assert!(backing.stat(At::Staging("half")).is_err());
    }

    #[test]
    fn the_store_works_on_after_its_directory_is_moved_or_covered() {
        let parent = tempfile::tempdir().unwrap();
        let (before, after) = (parent.path().join("before"), parent.path().join("after"));
        fs::create_dir(&before).unwrap();
        let backing = open(&before).unwrap();
        fs::rename(&before, &after).unwrap();
        fs::create_dir(&before).unwrap();
        fs::write(before.join("decoy"), "").unwrap();
        let file = name("file");
        backing.create(At::Staging("s"), 0o600).unwrap();
        backing.rename(At::Staging("s"), At::Name(&file), RenameFlags::empty()).unwrap();
        backing.open_file(At::Name(&file), true).unwrap().write_all_at(b"here", 0).unwrap();
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
