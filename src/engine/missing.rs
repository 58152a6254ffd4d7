//! Files whose names are missing from the directory when a life begins: somebody removed them while the share was not mounted.
//!
//! Invariants: they become deletes only where that was asked for, nothing else may have taken them away, and they are not so many
//! that the directory must be the wrong one; else they come back from the peer.

use super::error::Error;
use super::reconcile::{End, Reconciler};
use crate::model::brake::is_storm;
use crate::model::file::File;
use crate::model::fileset::FileSet;
use crate::model::ids::FileId;
use crate::model::name::Name;
use crate::model::record::Record;
use crate::store::{self, At};
use std::borrow::Cow;
use std::collections::BTreeSet;

/// Names that a line of the log shows.
const SHOWN: usize = 20;

/// What is missing, and what becomes of it.
#[derive(Default)]
pub(super) struct Missing {
    /// These are deletes.
    pub adopted: BTreeSet<FileId>,
    /// So many come back.
    pub returning: u64,
}

impl Reconciler<'_> {
    /// Looks for files that should lie in the directory and are not `present`.
    ///
    /// # Errors
    /// [`Error::ManyMissing`] where they would become deletes and are too many; nothing is deleted then.
    pub fn find_missing(&self, present: &FileSet) -> Result<Missing, Error> {
        let should = |f: &File| !f.partial && !f.is_untold();
        let absent = self.share.ids().filter(|id| !present.contains(*id) && !self.redone.contains(id));
        let found = absent.filter_map(|id| Some((id, self.share.file(id).filter(|f| should(f))?)));
        let mut gone: Vec<(Name, FileId, Cow<File>)> =
            found.filter_map(|(id, f)| Some((f.name.clone()?, id, f))).collect();
        if gone.is_empty() {
            return Ok(Missing::default());
        }
        gone.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        let all = self.share.files().filter(|(_, f)| should(f) && f.name.is_some()).count() as u64;
        let names: Vec<String> = gone.iter().take(SHOWN).map(|(name, ..)| name.to_string()).collect();
        let (names, more) = (names.join(", "), gone.len().saturating_sub(SHOWN));
        let names = if more > 0 { format!("{names} and {more} more") } else { names };
        let intact = matches!(self.end, End::Clean | End::Killed);
        if !self.adopt_deletes || !intact {
            let hint = match intact {
                true => "to delete such files on the peer instead, mount with --adopt-deletes",
                false => "after a crash that lost data nothing is taken for deleted",
            };
            tracing::warn!(
                "{} of {all} files are missing from the directory and come back from the peer ({hint}): {names}",
                gone.len()
            );
            return Ok(Missing { adopted: BTreeSet::new(), returning: gone.len() as u64 });
        }
        // Where something else stands under the name, or there was more to be had of the peer, nobody knows what was meant.
        let is_delete = |name: &Name, f: &File| {
            f.is_whole() && !f.unsettled && self.backing.stat(At::Name(name)).is_err()
        };
        let adopted: BTreeSet<FileId> =
            gone.iter().filter(|(name, _, f)| is_delete(name, f)).map(|(_, id, _)| *id).collect();
        let deletes = adopted.len() as u64;
        if is_storm(deletes, all, self.max_delete) {
            return Err(Error::ManyMissing { missing: deletes, files: all, names });
        }
        tracing::warn!(
            "{deletes} of {all} files were removed while the share was not mounted, and go on the peer: {names}"
        );
        Ok(Missing { returning: gone.len() as u64 - deletes, adopted })
    }

    /// It is deleted, as if through the mount.
    pub fn adopt_delete(&mut self, file: FileId) -> store::Result<()> {
        self.commit(Record::Moved { moves: vec![(file, None)] })
    }
}
