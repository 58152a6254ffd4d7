//! A file's attributes as programs see them, and times both ways.
//!
//! Invariant: times before 1970 survive both ways.

use super::node::Data;
use crate::fs::volume::{Attr, Ino, Result};
use crate::store::{self, Content};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The attributes of an open file, whose node's data is `data`.
pub(super) fn attr_of(file: &Content, data: &Data, ino: Ino) -> Result<Attr> {
    let mut attr = attr(&file.stat()?, ino);
    if data.orphan.is_some() {
        // Perhaps still in its grave.
        attr.nlink = 0;
    }
    Ok(attr)
}

/// Attributes as they were found on the disk.
pub(super) fn attr(stat: &store::Stat, ino: Ino) -> Attr {
    Attr {
        ino,
        size: stat.size,
        blocks: stat.blocks,
        atime: time(stat.atime),
        mtime: time(stat.mtime),
        ctime: time(stat.ctime),
        is_dir: false,
        mode: stat.mode,
        nlink: stat.nlink,
        uid: stat.uid,
        gid: stat.gid,
    }
}

fn time(time: store::Time) -> SystemTime {
    let nanos = Duration::from_nanos(time.nanos.into());
    match u64::try_from(time.seconds) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds) + nanos,
        Err(_) => UNIX_EPOCH - Duration::from_secs(time.seconds.unsigned_abs()) + nanos,
    }
}

/// A time as the disk takes it.
pub(super) fn disk_time(time: SystemTime) -> store::Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => store::Time { seconds: after.as_secs() as i64, nanos: after.subsec_nanos() },
        Err(before) => {
            let before = before.duration();
            let mut seconds = -(before.as_secs() as i64);
            let mut nanos = before.subsec_nanos();
            if nanos > 0 {
                seconds -= 1;
                nanos = 1_000_000_000 - nanos;
            }
            store::Time { seconds, nanos }
        }
    }
}
