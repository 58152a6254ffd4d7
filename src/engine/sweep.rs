//! Making room in the cache: what was used longest ago goes, as long as the peer has it.
//!
//! Invariants: a file that has a hole lies in `.syncfs/partial`, and it is durable that it does, and that nothing is held
//! there, before the hole is punched; what only this host has, what is pinned and what is in use in a way that can't bear
//! a hole stays.

use super::host::Host;
use super::location::location;
use super::node::{Held, Locked};
use super::queues::{self, Sweep, Turn};
use super::worker::Worker;
use crate::model::cache;
use crate::model::chunk::{self, ChunkSet};
use crate::model::file::File;
use crate::model::ids::FileId;
use crate::model::limits::CHUNK;
use crate::model::record::Record;
use crate::model::sabotage::{Bug, planted};
use crate::store::{self, At, Content, Time};
use rustix::fs::RenameFlags;
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

/// Groups that go at once, at most.
const BATCH: usize = 1024;

/// Bytes in a block of any usual file system: a hole takes whole ones only.
const BLOCK: u64 = 4096;

pub(super) struct Sweeper(pub Receiver<Sweep>);

impl Worker for Sweeper {
    /// One sweep for all that has asked meanwhile.
    fn turn(&mut self, host: &Arc<Host>, wait: bool) -> Turn {
        let first = match queues::next(&self.0, wait, None) {
            Ok(Some(first)) => first,
            Ok(None) => return Turn::Idle,
            Err(over) => return over,
        };
        let mut room = 0;
        for sweep in std::iter::once(first).chain(self.0.try_iter()) {
            match sweep {
                Sweep::Room(bytes) => room = room.max(bytes),
                Sweep::Stop => return Turn::Over,
            }
        }
        host.make_room(room);
        // Who waits for room asks for its content now, or hears that there is none.
        host.fetch.arrived.notify_waiters();
        host.pump();
        Turn::Worked
    }
}

impl Host {
    /// Makes room for `more` bytes and some beyond; false where that can't be.
    pub(super) fn make_room(&self, more: u64) -> bool {
        let _sweeping = self.holding.sweeping.lock();
        let slack = self.holding.cache(|cache| cache.slack()).unwrap_or(0);
        loop {
            let over = self.holding.excess(&self.backing, more.saturating_add(slack));
            if over == 0 {
                break;
            }
            let mut going = self.least_used(over);
            if going.is_empty() {
                self.recount();
                going = self.least_used(over);
            }
            match self.evict(going) {
                Ok(0) => break,
                Ok(_) => {}
                Err(error) => {
                    tracing::error!("the cache can't be made smaller: {error}");
                    break;
                }
            }
        }
        let made = self.holding.excess(&self.backing, more) == 0;
        self.holding.swept(more, made);
        made
    }

    /// Files that came past the cache are counted, too, as used before all others.
    fn recount(&self) {
        let share = self.share.lock();
        self.holding.cache(|cache| {
            for id in share.ids_in_order() {
                let Some(file) = share.file(id).filter(|f| f.name.is_some()) else { continue };
                let stat = location(id, &file).and_then(|at| self.backing.stat(at).ok());
                cache.weigh(id, stat.map_or(0, |stat| stat.blocks * 512));
                file.held().iter().for_each(|range| cache.admit(id, range));
            }
            cache.forget_all_but(|id| share.file(id).is_some_and(|f| f.name.is_some()));
        });
    }

    /// What was used longest ago and may go, about so many bytes of it.
    fn least_used(&self, bytes: u64) -> BTreeMap<FileId, ChunkSet> {
        let share = self.share.lock();
        let (mut going, mut sum, mut stale) = (BTreeMap::<FileId, ChunkSet>::new(), 0, Vec::new());
        if !share.header().may_evict && !planted(Bug::EvictUnheld) {
            return going;
        }
        self.holding.cache(|cache| {
            let mut count = 0;
            for (id, group) in cache.oldest() {
                if sum >= bytes || count == BATCH {
                    break;
                }
                let Some(file) = share.file(id).filter(|f| f.name.is_some()) else {
                    stale.push((id, group));
                    continue;
                };
                let chunks = cache::chunks_of(group, file.size);
                if file.missing.gaps(&chunks).is_empty() {
                    stale.push((id, group));
                } else if !self.holding.is_in_use(id) {
                    for range in file.can_go(&chunks) {
                        sum += (range.end - range.start) * CHUNK;
                        going.entry(id).or_default().insert(range);
                        count += 1;
                    }
                }
            }
            stale.into_iter().for_each(|group| cache.drop_group(group));
        });
        going
    }

