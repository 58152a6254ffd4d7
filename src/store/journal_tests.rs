use super::*;
use crate::store::real::RealDisk;
use crate::store::torn::{Dice, TornDisk};
use std::collections::BTreeSet;

const SEGMENT: u64 = 300;

fn open(disk: &TornDisk) -> Result<(Journal, Records)> {
    Journal::open_sized(Arc::new(disk.clone()), SEGMENT, SEGMENT / 4)
}

fn open_one(disk: &TornDisk) -> Result<(Journal, Records)> {
    Journal::open(Arc::new(disk.clone()))
}

/// The records of a segment, without the zeros behind them.
fn segment(disk: &TornDisk, first: Lsn) -> Vec<u8> {
    let mut bytes = disk.bytes(Dir::Journal, file_name(first).as_bytes()).unwrap();
    let good = parse(&bytes, &mut (first - 1), &mut Vec::new());
    if bytes[good..].iter().all(|b| *b == 0) {
        bytes.truncate(good);
    }
    bytes
}

fn put(disk: &TornDisk, name: &str, bytes: Vec<u8>) {
    disk.put(Dir::Journal, name.as_bytes(), bytes);
}

fn names(disk: &TornDisk) -> Vec<String> {
    disk.names(Dir::Journal).into_iter().map(|name| String::from_utf8(name).unwrap()).collect()
}

fn payload(lsn: Lsn) -> Vec<u8> {
    vec![lsn as u8; (lsn * 7 % 50) as usize]
}

/// A journal of one segment with records 1 to `n`, durable.
fn filled(n: Lsn) -> TornDisk {
    let disk = TornDisk::new();
    let (journal, _) = open_one(&disk).unwrap();
    for lsn in 1..=n {
        assert_eq!(journal.append(&payload(lsn)).unwrap(), lsn);
    }
    journal.sync(n).unwrap();
    disk
}

fn numbered(records: &Records) -> Lsn {
    for (i, (lsn, bytes)) in records.iter().enumerate() {
        assert_eq!((*lsn, bytes), (i as u64 + 1, &payload(i as u64 + 1)));
    }
    records.len() as Lsn
}

#[test]
fn records_come_back_in_order_after_the_daemon_dies() {
    let dir = tempfile::tempdir().unwrap();
    let real = || Journal::open(Arc::new(RealDisk::open(dir.path()).unwrap())).unwrap();
    let (journal, records) = real();
    assert!(records.is_empty() && journal.end() == 0);
    for lsn in 1..=1000 {
        assert_eq!(journal.append(&payload(lsn)).unwrap(), lsn);
    }
    drop(journal);
    let (journal, records) = real();
    assert_eq!(numbered(&records), 1000);
    assert_eq!((journal.end(), journal.synced()), (1000, 1000));
    assert_eq!(journal.bytes(), (1..=1000).map(|n| 16 + payload(n).len() as u64).sum::<u64>());
}

#[test]
fn a_torn_last_record_is_cut_off_wherever_it_was_torn() {
    let whole = segment(&filled(5), 1);
    let before = segment(&filled(4), 1).len();
    for torn in before..whole.len() {
        let disk = TornDisk::new();
        put(&disk, &file_name(1), whole[..torn].to_vec());
        let (journal, records) = open_one(&disk).unwrap();
        assert_eq!(numbered(&records), 4, "torn at {torn}");
        assert_eq!(journal.append(&payload(5)).unwrap(), 5);
        drop(journal);
        assert_eq!(segment(&disk, 1), whole);
    }
}

/// What makes a sync dear is a size that it must make durable.
#[test]
fn a_record_that_is_synced_alone_changes_no_size() {
    let disk = filled(3);
    let length = || disk.bytes(Dir::Journal, file_name(1).as_bytes()).unwrap().len();
    let (journal, _) = open_one(&disk).unwrap();
    let before = length();
    for lsn in 4..=100 {
        journal.append(&payload(lsn)).unwrap();
        journal.sync(lsn).unwrap();
        assert_eq!(length(), before);
    }
    drop(journal);
    let (journal, records) = open_one(&disk).unwrap();
    assert_eq!((numbered(&records), journal.was_torn()), (100, false));
}

#[test]
fn what_lies_behind_zeros_is_no_record() {
    let disk = filled(3);
    let mut bytes = segment(&disk, 1);
    let good = bytes.len();
    put_record(&mut bytes, 4, &payload(4));
    let behind = [segment(&disk, 1), vec![0; 8], bytes].concat();
    put(&disk, &file_name(1), behind);
    let (journal, records) = open_one(&disk).unwrap();
    assert_eq!((numbered(&records), journal.was_torn()), (3, true));
    assert_eq!(disk.bytes(Dir::Journal, file_name(1).as_bytes()).unwrap().len(), good);
}

