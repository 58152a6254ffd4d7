//! Repairing what a verification found to differ.
//!
//! Of a content that differs the version modified later keeps the name, on a tie that of the greater replica. First the other
//! side makes a conflict copy of what it has; then the winner takes what lies there as an edit, which the other gets as it
//! gets any.
//!
//! Invariants: nothing is lost: the winner does nothing before the copy is durable; a file that somebody has changed since the
//! verification began is left to him.

use super::error::VerifyError;
use super::host::Host;
use super::queues::Trigger;
use super::verify::{State, Verification};
use super::verifying::Differs;
use crate::model::chunk::{self, ChunkSet};
use crate::model::conflict::conflict_name;
use crate::model::ids::FileId;
use crate::model::limits::GROUP;
use crate::model::name::Name;
use crate::model::record::Record;
use crate::model::verify::{Difference, Look, Word, ours_stays};
use crate::store::{self, At, Content, Stat, Time};
use std::sync::atomic::Ordering;

type Found = (Differs, Look, Look);

impl Verification<'_> {
    /// Mends what these differ in. Both sides do their part.
    pub(super) fn mend(&self, found: &mut [Found]) -> Result<(), VerifyError> {
        let mut kept = Vec::with_capacity(found.len());
        for (differs, ours, theirs) in &*found {
            let loses = matches!(differs.how, Difference::Content(_)) && !self.ours_stays(ours, theirs);
            kept.push(
                loses && self.attempt(&differs.name, |state| self.host.keep_aside(&differs.name, state)),
            );
        }
        self.say(Word::Kept(kept.clone()));
        let theirs_kept = match self.hear()? {
            Word::Kept(theirs) if theirs.len() == found.len() => theirs,
            _ => return Err(self.nonsense("the peer keeps other files than were found")),
        };
        for ((found, kept), theirs_kept) in found.iter_mut().zip(kept).zip(theirs_kept) {
            let (differs, ours, theirs) = found;
            let name = &differs.name;
            let wins = self.ours_stays(ours, theirs);
            differs.copied = kept || theirs_kept;
            differs.repaired = match &differs.how {
                Difference::Content(groups) if wins && theirs_kept => {
                    self.attempt(name, |state| self.host.take_as_edit(name, state, groups))
                }
                Difference::Content(_) => kept,
                Difference::Attributes if wins => {
                    self.attempt(name, |state| self.host.take_as_edit(name, state, &ChunkSet::new()))
                }
                Difference::Attributes | Difference::OnlyThere => true,
                Difference::OnlyHere => self.attempt(name, |state| {
                    self.host.tell_once_more(state.id);
                    Ok(true)
                }),
                _ => false,
            };
        }
        Ok(())
    }

    fn ours_stays(&self, ours: &Look, theirs: &Look) -> bool {
        match (ours, theirs) {
            (Look::Is(ours), Look::Is(theirs)) => {
                ours_stays((ours, self.host.identity.replica), (theirs, self.peer))
            }
            _ => false,
        }
    }

    /// Does it to a file that is as it was when the verification began; whether it was done.
    fn attempt(&self, name: &Name, act: impl FnOnce(&State) -> store::Result<bool>) -> bool {
        let Some(state) = self.seen.get(name) else { return false };
        act(state).unwrap_or_else(|error| {
            tracing::error!("{name} can't be repaired: {error}");
            false
        })
    }
}

impl Host {
    fn is_still(&self, name: &Name, state: &State) -> bool {
        self.state_of(name).is_some_and(|now| now.is_steady(Some(state)))
    }

    /// What lies under `name`. `None` where a program has another file open as that one: then nothing can be done yet.
    fn lies(&self, name: &Name, open: Option<Content>) -> store::Result<Option<(Content, Stat)>> {
        let wrap = |source| store::Error::Io { what: format!("repairing {name}"), source };
        let file = self.backing.open_file(At::Name(name), false)?;
        let stat = file.stat().map_err(wrap)?;
        let same = match open {
            Some(open) => open.stat().map_err(wrap)?.ino == stat.ino,
            None => true,
        };
        Ok(same.then_some((file, stat)))
    }

