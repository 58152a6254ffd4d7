//! Our changes before a cut of the peer is judged: they get their numbers, and those that it meets one stamp.
//!
//! Invariant: after it nothing that the peer's cut speaks of is fresh, and all of our versions that stand against
//! it bear one stamp, which is that of everything that moves together with them or is told so.

use super::host::Host;
use super::location::location;
use super::node::Locked;
use super::queues::Trigger;
use crate::model::cut::Cut;
use crate::model::ids::FileId;
use crate::model::judge::contested;
use crate::model::record::{CutMark, Record};
use crate::store;
use std::collections::{BTreeMap, BTreeSet};

impl Host {
    /// Changes made here since the last cut get a number, so that the verdict compares versions. They are
    /// announced with the next cut.
    pub(super) fn cut_silently(&self, cut: &Cut, locked: &mut Locked) -> store::Result<()> {
        let mut mtimes = BTreeMap::new();
        for (node, data) in locked.iter_mut() {
            let stat = self.data_file(node, data, false).ok().and_then(|file| file.stat().ok());
            mtimes.insert(node.id, stat.map_or(0, |s| s.mtime.nanoseconds()));
        }
        let mut share = self.share.lock();
        // Where this host only receives, its versions give way whatever stamp they bear.
        let met = if self.options.direction.receives() { Vec::new() } else { contested(&share, cut) };
        if !share.are_bonded(&met) {
            self.commit(&mut share, Record::Bonded { files: met.clone() })?;
        }
        // What power loss left uncertain is a version of its own only where it was changed since the last.
        let body_is_new = |id: &FileId| {
            share.file(*id).is_some_and(|f| f.body_is_fresh() && (!f.unsettled || f.has_changed()))
        };
        let own: BTreeSet<FileId> =
            mtimes.keys().filter(|id| body_is_new(id)).chain(&met).flat_map(|id| share.bonded(*id)).collect();
        let looked_at = |id: FileId| {
            let outside = || share.file(id).and_then(|f| self.backing.stat(location(id, &f)?).ok());
            mtimes.get(&id).copied().or_else(|| outside().map(|s| s.mtime.nanoseconds()))
        };
        let stamp = share.common_stamp(&own, looked_at);
        let mut marks = Vec::new();
        for (id, now) in &mtimes {
            let Some(f) = share.file(*id) else { continue };
            let (place, body) = (f.place_is_fresh(), body_is_new(id));
            let stamp = if body || met.contains(id) { stamp } else { f.stamp };
            if place || body || f.stamp < stamp {
                marks.push(CutMark { file: *id, place, body, stamp, mtime: *now });
            }
        }
        if marks.is_empty() {
            return Ok(());
        }
        // The others of the group are told once more, and take the stamp with that.
        let lower = |id: &&FileId| share.file(**id).is_some_and(|f| f.body_tag != 0 && f.stamp < stamp);
        let again: BTreeSet<FileId> =
            own.iter().filter(lower).copied().chain(marks.iter().map(|mark| mark.file)).collect();
        let seq = share.header().head + 1;
        self.commit(&mut share, Record::Cut { seq, marks })?;
        drop(share);
        self.refused_changed(&again);
        self.outbound.lock().announced.retain(|id| !again.contains(id));
        let _ = self.triggers.send(Trigger::Cut(again.into_iter().collect(), None));
        Ok(())
    }
}
