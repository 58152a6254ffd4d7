//! The host: one replica at work. Holds the doors, the model and the locks; see the module head of
//! [`engine`](super) for their order.

use super::channel::Channel;
use super::due::Due;
use super::events::Events;
use super::flights::Outbound;
use super::frozen::Budget;
use super::hints::Hints;
use super::holding::Holding;
use super::kept::{Before, Buried};
use super::metadata::Checkpointer;
use super::node::{Data, Graves, Handle, Held, Node, Nodes};
use super::pending::Unfinished;
use super::queues::{Inbox, InboxEar, Server, Sweep, Trigger};
use super::signatures::Signatures;
use super::trash::Trash;
use super::verifying::Verifying;
use super::wants::Fetch;
use crate::fs::error::Error as FsError;
use crate::fs::kernel::Kernel;
use crate::fs::locks::LockTable;
use crate::model::brake::Brake;
use crate::model::codec;
use crate::model::direction::Direction;
use crate::model::first::FirstSync;
use crate::model::group::Writers;
use crate::model::ids::FileId;
use crate::model::ignore::Patterns;
use crate::model::name::Name;
use crate::model::record::Record;
use crate::model::sabotage::{Bug, planted};
use crate::model::share::Share;
use crate::model::version::Version;
use crate::store::{self, At, Backing, Content, Identity, Journal, Lsn, Random, Stamp};
use crate::wire::Key;
use parking_lot::{Mutex, RwLock};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::mpsc::{Receiver, Sender};
use std::sync::{Arc, OnceLock, Weak};
use std::thread::JoinHandle;
use std::time::Duration;
use tokio::runtime;
use tokio::sync::watch;

/// What a mount was asked to do.
#[derive(Clone, Debug)]
pub struct Options {
    pub store: PathBuf,
    /// `HOST[:PORT]`
    pub peer: String,
    /// What shrinks is compressed on its way, where the peer does the same.
    pub compress: bool,
    /// Bytes a second that this host sends at most; without it, as many as go.
    pub bwlimit: Option<u64>,
    pub listen: SocketAddr,
    pub key_file: PathBuf,
    pub read_timeout: Duration,
    pub new_peer: bool,
    /// How this directory and that of a peer it has not met become one.
    pub first_sync: FirstSync,
    /// How long what the peer deletes or writes over stays in the trash; 0: not at all.
    pub trash_days: u32,
    /// Deletes of the peer within a minute that nobody is asked about; without it, up to half of the files, or any number of
    /// a hundred and fewer.
    pub max_delete: Option<u64>,
    /// What was removed from the directory while it was not mounted is deleted on the peer, too, instead of coming back.
    pub adopt_deletes: bool,
    /// Which way changes go between this host and the peer.
    pub direction: Direction,
    /// Changes made here are announced only so often, and where somebody waits for them; without it, at once.
    pub interval: Option<Duration>,
    /// Content that this host holds may take so many bytes on the disk; without it, everything is held.
    pub cache_size: Option<u64>,
    /// Bytes of the disk that what is brought over leaves free; without it, a twentieth of the disk.
    pub cache_min_free: Option<u64>,
    /// Content bytes that travel inside an announcement, [`INLINE_BYTES`](crate::model::limits::INLINE_BYTES)
    /// at most; larger cuts are retrieved.
    pub inline_bytes: u64,
    /// For status only.
    pub mount: PathBuf,
}

pub struct Host {
    /// For tasks that outlive the call that starts them.
    pub(super) me: Weak<Host>,
    pub(super) options: Options,
    pub(super) runtime: runtime::Handle,
    pub(super) backing: Backing,
    pub(super) journal: Journal,
    pub(super) identity: Identity,
    pub(super) checkpointer: Checkpointer,
    pub(super) random: Mutex<Random>,
    pub(super) kernel: Kernel,
    pub(super) locks: LockTable,
    /// Whether owner and group are ours to set.
    pub(super) owner: bool,
    pub(super) left_alone: usize,
    pub(super) missing: u64,
    pub(super) trash: Trash,
    pub(super) brake: Mutex<Brake>,
    pub(super) holding: Holding,
    /// What stays here, and the file that says so, if there is one; nothing of it is known before it was read once.
    pub(super) patterns: RwLock<(Patterns, Option<Option<Stamp>>)>,
    pub(super) before: Before,
    /// When this life began.
    pub(super) began: tokio::time::Instant,

    pub(super) applying: RwLock<()>,
    pub(super) cutting: Mutex<()>,
    pub(super) names: RwLock<()>,
    pub(super) nodes: Arc<Nodes>,
    pub(super) graves: Graves,
    pub(super) share: Mutex<Share>,
    pub(super) writers: Mutex<Writers>,
    pub(super) outbound: Mutex<Outbound>,
    pub(super) fetch: Fetch,
    pub(super) handles: RwLock<HashMap<u64, Arc<Handle>>>,
    /// Files in which a change failed half-way: the model may have another size than the disk.
    pub(super) unsure: Mutex<BTreeSet<FileId>>,
    /// Files that may be mapped for writing: their pages are written back each second.
    pub(super) mapped: Mutex<BTreeSet<FileId>>,
    pub(super) due: Due,

