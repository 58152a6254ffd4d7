//! Our versions that lose: files that give their names away, and copies of what the peer writes over.
//!
//! Invariants: a copy is durable, whole and in the journal before anything else takes the file's name; nobody looks at its
//! content before it lies under its own.

use super::bodies::door;
use super::events::Told;
use super::host::Host;
use super::node::{Data, Held, Locked};
use super::pending::Pending;
use super::pieces;
use super::queues::Trigger;
use crate::model::chunk::{self, ChunkSet};
use crate::model::conflict::conflict_name;
use crate::model::cut::{BodyCut, Cut, FileCut};
use crate::model::file::File;
use crate::model::ids::FileId;
use crate::model::judge::{BodyVerdict, Verdict};
use crate::model::name::Name;
use crate::model::record::{Kept, Record};
use crate::model::sabotage::{Bug, planted};
use crate::model::share::Share;
use crate::store::{self, At};
use rustix::fs::RenameFlags;
use std::collections::BTreeSet;

/// Our version of a file that lost, on its way out of staging.
pub(super) struct Copy {
    staging: String,
    pub kept: Kept,
}

impl Host {
    /// Whether our file that loses its name to the peer's is the same, and no program has it open for writing: then
    /// the two become one.
    pub(super) fn is_the_same(
        &self,
        pending: &Pending,
        cut: &FileCut,
        ours: FileId,
        locked: &mut Locked,
    ) -> store::Result<bool> {
        // Where this host only receives, a file of the peer's that was renamed here is no copy to be merged.
        let known = |f: &File| self.options.direction.receives() && !f.base.is_empty();
        let plain = |f: &File| f.is_plain() && !known(f);
        let is_plain = self.share.lock().file(ours).is_some_and(|f| plain(&f));
        let (Some(body), true, false) = (&cut.body, is_plain, self.is_written(ours)) else {
            return Ok(false);
        };
        let all = ChunkSet::of(0..chunk::count(body.attrs.size));
        let mut absent = all.clone();
        absent.subtract(&pending.brought(cut.file, body));
        let Some((node, data)) = locked.get(ours).filter(|_| absent.is_empty()) else { return Ok(false) };
        let file = self.data_file(node, data, false).map_err(door)?;
        pending.brings_the_same(cut.file, body, &all, &file)
    }

    /// Our file loses its name to the peer's: it takes a conflict name. Returns both names.
    pub(super) fn step_aside(&self, ours: FileId, cut: &Cut) -> store::Result<Vec<Name>> {
        let mut share = self.share.lock();
        let Some((Some(old), stamp, partial)) =
            share.file(ours).map(|f| (f.name.clone(), f.stamp, f.partial))
        else {
            return Ok(Vec::new());
        };
        let new = conflict_name(&old, stamp, share.header().replica, |n| self.is_taken(&share, cut, n));
        self.commit(&mut share, Record::Moved { moves: vec![(ours, Some(new.clone()))] })?;
        drop(share);
        if !partial {
            self.must(self.backing.rename(At::Name(&old), At::Name(&new), RenameFlags::NOREPLACE))?;
        }
        tracing::warn!("both hosts made {old}: this host's is now {new}");
        self.events.tell(Told::conflict(&new, "here"));
        // The peer refused it under its old name, content and all.
        self.outbound.lock().announced.remove(&ours);
        let _ = self.triggers.send(Trigger::Cut(vec![ours], None));
        Ok(vec![old, new])
    }

    /// Whether anything has `name`, or gets it by `cut`.
    fn is_taken(&self, share: &Share, cut: &Cut, name: &Name) -> bool {
        share.named(name).is_some()
            || cut.names().any(|n| n == name)
            || self.backing.stat(At::Name(name)).is_ok()
    }

    /// Keeps what loses content of its own, before anything changes. Returns the copies, and the files whose content
    /// is already what is coming.
    pub(super) fn keep_copies(
        &self,
        pending: &Pending,
        verdicts: &[Verdict],
        locked: &mut Locked,
    ) -> store::Result<(Vec<Copy>, BTreeSet<FileId>)> {
        let (mut copies, mut same) = (Vec::new(), BTreeSet::new());
        for (cut, verdict) in pending.cut.files.iter().zip(verdicts) {
            let incoming = match (&verdict.body, &cut.body) {
                (BodyVerdict::Yield { copy: true, changed }, Some(body)) => Some((body, changed)),
                (BodyVerdict::Leave, _) => None,
                _ => continue,
            };
            if let Some((node, data)) = locked.get(verdict.file)
                && !planted(Bug::LastWriterWins)
                && self.keep_copy(node, data, pending, incoming, &mut copies)?
            {
                same.insert(cut.file);
            }
        }
        if !copies.is_empty() {
            // From here on they may be all that is left of what was here.
            self.backing.sync_names()?;
        }
        Ok((copies, same))
    }

