//! A process that makes the system calls with which the peer's changes are shown, on the mount: what a program here would
//! have called to do the same.
//!
//! It is no thread of the daemon: one that waits in its own mount holds the connection open that has to close for the wait to end,
//! so that a daemon killed in that moment could never go.
//!
//! Invariants:
//! - it does what the daemon says, one thing at a time, and ends when the daemon does;
//! - its calls reach the daemon's own mount or none: the way there is proved, each time, by a name that only the two know;
//! - between [`Replayer::enter`] and [`Replayer::leave`] a mount of an ordinary user is busy, and at no other time; root's never is.

use super::mount::mounts;
use super::volume::Ino;
use super::watchers::may_be_watched;
use crate::model::codec;
use bincode::{Decode, Encode};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;
use rustix::mount::OpenTreeFlags;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command};

/// The longest order or answer in bytes: a path, or two names.
const MESSAGE: usize = 8192;
/// How nice the process is to others: where much arrives, what arrives goes first.
const NICE: i32 = 10;

/// The answer to who asks whether anybody watches.
const NOBODY: Errno = Errno::NODATA;

/// The answer of the mount to the name that only we know; no other file system gives it.
pub(super) const SECRET: Errno = Errno::NOKEY;

/// What the peer did, by names in the directory.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    Created(Vec<u8>),
    /// Its content.
    Modified(Vec<u8>),
    /// Its mode, owner or times alone.
    Attributes(Vec<u8>),
    Renamed(Vec<u8>, Vec<u8>),
    Deleted(Vec<u8>, Ino),
}

#[derive(Encode, Decode)]
enum Order {
    /// Go to the mount at this path, where there is this name.
    Enter(Vec<u8>, String),
    Do(Change),
    /// See whether anybody watches that mount.
    Look,
    Leave,
}

/// The daemon's side of it.
#[derive(Debug)]
pub struct Replayer {
    process: Child,
    orders: OwnedFd,
}

impl Replayer {
    /// Starts `command`, which is to call [`obey`].
    pub fn start(mut command: Command) -> io::Result<Replayer> {
        let (ours, theirs) =
            rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        let process = command.stdin(theirs).current_dir("/").spawn()?;
        Ok(Replayer { process, orders: ours })
    }

    pub(super) fn process(&self) -> u32 {
        self.process.id()
    }

    /// # Errors
    /// `ENOTCONN` if there is another file system at `target`, or none; `EPIPE` if the process has gone.
    pub(super) fn enter(&self, target: &Path, secret: &str) -> rustix::io::Result<()> {
        self.order(&Order::Enter(target.as_os_str().as_bytes().to_owned(), secret.to_owned()))
    }

    pub(super) fn replay(&self, change: &Change) -> rustix::io::Result<()> {
        self.order(&Order::Do(change.clone()))
    }

    /// Whether anybody may watch the mount, which was entered.
    pub(super) fn may_be_watched(&self) -> bool {
        self.order(&Order::Look) != Err(NOBODY)
    }

    pub(super) fn leave(&self) -> rustix::io::Result<()> {
        self.order(&Order::Leave)
    }

    /// Returns when it is done.
    fn order(&self, order: &Order) -> rustix::io::Result<()> {
        rustix::net::send(&self.orders, &codec::encode(order), SendFlags::NOSIGNAL)?;
        let mut answer = [0; size_of::<i32>()];
        let (read, _) =
            rustix::io::retry_on_intr(|| rustix::net::recv(&self.orders, &mut answer, RecvFlags::empty()))?;
        match (read, i32::from_ne_bytes(answer)) {
            (0, _) => Err(Errno::PIPE),
            (_, 0) => Ok(()),
            (_, error) => Err(Errno::from_raw_os_error(error)),
        }
    }
}

impl Drop for Replayer {
    /// Nothing that the process waits for is unanswered by then: the mount has gone, or it waits for orders.
    fn drop(&mut self) {
        let _ = rustix::net::shutdown(&self.orders, rustix::net::Shutdown::Both);
        let _ = self.process.wait();
    }
}

/// Does what comes through `orders` until nobody is there to give any.
pub fn obey(orders: impl AsFd) -> io::Result<()> {
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        tracing::debug!("showing what the peer does goes no second: {error}");
    }
    let (mut message, mut root) = (vec![0; MESSAGE], None);
    loop {
        let read = rustix::io::retry_on_intr(|| {
            rustix::net::recv(&orders, message.as_mut_slice(), RecvFlags::empty())
        });
        let (read, _) = read?;
        if read == 0 {
            return Ok(());
        }
        let order = codec::decode(&message[..read]).map_err(io::Error::other)?;
        let done = match (order, &root) {
            (Order::Enter(target, secret), _) => enter(&target, &secret).map(|entered| root = Some(entered)),
            (Order::Leave, _) => {
                root = None;
                Ok(())
            }
            (Order::Do(change), Some(root)) => replay(root, &change),
            (Order::Look, Some(root)) => look(root),
            (Order::Do(_) | Order::Look, None) => Err(Errno::NOTCONN),
        };
        let answer = done.err().map_or(0, Errno::raw_os_error);
        match rustix::net::send(&orders, &answer.to_ne_bytes(), SendFlags::NOSIGNAL) {
            Err(Errno::PIPE) => return Ok(()),
            sent => sent?,
        };
    }
}

/// The root of the mount that knows `secret`. The path may lead elsewhere by now.
fn enter(target: &[u8], secret: &str) -> rustix::io::Result<OwnedFd> {
    let target = OsStr::from_bytes(target);
    // By a clone of the mount, which only root may make, an unmount is not held up.
    let cloned = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let root = rustix::mount::open_tree(CWD, target, cloned)
        .or_else(|_| rustix::fs::openat(CWD, target, flags, Mode::empty()))?;
    match rustix::fs::statat(&root, secret, AtFlags::SYMLINK_NOFOLLOW) {
        Err(SECRET) => Ok(root),
        _ => Err(Errno::NOTCONN),
    }
}

/// # Errors
/// [`NOBODY`].
fn look(root: &OwnedFd) -> rustix::io::Result<()> {
    let device = rustix::fs::fstat(root)?.st_dev;
    let private =
        || mounts().is_ok_and(|all| all.iter().any(|mount| mount.device == device && !mount.for_all));
    // Root sees everybody.
    match may_be_watched(device, !rustix::process::geteuid().is_root() && private()) {
        true => Ok(()),
        false => Err(NOBODY),
    }
}

fn replay(root: &OwnedFd, change: &Change) -> rustix::io::Result<()> {
    let write = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match change {
        Change::Created(name) => {
            let flags = write | OFlags::CREATE | OFlags::EXCL;
            let file = rustix::fs::openat(root, name.as_slice(), flags, Mode::RUSR | Mode::WUSR)?;
            // Empty, it was closed as it was made.
            if rustix::fs::fstat(&file)?.st_size > 0 { modify(&file) } else { Ok(()) }
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
    }
}

const NOFOLLOW: AtFlags = AtFlags::SYMLINK_NOFOLLOW;
const OMIT: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: UTIME_NOW };
/// A new mtime alone counts as a change of the content, both times as one of the attributes. What the times are the daemon says.
const MODIFIED: Timestamps = Timestamps { last_access: OMIT, last_modification: NOW };
const TOUCHED: Timestamps = Timestamps { last_access: NOW, last_modification: NOW };

fn modify(file: impl AsFd) -> rustix::io::Result<()> {
    rustix::fs::futimens(file, &MODIFIED)
}
