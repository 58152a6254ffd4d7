//! Changing content: write, truncate, fallocate, copy.
//!
//! Invariants:
//! - what changes is journaled before it changes, so a crash between the two costs a chunk sent in vain,
//!   never a change unsent; but that a chunk is here which was not is journaled when its bytes are;
//! - only chunks whose bytes differ become dirty;
//! - the first write to a clean file the peer knows waits until its record is durable: after power loss
//!   the files that may differ from what the peer has are known.

use super::host::Host;
use super::node::{Data, Node};
use crate::fs::error::Error;
use crate::fs::volume::Result;
use crate::model::chunk::{self, ChunkSet};
use crate::model::file;
use crate::model::ids::FileId;
use crate::model::limits::{CHUNK, FILE_BYTES};
use crate::model::record::Record;
use crate::model::sabotage::{Bug, planted};
use crate::store::{self, Content};
use std::cell::RefCell;
use std::ops::Range;

thread_local! {
    /// Old bytes to compare with; kept, so that a write allocates nothing.
    static OLD: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// What a change is about to meet.
struct Before {
    size: u64,
    /// Touched chunks that are held and not yet marked since the last cut.
    settled: Vec<Range<u64>>,
    missing: Vec<Range<u64>>,
    fresh: bool,
    /// The peer knows the file.
    told: bool,
    /// The peer has exactly this: the change must be known after power loss.
    clean: bool,
}

impl Before {
    fn look(file: &file::File, chunks: &Range<u64>) -> Before {
        let missing = file.missing.within(chunks);
        let unmarked = file.dirty.unchanged_since(file.body_cut, chunks);
        let mut settled: ChunkSet = unmarked.into_iter().collect();
        missing.iter().for_each(|r| settled.remove(r.clone()));
        Before {
            size: file.size,
            settled: settled.iter().collect(),
            missing,
            fresh: file.body_is_fresh(),
            told: !file.is_untold(),
            clean: file.body_tag == 0 && !file.is_untold(),
        }
    }
}

impl Before {
    /// Of the chunks that were missing, those that `bytes` cover, and the bytes of the others.
    fn came(&self, bytes: &Range<u64>) -> (ChunkSet, ChunkSet) {
        let (mut chunks, mut scraps) = (ChunkSet::new(), ChunkSet::new());
        let touched = chunk::touched(bytes.start, bytes.end.saturating_sub(bytes.start));
        for n in self.missing.iter().flat_map(|r| r.start.max(touched.start)..r.end.min(touched.end)) {
            let whole = chunk::bytes(&(n..n + 1), self.size.max(bytes.end));
            match bytes.start <= whole.start && bytes.end >= whole.end {
                true => chunks.insert(n..n + 1),
                false => scraps.insert(bytes.start.max(whole.start)..bytes.end.min(whole.end)),
            }
        }
        (chunks, scraps)
    }
}

impl Host {
    /// What lies here of a file that power loss left uncertain counts. Who changes it before the peer could
    /// be asked makes a version `apart`: what the peer has is kept beside it.
    pub(super) fn adopt_content(&self, node: &Node, data: &mut Data, apart: bool) -> Result<()> {
        match self.share.lock().file(node.id) {
            Some(f) if f.unsettled && f.is_whole() => {}
            // Nothing here to take: what the peer has comes first.
            Some(f) if f.unsettled => return Err(Error::NotHere),
            _ => return Ok(()),
        }
        let file = self.data_file(node, data, false)?;
        let record = Record::Adopted { file: node.id, size: file.len()?, apart };
        self.commit(&mut self.share.lock(), record)?;
        self.changed(node, false);
        Ok(())
    }

    /// What a change of content builds upon: the model knows the size, and what lies here counts.
    fn ready_for_change(&self, node: &Node, data: &mut Data, file: &Content) -> Result<()> {
        if data.orphan.is_some() {
            return Ok(());
        }
        self.be_sure(node, file)?;
        self.adopt_content(node, data, true)
    }

    /// Writes `bytes` at `offset`, or at the end of the file for `append`. `data` is `node`'s.
    pub(super) fn write_at(
        &self,
        node: &Node,
        data: &mut Data,
        file: &Content,
        offset: Option<u64>,
        bytes: &[u8],
        from_mapping: bool,
    ) -> Result<u32> {
        if bytes.is_empty() {
            // Not even past the end does writing nothing change anything.
            return Ok(0);
        }
        self.ready_for_change(node, data, file)?;
        let (offset, before) = {
            let share = self.share.lock();
            match node.file(data, &share) {
                Some(f) => {
                    let offset = offset.unwrap_or(f.size);
                    (offset, Some(Before::look(&f, &chunk::touched(offset, bytes.len() as u64))))
                }
                None => (offset.map_or_else(|| file.len(), Ok)?, None),
            }
        };
        let end =
            offset.checked_add(bytes.len() as u64).filter(|e| *e <= FILE_BYTES).ok_or(Error::TooLarge)?;
        let touched = chunk::touched(offset, bytes.len() as u64);
        let Some(before) = before else {
            // Unlinked: nobody but its holders will ever see it.
            self.save_frozen(data, &touched);
            file.write_all_at(bytes, offset)?;
            return Ok(bytes.len() as u32);
        };
        if from_mapping && !data.shadows.is_empty() {
            return self.write_back_mapped(node, data, file, offset, bytes);
        }
        let changed = differences(file, &before, offset, bytes)?;
        self.save_before(node, data, file, &changed);
        // Beyond the old end are zeros, which count as held, before these bytes are there: that they are others is to be
        // known before.
        self.note_come(node, &before, before.size.max(offset)..before.size.max(end))
            .and_then(|()| self.note(node, &before, changed, before.size.max(end)))
            .inspect_err(|_| drop(self.resettle(node, file)))?;
        self.save_frozen(data, &touched);
        // What was stored unseen until now must not hide behind this write's time.
        self.look_behind(node, data, file)?;
        let (mut written, mut done) = file.write_most_at(bytes, offset);
        if done.as_ref().is_err_and(is_full) && self.trash.give_way(&self.backing) {
            let (more, again) = file.write_most_at(&bytes[written..], offset + written as u64);
            (written, done) = (written + more, again);
        }
        let noted = self.note_come(node, &before, offset..offset + written as u64);
        if done.is_err() || noted.is_err() {
            // Where the journal is full as well, whoever needs the size next brings it into line.
            let _ = self.resettle(node, file);
        }
        noted?;
        if let Err(e) = done {
            // As write(2) does: what there was room for counts.
            if written == 0 {
                return Err(e.into());
            }
        }
        if data.unseen.is_some() {
            data.unseen = Some(file.stat()?.mtime);
        }
        Ok(written as u32)
    }

    /// Stores into a mapping beside passthrough readers go to the backing file unseen: where its time moved
    /// without a write of ours, any of it may have changed.
    pub(super) fn look_behind(&self, node: &Node, data: &mut Data, file: &Content) -> Result<()> {
        let Some(known) = data.unseen else { return Ok(()) };
        let now = file.stat()?.mtime;
        if now == known {
            return Ok(());
        }
        (data.unseen, data.dirty_pages) = (Some(now), true);
        self.note_all(node, data)
    }

    /// As `look_behind`, for all stores up to now: one into a page that is dirty already moves no time, so the pages are
    /// written back first, and what was stored since they were last looked at counts whatever the time says.
    pub(super) fn look_at_stores(&self, node: &Node, data: &mut Data, file: &Content) -> Result<()> {
        if data.unseen.is_none() {
            return Ok(());
        }
        self.backing.sync_file(file)?;
        let again = std::mem::take(&mut data.dirty_pages);
        let now = file.stat()?.mtime;
        if data.unseen.replace(now) != Some(now) || again {
            return self.note_all(node, data);
        }
        Ok(())
    }

    fn note_all(&self, node: &Node, data: &Data) -> Result<()> {
        let before = {
            let share = self.share.lock();
            let Some(f) = node.file(data, &share) else { return Ok(()) };
            Before::look(&f, &(0..chunk::count(f.size)))
        };
        self.note(node, &before, ChunkSet::of(0..chunk::count(before.size)), before.size)
    }

    /// Pages from a mapping, some of whose chunks a peer's cut has replaced since the mapping last saw
    /// them: those that still read as before the cut are nobody's change and are left out.
    fn write_back_mapped(
        &self,
        node: &Node,
        data: &mut Data,
        file: &Content,
        offset: u64,
        bytes: &[u8],
    ) -> Result<u32> {
        let end = offset + bytes.len() as u64;
        let shadows = std::mem::take(&mut data.shadows);
        let mut result = Ok(());
        for n in chunk::touched(offset, bytes.len() as u64) {
            let part = (n * CHUNK).max(offset)..((n + 1) * CHUNK).min(end);
            let new = &bytes[(part.start - offset) as usize..(part.end - offset) as usize];
            let stale = shadows.get(&n).is_some_and(|old| {
                let from = (part.start - n * CHUNK) as usize;
                old.get(from..from + new.len()).is_some_and(|old| old == new)
            });
            if !stale {
                result = result.and(self.write_at(node, data, file, Some(part.start), new, false).map(drop));
            }
        }
        data.shadows = shadows;
        result.map(|()| bytes.len() as u32)
    }

    /// Journals that `bytes` were written into chunks that were not here: whole ones are now, of the others it is known
    /// which bytes count when the rest comes.
    fn note_come(&self, node: &Node, before: &Before, bytes: Range<u64>) -> Result<()> {
        let (chunks, scraps) = before.came(&bytes);
        let (file, size) = (node.id, before.size.max(bytes.end));
        if scraps.is_empty() && chunks.is_empty() {
            return Ok(());
        }
        let mut share = self.share.lock();
        if !scraps.is_empty() {
            self.commit(&mut share, Record::Scrapped { file, bytes: scraps, size })?;
        }
        if !chunks.is_empty() {
            self.commit(&mut share, Record::Wrote { file, chunks, size })?;
        }
        Ok(())
    }

    /// Journals a change of what is here that is about to happen.
    fn note(&self, node: &Node, before: &Before, changed: ChunkSet, size: u64) -> Result<()> {
        let file = node.id;
        let mut lsn = None;
        {
            let mut share = self.share.lock();
            if !changed.is_empty() || size != before.size {
                lsn = Some(self.commit(&mut share, Record::Wrote { file, chunks: changed, size })?);
            } else if !before.fresh {
                lsn = Some(self.commit(&mut share, Record::Touched { file, attrs: false })?);
            }
        }
        self.changed(node, before.fresh);
        match lsn {
            Some(lsn) if before.clean && !planted(Bug::WriteBeforeSync) => Ok(self.journal.sync(lsn)?),
            _ => Ok(()),
        }
    }

    /// The file has become fresh, if it was not: a cut is due within a second.
    pub(super) fn changed(&self, node: &Node, was_fresh: bool) {
        if !was_fresh {
            self.fresh(node.id);
        }
    }

    /// Sets the size of a file.
    pub(super) fn resize(&self, node: &Node, data: &mut Data, file: &Content, size: u64) -> Result<()> {
        if size > FILE_BYTES {
            return Err(Error::TooLarge);
        }
        self.ready_for_change(node, data, file)?;
        self.save_cut_off(node, data, file, size);
        let before = {
            let mut share = self.share.lock();
            let before = node.file(data, &share).map(|f| Before::look(&f, &(0..0)));
            match before {
                Some(before) => {
                    let lsn = if before.size != size {
                        self.commit(&mut share, Record::Resized { file: node.id, size })?
                    } else {
                        self.commit(&mut share, Record::Touched { file: node.id, attrs: false })?
                    };
                    Some((before, lsn))
                }
                None => None,
            }
        };
        let cuts_off = before.as_ref().is_some_and(|(before, _)| before.told && size < before.size);
        let named = before.is_some();
        if let Some((before, lsn)) = before {
            self.changed(node, before.fresh);
            if before.clean || cuts_off {
                self.journal.sync(lsn)?;
            }
            self.save_frozen(data, &(size / CHUNK..chunk::count(before.size).max(size / CHUNK)));
        } else {
            self.save_frozen(data, &(0..u64::MAX / CHUNK));
        }
        if let Err(e) = file.set_len(size) {
            if named {
                self.resettle(node, file)?;
            }
            return Err(e.into());
        }
        if cuts_off {
            // What was cut off must not come back with the power, beneath what is written after this: whether it is
            // old or new, nobody could tell. Of a file that only this host has it is all the same.
            self.backing.sync_file(file)?;
        }
        Ok(())
    }

    /// fallocate(2): `change` does it on the backing file.
    pub(super) fn change_range(
        &self,
        node: &Node,
        data: &mut Data,
        file: &Content,
        range: Range<u64>,
        mode: i32,
    ) -> Result<()> {
        let keep = mode & libc::FALLOC_FL_KEEP_SIZE != 0;
        let shifts = mode & (libc::FALLOC_FL_COLLAPSE_RANGE | libc::FALLOC_FL_INSERT_RANGE) != 0;
        let zeroes = mode & (libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_ZERO_RANGE) != 0;
        if range.end > FILE_BYTES {
            return Err(Error::TooLarge);
        }
        self.ready_for_change(node, data, file)?;
        let look = {
            let share = self.share.lock();
            node.file(data, &share).map(|f| {
                let end =
                    if shifts { u64::MAX } else { chunk::touched(range.start, range.end - range.start).end };
                Before::look(
                    &f,
                    &(range.start / CHUNK..end.min(chunk::count(f.size)).max(range.start / CHUNK)),
                )
            })
        };
        if let Some(before) = &look {
            if shifts && !before.missing.is_empty() {
                return Err(Error::NotSupported);
            }
            let size = if keep || shifts { before.size } else { before.size.max(range.end) };
            let inside = range.start..range.end.min(size);
            let changed = match (zeroes, shifts) {
                (true, _) => chunk::touched(inside.start, inside.end.saturating_sub(inside.start)),
                (false, true) => range.start / CHUNK..chunk::count(size),
                (false, false) => 0..0,
            };
            let mut changed = ChunkSet::of(changed);
            before.missing.iter().for_each(|missing| changed.remove(missing.clone()));
            self.save_before(node, data, file, &changed);
            self.note(node, before, changed, size)?;
        }
        self.save_frozen(data, &(range.start / CHUNK..u64::MAX / CHUNK));
        let done = file.allocate(mode as u32, range.start, range.end - range.start);
        if let Some(before) = look.as_ref().filter(|_| zeroes && done.is_ok()) {
            let size = if keep { before.size } else { before.size.max(range.end) };
            self.note_come(node, before, range.start..range.end.min(size).max(range.start))?;
        }
        if look.is_some() && (done.is_err() || shifts) {
            self.resettle(node, file)?;
        }
        if shifts && done.is_ok() {
            let mut share = self.share.lock();
            if let Some(size) = node.file(data, &share).map(|f| f.size) {
                let chunks = ChunkSet::of(range.start / CHUNK..chunk::count(size));
                self.commit(&mut share, Record::Wrote { file: node.id, chunks, size })?;
            }
        }
        Ok(done?)
    }

    /// After a change that failed half-way: the size in the model is the file's again. Where the journal
    /// can't take that either, whoever needs the size next tries again.
    fn resettle(&self, node: &Node, file: &Content) -> Result<()> {
        self.unsure.lock().insert(node.id);
        self.be_sure(node, file)
    }

    /// Sees to it that the size in the model is the file's.
    pub(super) fn be_sure(&self, node: &Node, file: &Content) -> Result<()> {
        if !self.unsure.lock().contains(&node.id) {
            return Ok(());
        }
        let size = file.len()?;
        let mut share = self.share.lock();
        if share.file(node.id).is_some_and(|f| f.size != size) {
            self.commit(&mut share, Record::Resized { file: node.id, size })?;
        }
        drop(share);
        self.unsure.lock().remove(&node.id);
        Ok(())
    }

    /// As [`Host::be_sure`], of all files: as far as that can be had.
    pub(super) fn be_sure_of_all(&self) {
        let unsure: Vec<FileId> = self.unsure.lock().iter().copied().collect();
        for id in unsure {
            let Some(node) = self.node(id) else {
                self.unsure.lock().remove(&id);
                continue;
            };
            let mut data = node.data.lock();
            let sure = self.data_file(&node, &mut data, false).and_then(|file| self.be_sure(&node, &file));
            if let Err(error) = sure {
                tracing::warn!("the size of a file is not yet what it has on the disk: {error}");
            }
        }
    }

    /// Copies aside what a frozen cut still needs of `chunks`; where that can't be done the cut is
    /// given up, and the peer gets a later one.
    pub(super) fn save_frozen(&self, data: &mut Data, chunks: &Range<u64>) {
        let Some(frozen) = data.frozen.as_mut().filter(|_| !planted(Bug::ForgetAside)) else { return };
        if let Err(error) = frozen.save(chunks, &self.backing, &self.budget) {
            tracing::info!("a large cut is given up and will be taken anew: {error}");
            if let Some(frozen) = data.frozen.take() {
                frozen.thaw(&self.budget);
            }
        }
    }

    /// Records an attribute change that is about to happen.
    pub(super) fn touch(&self, node: &Node, data: &mut Data) -> Result<()> {
        if data.orphan.is_some() {
            return Ok(());
        }
        self.adopt_content(node, data, true)?;
        let mut lsn = None;
        let fresh = {
            let mut share = self.share.lock();
            let Some(f) = share.file(node.id).filter(|f| f.name.is_some()) else { return Ok(()) };
            let (before, untold) = (Before::look(&f, &(0..0)), f.attrs_tag <= f.body_cut);
            drop(f);
            if !before.fresh || untold {
                let record = self.commit(&mut share, Record::Touched { file: node.id, attrs: true })?;
                lsn = before.clean.then_some(record);
            }
            before.fresh
        };
        self.changed(node, fresh);
        match lsn {
            Some(lsn) => Ok(self.journal.sync(lsn)?),
            None => Ok(()),
        }
    }
}

fn is_full(error: &std::io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOSPC | libc::EDQUOT))
}

