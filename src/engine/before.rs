//! What the peer acknowledged last, as it was, where it does not hold all of that itself: chunks that are about to change
//! here, and files that were unlinked. It may be changing the rest of them, and then both versions must be whole.
//!
//! Invariants: an image is written before the chunk changes, and recorded after that; it goes when the peer acknowledges a
//! later version; that there is no room for one is no reason to refuse a change. After power loss there are none.

use super::host::Host;
use super::kept::{Acknowledged, Buried};
use super::node::{Data, Node};
use super::pending::Pending;
use super::pieces::copy_chunks;
use crate::model::chunk::{self, ChunkSet};
use crate::model::cut::{BodyCut, FileCut, Piece};
use crate::model::file::File;
use crate::model::ids::{FileId, Seq};
use crate::model::judge::Verdict;
use crate::model::limits::CHUNK;
use crate::model::record::Record;
use crate::model::sabotage::{Bug, planted};
use crate::model::share::Share;
use crate::store::{self, At, Content};
use rustix::fs::RenameFlags;
use std::borrow::Cow;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Bytes of a file that are copied before it is cut off, or after it was unlinked while in use; nobody waits for more.
const COPIED_BYTES: u64 = 64 << 20;

/// What the peer lacks of its version `body` of a file, and can be had from what was kept here.
pub(super) fn restorable(share: &Share, file: FileId, body: &BodyCut) -> ChunkSet {
    let since = share.ours_in(&body.version);
    share
        .file(file)
        .map(|f| f.before.since(since).flat_map(|r| body.lacks.within(&r)).collect())
        .unwrap_or_default()
}

/// What `verdict` over a file of a cut takes that has not come yet, and can't be had from what was kept here.
pub(super) fn yet_to_come(share: &Share, pending: &Pending, cut: &FileCut, verdict: &Verdict) -> ChunkSet {
    let unsettled = share.file(cut.file).is_some_and(|f| f.name.is_some() && f.unsettled);
    let mut lacks = pending.lacks(cut.file, &verdict.body, unsettled);
    cut.body.iter().for_each(|body| lacks.subtract(&restorable(share, cut.file, body)));
    lacks
}

/// Of a file that is about to be unlinked, what is here as the peer knows it, or kept so.
pub(super) fn as_acknowledged(file: &File) -> Acknowledged {
    let all = 0..chunk::count(file.size.min(file.base_size));
    let mut changed: ChunkSet = file.dirty.since(0).collect();
    file.before.since(0).for_each(|range| changed.remove(range));
    let mut chunks: ChunkSet = file.missing.gaps(&all).into_iter().collect();
    chunks.subtract(&changed);
    Acknowledged { chunks, base: file.base.clone() }
}

impl Host {
    /// Keeps what of `chunks`, which are about to change, the peer may ask for as it is now.
    pub(super) fn save_before(&self, node: &Node, data: &Data, file: &Content, chunks: &ChunkSet) {
        if chunks.is_empty() {
            return;
        }
        let (old, size) = {
            let share = self.share.lock();
            if !share.header().peer_holds_less || planted(Bug::ForgetBefore) {
                return;
            }
            let known = |f: &Cow<File>| !f.base.is_empty() && !f.unsettled;
            let Some(f) = node.file(data, &share).filter(known) else { return };
            let end = chunk::count(f.size.min(f.base_size));
            let inside = chunks.iter().map(|r| r.start..r.end.min(end).max(r.start));
            let clean = inside.flat_map(|r| f.dirty.unchanged_since(0, &r)).flat_map(|r| f.missing.gaps(&r));
            let old: ChunkSet = clean.flat_map(|r| f.before.unchanged_since(0, &r)).collect();
            (old, f.size)
        };
        if old.is_empty() {
            return;
        }
        if let Err(error) = self.write_before(node.id, file, &old, size) {
            self.not_kept(node.id, &error);
        }
    }

    fn not_kept(&self, id: FileId, error: &store::Error) {
        self.before.given_up.fetch_add(1, Ordering::Relaxed);
        tracing::warn!("if the peer is changing {id} as well, its version may not be whole: {error}");
    }

    /// As `save_before`, of a file that is cut off to `to` bytes.
    pub(super) fn save_cut_off(&self, node: &Node, data: &Data, file: &Content, to: u64) {
        let (size, keeps) = {
            let share = self.share.lock();
            (share.file(node.id).map_or(0, |f| f.size), share.header().peer_holds_less)
        };
        if size > to.saturating_add(COPIED_BYTES) {
            self.before.given_up.fetch_add(u64::from(keeps), Ordering::Relaxed);
        } else if size > to {
            self.save_before(node, data, file, &ChunkSet::of(to / CHUNK..chunk::count(size)));
        }
    }

    fn write_before(&self, id: FileId, file: &Content, chunks: &ChunkSet, size: u64) -> store::Result<()> {
        let wrap =
            |source| store::Error::Io { what: format!("keeping what the peer may ask for of {id}"), source };
        let (known, bytes) = (self.before.has(id), chunks.len() * CHUNK);
        if !self.before.claim(id, bytes) {
            return Err(wrap(std::io::Error::from_raw_os_error(libc::ENOSPC)));
        }
        let write = || {
            let kept = match known {
                true => self.backing.open_file(At::Before(id), true)?,
                false => self.backing.create_afresh(At::Before(id), 0o600)?,
            };
            copy_chunks(file, &kept, chunks, size).map_err(wrap)
        };
        write().inspect_err(|_| self.before.give_back(id, bytes))?;
        let record = Record::KeptBefore { file: id, chunks: chunks.clone() };
        self.commit(&mut self.share.lock(), record).map(drop)
    }

