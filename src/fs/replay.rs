//! Showing programs that watch the mount what the peer did: inotify(7) tells of what goes through the kernel, so every change
//! of the peer goes through it once more.
//!
//! The [`Replayer`], a process of ours, makes the system calls that a program here would have made, on the mount. The kernel
//! asks us, as for anybody; by the process's id we know our own requests, answer as if it were so (it is, already), and change
//! nothing. A thread tells it what to do.
//!
//! Invariants:
//! - of such a request nothing reaches the volume but questions; so nothing comes back to the peer either;
//! - what the kernel believes of a name afterwards is what is so: the calls begin with the kernel knowing nothing of the name,
//!   and what has changed since is refused;
//! - the mount is held for these moments only; nothing waits for the thread, and what is too much for it is passed over.

use super::replayer::{Change, Replayer};
use super::volume::{Attr, Ino, ROOT, Volume};
use crate::model::limits::REPLAYED_CHANGES;
use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;
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

/// The handle of a file opened for a replay; the volume's are smaller.
pub(super) const INERT: u64 = (1 << 62) - 1;

/// What the thread that replays and those who answer the replayer have in common.
pub(super) struct Replay {
    /// The replayer's process as requests carry it; 0: there is none.
    process: AtomicU32,
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
        Ok(Replay { process: AtomicU32::new(0), secret, acting: Mutex::default() })
    }

    /// Whether a request of `process` is our own.
    pub fn is(&self, process: u32) -> bool {
        process != 0 && process == self.process.load(Ordering::Relaxed)
    }

    /// How the replayer is to be answered, which looks up `name`.
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
        same && to_forget(change).iter().all(|name| acting.asked.iter().any(|asked| asked == name))
    }

    /// Begins to replay on the mount at `target`, which may be busy only while `replaying` is locked. The thread, and `replayer`, end
    /// when nobody can send any more.
    pub fn start(
        self: Arc<Self>,
        replayer: Replayer,
        notifier: Notifier,
        target: PathBuf,
        replaying: Arc<Mutex<()>>,
    ) -> io::Result<(SyncSender<Change>, JoinHandle<()>)> {
        let (sender, changes) = sync_channel(REPLAYED_CHANGES);
        let thread = std::thread::Builder::new()
            .name("fs-replay".into())
            .spawn(move || self.run(&replayer, &notifier, &target, &replaying, &changes))?;
        Ok((sender, thread))
    }

    fn run(
        &self,
        replayer: &Replayer,
        notifier: &Notifier,
        target: &Path,
        replaying: &Mutex<()>,
        changes: &Receiver<Change>,
    ) {
        self.process.store(replayer.process(), Ordering::Relaxed);
        while let Ok(first) = changes.recv() {
            let _replaying = replaying.lock();
            let entered = replayer.enter(target, &self.secret);
            for change in std::iter::once(first).chain(changes.try_iter().take(BATCH - 1)) {
                if let Err(error) = entered.and_then(|()| self.replay(replayer, notifier, &change)) {
                    tracing::debug!("who watches the mount does not hear of {change:?}: {error}");
                }
            }
            if let Err(Errno::PIPE) = replayer.leave() {
                tracing::warn!(
                    "the process that shows programs what the peer does has gone: until the next mount, who watches it hears nothing"
                );
                break;
            }
        }
        // Its number may be somebody else's once it has gone.
        self.process.store(0, Ordering::Relaxed);
    }

    fn replay(&self, replayer: &Replayer, notifier: &Notifier, change: &Change) -> rustix::io::Result<()> {
        for name in to_forget(change) {
            // Where it knows nothing there is nothing to forget.
            let _ = notifier.inval_entry(INodeNo(ROOT), OsStr::from_bytes(name));
        }
        *self.acting.lock() = Acting { change: Some(change.clone()), asked: Vec::new() };
        let done = replayer.replay(change);
        *self.acting.lock() = Acting::default();
        done
    }
}

/// Names that the kernel is to know nothing of before `change` is replayed.
fn to_forget(change: &Change) -> Vec<&[u8]> {
    match change {
        Change::Created(name) | Change::Deleted(name, _) => vec![name],
        Change::Renamed(from, to) => vec![from, to],
        Change::Modified(_) | Change::Attributes(_) => Vec::new(),
    }
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
    fn a_request_is_ours_by_its_process_alone() {
        let replay = Replay::new().unwrap();
        assert!(!replay.is(0) && !replay.is(7));
        replay.process.store(7, Ordering::Relaxed);
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
