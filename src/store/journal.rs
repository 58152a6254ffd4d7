//! The journal: an append-only log of records, numbered without a gap.
//!
//! A record is `len u32, lsn u64, crc u32, payload`, little-endian; the CRC-32C covers length, number
//! and payload. Records lie in segments, each a file named by its first number and the format.
//!
//! Behind the last record there may be zeros, which the next records write over: a sync that need not make a new size
//! durable is several times as fast.
//!
//! Invariants:
//! - a record that `append` took survives the death of the process, one that `sync` covered survives
//!   power loss, and what is recovered is always a prefix of what was appended;
//! - a segment is durable, whole and by name, before the next one exists. So only the last one can be torn: its
//!   tail is cut off from the first bad record on. A bad record in an earlier one is damage to what
//!   somebody was promised, and is reported rather than cut;
//! - segments go oldest first, each removal durable before the next: what remains has no gap;
//! - numbers are never used twice: the last segment stays when all records go, for its name counts.
//!
//! Locks: `tail` before nothing, `flush` before `tail`; disk syncs are waited for under neither, except
//! where a segment is full.

use super::disk::{Content, Dir, Disk};
use super::error::{Error, Result};
use super::latch::Latch;
use crate::model::limits::{JOURNAL_ROOM, RECORD_BYTES};
use crate::model::sabotage::{Bug, planted};
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

/// Position of a record; the first record is 1.
pub type Lsn = u64;
/// Records with their numbers, in order.
pub type Records = Vec<(Lsn, Vec<u8>)>;

/// No segment begins past this: nobody has written so many records, and numbers behind it would overflow.
const LAST: Lsn = 1 << 62;
/// Bytes of a segment after which the next one begins.
const SEGMENT_BYTES: u64 = 64 << 20;
/// Bytes of the last segment above which `trim` begins a new one, so that it can go next time.
const TRIM_BYTES: u64 = 1 << 20;
/// Bytes of zeros behind the last record after a sync, a quarter of it at least.
const ZEROS: u64 = 256 << 10;
/// Bytes before the payload.
const HEADER: usize = 16;
/// The format, last part of a segment's name.
const FORMAT: u32 = 1;
/// Bytes of the append buffer that are kept between records.
const KEPT_BUFFER: usize = 1 << 20;

pub struct Journal {
    disk: Arc<dyn Disk>,
    tail: Mutex<Tail>,
    flush: Mutex<Flush>,
    flushed: Condvar,
    /// One trim at a time: removals are in order.
    trimming: Mutex<()>,
    was_torn: bool,
    latch: Latch,
    segment_bytes: u64,
    trim_bytes: u64,
}

/// Where the next record goes.
struct Tail {
    /// Oldest first, never empty; the last one is open as `file`.
    segments: VecDeque<Segment>,
    file: Content,
    /// The last record appended.
    end: Lsn,
    /// The last segment, if its name may not be durable yet.
    new_name: Option<Lsn>,
    buffer: Vec<u8>,
    /// Up to here the disk has set room aside for the last segment, bytes.
    room: u64,
    /// The length of the last segment's file, bytes: behind the records there are zeros.
    length: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Segment {
    /// The number of its first record, present or to come.
    first: Lsn,
    bytes: u64,
}

struct Flush {
    synced: Lsn,
    /// Somebody is syncing; the others wait for the outcome.
    running: bool,
}

impl Journal {
    /// Opens the journal and reads it all: the records in order, all of them durable by now.
    /// Errors: [`Error::Corrupt`] where a segment is missing or any but the last one is damaged.
    pub fn open(disk: Arc<dyn Disk>) -> Result<(Journal, Records)> {
        Journal::open_sized(disk, SEGMENT_BYTES, TRIM_BYTES)
    }

