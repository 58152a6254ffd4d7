//! Cuts that a crash cut short, applied again.

use super::host::Host;
use super::pending::{Outcome, Pending, Redo, Staged};
use super::pieces;
use crate::model::file::Shaky;
use crate::model::ids::FileId;
use crate::model::name::Name;
use crate::model::record::Record;
use crate::store::{self, At};
use std::collections::{BTreeMap, BTreeSet};

impl Host {
    /// Applies again what a crash cut short, once what it may have left under `names` is gone. Of the files that it was
    /// changing (`midway`), where that fails or leaves them uncertain, nobody knows what they are before the peer has
    /// been asked.
    pub(super) fn redo(
        &self,
        cuts: Vec<Redo>,
        names: &BTreeSet<Name>,
        midway: &BTreeSet<FileId>,
    ) -> store::Result<()> {
        // What is half of a new file goes for good before a record says that this file lies there: where power fails
        // once more, it would be taken for it.
        for name in names {
            if self.share.lock().named(name).is_none() {
                self.backing.unlink_if_there(At::Name(name))?;
            }
        }
        self.backing.sync_names()?;
        for Redo { cut, staged } in cuts {
            let mut content = BTreeMap::new();
            for (id, have) in staged {
                let name = pieces::staging_name(cut.seq, id);
                let Ok(file) = self.backing.open_file(At::Staging(&name), false) else { continue };
                content.insert(id, Staged { file, name, have });
            }
            let pending = Pending::again(cut, content);
            let outcome = self.apply(&pending);
            let seq = pending.cut.seq;
            match &outcome {
                Ok(Outcome::Applied(_)) => {
                    tracing::info!("applied again after a crash: cut {seq} of the peer")
                }
                Ok(Outcome::NotReady) => tracing::info!("cut {seq} of the peer will come anew"),
                Err(error) => tracing::error!("cut {seq} of the peer can't be applied again: {error}"),
            }
            let applied = matches!(outcome, Ok(Outcome::Applied(_)));
            let uncertain = |id: FileId| self.share.lock().file(id).is_some_and(|f| f.unsettled);
            let half = pending.cut.files.iter().map(|f| f.file).filter(|id| midway.contains(id));
            let half: Vec<FileId> = half.filter(|id| !applied || uncertain(*id)).collect();
            half.into_iter().try_for_each(|id| self.doubt(id))?;
        }
        Ok(())
    }

    /// What lies here of `id` is perhaps no version of it: the peer is asked before anything is told of it.
    fn doubt(&self, file: FileId) -> store::Result<()> {
        let Some(stat) = self.stat(file) else { return Ok(()) };
        let (size, disk) = (stat.size, stat.ino);
        let record = Record::Unsettled { file, size, disk, shaky: Shaky::default() };
        self.commit(&mut self.share.lock(), record).map(drop)
    }
}
