//! Journal segments: what opening makes of whatever lies there.

use super::script::Script;
use std::sync::Arc;
use syncfs::store::torn::TornDisk;
use syncfs::store::{Dir, Error, Journal, Lsn, Records};

/// Segments, and the damage done to them.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let mut files = Vec::new();
    let mut next = script.number(4).saturating_add(1);
    let mut honest = Records::new();
    for _ in 0..script.below(4) + 1 {
        let first = next;
        let payloads: Vec<&[u8]> = (0..script.below(5)).map(|_| script.bytes()).collect();
        let bytes = segment(first, &payloads);
        for payload in payloads {
            honest.push((next, payload.to_vec()));
            next = next.saturating_add(1);
        }
        files.push((name(first), bytes));
    }
    let mut foreign = false;
    while !script.is_over() {
        let at = script.below(files.len() as u64) as usize;
        let bytes = &mut files[at].1;
        let place = script.below(bytes.len().clamp(1, 256) as u64) as usize;
        match script.below(8) {
            0 => bytes.truncate(place),
            1 if place < bytes.len() => bytes[place] ^= 1 << script.below(8),
            2 => bytes.extend(script.bytes()),
            3 => drop(bytes.splice(place.min(bytes.len())..place.min(bytes.len()), script.bytes().to_vec())),
            4 => files[at].0 = name(script.number(16)),
            5 => files[at].0 = String::from_utf8_lossy(script.bytes()).into_owned(),
            6 => {
                // Whole records under a number of their own.
                let first = script.number(16);
                files.push((name(first), segment(first, &[script.bytes()])));
                foreign = true;
            }
            _ => files[at].1 = script.bytes().to_vec(),
        }
    }
    let disk = TornDisk::new();
    files.iter().for_each(|(name, bytes)| disk.put(Dir::Journal, name.as_bytes(), bytes.clone()));
    let before = content(&disk);
    match Journal::open(Arc::new(disk.clone())) {
        Ok((journal, records)) => {
            assert!(records.windows(2).all(|w| w[0].0 + 1 == w[1].0), "a gap in {records:?}");
            assert!(records.last().is_none_or(|r| r.0 == journal.end()));
            for record in &records {
                assert!(foreign || honest.contains(record), "{record:?} was never written");
            }
            goes_on(&disk, journal, records);
        }
        Err(Error::Corrupt { what }) => {
            assert!(what.contains(".syncfs/journal"), "{what}");
            assert_eq!(content(&disk), before, "touched, though {what}");
        }
        Err(Error::NewerFormat { .. }) => assert_eq!(content(&disk), before),
        Err(other) => panic!("{other}"),
    }
}

/// What was opened takes another record and comes back with it.
fn goes_on(disk: &TornDisk, journal: Journal, mut records: Records) {
    let lsn = journal.append(b"one more").expect("there is room");
    assert_eq!(lsn, journal.end());
    records.push((lsn, b"one more".to_vec()));
    drop(journal);
    let (journal, again) = Journal::open(Arc::new(disk.clone())).expect("it opened before");
    assert_eq!(again, records);
    assert_eq!(journal.end(), lsn);
}

/// A segment as the journal writes it; empty where it can't begin with that number.
fn segment(first: Lsn, payloads: &[&[u8]]) -> Vec<u8> {
    let disk = TornDisk::new();
    disk.put(Dir::Journal, name(first).as_bytes(), Vec::new());
    let Ok((journal, _)) = Journal::open(Arc::new(disk.clone())) else { return Vec::new() };
    for payload in payloads {
        if journal.append(payload).is_err() {
            break;
        }
    }
    disk.bytes(Dir::Journal, name(first).as_bytes()).unwrap_or_default()
}

fn name(first: Lsn) -> String {
    format!("{first:016x}.v1")
}

fn content(disk: &TornDisk) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    let names = disk.names(Dir::Journal).into_iter();
    names.map(|name| (name.clone(), disk.bytes(Dir::Journal, &name))).collect()
}
