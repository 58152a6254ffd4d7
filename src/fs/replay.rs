//! Showing programs that watch the mount what the peer did: inotify(7) tells of what goes through the kernel, so every change
//! of the peer goes through it once more.
//!
//! A thread of this daemon makes the system calls that a program here would have made, on the mount. The kernel asks us, as
//! for anybody; by the thread's id we know our own requests, answer as if it were so (it is, already), and change nothing.
//!
//! Invariants:
//! - of such a request nothing reaches the volume but questions; so nothing comes back to the peer either;
//! - what the kernel believes of a name afterwards is what is so: the calls begin with the kernel knowing nothing of the name,
//!   and what has changed since is refused;
//! - the calls reach this mount or none: the way there is proved by a name that only we know, each time;
//! - the mount is held for these moments only; nothing waits for the thread, and what is too much for it is passed over.

use super::volume::{Attr, Ino, ROOT, Volume};
use crate::model::limits::REPLAYED_CHANGES;
use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// Changes replayed while the mount is held once.
const BATCH: usize = 64;

/// How nice the thread is to others.
const NICE: i32 = 10;

/// The handle of a file opened for a replay; the volume's are smaller.
pub(super) const INERT: u64 = (1 << 62) - 1;

/// What the peer did, by names in the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    Created(Vec<u8>),
    /// Its content.
    Modified(Vec<u8>),
    /// Its mode, owner or times alone.
    Attributes(Vec<u8>),
    Renamed(Vec<u8>, Vec<u8>),
    Deleted(Vec<u8>, Ino),
}

impl Change {
    /// Names that the kernel is to know nothing of before.
    fn names(&self) -> Vec<&[u8]> {
        match self {
            Change::Created(name) | Change::Deleted(name, _) => vec![name],
            Change::Renamed(from, to) => vec![from, to],
            Change::Modified(_) | Change::Attributes(_) => Vec::new(),
        }
    }
}

/// What the replaying thread and those who answer it have in common.
pub(super) struct Replay {
    /// The thread's id as requests carry it; 0: there is none yet.
    thread: AtomicU32,
    /// A name that nobody else knows.
    secret: String,
    acting: Mutex<Acting>,
}

#[derive(Default)]
struct Acting {
    change: Option<Change>,
    /// Names of it that the kernel has asked about: it believes of them what we say.
    asked: Vec<Vec<u8>>,
}

/// How a name is to be answered.
pub(super) enum Answer {
    /// As to anybody.
    Plainly,
    /// That it is the secret.
    Secret,
    Nothing,
    /// As what the other name leads to.
    As(Vec<u8>),
    /// As a file that is gone.
    Gone(Ino),
}

impl Replay {
    pub fn new() -> io::Result<Replay> {
        let mut bytes = [0; 16];
        rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
        let secret = format!("{:032x}", u128::from_ne_bytes(bytes));
        Ok(Replay { thread: AtomicU32::new(0), secret, acting: Mutex::default() })
    }

    /// Whether a request of `thread` is our own.
    pub fn is(&self, thread: u32) -> bool {
        thread != 0 && thread == self.thread.load(Ordering::Relaxed)
    }

    /// How the replaying thread is to be answered that looks up `name`.
    pub fn lookup(&self, name: &[u8]) -> Answer {
        if name == self.secret.as_bytes() {
            return Answer::Secret;
        }
        let mut acting = self.acting.lock();
        acting.asked.push(name.to_owned());
        match &acting.change {
            Some(Change::Created(created)) if name == created => Answer::Nothing,
            Some(Change::Deleted(deleted, ino)) if name == deleted => Answer::Gone(*ino),
            Some(Change::Renamed(from, to)) if name == from => Answer::As(to.clone()),
            Some(Change::Renamed(_, to)) if name == to => Answer::Nothing,
            _ => Answer::Plainly,
        }
    }

    /// Whether the change is this one, and the kernel knows of its names what it was told for it.
    pub fn allows(&self, change: &Change) -> bool {
        let acting = self.acting.lock();
        let same = match (&acting.change, change) {
            (Some(Change::Deleted(name, _)), Change::Deleted(deleted, _)) => name == deleted,
            (acting, change) => acting.as_ref() == Some(change),
        };
        same && change.names().iter().all(|name| acting.asked.iter().any(|asked| asked == name))
    }

    /// Begins to replay on the mount at `target`, which is busy only while `replaying` is locked. The thread ends when nobody can send any more.
    pub fn start(
        self: Arc<Self>,
        notifier: Notifier,
        target: PathBuf,
        replaying: Arc<Mutex<()>>,
    ) -> io::Result<(SyncSender<Change>, JoinHandle<()>)> {
        let (sender, changes) = sync_channel(REPLAYED_CHANGES);
        let thread = std::thread::Builder::new()
            .name("fs-replay".into())
            .spawn(move || self.run(&notifier, &target, &replaying, &changes))?;
        Ok((sender, thread))
    }

