//! Giving back what lies in the trash.
//!
//! Invariants: what comes back is a file of its own, whole and durable before its name is; it is in the trash until then; nothing
//! gives way to it.

use super::error::RestoreError;
use super::host::Host;
use super::queues::Trigger;
use crate::fs::replayer::Change;
use crate::model::name::Name;
use crate::model::record::Record;
use crate::model::trash::told;
use crate::store::{self, At};
use rustix::fs::RenameFlags;
use serde::Serialize;
use std::sync::atomic::Ordering;

/// A file in the trash.
#[derive(Clone, Debug, Serialize)]
pub struct Thrown {
    pub entry: String,
    /// What it was called.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub deleted: i64,
}

/// What came back.
#[derive(Clone, Debug, Serialize)]
pub struct Restored {
    pub entry: String,
    /// What it is called now.
    pub name: String,
}

impl Host {
    /// What lies in the trash, oldest first.
    pub fn thrown(&self) -> Vec<Thrown> {
        let tell = |(entry, size): (Name, u64)| {
            let told = told(&entry)?;
            let (name, entry) = (told.original.to_string(), entry.to_string());
            Some(Thrown { entry, name, size, deleted: told.at })
        };
        self.trash.list().into_iter().filter_map(tell).collect()
    }

    /// Brings an entry of the trash back, or the latest of a file that was called `what`: under its own name, or `to`.
    ///
    /// # Errors
    /// [`RestoreError`]; nothing has changed then.
    pub fn restore(&self, what: &str, to: Option<&str>) -> Result<Restored, RestoreError> {
        let entries = self.trash.list();
        let called = |entry: &Name| told(entry).is_some_and(|told| told.original.to_string() == what);
        let exactly = entries.iter().find(|(entry, _)| entry.to_string() == what);
        let found = exactly.or_else(|| entries.iter().rev().find(|(entry, _)| called(entry)));
        let Some((entry, _)) = found else { return Err(RestoreError::Unknown(what.to_owned())) };
        let name = match (to, told(entry)) {
            (Some(to), _) => Name::new(to.as_bytes()).map_err(|_| RestoreError::BadName(to.to_owned()))?,
            (None, Some(told)) => told.original,
            (None, None) => return Err(RestoreError::Unknown(what.to_owned())),
        };
        // A copy: who had the file open when the peer unlinked it may write to it still.
        let content = self.backing.open_file(At::Trash(entry), false)?;
        let staging = format!("restored-{}", self.next_handle.fetch_add(1, Ordering::Relaxed));
        let published = self.copy_to(&content, At::Staging(&staging)).map_err(RestoreError::from);
        let published = published.and_then(|_| self.publish_restored(&staging, &name));
        if let Err(error) = published {
            let _ = self.backing.unlink_if_there(At::Staging(&staging));
            return Err(error);
        }
        self.trash.remove(&self.backing, entry)?;
        tracing::info!("{entry} is back from the trash as {name}");
        Ok(Restored { entry: entry.to_string(), name: name.to_string() })
    }

    /// Makes a new file of what lies in staging. Journal first, as for copies of what loses: recovery finishes the move.
    pub(super) fn publish_restored(&self, staging: &str, name: &Name) -> Result<(), RestoreError> {
        self.backing.sync_names()?;
        let wrap = |source| store::Error::Io { what: format!("restoring {name}"), source };
        let stat = self.backing.stat(At::Staging(staging)).map_err(wrap)?;
        {
            let _names = self.names.write();
            let (file, ino) = {
                let share = self.share.lock();
                if share.named(name).is_some() || self.backing.stat(At::Name(name)).is_ok() {
                    return Err(RestoreError::Taken(name.to_string()));
                }
                (share.next_file(), share.ino(share.next_file()))
            };
            // Once it is recorded others know of it: they wait until it lies under its name.
            let node = self.nodes.get(file, ino);
            let _data = node.data.lock();
            let record = Record::Created { file, name: name.clone(), size: stat.size, disk: stat.ino };
            let lsn = self.commit(&mut self.share.lock(), record)?;
            self.journal.sync(lsn)?;
            self.backing.rename(At::Staging(staging), At::Name(name), RenameFlags::NOREPLACE)?;
            let _ = self.triggers.send(Trigger::Changed(vec![file], None));
        }
        self.backing.sync_names()?;
        self.names_moved();
        self.kernel.inval_entry(name.as_bytes());
        self.kernel.changed(Change::Created(name.as_bytes().to_vec()));
        self.moved();
        Ok(())
    }
}
