//! Advisory locks: fcntl's byte ranges and flock's whole files, and who waits for them.
//!
//! The two kinds never meet, as on any Linux file system. Freed ranges go to waiters in the order
//! they came. A hold keeps lockers out for the moment in which a file moves to another version: who
//! asks for a lock meanwhile, patiently or not, is answered when the hold ends.
//!
//! Invariants: two owners never hold conflicting locks of one kind; a waiter that gave up holds
//! nothing more than before it asked; no lock outlives the handle it was taken through.

use super::error::Error;
use super::volume::{Answer, Ino, Lock, LockKind, Result};
use parking_lot::Mutex;
use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use tokio::sync::{Notify, oneshot};

/// Locks of one kind on one inode; beyond it `ENOLCK`. Every request walks them.
const MOST_LOCKS: usize = 16_384;

/// Which of the two lock worlds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Fcntl,
    Flock,
}

/// Who takes a lock, as the kernel names it, and through which open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taker {
    pub owner: u64,
    pub handle: u64,
}

/// All locks of a mount. Clones share them.
#[derive(Clone, Default)]
pub struct LockTable {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    files: Mutex<HashMap<Ino, File>>,
    /// Told whenever an inode may have become free of locks.
    freed: Notify,
}

/// Only inodes with something in it are in the table.
#[derive(Default)]
struct File {
    granted: Vec<Granted>,
    waiters: Vec<Waiter>,
    /// How many keep lockers out.
    holds: u32,
}

#[derive(Clone, Copy)]
struct Granted {
    taker: Taker,
    kind: Kind,
    lock: Lock,
}

struct Waiter {
    wanted: Granted,
    /// It waits for the hold to end, but for nobody's lock.
    impatient: bool,
    answer: oneshot::Sender<Result<Vec<Granted>>>,
}

impl LockTable {
    pub fn new() -> LockTable {
        LockTable::default()
    }

    /// The fcntl lock that keeps `owner` from `lock`, if any.
    pub fn test(&self, ino: Ino, owner: u64, lock: Lock) -> Option<Lock> {
        let files = self.shared.files.lock();
        let wanted = Granted { taker: Taker { owner, handle: 0 }, kind: Kind::Fcntl, lock };
        files.get(&ino)?.granted.iter().find(|held| held.conflicts(&wanted)).map(|held| held.lock)
    }

    /// Takes, changes or drops a lock. `wait`: rather than with `WouldBlock`, come back when it is
    /// granted, or at once with `EDEADLK` if that could never be. Dropping the future gives up.
    pub fn set(&self, ino: Ino, taker: Taker, lock: Lock, kind: Kind, wait: bool) -> Answer<()> {
        if lock.start > lock.end {
            return Answer::Now(Err(Error::Invalid));
        }
        let wanted = Granted { taker, kind, lock };
        let mut files = self.shared.files.lock();
        let file = files.entry(ino).or_default();
        let acquires = lock.kind != LockKind::Unlock;
        let blocked = acquires && file.granted.iter().any(|held| held.conflicts(&wanted));
        let refused = if acquires && file.granted.len() >= MOST_LOCKS {
            Some(Error::Io(std::io::Error::from_raw_os_error(libc::ENOLCK)))
        } else if blocked && !wait {
            Some(Error::WouldBlock)
        } else if blocked && kind == Kind::Fcntl && deadlocks(&files, ino, &wanted) {
            Some(Error::Io(std::io::Error::from_raw_os_error(libc::EDEADLK)))
        } else {
            None
        };
        if let Some(error) = refused {
            self.shared.tidy(&mut files, ino);
            return Answer::Now(Err(error));
        }
        let file = files.entry(ino).or_default();
        if blocked || acquires && file.holds > 0 {
            let (answer, granted) = oneshot::channel();
            file.waiters.push(Waiter { wanted, impatient: !wait, answer });
            let shared = self.shared.clone();
            return Answer::Later(Box::pin(Waiting { shared, ino, wanted, granted, over: false }));
        }
        file.grant(&wanted);
        self.shared.settle(&mut files, ino);
        Answer::Now(Ok(()))
    }

    /// Drops what `owner` holds by fcntl on `ino`: any close(2) of the file does that.
    pub fn release_owner(&self, ino: Ino, owner: u64) {
        self.release(ino, |held| held.kind == Kind::Fcntl && held.taker.owner == owner);
    }

    /// Drops what `owner` holds by flock on `ino`.
    pub fn release_flock(&self, ino: Ino, owner: u64) {
        self.release(ino, |held| held.kind == Kind::Flock && held.taker.owner == owner);
    }

