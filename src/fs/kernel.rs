//! Telling the kernel what it must no longer believe.
//!
//! The kernel caches names, attributes and pages for as long as nobody says otherwise; whoever
//! changes a file behind its back says so here.
//!
//! Invariants: orders are carried out by one thread of their own, in the order given, and that
//! thread holds no lock: the kernel makes it wait for requests in flight, whose handlers may hold
//! any. Giving an order never waits.

use super::replay::Replay;
use super::replayer::{Change, Replayer};
use super::volume::{Ino, ROOT};
use fuser::{INodeNo, Notifier};
use parking_lot::Mutex;
use rustix::fs::{Mode, OFlags};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::thread::JoinHandle;

/// The type of a FUSE file system, as statfs(2) tells it.
const FUSE: rustix::fs::FsWord = 0x6573_5546;

/// The way to the kernel's caches. Until a mount is served, and after it is gone, there is nothing
/// cached and every order is done at once.
#[derive(Clone, Default)]
pub struct Kernel {
    queue: Arc<Mutex<Option<Sender<Order>>>>,
    /// Held while changes are replayed: the mount is busy then.
    replaying: Arc<Mutex<()>>,
}

enum Order {
    Inode(Ino),
    Attributes(Ino),
    Entry(Vec<u8>),
    Changed(Change),
    WriteBack,
    Act(Box<dyn FnOnce() + Send>),
}

impl Kernel {
    pub fn new() -> Kernel {
        Kernel::default()
    }

    /// A kernel that caches nothing, for tests.
    pub fn none() -> Kernel {
        Kernel::default()
    }

    /// Content and attributes of `ino` changed. Open descriptors and mappings see the new bytes; dirty
    /// pages of mappings are written back first.
    pub fn inval_inode(&self, ino: Ino) {
        self.order(Order::Inode(ino));
    }

    /// Attributes of `ino` changed, the bytes did not.
    pub fn inval_attributes(&self, ino: Ino) {
        self.order(Order::Attributes(ino));
    }

    /// `name` may lead elsewhere or nowhere now, or somewhere after having led nowhere.
    pub fn inval_entry(&self, name: &[u8]) {
        self.order(Order::Entry(name.to_owned()));
    }

    /// The peer has done `change`, and what the kernel believed of it was invalidated: programs that watch the mount are told.
    pub fn changed(&self, change: Change) {
        self.order(Order::Changed(change));
    }

    /// Does `act`, an unmount, while this daemon itself does not keep the mount busy by showing changes.
    pub fn at_rest<T>(&self, act: impl FnOnce() -> T) -> T {
        let _resting = self.replaying.lock();
        act()
    }

    /// Stores into mappings, of whatever file, that we have not seen yet come to us as writes. The pages
    /// stay: it costs what is dirty, where an invalidation costs all that is mapped. Only worth
    /// ordering while a file is open for reading and writing; the mount is busy for that moment.
    pub fn write_back(&self) {
        self.order(Order::WriteBack);
    }

    /// `act` happens once all orders given before are carried out. Where nothing is mounted it is dropped.
    pub fn afterwards(&self, act: impl FnOnce() + Send + 'static) {
        self.order(Order::Act(Box::new(act)));
    }

    /// Waits until all orders given before are carried out. Never call it in a request handler or
    /// holding a lock that one takes: the kernel may be waiting for that very handler.
    pub fn drain(&self) {
        let (done, wait) = mpsc::channel();
        self.afterwards(move || _ = done.send(()));
        // An error means that the mount went, and the order with it.
        let _ = wait.recv();
    }

    fn order(&self, order: Order) {
        if let Some(queue) = &*self.queue.lock() {
            // A closed queue: the mount went, and the caches with it.
            let _ = queue.send(order);
        }
    }

    /// From now on orders go to `notifier`, whose mount is at `target`. What the peer does is shown by `replayer`, or not at all.
    /// The threads end after [`Kernel::detach`].
    pub(super) fn attach(
        &self,
        notifier: Notifier,
        target: PathBuf,
        replay: Arc<Replay>,
        replayer: Option<Replayer>,
    ) -> io::Result<Vec<JoinHandle<()>>> {
        let (queue, orders) = mpsc::channel();
        let begin =
            |replayer| replay.start(replayer, notifier.clone(), target.clone(), self.replaying.clone());
        let (changes, replaying) = replayer.map(begin).transpose()?.unzip();
        let thread = std::thread::Builder::new()
            .name("fs-notify".into())
            .spawn(move || carry_out(&notifier, &target, &orders, changes.as_ref()))?;
        *self.queue.lock() = Some(queue);
        Ok(replaying.into_iter().chain([thread]).collect())
    }

    pub(super) fn detach(&self) {
        *self.queue.lock() = None;
    }
}

fn carry_out(
    notifier: &Notifier,
    target: &Path,
    orders: &Receiver<Order>,
    changes: Option<&SyncSender<Change>>,
) {
    while let Ok(order) = orders.recv() {
        let done = match order {
            Order::Inode(ino) => notifier.inval_inode(INodeNo(ino), 0, 0),
            // A negative offset spares the pages.
            Order::Attributes(ino) => notifier.inval_inode(INodeNo(ino), -1, 0),
            Order::Entry(name) => notifier.inval_entry(INodeNo(ROOT), OsStr::from_bytes(&name)),
            Order::Changed(change) => {
                // What is too much to be replayed is passed over: who watches so much loses events of the kernel's, too.
                let _ = changes.as_ref().map(|changes| changes.try_send(change));
                Ok(())
            }
            Order::WriteBack => write_back(target),
            Order::Act(act) => {
                act();
                Ok(())
            }
        };
        if let Err(e) = done {
            tracing::debug!("the kernel refused an invalidation: {e}");
        }
    }
}

/// The descriptor lives for this moment only: a lasting one would keep the mount busy.
fn write_back(target: &Path) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::fs::open(target, flags, Mode::empty())?;
    // After an unmount this is the directory beneath, on a file system not ours to sync.
    if rustix::fs::fstatfs(&root)?.f_type == FUSE {
        rustix::fs::syncfs(&root)?;
    }
    Ok(())
}