#[test]
fn no_flipped_bit_is_ever_taken_for_a_record() {
    let whole = segment(&filled(6), 1);
    for at in 0..whole.len() {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            let disk = TornDisk::new();
            put(&disk, &file_name(1), bytes);
            let (_, records) = open_one(&disk).unwrap();
            assert!(numbered(&records) < 6, "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn damage_before_the_last_segment_is_reported_and_nothing_is_cut() {
    let disk = TornDisk::new();
    let (journal, _) = open(&disk).unwrap();
    for lsn in 1..=40 {
        journal.append(&payload(lsn)).unwrap();
    }
    drop(journal);
    let first = segment(&disk, 1);
    let mut bytes = first.clone();
    bytes[100] ^= 1;
    put(&disk, &file_name(1), bytes.clone());
    let told = open(&disk).err().unwrap().to_string();
    assert!(told.contains(".syncfs/journal") && told.contains("damaged"), "{told}");
    assert_eq!(segment(&disk, 1), bytes);
    // A segment that is missing altogether.
    put(&disk, &file_name(1), first);
    disk.unlink(Dir::Journal, names(&disk)[1].as_bytes()).unwrap();
    assert!(open(&disk).err().unwrap().to_string().contains("missing"));
}

#[test]
fn a_segment_whose_numbers_would_overflow_is_reported() {
    for first in [LAST + 1, Lsn::MAX] {
        let disk = TornDisk::new();
        put(&disk, &file_name(first), vec![]);
        assert!(matches!(open_one(&disk), Err(Error::Corrupt { .. })));
    }
}

#[test]
fn a_journal_of_a_newer_format_is_left_alone() {
    let disk = filled(3);
    put(&disk, "0000000000000004.v2", vec![]);
    put(&disk, "notes.txt", vec![]);
    assert!(matches!(open_one(&disk), Err(Error::NewerFormat { .. })));
}

/// What was synced is never lost and what is recovered is a prefix, whatever power loss leaves, with
/// segments beginning and going, full disks and crashes while recovering.
#[test]
fn power_loss_at_any_moment_keeps_what_was_synced() {
    for seed in 0..3000u64 {
        let mut dice = Dice(seed);
        let disk = TornDisk::new();
        // The payload of each number, as last appended; those up to `synced` must come back.
        let mut model: Vec<Vec<u8>> = vec![];
        let (mut synced, mut trimmed) = (0, 1);
        for _ in 0..6 {
            let (journal, records) = open(&disk).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            let end = journal.end();
            assert!(end >= synced && end <= model.len() as Lsn, "seed {seed}: {synced} {end}");
            model.truncate(end as usize);
            let first = records.first().map_or(end + 1, |r| r.0);
            assert!(first <= trimmed, "seed {seed}: {first} was not to go before {trimmed}");
            for (lsn, bytes) in &records {
                assert_eq!(bytes, &model[*lsn as usize - 1], "seed {seed}, record {lsn}");
            }
            assert_eq!(records.len() as Lsn, end + 1 - first, "seed {seed}");
            synced = end;
            for _ in 0..dice.roll(60) {
                match dice.roll(20) {
                    0 => {
                        let upto = dice.roll(model.len() + 1) as Lsn;
                        journal.sync(upto).unwrap();
                        assert!(journal.synced() >= upto);
                        synced = synced.max(journal.synced());
                    }
                    1 => {
                        let before = trimmed.max(dice.roll(model.len() + 2) as Lsn);
                        // Only what is durable elsewhere is trimmed; its loss here is no loss.
                        trimmed = before;
                        journal.trim(before).unwrap();
                        synced = synced.max(journal.synced());
                    }
                    2 => {
                        disk.fill_up(dice.roll(20) as u64);
                        let refused = journal.append(&[0xee; 30]).unwrap_err();
                        assert!(refused.is_full(), "{refused}");
                        disk.set_space(None);
                    }
                    _ => {
                        let bytes = vec![dice.roll(256) as u8; dice.roll(60)];
                        model.push(bytes.clone());
                        assert_eq!(journal.append(&bytes).unwrap(), model.len() as Lsn, "seed {seed}");
                    }
                }
            }
            drop(journal);
            disk.crash(dice.roll(usize::MAX) as u64);
        }
    }
}

#[test]
fn a_full_disk_refuses_a_record_and_takes_the_next() {
    let disk = TornDisk::new();
    let (journal, _) = open_one(&disk).unwrap();
    journal.append(&payload(1)).unwrap();
    for space in 0..30 {
        disk.fill_up(space);
        let refused = journal.append(&[9; 30]).unwrap_err();
        assert!(refused.is_full() && journal.end() == 1, "{refused}");
    }
    disk.set_space(None);
    assert_eq!(journal.append(&payload(2)).unwrap(), 2);
    drop(journal);
    assert_eq!(numbered(&open_one(&disk).unwrap().1), 2);
}

#[test]
fn half_a_record_that_cannot_be_taken_back_stops_the_journal() {
    let disk = TornDisk::new();
    let (journal, _) = open_one(&disk).unwrap();
    disk.set_space(Some(5));
    disk.fail_truncate(true);
    assert!(matches!(journal.append(b"record"), Err(Error::Stopped { .. })));
    disk.set_space(None);
    disk.fail_truncate(false);
    assert!(matches!(journal.append(b"record"), Err(Error::Stopped { .. })));
}

#[test]
fn a_failed_sync_sticks() {
    let disk = TornDisk::new();
    let (journal, _) = open_one(&disk).unwrap();
    let lsn = journal.append(b"record").unwrap();
    disk.fail_sync(true);
    assert!(matches!(journal.sync(lsn), Err(Error::Stopped { .. })));
    disk.fail_sync(false);
    assert!(matches!(journal.sync(lsn), Err(Error::Stopped { .. })));
    assert!(matches!(journal.append(b"more"), Err(Error::Stopped { .. })));
    assert_eq!(journal.synced(), 0);
}

#[test]
fn a_record_too_long_is_refused() {
    let (journal, _) = open_one(&TornDisk::new()).unwrap();
    assert!(journal.append(&vec![0; RECORD_BYTES + 1]).is_err());
    assert_eq!(journal.append(&vec![0; RECORD_BYTES]).unwrap(), 1);
}

#[test]
fn numbers_go_on_after_everything_was_trimmed() {
    let disk = TornDisk::new();
    let (journal, _) = open(&disk).unwrap();
    for lsn in 1..=100 {
        journal.append(&payload(lsn)).unwrap();
    }
    journal.trim(101).unwrap();
    assert_eq!(journal.bytes(), 0);
    assert_eq!(names(&disk), [file_name(101)]);
    journal.trim(101).unwrap();
    drop(journal);
    disk.crash(1);
    let (journal, records) = open(&disk).unwrap();
    assert!(records.is_empty());
    assert_eq!(journal.append(b"next").unwrap(), 101);
}

#[test]
fn nothing_that_is_still_needed_is_trimmed() {
    let disk = TornDisk::new();
    let (journal, _) = open(&disk).unwrap();
    for lsn in 1..=100 {
        journal.append(&payload(lsn)).unwrap();
        journal.trim(lsn / 2).unwrap();
    }
    drop(journal);
    let (_, records) = open(&disk).unwrap();
    assert!(records[0].0 <= 50 && records[0].0 > 20, "first left is {}", records[0].0);
    assert_eq!(records.last().unwrap().0, 100);
}

#[test]
fn syncs_of_many_threads_share_the_disk() {
    let disk = TornDisk::new();
    let (journal, _) = open(&disk).unwrap();
    let all: BTreeSet<Lsn> = std::thread::scope(|scope| {
        let work = || {
            let mut mine = vec![];
            for _ in 0..200 {
                let lsn = journal.append(b"record").unwrap();
                journal.sync(lsn).unwrap();
                assert!(journal.synced() >= lsn);
                mine.push(lsn);
            }
            mine
        };
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(work)).collect();
        threads.into_iter().flat_map(|t| t.join().unwrap()).collect()
    });
    assert_eq!(all, (1..=1600).collect());
    let syncs = disk.syncs();
    journal.sync(1600).unwrap();
    assert_eq!(disk.syncs(), syncs, "what is durable is not synced again");
    drop(journal);
    disk.crash(7);
    assert_eq!(open(&disk).unwrap().1.len(), 1600);
}

/// Not a promise, a look: `cargo test --lib store -- --ignored --nocapture appending`.
#[test]
#[ignore = "a measurement"]
fn appending_takes_microseconds() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, _) = Journal::open(Arc::new(RealDisk::open(dir.path()).unwrap())).unwrap();
    let start = std::time::Instant::now();
    for _ in 0..200_000 {
        journal.append(&[7; 64]).unwrap();
    }
    println!("{:?} a record", start.elapsed() / 200_000);
}