    /// Drops every lock that was taken through `handle`: locks of an open file description, and those
    /// of an owner that died before it knew of them.
    pub fn release_handle(&self, ino: Ino, handle: u64) {
        self.release(ino, |held| held.taker.handle == handle);
    }

    /// Whether anybody holds any lock on `ino`.
    pub fn held(&self, ino: Ino) -> bool {
        self.shared.files.lock().get(&ino).is_some_and(|file| !file.granted.is_empty())
    }

    /// Waits until none of `inos` is locked.
    pub async fn until_free(&self, inos: &[Ino]) {
        loop {
            let mut freed = std::pin::pin!(self.shared.freed.notified());
            // Registered before looking, or a release in between would go unheard.
            freed.as_mut().enable();
            if !inos.iter().any(|ino| self.held(*ino)) {
                return;
            }
            freed.await;
        }
    }

    /// Keeps lockers out of `inos` while the hold lives, if none of them is locked now. Holds don't exclude one another.
    pub fn try_hold(&self, inos: &[Ino]) -> Option<Hold> {
        let mut files = self.shared.files.lock();
        if inos.iter().any(|ino| files.get(ino).is_some_and(|file| !file.granted.is_empty())) {
            return None;
        }
        for ino in inos {
            files.entry(*ino).or_default().holds += 1;
        }
        Some(Hold { shared: self.shared.clone(), inos: inos.to_owned() })
    }

    fn release(&self, ino: Ino, goes: impl Fn(&Granted) -> bool) {
        let mut files = self.shared.files.lock();
        if let Some(file) = files.get_mut(&ino) {
            file.granted.retain(|held| !goes(held));
            self.shared.settle(&mut files, ino);
        }
    }
}

/// Lockers are kept out while this lives.
#[must_use]
pub struct Hold {
    shared: Arc<Shared>,
    inos: Vec<Ino>,
}

impl Drop for Hold {
    fn drop(&mut self) {
        let mut files = self.shared.files.lock();
        for ino in &self.inos {
            if let Some(file) = files.get_mut(ino) {
                file.holds -= 1;
            }
            self.shared.settle(&mut files, *ino);
        }
    }
}

impl Shared {
    /// After something was given up on `ino`: serves those who wait.
    fn settle(&self, files: &mut HashMap<Ino, File>, ino: Ino) {
        if let Some(file) = files.get_mut(&ino) {
            file.serve();
        }
        self.tidy(files, ino);
    }

    fn tidy(&self, files: &mut HashMap<Ino, File>, ino: Ino) {
        if let Some(file) = files.get(&ino)
            && file.granted.is_empty()
            && file.holds == 0
        {
            if file.waiters.is_empty() {
                files.remove(&ino);
            }
            self.freed.notify_waiters();
        }
    }
}

impl File {
    /// Lets in, in order, whoever nobody stands before.
    fn serve(&mut self) {
        if self.holds > 0 {
            return;
        }
        let mut index = 0;
        while index < self.waiters.len() {
            let wanted = self.waiters[index].wanted;
            let blocked = self.granted.iter().any(|held| held.conflicts(&wanted));
            if blocked && !self.waiters[index].impatient {
                index += 1;
                continue;
            }
            let waiter = self.waiters.remove(index);
            if waiter.answer.is_closed() {
                continue;
            }
            let answer = if blocked { Err(Error::WouldBlock) } else { Ok(self.grant(&wanted)) };
            // A waiter that just gave up finds the answer in its channel and undoes the grant.
            let _ = waiter.answer.send(answer);
        }
    }

    /// Replaces what the owner held in the range; returns that.
    fn grant(&mut self, wanted: &Granted) -> Vec<Granted> {
        let Lock { start, end, kind, .. } = wanted.lock;
        let (mut before, mut after) = (Vec::new(), Vec::with_capacity(self.granted.len() + 1));
        for held in self.granted.drain(..) {
            if !held.same_owner(wanted) || !held.overlaps(wanted) {
                after.push(held);
                continue;
            }
            let part = |start, end| Granted { lock: Lock { start, end, ..held.lock }, ..held };
            if held.lock.start < start {
                after.push(part(held.lock.start, start - 1));
            }
            if held.lock.end > end {
                after.push(part(end + 1, held.lock.end));
            }
            before.push(part(held.lock.start.max(start), held.lock.end.min(end)));
        }
        self.granted = after;
        if kind != LockKind::Unlock {
            self.join(*wanted);
        }
        before
    }