    fn run(&self, notifier: &Notifier, target: &Path, replaying: &Mutex<()>, changes: &Receiver<Change>) {
        // Where much arrives, what arrives goes first.
        if let Err(error) = rustix::process::setpriority_process(None, NICE) {
            tracing::debug!("showing what the peer does goes no second: {error}");
        }
        self.thread.store(rustix::thread::gettid().as_raw_nonzero().get() as u32, Ordering::Relaxed);
        while let Ok(first) = changes.recv() {
            let _replaying = replaying.lock();
            let root = self.enter(target);
            for change in std::iter::once(first).chain(changes.try_iter().take(BATCH - 1)) {
                let done = match &root {
                    Ok(root) => self.replay(notifier, root, &change),
                    Err(error) => Err(*error),
                };
                if let Err(error) = done {
                    tracing::debug!("who watches the mount does not hear of {change:?}: {error}");
                }
            }
        }
    }

    /// The root of this very mount. Its path may lead elsewhere by now.
    fn enter(&self, target: &Path) -> rustix::io::Result<OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, target, flags, Mode::empty())?;
        match rustix::fs::statat(&root, &self.secret, AtFlags::SYMLINK_NOFOLLOW) {
            Err(SECRET) => Ok(root),
            _ => Err(Errno::NOTCONN),
        }
    }

    fn replay(&self, notifier: &Notifier, root: &OwnedFd, change: &Change) -> rustix::io::Result<()> {
        for name in change.names() {
            // Where it knows nothing there is nothing to forget.
            let _ = notifier.inval_entry(INodeNo(ROOT), OsStr::from_bytes(name));
        }
        *self.acting.lock() = Acting { change: Some(change.clone()), asked: Vec::new() };
        let write = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let done = match change {
            Change::Created(name) => {
                let flags = write | OFlags::CREATE | OFlags::EXCL;
                rustix::fs::openat(root, name.as_slice(), flags, Mode::RUSR | Mode::WUSR).and_then(|file| {
                    // Empty, it was closed as it was made.
                    if rustix::fs::fstat(&file)?.st_size > 0 { modify(&file) } else { Ok(()) }
                })
            }
            Change::Modified(name) => match rustix::fs::openat(root, name.as_slice(), write, Mode::empty()) {
                Ok(file) => modify(&file),
                // Its owner may not write to it, and changes its times all the same.
                Err(Errno::ACCESS) => rustix::fs::utimensat(root, name.as_slice(), &MODIFIED, NOFOLLOW),
                Err(error) => Err(error),
            },
            Change::Attributes(name) => rustix::fs::utimensat(root, name.as_slice(), &TOUCHED, NOFOLLOW),
            Change::Renamed(from, to) => rustix::fs::renameat(root, from.as_slice(), root, to.as_slice()),
            Change::Deleted(name, _) => rustix::fs::unlinkat(root, name.as_slice(), AtFlags::empty()),
        };
        *self.acting.lock() = Acting::default();
        done
    }
}

/// The answer to the secret, which no other file system gives.
pub(super) const SECRET: Errno = Errno::NOKEY;

const NOFOLLOW: AtFlags = AtFlags::SYMLINK_NOFOLLOW;
const OMIT: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
/// A new mtime alone counts as a change of the content, both times as one of the attributes. What the times are we say.
const MODIFIED: Timestamps = Timestamps { last_access: OMIT, last_modification: NOW };
const TOUCHED: Timestamps = Timestamps { last_access: NOW, last_modification: NOW };

fn modify(file: impl AsFd) -> rustix::io::Result<()> {
    rustix::fs::futimens(file, &MODIFIED)
}

/// What is told of a file that is gone, for the moment in which it goes once more.
pub(super) fn gone(volume: &impl Volume, ino: Ino, nothing: Attr) -> Attr {
    volume.getattr(ino, None).unwrap_or(Attr { ino, mode: 0o600, nlink: 1, ..nothing })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn acting(change: Change) -> Replay {
        let replay = Replay::new().unwrap();
        replay.acting.lock().change = Some(change);
        replay
    }

    #[test]
    fn a_request_is_ours_by_its_thread_alone() {
        let replay = Replay::new().unwrap();
        assert!(!replay.is(0) && !replay.is(7));
        replay.thread.store(7, Ordering::Relaxed);
        assert!(replay.is(7) && !replay.is(8) && !replay.is(0));
    }

    #[test]
    fn what_the_kernel_did_not_ask_about_is_not_done() {
        let change = Change::Renamed(b"a".to_vec(), b"b".to_vec());
        let replay = acting(change.clone());
        assert!(!replay.allows(&change));
        assert!(matches!(replay.lookup(b"a"), Answer::As(to) if to == b"b"));
        assert!(!replay.allows(&change));
        assert!(matches!(replay.lookup(b"b"), Answer::Nothing));
        assert!(replay.allows(&change));
        assert!(!replay.allows(&Change::Renamed(b"b".to_vec(), b"a".to_vec())));
        assert!(!replay.allows(&Change::Deleted(b"a".to_vec(), 5)));
    }

    #[test]
    fn only_the_secret_proves_the_way() {
        let replay = acting(Change::Created(b"a".to_vec()));
        assert!(matches!(replay.lookup(replay.secret.as_bytes()), Answer::Secret));
        assert!(matches!(replay.lookup(b"secret"), Answer::Plainly));
        assert_ne!(replay.secret, Replay::new().unwrap().secret);
    }
}
