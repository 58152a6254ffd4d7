//! What of all content this host holds: everything, or a cache of what is used here.
//!
//! Invariants: without `--cache-size` there is no cache and nothing is ever evicted; what is in use in a way that can't
//! bear a hole is counted in `in_use` as long as it is.

use super::location::location;
use super::queues::Sweep;
use crate::model::cache::Cache;
use crate::model::codec;
use crate::model::file::File;
use crate::model::ids::FileId;
use crate::model::ignore::is_ignore_file;
use crate::model::limits::AHEAD_BYTES;
use crate::model::share::Share;
use crate::store::{self, Backing, Space, Stat};
use parking_lot::Mutex;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

/// Of the disk, what is left free where nobody says otherwise: one part of so many.
const FREE_PART: u64 = 20;

pub struct Holding {
    cache: Option<Mutex<Cache>>,
    min_free: Option<u64>,
    /// Files that are open for writing, or read past us, how often.
    in_use: Mutex<HashMap<FileId, u32>>,
    /// So many bytes more than are held the last sweep that failed could not make room for; `u64::MAX`: none failed since
    /// more may go.
    refused: AtomicU64,
    /// The peer knows in this session that this host holds everything that it has thanked for.
    pub(super) told_all: AtomicBool,
    sweeps: Sender<Sweep>,
    /// One sweep at a time.
    pub(super) sweeping: Mutex<()>,
}

impl Holding {
    pub(super) fn open(
        (cache_size, min_free): (Option<u64>, Option<u64>),
        backing: &Backing,
        share: &Share,
    ) -> store::Result<(Holding, Receiver<Sweep>)> {
        let cache = cache_size.map(|limit| fill(Cache::new(limit), backing, share));
        let (sweeps, ear) = channel();
        if cache.is_some() {
            // It may be smaller than it was.
            let _ = sweeps.send(Sweep::Room(0));
        }
        let holding = Holding {
            cache: cache.transpose()?.map(Mutex::new),
            min_free,
            in_use: Mutex::default(),
            refused: AtomicU64::new(u64::MAX),
            told_all: AtomicBool::new(false),
            sweeps,
            sweeping: Mutex::new(()),
        };
        Ok((holding, ear))
    }

    pub fn is_cache(&self) -> bool {
        self.cache.is_some()
    }

    /// What `look` sees in the cache, where there is one.
    pub(super) fn cache<T>(&self, look: impl FnOnce(&mut Cache) -> T) -> Option<T> {
        self.cache.as_ref().map(|cache| look(&mut cache.lock()))
    }

    /// Whether all of a file is to be held, though nobody reads it.
    pub(super) fn wants_all(&self, file: &File) -> bool {
        file.name.as_ref().is_some_and(|name| file.pinned || self.cache.is_none() || is_ignore_file(name))
    }

    /// Whether so many bytes of a file may be brought over because the peer has changed it.
    pub(super) fn is_eager(&self, id: FileId, file: &File, bytes: u64) -> bool {
        // Who reads it past us would go on with what it was.
        self.fits(bytes) || file.pinned || self.is_in_use(id)
    }

    /// Whether so many bytes may come that nobody has asked for.
    pub(super) fn fits(&self, bytes: u64) -> bool {
        bytes <= self.eager()
    }

    /// As many bytes as may come that nobody has asked for.
    pub(super) fn eager(&self) -> u64 {
        self.cache(|cache| cache.eager()).unwrap_or(u64::MAX)
    }

    /// Bytes that may be asked for ahead of one reader: what waits to be read must not drive itself out.
    pub(super) fn ahead(&self) -> u64 {
        self.cache(|cache| cache.limit() / 8).unwrap_or(u64::MAX).min(AHEAD_BYTES)
    }

    /// How many bytes may come until a limit is reached.
    pub(super) fn room(&self, backing: &Backing) -> u64 {
        let cache = self.cache(|cache| cache.limit().saturating_sub(cache.used())).unwrap_or(u64::MAX);
        let Some((space, least)) = self.least_free(backing) else { return cache };
        cache.min(space.saturating_sub(least))
    }

    /// `chunks` of a file are used now.
    pub(super) fn used(&self, file: FileId, chunks: &Range<u64>) {
        self.cache(|cache| cache.touch(file, chunks));
    }

    /// What a file takes on the disk is this.
    pub(super) fn weigh(&self, file: FileId, stat: &Stat) {
        self.cache(|cache| cache.weigh(file, stat.blocks * 512));
    }

    /// As `weigh`, where nothing of it is left.
    pub(super) fn gone(&self, file: FileId) {
        self.cache(|cache| cache.weigh(file, 0));
    }

