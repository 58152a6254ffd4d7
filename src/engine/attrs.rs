//! A file's attributes as programs see them, and times both ways.
//!
//! Invariant: times before 1970 survive both ways.

use crate::fs::volume::{Attr, Ino, Result};
use rustix::fs::Timespec;
use std::fs::File;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The attributes of an open file.
pub(super) fn attr_of(file: &File, ino: Ino) -> Result<Attr> {
    Ok(attr(&rustix::fs::fstat(file)?, ino))
}

/// Attributes as they were found on the disk.
pub(super) fn attr(stat: &rustix::fs::Stat, ino: Ino) -> Attr {
    Attr {
        ino,
        size: stat.st_size as u64,
        blocks: stat.st_blocks as u64,
        atime: time(stat.st_atime, stat.st_atime_nsec as i64),
        mtime: time(stat.st_mtime, stat.st_mtime_nsec as i64),
        ctime: time(stat.st_ctime, stat.st_ctime_nsec as i64),
        is_dir: false,
        mode: stat.st_mode & 0o7777,
        nlink: stat.st_nlink as u32,
        uid: stat.st_uid,
        gid: stat.st_gid,
    }
}

fn time(seconds: i64, nanos: i64) -> SystemTime {
    let nanos = Duration::from_nanos(nanos as u64);
    match u64::try_from(seconds) {
        Ok(seconds) => UNIX_EPOCH + Duration::from_secs(seconds) + nanos,
        Err(_) => UNIX_EPOCH - Duration::from_secs(seconds.unsigned_abs()) + nanos,
    }
}

/// A time as system calls take it.
pub(super) fn timespec(time: SystemTime) -> Timespec {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Timespec { tv_sec: after.as_secs() as i64, tv_nsec: after.subsec_nanos().into() },
        Err(before) => {
            let before = before.duration();
            let mut seconds = -(before.as_secs() as i64);
            let mut nanos = -i64::from(before.subsec_nanos());
            if nanos < 0 {
                seconds -= 1;
                nanos += 1_000_000_000;
            }
            Timespec { tv_sec: seconds, tv_nsec: nanos as _ }
        }
    }
}