    /// These chunks are held no more, as far as they can go still. Returns how many bytes of the disk that made free.
    pub(super) fn evict(&self, going: BTreeMap<FileId, ChunkSet>) -> store::Result<u64> {
        let names = self.names.write();
        let nodes: Vec<Held> = going.keys().filter_map(|id| self.node(*id)).collect();
        let mut locked = Locked::all(&nodes);
        let mut files: BTreeMap<FileId, (Content, ChunkSet)> = BTreeMap::new();
        let mut shown = Vec::new();
        for (node, data) in locked.iter_mut() {
            if data.frozen.is_some() || self.holding.is_in_use(node.id) {
                continue;
            }
            let Ok(content) = self.data_file(node, data, true) else { continue };
            let share = self.share.lock();
            let Some(file) = node.file(data, &share) else { continue };
            let chunks: ChunkSet = going[&node.id].iter().flat_map(|range| file.can_go(&range)).collect();
            if !chunks.is_empty() {
                shown.extend((!file.partial).then_some(node.id));
                files.insert(node.id, (content, chunks));
            }
        }
        if files.is_empty() {
            return Ok(0);
        }
        self.withdraw(&shown)?;
        drop(names);
        if !shown.is_empty() {
            self.backing.sync_names()?;
        }
        if !planted(Bug::PunchUnrecorded) {
            self.record_evicted(&files)?;
        }
        let mut freed = 0;
        for (id, (content, chunks)) in &files {
            freed += self.punch(*id, content, chunks)?;
        }
        if planted(Bug::PunchUnrecorded) {
            self.record_evicted(&files)?;
        }
        drop(locked);
        // That nothing of a group is held the next sweep will see.
        nodes
            .iter()
            .filter(|node| files.contains_key(&node.id))
            .for_each(|n| self.kernel.inval_attributes(n.ino));
        self.moved();
        Ok(freed)
    }

    /// Moves files that lie under their names, all of them, to `.syncfs/partial`. Called with `names` written and their data
    /// locked; durable once names are synced.
    pub(super) fn withdraw(&self, files: &[FileId]) -> store::Result<()> {
        if files.is_empty() {
            return Ok(());
        }
        let mut moves = Vec::new();
        {
            let mut share = self.share.lock();
            for &file in files {
                let Some(name) = share.file(file).filter(|f| !f.partial).and_then(|f| f.name.clone()) else {
                    continue;
                };
                self.commit(&mut share, Record::Withdrawn { file })?;
                moves.push((file, name));
            }
        }
        // A file that is nowhere to be seen was removed by hand, as far as the next mount can tell.
        self.journal.sync(self.journal.end())?;
        for (file, name) in moves {
            if let Err(error) = self.backing.rename(At::Name(&name), At::Partial(file), RenameFlags::empty())
            {
                self.commit(&mut self.share.lock(), Record::Published { file })?;
                return Err(error);
            }
        }
        Ok(())
    }

    fn record_evicted(&self, files: &BTreeMap<FileId, (Content, ChunkSet)>) -> store::Result<()> {
        let mut share = self.share.lock();
        for (&file, (_, chunks)) in files {
            self.commit(&mut share, Record::Evicted { file, chunks: chunks.clone() })?;
        }
        drop(share);
        self.journal.sync(self.journal.end())
    }

    /// Gives the room of `chunks` back to the disk; returns how much that was.
    fn punch(&self, id: FileId, content: &Content, chunks: &ChunkSet) -> store::Result<u64> {
        let wrap = |source| store::Error::Io { what: format!("making room in {id}"), source };
        let before = content.stat().map_err(wrap)?;
        let (size, mtime, holes): (u64, Time, Vec<Range<u64>>) = {
            let share = self.share.lock();
            let Some(f) = share.file(id) else { return Ok(0) };
            let mtime = f.mtime.map_or(before.mtime, Time::from_nanoseconds);
            (f.size, mtime, chunks.iter().map(|range| hole(&f, &range)).collect())
        };
        let mode = (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE) as u32;
        for hole in holes.into_iter().filter(|hole| hole.start < hole.end.min(size)) {
            content.allocate(mode, hole.start, hole.end - hole.start).map_err(wrap)?;
        }
        // Nobody has modified it for that.
        content.set_times(None, Some(mtime)).map_err(wrap)?;
        let after = content.stat().map_err(wrap)?;
        self.holding.weigh(id, &after);
        Ok(before.blocks.saturating_sub(after.blocks) * 512)
    }
}

/// The bytes of `chunks`, and around them the rest of the blocks that they share with chunks which are not held either.
fn hole(file: &File, chunks: &Range<u64>) -> Range<u64> {
    let bytes = chunk::bytes(chunks, file.size);
    let lacks = |bytes: Range<u64>| {
        let chunks = chunk::touched(bytes.start, bytes.end.saturating_sub(bytes.start));
        file.missing.gaps(&chunks).is_empty()
    };
    let start = bytes.start / BLOCK * BLOCK;
    let end = bytes.end.next_multiple_of(BLOCK);
    let start = if lacks(start..bytes.start) { start } else { bytes.start };
    // Behind its end a file has nothing.
    let end = if bytes.end == file.size || lacks(bytes.end..end.min(file.size)) { end } else { bytes.end };
    start..end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hole_takes_the_blocks_whose_other_chunks_are_missing_too() {
        let mut file = File { size: 20_000, ..File::default() };
        file.missing.insert(4..8);
        assert_eq!(hole(&file, &(4..8)), 4_000..8_000);
        file.missing.insert(0..4);
        assert_eq!(hole(&file, &(4..8)), 0..8_000);
        file.missing.insert(8..9);
        assert_eq!(hole(&file, &(4..8)), 0..8_192);
        file.missing.insert(16..20);
        assert_eq!(hole(&file, &(16..20)), 16_000..20_480);
    }
}