    fn open_sized(disk: Arc<dyn Disk>, segment_bytes: u64, trim_bytes: u64) -> Result<(Journal, Records)> {
        let fail = |what: &str| Error::io(format!("cannot {what} the journal in .syncfs/journal"));
        let mut firsts = Vec::new();
        for (name, _) in disk.list(Dir::Journal).map_err(fail("list"))? {
            firsts.extend(parse_name(&String::from_utf8_lossy(&name))?);
        }
        firsts.sort_unstable();
        let mut records = Vec::new();
        let mut segments = VecDeque::new();
        let mut end = firsts.first().map_or(0, |first| first - 1);
        let (mut last, mut length, mut torn) = (None, 0, false);
        for (i, first) in firsts.iter().enumerate() {
            if *first != end + 1 {
                return Err(damaged(&format!("records {} to {} are missing", end + 1, first - 1)));
            }
            let file = disk.open(Dir::Journal, file_name(*first).as_bytes(), true).map_err(fail("open"))?;
            let bytes = read(&file).map_err(fail("read"))?;
            let good = parse(&bytes, &mut end, &mut records);
            let is_last = i + 1 == firsts.len();
            length = bytes.len() as u64;
            if good < bytes.len() && !(is_last && bytes[good..].iter().all(|b| *b == 0)) {
                if !is_last {
                    return Err(damaged(&format!("record {} cannot be read", end + 1)));
                }
                file.set_len(good as u64).map_err(fail("cut the torn end off"))?;
                (length, torn) = (good as u64, true);
            }
            segments.push_back(Segment { first: *first, bytes: good as u64 });
            last = Some(file);
        }
        let file = match last {
            Some(file) => file,
            None => {
                segments.push_back(Segment { first: 1, bytes: 0 });
                disk.create(Dir::Journal, file_name(1).as_bytes(), 0o600).map_err(fail("create"))?
            }
        };
        let latch = Latch::default();
        // The cut must be durable before new records follow it, or old ones could come back behind
        // them; and what the caller acts upon must not vanish after it has.
        latch
            .run("cannot sync the journal", || file.sync_data().and_then(|()| disk.sync_dir(Dir::Journal)))?;
        let tail = Tail { segments, file, end, new_name: None, buffer: Vec::new(), room: 0, length };
        let journal = Journal {
            disk,
            tail: Mutex::new(tail),
            flush: Mutex::new(Flush { synced: end, running: false }),
            flushed: Condvar::new(),
            trimming: Mutex::new(()),
            was_torn: torn,
            latch,
            segment_bytes,
            trim_bytes,
        };
        Ok((journal, records))
    }

    /// From here on nothing is appended: the disk is not as the records say. `why` is what could not be done.
    pub fn stop(&self, why: String) -> Error {
        self.latch.stop(why)
    }

    /// Whether there was something behind the records that could not be read, when it was opened.
    pub fn was_torn(&self) -> bool {
        self.was_torn
    }

    /// Appends a record of at most [`RECORD_BYTES`]; one write, no sync. On an error nothing was
    /// appended and the journal stays usable, unless it is [`Error::Stopped`].
    pub fn append(&self, payload: &[u8]) -> Result<Lsn> {
        if payload.len() > RECORD_BYTES {
            let too_long = io::Error::from_raw_os_error(libc::EFBIG);
            return Err(Error::io("cannot append to the journal")(too_long));
        }
        let mut tail = self.tail.lock();
        self.latch.check()?;
        if tail.last().bytes >= self.segment_bytes {
            self.roll(&mut tail)?;
        }
        let lsn = tail.end + 1;
        let mut buffer = std::mem::take(&mut tail.buffer);
        put_record(&mut buffer, lsn, payload);
        let at = tail.last().bytes;
        tail.keep_room(at + buffer.len() as u64);
        let written = tail.file.write_all_at(&buffer, at);
        let end = at + buffer.len() as u64;
        if buffer.capacity() <= KEPT_BUFFER {
            tail.buffer = buffer;
        }
        if let Err(e) = written {
            if let Err(worse) = tail.file.set_len(at) {
                return Err(self.latch.stop(format!("cannot take back half a journal record: {worse}")));
            }
            (tail.length, tail.room) = (at, 0);
            return Err(Error::io("cannot append to the journal")(e));
        }
        tail.last_mut().bytes = end;
        tail.length = tail.length.max(end);
        tail.end = lsn;
        Ok(lsn)
    }