/// The chunks that are held, or new, and will differ once `bytes` are at `offset`.
fn differences(file: &Content, before: &Before, offset: u64, bytes: &[u8]) -> store::Result<ChunkSet> {
    let end = offset + bytes.len() as u64;
    let mut changed = ChunkSet::new();
    for range in &before.settled {
        let part = (range.start * CHUNK).max(offset)..(range.end * CHUNK).min(end);
        if part.end > before.size {
            changed.insert((part.start.max(before.size) / CHUNK).max(range.start)..range.end);
        }
        let old = part.start..part.end.min(before.size);
        if old.start >= old.end {
            continue;
        }
        OLD.with_borrow_mut(|buffer| {
            let len = (old.end - old.start) as usize;
            buffer.resize(len.max(buffer.len()), 0);
            let buffer = &mut buffer[..len];
            let read = file.read_full_at(buffer, old.start).map_err(|source| store::Error::Io {
                what: "reading what is about to change".into(),
                source,
            })?;
            let new = &bytes[(old.start - offset) as usize..(old.end - offset) as usize];
            if read == len && buffer[..] == *new {
                return Ok(());
            }
            for n in chunk::touched(old.start, len as u64) {
                let from = ((n * CHUNK).max(old.start) - old.start) as usize;
                let to = (((n + 1) * CHUNK).min(old.end) - old.start) as usize;
                if to > read || buffer[from..to] != new[from..to] {
                    changed.insert(n..n + 1);
                }
            }
            Ok::<(), store::Error>(())
        })?;
    }
    Ok(changed)
}