    /// Our version of a file both sides changed loses: it is kept, whole, as a file of its own, where what is `incoming`, if
    /// anything, is not the same; returns whether it is. It stays in staging until it is in the journal; who applies the cut once
    /// more finds it there.
    fn keep_copy(
        &self,
        node: &Held,
        data: &mut Data,
        pending: &Pending,
        incoming: Option<(&BodyCut, &ChunkSet)>,
        copies: &mut Vec<Copy>,
    ) -> store::Result<bool> {
        let cut = &pending.cut;
        let (old, stamp, size, version, lacks) = {
            let share = self.share.lock();
            let f = share.file(node.id).expect("its data is locked and it was judged");
            (
                f.name.clone().expect("only a file with a name yields"),
                f.stamp,
                f.size,
                f.body_cut,
                f.missing.len(),
            )
        };
        if lacks > 0 {
            tracing::error!(
                "of this host's version of {old}, {lacks} chunks were never here and are nowhere any more: in the copy they read as \
                 zeros"
            );
        }
        let kept = self.kept_before(pending, node.id)?;
        let staging = kept.unwrap_or_else(|| pieces::kept_name(cut.seq, node.id, version));
        let wrap = |source| store::Error::Io { what: format!("keeping a copy of {old}"), source };
        if self.backing.stat(At::Staging(&staging)).is_err() {
            let file = self.data_file(node, data, false).map_err(door)?;
            if let Some((body, changed)) = incoming
                && pending.brings_the_same(node.id, body, changed, &file)?
            {
                return Ok(true);
            }
            let half = format!("keeping-{}", node.id);
            let copy = self.backing.create_afresh(At::Staging(&half), 0o600)?;
            store::copy_range(&file, 0, &copy, 0, size).map_err(wrap)?;
            copy.set_len(size).map_err(wrap)?;
            store::apply_attrs(&copy, &store::read_attrs(&file).map_err(wrap)?, self.owner).map_err(wrap)?;
            self.backing.sync_file(&copy)?;
            self.backing.rename(At::Staging(&half), At::Staging(&staging), RenameFlags::NOREPLACE)?;
        }
        let stat = self.backing.stat(At::Staging(&staging)).map_err(wrap)?;
        let share = self.share.lock();
        let next = share.next_file();
        let file = FileId { counter: next.counter + copies.len() as u64, ..next };
        let name = conflict_name(&old, stamp, share.header().replica, |n| {
            self.is_taken(&share, cut, n) || copies.iter().any(|copy| copy.kept.name == *n)
        });
        tracing::warn!("both hosts changed {old}: the peer's version keeps the name, this host's is {name}");
        copies.push(Copy { staging, kept: Kept { file, name, size: stat.size, disk: stat.ino } });
        Ok(false)
    }

    /// The latest version of `file` that was kept before a crash: since then nobody can have changed it.
    fn kept_before(&self, pending: &Pending, file: FileId) -> store::Result<Option<String>> {
        if !pending.again {
            return Ok(None);
        }
        let names = self.backing.list_staging()?.into_iter().map(|(name, _)| name);
        Ok(names.filter(|name| pieces::kept_of(name) == Some(file)).max())
    }

    pub(super) fn nodes_of_copies(&self, copies: &[Copy]) -> Vec<Held> {
        let share = self.share.lock();
        copies.iter().map(|copy| self.nodes.get(copy.kept.file, share.ino(copy.kept.file))).collect()
    }

    /// Puts the copies under their names, and returns these.
    pub(super) fn publish(&self, copies: Vec<Copy>) -> store::Result<Vec<Name>> {
        if copies.is_empty() {
            return Ok(Vec::new());
        }
        // Seen under its name without a record, a copy would be somebody's new file.
        self.journal.sync(self.journal.end())?;
        let mut names = Vec::new();
        for Copy { staging, kept } in copies {
            let (from, to) = (At::Staging(&staging), At::Name(&kept.name));
            self.must(self.backing.rename(from, to, RenameFlags::NOREPLACE))?;
            self.backing
                .stat(At::Name(&kept.name))
                .iter()
                .for_each(|stat| self.holding.weigh(kept.file, stat));
            self.events.tell(Told::conflict(&kept.name, "here"));
            names.push(kept.name);
            let _ = self.triggers.send(Trigger::Cut(vec![kept.file], None));
        }
        Ok(names)
    }
}