    /// Returns when every record up to `upto` is durable. Callers that come together share one sync.
    pub fn sync(&self, upto: Lsn) -> Result<()> {
        let upto = upto.min(self.end());
        let mut flush = self.flush.lock();
        loop {
            self.latch.check()?;
            if flush.synced >= upto {
                return Ok(());
            }
            if !flush.running {
                break;
            }
            self.flushed.wait(&mut flush);
        }
        flush.running = true;
        drop(flush);
        let result = self.sync_tail();
        let mut flush = self.flush.lock();
        flush.running = false;
        if let Ok(end) = result {
            flush.synced = flush.synced.max(end);
        }
        self.flushed.notify_all();
        result.map(drop)
    }

    /// Makes durable what is there now; gives back the last record of it.
    fn sync_tail(&self) -> Result<Lsn> {
        // Earlier segments are durable already: only the last one counts.
        let (file, end) = {
            let mut tail = self.tail.lock();
            tail.keep_zeros();
            (tail.file.clone(), tail.end)
        };
        self.latch.run("cannot sync the journal", || file.sync_data())?;
        self.sync_name()?;
        Ok(end)
    }

    /// Makes the name of the last segment durable.
    fn sync_name(&self) -> Result<()> {
        let new_name = self.tail.lock().new_name;
        let Some(first) = new_name else { return Ok(()) };
        self.sync_names()?;
        // Not before: until it is true, nobody may begin the next segment on the strength of it.
        let mut tail = self.tail.lock();
        if tail.new_name == Some(first) {
            tail.new_name = None;
        }
        Ok(())
    }

    fn sync_names(&self) -> Result<()> {
        self.latch.run("cannot sync the journal's directory", || self.disk.sync_dir(Dir::Journal))
    }

    /// The last record known to be durable.
    pub fn synced(&self) -> Lsn {
        self.flush.lock().synced
    }

    /// The last record appended; 0 before the first.
    pub fn end(&self) -> Lsn {
        self.tail.lock().end
    }

    /// Bytes in all segments.
    pub fn bytes(&self) -> u64 {
        self.tail.lock().segments.iter().map(|s| s.bytes).sum()
    }

    /// Nobody needs the records before `before` any more: removes the segments that hold only such.
    /// Waits for the disk; on an error some are left, and go next time.
    pub fn trim(&self, before: Lsn) -> Result<()> {
        let _one = self.trimming.lock();
        if self.tail.lock().last().bytes >= self.trim_bytes {
            // Outside the lock, so that the sync within has little left to do.
            self.sync(Lsn::MAX)?;
            self.roll(&mut self.tail.lock())?;
        }
        // The last segment's name must be there before earlier ones go: the numbers go on from it.
        self.sync_name()?;
        loop {
            let spare = self.tail.lock().spare(before);
            let Some(oldest) = spare else { return Ok(()) };
            let name = file_name(oldest);
            self.disk
                .unlink(Dir::Journal, name.as_bytes())
                .map_err(Error::io(format!("cannot remove .syncfs/journal/{name}")))?;
            self.tail.lock().segments.pop_front();
            self.sync_names()?;
        }
    }

    /// Begins a new segment, the old one durable before.
    fn roll(&self, tail: &mut Tail) -> Result<()> {
        let bytes = tail.last().bytes;
        self.latch.run("cannot sync the journal", || {
            tail.file.set_len(bytes)?;
            tail.file.sync_data()
        })?;
        if tail.new_name.is_some() {
            self.sync_names()?;
            tail.new_name = None;
        }
        let first = tail.end + 1;
        let name = file_name(first);
        tail.file = self
            .disk
            .create(Dir::Journal, name.as_bytes(), 0o600)
            .map_err(Error::io(format!("cannot create .syncfs/journal/{name}")))?;
        tail.segments.push_back(Segment { first, bytes: 0 });
        (tail.new_name, tail.room, tail.length) = (Some(first), 0, 0);
        Ok(())
    }
}

impl Tail {
    /// Sees to it that the disk has room for records beyond `end`, also when it is full: for what makes room, and
    /// for the end of what was begun. Where it can't, records take what room there is.
    fn keep_room(&mut self, end: u64) {
        if end + JOURNAL_ROOM / 2 > self.room
            && self.file.allocate(libc::FALLOC_FL_KEEP_SIZE as u32, end, JOURNAL_ROOM).is_ok()
        {
            self.room = end + JOURNAL_ROOM;
        }
    }

