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
//! - the mount is held for these moments only; nothing waits for the thread, and what is too much for it is passed over;
//! - of many changes at once nothing is replayed if nobody watches: to look at all processes costs less.

use super::replayer::{Change, Replayer};
use super::volume::{Attr, Ino, ROOT, Volume};
use crate::model::limits::REPLAYED_CHANGES;
use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Changes replayed while the mount is held once.
const BATCH: usize = 64;
/// To show so many takes longer than to look whether anybody watches.
const MANY: usize = 64;
/// The time from one look to the next, ...
const LOOK_EACH: Duration = Duration::from_millis(200);
/// ... and how many times as long as the look itself that is at least.
const LOOK_SHARE: u32 = 10;

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
        let stage = Stage { replay: self, replayer, notifier, target, replaying };
        let thread =
            std::thread::Builder::new().name("fs-replay".into()).spawn(move || stage.run(&changes))?;
        Ok((sender, thread))
    }
}

/// What the thread works with.
struct Stage {
    replay: Arc<Replay>,
    replayer: Replayer,
    notifier: Notifier,
    target: PathBuf,
    replaying: Arc<Mutex<()>>,
}

impl Stage {
    fn run(&self, changes: &Receiver<Change>) {
        self.replay.process.store(self.replayer.process(), Ordering::Relaxed);
        let mut audience = Audience { unknown: 0, nobody: false, next_look: Instant::now() };
        while let Some(waiting) = audience.gather(changes) {
            // Who began to watch before these came is seen now.
            if audience.is_to_be_counted(waiting.len()) && audience.counted(|| self.is_alone()) {
                continue;
            }
            if let Err(Errno::PIPE) = waiting.chunks(BATCH).try_for_each(|batch| self.show(batch)) {
                tracing::warn!(
                    "the process that shows programs what the peer does has gone: until the next mount, who watches it hears nothing"
                );
                break;
            }
        }
        // Its number may be somebody else's once it has gone.
        self.replay.process.store(0, Ordering::Relaxed);
    }

    /// Does something in the mount, where it can be entered.
    fn within(&self, act: impl FnOnce(rustix::io::Result<()>)) -> rustix::io::Result<()> {
        let _replaying = self.replaying.lock();
        act(self.replayer.enter(&self.target, &self.replay.secret));
        self.replayer.leave()
    }

    fn show(&self, batch: &[Change]) -> rustix::io::Result<()> {
        self.within(|entered| {
            for change in batch {
                if let Err(error) = entered.and_then(|()| self.replay(change)) {
                    tracing::debug!("who watches the mount does not hear of {change:?}: {error}");
                }
            }
        })
    }

    /// Whether nobody watches.
    fn is_alone(&self) -> bool {
        let mut alone = false;
        let left = self.within(|entered| alone = entered.is_ok() && !self.replayer.may_be_watched());
        left.is_ok() && alone
    }

    fn replay(&self, change: &Change) -> rustix::io::Result<()> {
        for name in to_forget(change) {
            // Where it knows nothing there is nothing to forget.
            let _ = self.notifier.inval_entry(INodeNo(ROOT), OsStr::from_bytes(name));
        }
        *self.replay.acting.lock() = Acting { change: Some(change.clone()), asked: Vec::new() };
        let done = self.replayer.replay(change);
        *self.replay.acting.lock() = Acting::default();
        done
    }
}

/// What is known of who watches, and when it is worth a look.
struct Audience {
    /// Changes that were shown since the last look, whether somebody saw them or not.
    unknown: usize,
    /// Nobody watched then.
    nobody: bool,
    next_look: Instant,
}

impl Audience {
    /// What waits to be shown. Where nobody watched there is time: until the next look, which may tell that it was not for
    /// nothing. `None` where there will be no more.
    fn gather(&self, changes: &Receiver<Change>) -> Option<Vec<Change>> {
        let mut waiting = vec![changes.recv().ok()?];
        waiting.extend(changes.try_iter().take(REPLAYED_CHANGES - 1));
        let left = || self.next_look.saturating_duration_since(Instant::now());
        while self.nobody && waiting.len() < REPLAYED_CHANGES {
            match changes.recv_timeout(left()) {
                Ok(more) => waiting.push(more),
                Err(_) => break,
            }
        }
        Some(waiting)
    }

    /// Whether to look before so many more are shown.
    fn is_to_be_counted(&mut self, waiting: usize) -> bool {
        self.unknown += waiting;
        let now = std::mem::take(&mut self.nobody) || Instant::now() >= self.next_look;
        now && self.unknown >= MANY
    }

    /// Notes what a look comes to.
    fn counted(&mut self, look: impl FnOnce() -> bool) -> bool {
        let begun = Instant::now();
        self.nobody = look();
        self.next_look = Instant::now() + LOOK_EACH.max(begun.elapsed() * LOOK_SHARE);
        self.unknown = 0;
        self.nobody
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
    fn who_watches_is_looked_for_where_much_comes_and_not_again_at_once() {
        let mut audience = Audience { unknown: 0, nobody: false, next_look: Instant::now() };
        assert!(!audience.is_to_be_counted(MANY - 1), "few are shown, whoever looks");
        assert!(audience.is_to_be_counted(1));
        assert!(!audience.counted(|| false));
        assert!(!audience.is_to_be_counted(10 * MANY), "somebody watched a moment ago");
        audience.next_look = Instant::now();
        assert!(audience.is_to_be_counted(1));
        assert!(audience.counted(|| true));
        assert!(audience.is_to_be_counted(MANY), "what nobody would have seen came before this look");
        assert!(audience.counted(|| true));
        assert!(!audience.is_to_be_counted(MANY - 1));
        assert!(!audience.nobody, "they are not kept waiting for long");
    }

    #[test]
    fn changes_wait_together_where_nobody_watched() {
        let (sender, changes) = sync_channel(REPLAYED_CHANGES);
        let send = |n: u8| sender.send(Change::Created(vec![n])).unwrap();
        let mut audience =
            Audience { unknown: 0, nobody: false, next_look: Instant::now() + Duration::from_secs(3600) };
        (0..3).for_each(send);
        assert_eq!(audience.gather(&changes).unwrap().len(), 3);
        audience.nobody = true;
        (0..5).for_each(send);
        drop(sender);
        assert_eq!(audience.gather(&changes).unwrap().len(), 5);
        assert!(audience.gather(&changes).is_none());
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