/// The worked example of docs/on-disk-format.md.
#[test]
fn a_record_lies_on_the_disk_as_the_format_page_shows_it() {
    use crate::model::ids::{FileId, WriterId};
    use crate::model::record::Record;
    let file = FileId { writer: WriterId(0x1122_3344_5566_7788), counter: 5 };
    let mut bytes = Vec::new();
    put_record(&mut bytes, 7, &crate::model::codec::encode(&Record::Resized { file, size: 1500 }));
    let hex: Vec<String> = bytes.iter().map(|b| format!("{b:02x}")).collect();
    let expected = "1c 00 00 00 07 00 00 00 00 00 00 00 b8 e3 49 74 \
         07 00 00 00 88 77 66 55 44 33 22 11 05 00 00 00 00 00 00 00 dc 05 00 00 00 00 00 00";
    assert_eq!(hex.join(" "), expected);
}

#[test]
fn a_full_disk_has_room_for_the_records_of_what_makes_room() {
    let disk = TornDisk::new();
    let (journal, _) = open_one(&disk).unwrap();
    journal.append(&payload(1)).unwrap();
    disk.set_space(Some(0));
    for n in 2..1_000 {
        assert_eq!(journal.append(&payload(n)).unwrap(), n);
    }
    drop(journal);
    assert_eq!(numbered(&open_one(&disk).unwrap().1), 999);
}