    /// Files that were unlinked here, in staging until the journal that says so is durable.
    pub(super) buried: Mutex<Vec<Buried>>,
    /// What the peer told of uncertain files, where that was older than what it has acknowledged.
    pub(super) told_older: Mutex<BTreeMap<FileId, Version>>,
    /// Cuts of the peer that failed in the middle.
    pub(super) unfinished: Mutex<Unfinished>,
    /// Files of the peer that lost against what stands under their names here.
    pub(super) refused: Mutex<BTreeMap<FileId, Name>>,

    /// The last record that moved a file which lies under no name: the disk shows nothing of that.
    pub(super) unseen_move: AtomicU64,
    pub(super) next_handle: AtomicU64,
    pub(super) budget: Budget,
    pub(super) triggers: Sender<Trigger>,
    pub(super) inbox: Inbox,
    pub(super) server: Server,
    /// What the peer has that may be like what it asks for.
    pub(super) signatures: Signatures,
    /// Which files of ours may be alike.
    pub(super) hints: Mutex<Hints>,
    pub(super) link: OnceLock<Box<dyn Channel>>,
    pub(super) session: Mutex<Option<crate::wire::Session>>,
    /// Counts everything that `flush` and `status` may wait for.
    pub(super) progress: watch::Sender<u64>,
    pub(super) next_flush: AtomicU64,
    /// The last `Flush` of ours that the peer answered.
    pub(super) flushes: watch::Sender<u64>,
    pub(super) verifying: Verifying,
    pub(super) events: Events,
    pub(super) stopping: AtomicBool,
    pub(super) threads: Mutex<Vec<JoinHandle<()>>>,
    pub(super) ears: Mutex<Option<Ears>>,
    /// Until the link has taken it.
    pub(super) key: Mutex<Option<Key>>,
}

/// The receiving ends of the threads' queues, until the threads start.
pub(super) struct Ears {
    pub triggers: Receiver<Trigger>,
    pub inbox: InboxEar,
    pub sweeps: Receiver<Sweep>,
}

impl Host {
    /// The queue of notifications to the kernel, for the mount's adapter.
    pub fn kernel(&self) -> Kernel {
        self.kernel.clone()
    }

    /// What happened lately.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Journals `record` and applies it. The one way to change the share.
    pub(super) fn commit(&self, share: &mut Share, record: Record) -> store::Result<Lsn> {
        let skips = planted(Bug::WriteUnjournaled) && matches!(record, Record::Wrote { .. });
        let lsn = if skips { self.journal.end() } else { self.journal.append(&codec::encode(&record))? };
        share.apply(&record);
        Ok(lsn)
    }

    /// For what the disk is to do because the journal says that it is done. Where the disk refuses, a name may lead to the
    /// content of another file until the next start, which brings every file to its name: nothing is built upon that, and the
    /// store stops. What somebody took away past the mount is another matter.
    pub(super) fn must<T>(&self, done: store::Result<T>) -> store::Result<T> {
        done.map_err(|error| if error.is_not_found() { error } else { self.journal.stop(error.to_string()) })
    }

    /// From now on this host sends so many bytes a second at most; `None` and 0: as many as go. Does nothing before
    /// [`Host::connect`].
    pub fn set_bwlimit(&self, rate: Option<u64>) {
        if let Some(link) = self.link.get() {
            link.set_bwlimit(rate);
        }
    }

    /// Bytes a second that this host sends at most.
    pub fn bwlimit(&self) -> Option<u64> {
        match self.link.get() {
            Some(link) => link.counters().bwlimit,
            None => self.options.bwlimit,
        }
    }

    /// Something moved that `flush` or `status` may wait for.
    pub(super) fn moved(&self) {
        self.progress.send_modify(|n| *n += 1);
    }

    /// Whether a program has it open for writing.
    pub(super) fn is_written(&self, file: FileId) -> bool {
        self.handles.read().values().any(|handle| handle.node.id == file && handle.writer.is_some())
    }

    /// The node of `id`; `None` where the share knows no such file.
    pub(super) fn node(&self, id: FileId) -> Option<Held> {
        let share = self.share.lock();
        share.file(id)?;
        let ino = share.ino(id);
        drop(share);
        Some(self.nodes.get(id, ino))
    }

    /// The backing file of a node whose `data` is locked, opened where it is not yet.
    pub(super) fn data_file(&self, node: &Node, data: &mut Data, write: bool) -> Result<Content, FsError> {
        if let Some(file) = data.open()
            && (data.writable || !write)
        {
            return Ok(file);
        }
        let location = node.file(data, &self.share.lock()).map(|f| (f.partial, f.name.clone()));
        let Some((partial, Some(name))) = location else {
            // Unlinked: only who has it open still reaches it.
            return data.open().ok_or(FsError::NotFound);
        };
        let at = if partial { At::Partial(node.id) } else { At::Name(&name) };
        let (file, writable) = match self.backing.open_file(at, true) {
            Ok(file) => (file, true),
            Err(e)
                if !write
                    && matches!(e.errno(), libc::EACCES | libc::EROFS | libc::EPERM | libc::ETXTBSY) =>
            {
                (self.backing.open_file(at, false)?, false)
            }
            Err(e) => return Err(e.into()),
        };
        data.opened(&file, writable);
        Ok(file)
    }

    /// What lies where `id` lies, without opening it.
    pub(super) fn stat(&self, id: FileId) -> Option<store::Stat> {
        let (partial, name) = {
            let share = self.share.lock();
            let f = share.file(id)?;
            (f.partial, f.name.clone())
        };
        let at = if partial { At::Partial(id) } else { At::Name(name.as_ref()?) };
        self.backing.stat(at).ok()
    }
}