    /// Adds a lock, as one with those of its owner that it touches.
    fn join(&mut self, mut new: Granted) {
        self.granted.retain(|held| {
            let touches = held.lock.end.checked_add(1) == Some(new.lock.start)
                || new.lock.end.checked_add(1) == Some(held.lock.start);
            let same = held.kind == new.kind && held.taker == new.taker && held.lock.kind == new.lock.kind;
            if touches && same {
                new.lock.start = new.lock.start.min(held.lock.start);
                new.lock.end = new.lock.end.max(held.lock.end);
            }
            !(touches && same)
        });
        self.granted.push(new);
    }

    /// The grant was never taken notice of: puts back what was there before.
    fn undo(&mut self, granted: &Granted, before: Vec<Granted>) {
        let stands = self.granted.iter().any(|held| {
            held.same_owner(granted)
                && held.lock.kind == granted.lock.kind
                && held.lock.start <= granted.lock.start
                && held.lock.end >= granted.lock.end
        });
        if stands {
            let unlock = Lock { kind: LockKind::Unlock, ..granted.lock };
            self.grant(&Granted { lock: unlock, ..*granted });
            before.into_iter().for_each(|lock| self.join(lock));
        }
    }
}

impl Granted {
    fn same_owner(&self, other: &Granted) -> bool {
        self.kind == other.kind && self.taker.owner == other.taker.owner
    }

    fn overlaps(&self, other: &Granted) -> bool {
        self.lock.start <= other.lock.end && other.lock.start <= self.lock.end
    }

    fn conflicts(&self, wanted: &Granted) -> bool {
        let exclusive = self.lock.kind == LockKind::Exclusive || wanted.lock.kind == LockKind::Exclusive;
        self.kind == wanted.kind
            && self.taker.owner != wanted.taker.owner
            && wanted.lock.kind != LockKind::Unlock
            && exclusive
            && self.overlaps(wanted)
    }
}

/// Whether those who stand before `wanted` wait, one for the other, for its owner.
fn deadlocks(files: &HashMap<Ino, File>, ino: Ino, wanted: &Granted) -> bool {
    let blockers = |ino: &Ino, wanted: &Granted| -> Vec<u64> {
        let granted = files.get(ino).map(|file| file.granted.as_slice()).unwrap_or_default();
        granted.iter().filter(|held| held.conflicts(wanted)).map(|held| held.taker.owner).collect()
    };
    let (mut seen, mut open) = (HashSet::new(), blockers(&ino, wanted));
    while let Some(owner) = open.pop() {
        if owner == wanted.taker.owner {
            return true;
        }
        if !seen.insert(owner) {
            continue;
        }
        for (ino, file) in files {
            let waits =
                |waiter: &&Waiter| waiter.wanted.kind == Kind::Fcntl && waiter.wanted.taker.owner == owner;
            for waiter in file.waiters.iter().filter(waits) {
                open.extend(blockers(ino, &waiter.wanted));
            }
        }
    }
    false
}

/// A request in the queue.
struct Waiting {
    shared: Arc<Shared>,
    ino: Ino,
    wanted: Granted,
    granted: oneshot::Receiver<Result<Vec<Granted>>>,
    over: bool,
}

impl Future for Waiting {
    type Output = Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let answer = std::task::ready!(Pin::new(&mut self.granted).poll(context));
        self.over = true;
        Poll::Ready(answer.unwrap_or(Err(Error::Interrupted)).map(|_| ()))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let shared = self.shared.clone();
        let mut files = shared.files.lock();
        self.granted.close();
        if let Some(file) = files.get_mut(&self.ino) {
            file.waiters.retain(|waiter| !waiter.answer.is_closed());
            if let Ok(Ok(before)) = self.granted.try_recv() {
                file.undo(&self.wanted, before);
            }
            shared.settle(&mut files, self.ino);
        }
    }
}

/// The inodes of `device` that carry a flock lock, from the kernel's own table: where flock is left
/// to the kernel, this is how to learn of it.
pub fn flocked(device: u64) -> std::io::Result<HashSet<Ino>> {
    let text = std::fs::read_to_string("/proc/locks")?;
    let device = format!("{:02x}:{:02x}", rustix::fs::major(device), rustix::fs::minor(device));
    Ok(text.lines().filter_map(|line| parse_flock(line, &device)).collect())
}

