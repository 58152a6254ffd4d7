//! The figures as a file: all rounds, and on which machine and when they were measured. A run that measures only some
//! figures leaves the others as they are.

use super::machine::Machine;
use crate::figure::Figure;
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Record {
    #[serde(flatten)]
    pub figure: Figure,
    /// With the smaller sizes of `--quick`.
    pub quick: bool,
    pub machine: Machine,
}

/// What is kept, in its order, with what was measured now in its place; nothing kept is nothing measured.
pub fn merged(kept: &Path, new: Vec<Record>) -> Vec<Record> {
    let mut records: Vec<Record> = match std::fs::read(kept) {
        Ok(bytes) => serde_json::from_slice(&bytes).expect("figures that a run has kept"),
        Err(_) => Vec::new(),
    };
    for record in new {
        match records.iter_mut().find(|kept| kept.figure.name == record.figure.name) {
            // What could not be measured this time does not hide that it once was.
            Some(_) if record.figure.rounds.is_empty() => {}
            Some(kept) => *kept = record,
            None => records.push(record),
        }
    }
    records
}

pub fn keep(path: &Path, records: &[Record]) {
    let mut text = serde_json::to_string_pretty(records).expect("numbers and names");
    text.push('\n');
    std::fs::write(path, text).expect("a file beside the documents");
}