    /// Puts zeros behind the last record. They need not be durable, and where there is no room for them it goes without.
    fn keep_zeros(&mut self) {
        let bytes = self.last().bytes;
        if self.length < bytes + ZEROS / 4 {
            let zeros = vec![0; (bytes + ZEROS - self.length) as usize];
            self.length += self.file.write_most_at(&zeros, self.length).0 as u64;
        }
    }

    /// The oldest segment, if all its records are before `before` and others follow it.
    fn spare(&self, before: Lsn) -> Option<Lsn> {
        let (oldest, next) = (self.segments.front()?, self.segments.get(1)?);
        (next.first <= before).then_some(oldest.first)
    }

    fn last(&self) -> Segment {
        self.segments[self.segments.len() - 1]
    }

    fn last_mut(&mut self) -> &mut Segment {
        let last = self.segments.len() - 1;
        &mut self.segments[last]
    }
}

/// Everything in a segment.
fn read(file: &Content) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; file.len()? as usize];
    let read = file.read_full_at(&mut bytes, 0)?;
    bytes.truncate(read);
    Ok(bytes)
}

fn put_record(buffer: &mut Vec<u8>, lsn: Lsn, payload: &[u8]) {
    buffer.clear();
    buffer.extend_from_slice(&(payload.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&lsn.to_le_bytes());
    let crc = crc32c::crc32c_append(crc32c::crc32c(buffer), payload);
    buffer.extend_from_slice(&crc.to_le_bytes());
    buffer.extend_from_slice(payload);
}

/// Takes the good records off the front of a segment; gives back how many bytes they fill.
fn parse(bytes: &[u8], end: &mut Lsn, records: &mut Vec<(Lsn, Vec<u8>)>) -> usize {
    let mut at = 0;
    while let Some(payload) = record(&bytes[at..], *end + 1) {
        *end += 1;
        records.push((*end, payload.to_vec()));
        at += HEADER + payload.len();
    }
    at
}

/// The payload of the record that `bytes` begin with, if it is whole and has the number `lsn`.
fn record(bytes: &[u8], lsn: Lsn) -> Option<&[u8]> {
    let (head, rest) = bytes.split_first_chunk::<HEADER>()?;
    let [l0, l1, l2, l3, n @ .., c0, c1, c2, c3] = *head;
    let length = u32::from_le_bytes([l0, l1, l2, l3]) as usize;
    let payload = rest.get(..length).filter(|_| length <= RECORD_BYTES)?;
    let crc = crc32c::crc32c_append(crc32c::crc32c(&head[..12]), payload);
    let good = u32::from_le_bytes([c0, c1, c2, c3]) == crc || planted(Bug::AcceptTornTail);
    (u64::from_le_bytes(n) == lsn && good).then_some(payload)
}

fn file_name(first: Lsn) -> String {
    format!("{first:016x}.v{FORMAT}")
}

/// The first number of the segment of that name; `None` for files that are no segment.
fn parse_name(name: &str) -> Result<Option<Lsn>> {
    let Some((first, format)) = name.split_once(".v") else { return Ok(None) };
    match (u64::from_str_radix(first, 16), format.parse::<u32>()) {
        (Ok(_), Ok(format)) if format > FORMAT => {
            Err(Error::NewerFormat { what: format!(".syncfs/journal/{name}") })
        }
        (Ok(first), Ok(_)) if first > LAST => Err(damaged(&format!("there is no record {first}"))),
        (Ok(first), Ok(_)) if first > 0 && file_name(first) == name => Ok(Some(first)),
        _ => Ok(None),
    }
}

fn damaged(what: &str) -> Error {
    Error::Corrupt {
        what: format!(
            "the journal in .syncfs/journal is damaged: {what}; this is not the trace of a crash but of a \
             failing disk or of a foreign hand: check the disk, keep a copy of the directory"
        ),
    }
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