    /// What lies here counts in these chunk groups, with its attributes: it is an edit.
    fn take_as_edit(&self, name: &Name, state: &State, groups: &ChunkSet) -> store::Result<bool> {
        let Some(node) = self.node(state.id) else { return Ok(false) };
        let data = node.data.lock();
        let Some((_, stat)) = self.lies(name, data.open())? else { return Ok(false) };
        if !self.is_still(name, state) {
            return Ok(false);
        }
        let file = state.id;
        let mut share = self.share.lock();
        if share.file(file).is_some_and(|f| f.disk != stat.ino) {
            self.commit(&mut share, Record::Lies { file, disk: stat.ino })?;
        }
        if !groups.is_empty() || share.file(file).is_some_and(|f| f.size != stat.size) {
            let mut chunks: ChunkSet = groups.iter().map(|g| g.start * GROUP..g.end * GROUP).collect();
            chunks.remove(chunk::count(stat.size)..u64::MAX);
            self.commit(&mut share, Record::Wrote { file, chunks, size: stat.size })?;
        }
        let lsn = self.commit(&mut share, Record::Touched { file, attrs: true })?;
        drop(share);
        self.journal.sync(lsn)?;
        drop(data);
        tracing::warn!("{name} differs from the peer's: this host's version, modified later, is told");
        // Programs may have seen it as it was.
        self.kernel.inval_inode(node.ino);
        let _ = self.triggers.send(Trigger::Cut(vec![file], None));
        Ok(true)
    }

    /// Puts a durable copy of what lies here beside it, as a conflict copy.
    fn keep_aside(&self, name: &Name, state: &State) -> store::Result<bool> {
        let Some(node) = self.node(state.id) else { return Ok(false) };
        let staging = format!("restored-{}", self.next_handle.fetch_add(1, Ordering::Relaxed));
        let mtime = {
            let data = node.data.lock();
            let Some((file, stat)) = self.lies(name, data.open())? else { return Ok(false) };
            if !self.is_still(name, state) {
                return Ok(false);
            }
            self.copy_to(&file, At::Staging(&staging)).inspect_err(|_| {
                let _ = self.backing.unlink_if_there(At::Staging(&staging));
            })?;
            stat.mtime.nanoseconds()
        };
        let copy = {
            let share = self.share.lock();
            let taken = |n: &Name| share.named(n).is_some() || self.backing.stat(At::Name(n)).is_ok();
            conflict_name(name, mtime, self.identity.replica, taken)
        };
        if let Err(error) = self.publish_restored(&staging, &copy) {
            tracing::error!("{name} can't be kept as {copy}: {error}");
            self.backing.unlink_if_there(At::Staging(&staging))?;
            return Ok(false);
        }
        tracing::warn!("{name} differs from the peer's: this host's version is now {copy}");
        let data = node.data.lock();
        let lies = self.lies(name, data.open())?.filter(|_| self.is_still(name, state));
        // Who has changed it since has made a version of his own.
        let Some((_, stat)) = lies else { return Ok(false) };
        self.let_go(name, state.id, &stat)?;
        drop(data);
        self.kernel.inval_inode(node.ino);
        Ok(true)
    }

    /// What lies here is kept elsewhere: it is to look as the share has it, so that the peer's version is taken, and it is no
    /// edit of its own.
    fn let_go(&self, name: &Name, file: FileId, stat: &Stat) -> store::Result<()> {
        let wrap = |source| store::Error::Io { what: format!("repairing {name}"), source };
        let mut share = self.share.lock();
        let Some((size, mtime, disk)) = share.file(file).map(|f| (f.size, f.mtime, f.disk)) else {
            return Ok(());
        };
        if disk != stat.ino {
            self.commit(&mut share, Record::Lies { file, disk: stat.ino })?;
        }
        drop(share);
        let is_edited = stat.size != size || mtime.is_some_and(|mtime| mtime != stat.mtime.nanoseconds());
        if is_edited {
            let file = self.backing.open_file(At::Name(name), true)?;
            file.set_len(size).map_err(wrap)?;
            let mtime = mtime.map_or(stat.mtime, Time::from_nanoseconds);
            file.set_times(None, Some(mtime)).map_err(wrap)?;
        }
        Ok(())
    }

    /// The peer hears of a file again that it may have lost.
    fn tell_once_more(&self, file: FileId) {
        self.outbound.lock().tell_all(file);
        let _ = self.triggers.send(Trigger::Cut(vec![file], None));
    }
}