/// `1: FLOCK ADVISORY WRITE pid major:minor:inode start end`; those who wait have `->` second.
fn parse_flock(line: &str, device: &str) -> Option<Ino> {
    let mut fields = line.split_whitespace();
    let place = (fields.nth(1)? == "FLOCK").then(|| fields.nth(3))??;
    place.strip_prefix(device)?.strip_prefix(':')?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use LockKind::*;

    const INO: Ino = 7;

    fn lock(start: u64, end: u64, kind: LockKind) -> Lock {
        Lock { start, end, kind, pid: 1 }
    }

    fn taker(owner: u64) -> Taker {
        Taker { owner, handle: owner * 10 }
    }

    fn now(table: &LockTable, owner: u64, lock: Lock) -> Result<()> {
        match table.set(INO, taker(owner), lock, Kind::Fcntl, false) {
            Answer::Now(result) => result,
            Answer::Later(_) => panic!("had to wait"),
        }
    }

    fn later(
        table: &LockTable,
        owner: u64,
        lock: Lock,
        wait: bool,
    ) -> Pin<Box<dyn Future<Output = Result<()>> + Send>> {
        match table.set(INO, taker(owner), lock, Kind::Fcntl, wait) {
            Answer::Now(result) => panic!("did not wait: {result:?}"),
            Answer::Later(future) => future,
        }
    }

    fn ready<T>(future: &mut (impl Future<Output = T> + Unpin)) -> Option<T> {
        let mut context = Context::from_waker(std::task::Waker::noop());
        match Pin::new(future).poll(&mut context) {
            Poll::Ready(result) => Some(result),
            Poll::Pending => None,
        }
    }

    /// What `owner` holds, in order.
    fn holds(table: &LockTable, owner: u64) -> Vec<(u64, u64, LockKind)> {
        let files = table.shared.files.lock();
        let granted = files.get(&INO).map(|file| file.granted.clone()).unwrap_or_default();
        let mut list: Vec<_> = granted
            .iter()
            .filter(|held| held.taker.owner == owner)
            .map(|held| (held.lock.start, held.lock.end, held.lock.kind))
            .collect();
        list.sort_by_key(|part| part.0);
        list
    }

    #[test]
    fn ranges_split_merge_and_change() {
        let table = LockTable::new();
        now(&table, 1, lock(0, 99, Exclusive)).unwrap();
        now(&table, 1, lock(40, 59, Unlock)).unwrap();
        assert_eq!(holds(&table, 1), [(0, 39, Exclusive), (60, 99, Exclusive)]);
        now(&table, 1, lock(40, 59, Exclusive)).unwrap();
        assert_eq!(holds(&table, 1), [(0, 99, Exclusive)]);
        now(&table, 1, lock(50, u64::MAX, Shared)).unwrap();
        assert_eq!(holds(&table, 1), [(0, 49, Exclusive), (50, u64::MAX, Shared)]);
        now(&table, 1, lock(0, u64::MAX, Unlock)).unwrap();
        assert!(!table.held(INO));
        assert!(table.shared.files.lock().is_empty());
    }

    #[test]
    fn readers_share_and_writers_do_not() {
        let table = LockTable::new();
        now(&table, 1, lock(0, 9, Shared)).unwrap();
        now(&table, 2, lock(5, 14, Shared)).unwrap();
        assert!(matches!(now(&table, 2, lock(0, 9, Exclusive)), Err(Error::WouldBlock)));
        assert_eq!(table.test(INO, 2, lock(0, 9, Exclusive)), Some(lock(0, 9, Shared)));
        assert_eq!(table.test(INO, 2, lock(10, 20, Exclusive)), None);
        table.release_owner(INO, 1);
        now(&table, 2, lock(0, 9, Exclusive)).unwrap();
    }

    #[test]
    fn the_two_kinds_do_not_meet() {
        let table = LockTable::new();
        now(&table, 1, lock(0, u64::MAX, Exclusive)).unwrap();
        let flock = table.set(INO, taker(2), lock(0, u64::MAX, Exclusive), Kind::Flock, false);
        assert!(matches!(flock, Answer::Now(Ok(()))));
        table.release_owner(INO, 2);
        assert!(!holds(&table, 2).is_empty());
        table.release_flock(INO, 2);
        assert!(holds(&table, 2).is_empty());
    }

    #[test]
    fn waiters_are_served_in_order() {
        let table = LockTable::new();
        now(&table, 1, lock(0, 9, Exclusive)).unwrap();
        let mut second = later(&table, 2, lock(0, 9, Exclusive), true);
        let mut third = later(&table, 3, lock(0, 9, Shared), true);
        let mut fourth = later(&table, 4, lock(5, 9, Shared), true);
        assert!(ready(&mut second).is_none());
        table.release_owner(INO, 1);
        assert!(matches!(ready(&mut second), Some(Ok(()))));
        assert!(ready(&mut third).is_none());
        table.release_handle(INO, 20);
        assert!(matches!(ready(&mut third), Some(Ok(()))));
        assert!(matches!(ready(&mut fourth), Some(Ok(()))));
    }

    #[test]
    fn who_gives_up_holds_what_it_held() {
        let table = LockTable::new();
        now(&table, 1, lock(0, 9, Shared)).unwrap();
        now(&table, 2, lock(0, 4, Shared)).unwrap();
        // Gives up before the grant.
        drop(later(&table, 2, lock(0, 9, Exclusive), true));
        assert_eq!(holds(&table, 2), [(0, 4, Shared)]);
        // Gives up after the grant, before hearing of it.
        let upgrade = later(&table, 2, lock(0, 9, Exclusive), true);
        table.release_owner(INO, 1);
        assert_eq!(holds(&table, 2), [(0, 9, Exclusive)]);
        drop(upgrade);
        assert_eq!(holds(&table, 2), [(0, 4, Shared)]);
        now(&table, 3, lock(0, 9, Shared)).unwrap();
    }

    #[test]
    fn a_grant_to_the_dead_goes_with_the_handle() {
        let table = LockTable::new();
        now(&table, 1, lock(0, 9, Exclusive)).unwrap();
        let dead = later(&table, 2, lock(0, 9, Exclusive), true);
        table.release_owner(INO, 1);
        table.release_handle(INO, 20);
        drop(dead);
        assert!(!table.held(INO));
    }

    #[test]
    fn a_circle_is_refused() {
        let table = LockTable::new();
        now(&table, 1, lock(0, 0, Exclusive)).unwrap();
        now(&table, 2, lock(1, 1, Exclusive)).unwrap();
        now(&table, 3, lock(2, 2, Exclusive)).unwrap();
        let _first = later(&table, 1, lock(1, 1, Exclusive), true);
        let _second = later(&table, 2, lock(2, 2, Shared), true);
        match table.set(INO, taker(3), lock(0, 0, Shared), Kind::Fcntl, true) {
            Answer::Now(Err(e)) => assert_eq!(e.errno(), libc::EDEADLK),
            _ => panic!("waits for ever"),
        }
    }

    #[test]
    fn a_hold_keeps_lockers_out_and_refuses_nobody() {
        let table = LockTable::new();
        now(&table, 1, lock(0, 9, Shared)).unwrap();
        assert!(table.try_hold(&[INO, 8]).is_none());
        let mut free = Box::pin(table.until_free(&[INO, 8]));
        assert!(ready(&mut free).is_none());
        table.release_owner(INO, 1);
        assert!(ready(&mut free).is_some());
        let (hold, other) = (table.try_hold(&[INO, 8]).expect("free"), table.try_hold(&[INO]).expect("free"));
        let mut impatient = later(&table, 1, lock(0, 9, Exclusive), false);
        let mut second = later(&table, 2, lock(0, 9, Exclusive), false);
        assert!(ready(&mut impatient).is_none());
        drop(other);
        assert!(ready(&mut impatient).is_none());
        drop(hold);
        assert!(matches!(ready(&mut impatient), Some(Ok(()))));
        assert!(matches!(ready(&mut second), Some(Err(Error::WouldBlock))));
        assert!(ready(&mut Box::pin(table.until_free(&[8]))).is_some());
        assert!(ready(&mut Box::pin(table.until_free(&[8, INO]))).is_none());
    }

    #[test]
    fn a_line_of_the_kernels_table_is_taken_apart() {
        assert_eq!(parse_flock("1: FLOCK  ADVISORY  WRITE 12 00:2f:34 0 EOF", "00:2f"), Some(34));
        assert_eq!(parse_flock("1: FLOCK  ADVISORY  WRITE 12 00:2f:34 0 EOF", "00:2"), None);
        assert_eq!(parse_flock("1: POSIX  ADVISORY  WRITE 12 00:2f:34 0 EOF", "00:2f"), None);
        assert_eq!(parse_flock("1: -> FLOCK  ADVISORY  WRITE 12 00:2f:34 0 EOF", "00:2f"), None);
        assert_eq!(parse_flock("", "00:2f"), None);
    }
}
