//! Which files there are, for people and programs to see.

use super::host::Host;
use crate::model::conflict::{Conflict, conflict};
use crate::model::name::Name;
use std::collections::BTreeMap;

impl Host {
    /// The names of all files, in order.
    pub fn file_names(&self) -> Vec<Name> {
        let mut names: Vec<Name> = self.share.lock().names().map(|(name, _)| name).collect();
        names.sort();
        names
    }

    /// The conflict copies, by the names that they lost.
    pub fn conflict_copies(&self) -> BTreeMap<Name, Vec<(Name, Conflict)>> {
        let mut found: BTreeMap<Name, Vec<(Name, Conflict)>> = BTreeMap::new();
        for (name, _) in self.share.lock().names() {
            if let Some(told) = conflict(&name) {
                found.entry(told.original.clone()).or_default().push((name, told));
            }
        }
        found.values_mut().for_each(|copies| copies.sort_by(|a, b| a.0.cmp(&b.0)));
        found
    }

    /// This replica, and the peer's where they have met.
    pub fn replicas(&self) -> (String, Option<String>) {
        let peer = self.share.lock().header().peer;
        (self.identity.replica.to_string(), peer.map(|peer| peer.to_string()))
    }
}
