//! What the trash means to a host at work: a copy of what the peer rewrites in place, and room when the disk is full.
//!
//! Invariant: a copy goes to the trash whole and durable, before anything of the file changes. That there is none is no
//! reason not to apply what the peer says.

use super::bodies::door;
use super::host::Host;
use super::node::{Data, Held, Locked};
use super::pending::Pending;
use super::trash::Size;
use crate::model::chunk::{self, ChunkSet};
use crate::model::cut::BodyCut;
use crate::model::file::File;
use crate::model::judge::{BodyVerdict, Verdict};
use crate::model::limits::TRASH_COPY_BYTES;
use crate::model::name::Name;
use crate::store::{self, At};

/// Seconds between two copies of one file: one that is rewritten all the time does not fill the trash.
const BETWEEN_COPIES: i64 = 600;

impl Host {
    /// Keeps copies of what the peer rewrites wholly, where it lies: `cp new old` over there. What a crash cut short may be
    /// half rewritten already: of that no copy is made.
    pub(super) fn keep_rewritten(&self, pending: &Pending, verdicts: &[Verdict], locked: &mut Locked) {
        if pending.again || !self.trash.is_on() {
            return;
        }
        for (cut, verdict) in pending.cut.files.iter().zip(verdicts) {
            let (Some(body), BodyVerdict::Take(changed) | BodyVerdict::Yield { changed, copy: false }) =
                (&cut.body, &verdict.body)
            else {
                continue;
            };
            let name = {
                let share = self.share.lock();
                let ours = share.file(cut.file).filter(|f| is_rewritten(f, changed, body.attrs.size));
                ours.and_then(|f| f.name.clone())
            };
            let (Some(name), Some((node, data))) = (name, locked.get(cut.file)) else { continue };
            if let Err(error) = self.keep_old(pending, (node, data), (body, changed), &name) {
                tracing::warn!("what the peer wrote over in {name} is not kept in the trash: {error}");
            }
        }
    }

    fn keep_old(
        &self,
        pending: &Pending,
        (node, data): (&Held, &mut Data),
        (body, changed): (&BodyCut, &ChunkSet),
        name: &Name,
    ) -> store::Result<()> {
        let now = self.backing.now().seconds;
        if self.trash.last_of(node.id).is_some_and(|last| now - last < BETWEEN_COPIES) {
            return Ok(());
        }
        let file = self.data_file(node, data, false).map_err(door)?;
        if pending.brings_the_same(node.id, body, changed, &file)? {
            return Ok(());
        }
        let staging = format!("old-{}", node.id);
        let kept = self
            .copy_to(&file, At::Staging(&staging))
            .and_then(|size| self.trash.put(&self.backing, At::Staging(&staging), node.id, name, size));
        if kept.is_err() {
            let _ = self.backing.unlink_if_there(At::Staging(&staging));
        }
        kept.map(drop)
    }

    /// Makes a durable copy of `file`, attributes included.
    pub(super) fn copy_to(&self, file: &store::Content, at: At) -> store::Result<Size> {
        let wrap = |source| store::Error::Io { what: format!("copying to {at}"), source };
        let size = file.len().map_err(wrap)?;
        let copy = self.backing.create_afresh(at, 0o600)?;
        store::copy_range(file, 0, &copy, 0, size).map_err(wrap)?;
        copy.set_len(size).map_err(wrap)?;
        store::apply_attrs(&copy, &store::read_attrs(file).map_err(wrap)?, self.owner).map_err(wrap)?;
        self.backing.sync_file(&copy)?;
        Ok(Size::of(&copy.stat().map_err(wrap)?))
    }

    /// After an error of the disk: whether it was full and now has more room.
    pub(super) fn makes_room(&self, error: &store::Error) -> bool {
        error.is_full() && self.trash.give_way(&self.backing)
    }

    pub(super) fn clean_trash(&self) {
        if let Err(error) = self.trash.clean(&self.backing) {
            tracing::error!("the trash can't be cleaned: {error}");
        }
    }
}

/// Whether nothing stays of the content of a file that is wholly here, small enough to be copied, when `changed` chunks
/// are the peer's and it is `size` bytes long.
fn is_rewritten(file: &File, changed: &ChunkSet, size: u64) -> bool {
    let stays = 0..chunk::count(file.size.min(size));
    file.is_plain() && (1..=TRASH_COPY_BYTES).contains(&file.size) && changed.gaps(&stays).is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_rewritten_where_no_chunk_of_it_stays() {
        let file = |size| File { size, ..File::default() };
        let chunks = |range| ChunkSet::of(range);
        assert!(is_rewritten(&file(5_000), &chunks(0..5), 5_000));
        assert!(is_rewritten(&file(5_000), &chunks(0..2), 1_500));
        assert!(is_rewritten(&file(5_000), &ChunkSet::new(), 0));
        assert!(!is_rewritten(&file(5_000), &chunks(1..5), 5_000));
        assert!(!is_rewritten(&file(0), &chunks(0..5), 5_000));
        assert!(!is_rewritten(&file(TRASH_COPY_BYTES + 1), &ChunkSet::new(), 0));
    }
}