    /// By how many bytes limits are passed once `more` have come.
    pub(super) fn excess(&self, backing: &Backing, more: u64) -> u64 {
        let cache = self.cache(|cache| cache.excess(more)).unwrap_or(0);
        cache.max(self.shortage(backing, more))
    }

    /// By how many bytes the disk is fuller than it may get, once `more` have come.
    fn shortage(&self, backing: &Backing, more: u64) -> u64 {
        let Some((free, least)) = self.least_free(backing) else { return 0 };
        least.saturating_add(more).saturating_sub(free)
    }

    /// Bytes of the disk that are free, and that should stay so; `None` where nobody cares.
    fn least_free(&self, backing: &Backing) -> Option<(u64, u64)> {
        if self.min_free == Some(0) {
            return None;
        }
        let space = backing.space().ok()?;
        let least = self.min_free.unwrap_or(space.blocks.saturating_mul(space.block) / FREE_PART);
        Some((space.available.saturating_mul(space.block), least))
    }

    /// The disk as a program sees it that asks for free space: with a cache no more can be written than it takes, and what is
    /// used is what is held.
    pub(super) fn space(&self, disk: Space, share: &Share) -> Space {
        let Some((limit, used)) = self.cache(|cache| (cache.limit(), cache.used())) else { return disk };
        // What the peer has makes way for what is written.
        let fixed = if share.header().may_evict { share.totals().fixed_bytes } else { used };
        let makes_way = used.saturating_sub(fixed);
        let on_disk = disk.available.saturating_mul(disk.block).saturating_add(makes_way);
        let block = disk.block.max(1);
        let available = limit.saturating_sub(fixed).min(on_disk) / block;
        let (held, total) = (used / block, limit.max(used).min(on_disk.saturating_add(fixed)) / block);
        Space { blocks: total, free: total.saturating_sub(held), available, ..disk }
    }

    /// A file is opened in a way that keeps all of it here.
    pub(super) fn takes_into_use(&self, file: FileId) {
        *self.in_use.lock().entry(file).or_default() += 1;
    }

    pub(super) fn lets_go(&self, file: FileId) {
        let mut in_use = self.in_use.lock();
        if let Some(count) = in_use.get_mut(&file) {
            *count -= 1;
            if *count == 0 {
                in_use.remove(&file);
            }
        }
    }

    pub(super) fn is_in_use(&self, file: FileId) -> bool {
        self.in_use.lock().contains_key(&file)
    }

    pub(super) fn sweep(&self, sweep: Sweep) {
        // The sweeper is gone only while the daemon ends.
        let _ = self.sweeps.send(sweep);
    }

    /// Whether there is no room for `more` bytes, however much goes.
    pub(super) fn refuses(&self, more: u64) -> bool {
        more >= self.refused.load(Ordering::Relaxed)
    }

    /// A sweep for `more` bytes has made room, or could not.
    pub(super) fn swept(&self, more: u64, made: bool) {
        match made {
            false => self.refused.store(more, Ordering::Relaxed),
            true if self.refuses(more) => self.refuses_nothing(),
            true => {}
        }
    }

    /// What could not go before may go now.
    pub(super) fn refuses_nothing(&self) {
        self.refused.store(u64::MAX, Ordering::Relaxed);
    }

    /// Keeps the order for the next mount. Where that is lost, what is held counts as used long ago.
    pub(super) fn save(&self, backing: &Backing) {
        let order = self.cache(|cache| cache.oldest().collect::<Vec<_>>());
        let Some(order) = order else { return };
        if let Err(error) = backing.save_cache(&codec::encode(&order)) {
            tracing::warn!("what was used last is not known at the next mount: {error}");
        }
    }
}

/// What lies here, in the order that the last mount left.
fn fill(mut cache: Cache, backing: &Backing, share: &Share) -> store::Result<Cache> {
    for id in share.ids_in_order() {
        // Of most there may be nothing here, and nothing to be looked at.
        let file = share.file(id).filter(|f| f.name.is_some() && !f.holds_nothing());
        let Some(file) = file else { continue };
        let Some(stat) = location(id, &file).and_then(|at| backing.stat(at).ok()) else { continue };
        cache.weigh(id, stat.blocks * 512);
        if stat.blocks > 0 {
            file.held().iter().for_each(|range| cache.touch(id, range));
        }
    }
    let order: Vec<(FileId, u64)> = match backing.load_cache()? {
        Some(bytes) => codec::decode_own(&bytes).unwrap_or_default(),
        None => Vec::new(),
    };
    order.into_iter().for_each(|group| cache.touch_group(group));
    Ok(cache)
}