    /// Keeps a file that was unlinked, or lets it go. What the disk refuses is no reason to announce nothing.
    pub(super) fn tidy_grave(&self, buried: &Buried) {
        let Buried { file, grave, .. } = buried;
        let kept = self.keep_unlinked(buried).unwrap_or_else(|error| {
            self.not_kept(*file, &error);
            false
        });
        if !kept && let Err(error) = self.backing.unlink_if_there(At::Staging(grave)) {
            tracing::warn!(
                "{file}, which was unlinked, lies in .syncfs/staging until the next mount: {error}"
            );
        }
    }

    /// Keeps a file that was unlinked, and lies in its grave, until the peer has acknowledged that. False where the grave is of
    /// no use: there is no need, or no way, or what it held was copied.
    fn keep_unlinked(&self, buried: &Buried) -> store::Result<bool> {
        let Buried { grave, file: id, known } = buried;
        let id = *id;
        // A reader, or a cut of which the peer is fetching the rest, goes on with what was unlinked as it is.
        let in_use = self.nodes.find(id).is_some();
        let Some(node) = self.node(id) else { return Ok(false) };
        // What the peer tells of it waits, and so does whoever drops what is kept.
        let _data = node.data.lock();
        let images: ChunkSet = {
            let share = self.share.lock();
            let wanted = |f: &Cow<File>| {
                let is_known = f.base == known.base && !f.base.is_empty() && !f.unsettled;
                f.name.is_none() && f.place_tag != 0 && is_known
            };
            if !share.header().peer_holds_less || planted(Bug::ForgetBefore) {
                return Ok(false);
            }
            let Some(f) = share.file(id).filter(wanted) else { return Ok(false) };
            f.before.since(0).collect()
        };
        // Whoever writes to it still changes what is kept.
        if known.chunks.is_empty() || self.is_written(id) {
            return Ok(false);
        }
        let copies = in_use && !images.is_empty();
        let mut more = known.chunks.clone();
        more.subtract(&images);
        let bytes = more.len() * CHUNK;
        if (copies && bytes > COPIED_BYTES) || !self.before.claim(id, bytes) {
            self.before.given_up.fetch_add(1, Ordering::Relaxed);
            return Ok(false);
        }
        let wrap = |source| store::Error::Io { what: format!("keeping {id}, which was unlinked"), source };
        let open = |at, write| self.backing.open_file(at, write);
        let keep = || {
            if copies {
                let (file, kept) = (open(At::Staging(grave), false)?, open(At::Before(id), true)?);
                return copy_chunks(&file, &kept, &more, u64::MAX).map_err(wrap);
            }
            if !images.is_empty() {
                let (kept, file) = (open(At::Before(id), false)?, open(At::Staging(grave), true)?);
                copy_chunks(&kept, &file, &images, u64::MAX).map_err(wrap)?;
            }
            self.backing.rename(At::Staging(grave), At::Before(id), RenameFlags::empty())
        };
        keep().inspect_err(|_| self.before.give_back(id, bytes))?;
        let record = Record::KeptBefore { file: id, chunks: known.chunks.clone() };
        self.commit(&mut self.share.lock(), record)?;
        Ok(!copies)
    }

    /// The bytes of `chunks` as they were at the version that includes our cuts up to `since`, as far as they were kept.
    pub(super) fn pieces_before(&self, id: FileId, chunks: &ChunkSet, since: Seq) -> Vec<Piece> {
        let (kept, size) = {
            let share = self.share.lock();
            let Some(f) = share.file(id).filter(|f| !f.before.is_empty()) else { return Vec::new() };
            let kept: ChunkSet = f.before.since(since).flat_map(|r| chunks.within(&r)).collect();
            (kept, f.base_size)
        };
        let Ok(file) = self.backing.open_file(At::Before(id), false) else { return Vec::new() };
        let piece = |range: Range<u64>| {
            let at = chunk::bytes(&range, size);
            let mut bytes = vec![0; (at.end - at.start) as usize];
            file.read_exact_at(&mut bytes, at.start).ok()?;
            (!bytes.is_empty()).then_some(Piece { first: range.start, bytes })
        };
        kept.iter().filter_map(piece).collect()
    }

    /// Puts what was kept of `chunks` into a file of `size` bytes.
    pub(super) fn restore_before(
        &self,
        id: FileId,
        file: &Content,
        chunks: &ChunkSet,
        size: u64,
    ) -> store::Result<()> {
        if chunks.is_empty() {
            return Ok(());
        }
        let wrap = |source| store::Error::Io { what: format!("bringing back what {id} was"), source };
        let kept = self.backing.open_file(At::Before(id), false)?;
        copy_chunks(&kept, file, chunks, size).map_err(wrap)
    }

    /// What was kept of `files` may not be wanted any more.
    pub(super) fn drop_before(&self, files: impl Iterator<Item = FileId>) {
        for id in files.filter(|id| self.before.has(*id)) {
            let node = self.node(id);
            // Nobody keeps anything of it meanwhile.
            let _data = node.as_ref().map(|node| node.data.lock());
            if self.share.lock().file(id).is_some_and(|f| !f.before.is_empty()) {
                continue;
            }
            self.before.drop(id);
            if let Err(error) = self.backing.unlink_if_there(At::Before(id)) {
                tracing::warn!("what was kept of {id} stays until the next mount: {error}");
            }
        }
    }
}
