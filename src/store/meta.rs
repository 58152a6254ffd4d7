//! The metadata store in SQLite.
//!
//! WAL mode, `.syncfs/meta.db`. Values are opaque here and carry a CRC-32C, since SQLite
//! checks its structure but not its content. Invariants:
//! - a commit is one transaction: header, files and position move together or not at all. It survives
//!   the death of the process, and power loss once [`Meta::sync`] returned;
//! - a damaged store is moved aside, never overwritten or deleted;
//! - [`Meta::open`] comes before the mount, and after it SQLite touches no path: the directory is
//!   covered then. It names its files by path, so they stay open: exclusive locking (no `-shm`), the
//!   write-ahead log begun and synced at once (SQLite syncs its directory the first time), nothing
//!   checkpointed or deleted on closing, temporary tables in memory; and SQLite's own locks are off,
//!   since with them it looks at the path when it closes, where a dying mount would never answer. A
//!   lock of ours, of the kind that SQLite respects, keeps other programs out.

use super::error::{Error, Result};
use super::journal::Lsn;
use super::latch::Latch;
use super::metadata::{MetaStore, Opened};
use super::real::RealDisk;
use crate::model::ids::{FileId, WriterId};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, params};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::os::fd::{AsRawFd, OwnedFd};

const NAME: &str = "meta.db";
/// What SQLite may have put beside it.
const COMPANIONS: [&str; 2] = ["-wal", "-journal"];
/// "sync", as `file(1)` shows it.
const APPLICATION: i32 = 0x7379_6e63;
const FORMAT: i32 = 1;
/// Bytes committed after which `commit` syncs by itself: the log must not grow for ever.
const UNSYNCED_BYTES: usize = 64 << 20;

const SCHEMA: &str = "
    CREATE TABLE state(id INTEGER PRIMARY KEY CHECK (id = 0), lsn INTEGER NOT NULL, header BLOB, crc INTEGER);
    CREATE TABLE files(
        writer INTEGER, counter INTEGER, value BLOB NOT NULL, crc INTEGER NOT NULL,
        PRIMARY KEY (writer, counter)
    ) WITHOUT ROWID;
    INSERT INTO state VALUES (0, 0, NULL, NULL);";

pub struct Meta {
    db: Connection,
    _lock: OwnedFd,
    latch: Latch,
    unsynced: usize,
}

impl Meta {
    /// Opens the store and checks all of it. Must be called before the directory is mounted over.
    /// Errors: [`Error::NewerFormat`]; damage is none, see [`Opened::Rebuilt`].
    pub fn open(disk: &RealDisk) -> Result<(Meta, Opened)> {
        // SQLite forgets a log whose main file is empty. Such a store is damaged like any other.
        let log_only = size(disk, NAME)? == 0 && size(disk, "meta.db-wal")? > 0;
        match if log_only { Err(Trouble::Damaged) } else { Meta::attempt(disk) } {
            Ok((meta, fresh)) => Ok((meta, if fresh { Opened::Fresh } else { Opened::Existing })),
            Err(Trouble::Other(e)) => Err(e),
            Err(Trouble::Damaged) => {
                move_aside(disk)?;
                match Meta::attempt(disk) {
                    Ok((meta, _)) => Ok((meta, Opened::Rebuilt)),
                    Err(Trouble::Other(e)) => Err(e),
                    Err(Trouble::Damaged) => Err(Error::Corrupt {
                        what: "a new .syncfs/meta.db cannot be read back: check the disk".into(),
                    }),
                }
            }
        }
    }

    fn attempt(disk: &RealDisk) -> std::result::Result<(Meta, bool), Trouble> {
        let lock = lock(disk).map_err(Trouble::Other)?;
        // SQLite follows the link to the real path, which is ours for as long as nothing is mounted.
        let path = format!("/proc/self/fd/{}/{NAME}", disk.state().as_raw_fd());
        let db = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), c"unix-none")?;
        db.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        // Exclusive before the first access to the log, or SQLite maps a -shm file.
        db.execute_batch(
            "PRAGMA locking_mode = EXCLUSIVE; PRAGMA temp_store = MEMORY; PRAGMA journal_mode = WAL;
             PRAGMA synchronous = NORMAL; PRAGMA wal_autocheckpoint = 0; PRAGMA cell_size_check = ON;",
        )?;
        let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i32>(0));
        let fresh = match (pragma("application_id")?, pragma("user_version")?) {
            (0, 0) => true,
            (APPLICATION, FORMAT) => false,
            (APPLICATION, format) if format > FORMAT => {
                return Err(Trouble::Other(Error::NewerFormat { what: ".syncfs/meta.db".into() }));
            }
            _ => return Err(Trouble::Damaged),
        };
        if fresh {
            // In one transaction, so that a half-made store is fresh again.
            db.execute_batch(&format!(
                "BEGIN; {SCHEMA} PRAGMA application_id = {APPLICATION}; PRAGMA user_version = {FORMAT}; COMMIT;"
            ))?;
        }
        let mut meta = Meta { db, _lock: lock, latch: Latch::default(), unsynced: 0 };
        meta.check()?;
        // The first write after a checkpoint begins the log anew, and this is the last time that
        // SQLite may look for it by name.
        meta.db.execute("UPDATE state SET lsn = lsn", [])?;
        meta.sync().map_err(Trouble::Other)?;
        meta.latch.run("cannot sync .syncfs", || rustix::fs::fsync(disk.state())).map_err(Trouble::Other)?;
        Ok((meta, fresh))
    }

    /// Reads the structure and every value once.
    fn check(&mut self) -> std::result::Result<(), Trouble> {
        let verdict: String = self.db.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(Trouble::Damaged);
        }
        match self.head().and_then(|_| self.each_file(&mut |_, _| {})) {
            Err(Error::Corrupt { .. }) => Err(Trouble::Damaged),
            Err(Error::Database { source, .. }) => Err(source.into()),
            Err(e) => Err(Trouble::Other(e)),
            Ok(_) => Ok(()),
        }
    }

    /// Returns how many bytes that were.
    fn transact(
        &mut self,
        lsn: i64,
        header: &[u8],
        puts: &mut dyn Iterator<Item = (FileId, Vec<u8>)>,
        gone: &[FileId],
    ) -> rusqlite::Result<usize> {
        let mut bytes = header.len();
        let transaction = self.db.transaction()?;
        {
            let mut put =
                transaction.prepare_cached("INSERT OR REPLACE INTO files VALUES (?1, ?2, ?3, ?4)")?;
            for (id, value) in puts {
                bytes += value.len() + 64;
                let (writer, counter) = key(&id);
                put.execute(params![writer, counter, value, checksum(writer, counter, &value)])?;
            }
            let mut remove =
                transaction.prepare_cached("DELETE FROM files WHERE writer = ?1 AND counter = ?2")?;
            for id in gone {
                remove.execute(<[i64; 2]>::from(key(id)))?;
            }
            transaction
                .prepare_cached("UPDATE state SET lsn = ?1, header = ?2, crc = ?3")?
                .execute(params![lsn, header, checksum(lsn, 0, header)])?;
        }
        transaction.commit()?;
        Ok(bytes)
    }

    /// What went wrong; an I/O error may be that of a sync, and is remembered.
    fn failed(&self, what: &'static str, source: rusqlite::Error) -> Error {
        match source.sqlite_error_code() {
            Some(ErrorCode::SystemIoFailure) => self.latch.stop(format!(".syncfs/meta.db {what}: {source}")),
            _ => Error::Database { what, source },
        }
    }
}

impl MetaStore for Meta {
    fn head(&mut self) -> Result<(Lsn, Option<Vec<u8>>)> {
        self.latch.check()?;
        let (lsn, header, crc) = self
            .db
            .query_row("SELECT lsn, header, crc FROM state", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Option<Vec<u8>>>(1)?, row.get::<_, Option<u32>>(2)?))
            })
            .optional()
            .map_err(database("cannot be read"))?
            .ok_or_else(damaged)?;
        match header.as_ref().map(|h| checksum(lsn, 0, h)) == crc {
            true => Ok((lsn.cast_unsigned(), header)),
            false => Err(damaged()),
        }
    }

    fn each_file(&mut self, tell: &mut dyn FnMut(FileId, &[u8])) -> Result<()> {
        self.latch.check()?;
        let mut statement = self
            .db
            .prepare("SELECT writer, counter, value, crc FROM files")
            .map_err(database("cannot be read"))?;
        let mut rows = statement.query([]).map_err(database("cannot be read"))?;
        while let Some(row) = rows.next().map_err(database("cannot be read"))? {
            let fields = || -> rusqlite::Result<(i64, i64, &[u8], u32)> {
                let value = row.get_ref(2)?;
                let wrong = || rusqlite::Error::InvalidColumnType(2, "value".into(), value.data_type());
                Ok((row.get(0)?, row.get(1)?, value.as_blob().map_err(|_| wrong())?, row.get(3)?))
            };
            let (writer, counter, value, crc) = fields().map_err(database("cannot be read"))?;
            if checksum(writer, counter, value) != crc {
                return Err(damaged());
            }
            let id = FileId { writer: WriterId(writer.cast_unsigned()), counter: counter.cast_unsigned() };
            tell(id, value);
        }
        Ok(())
    }

    fn commit(
        &mut self,
        lsn: Lsn,
        header: &[u8],
        puts: &mut dyn Iterator<Item = (FileId, Vec<u8>)>,
        gone: &[FileId],
    ) -> Result<()> {
        self.latch.check()?;
        let written = self.transact(lsn.cast_signed(), header, puts, gone);
        self.unsynced += written.map_err(|e| self.failed("cannot be written", e))?;
        if self.unsynced > UNSYNCED_BYTES { self.sync() } else { Ok(()) }
    }

    fn sync(&mut self) -> Result<()> {
        self.latch.check()?;
        // Syncs the log, carries it over to the main file, syncs that and empties the log.
        let done = self.db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get::<_, i64>(0));
        match done {
            Ok(0) => {
                self.unsynced = 0;
                Ok(())
            }
            Ok(_) => Err(self.latch.stop(".syncfs/meta.db is in use by another program".into())),
            Err(e) => Err(self.failed("cannot be synced", e)),
        }
    }
}

/// Why a store did not open.
enum Trouble {
    Damaged,
    Other(Error),
}

impl From<rusqlite::Error> for Trouble {
    fn from(source: rusqlite::Error) -> Trouble {
        use rusqlite::Error as E;
        match (source.sqlite_error_code(), &source) {
            (Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase), _)
            // Columns of other types, tables that are missing: not written by us.
            | (_, E::InvalidColumnType(..) | E::IntegralValueOutOfRange(..) | E::QueryReturnedNoRows)
            | (Some(ErrorCode::Unknown), _) => Trouble::Damaged,
            _ => Trouble::Other(Error::Database { what: "cannot be opened", source }),
        }
    }
}

/// Makes the main file if it is missing and locks it for as long as the descriptor is open.
fn lock(disk: &RealDisk) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let lock = || {
        let fd = rustix::fs::openat(disk.state(), NAME, flags, Mode::RUSR | Mode::WUSR)?;
        rustix::fs::fcntl_lock(&fd, FlockOperation::NonBlockingLockExclusive).map(|()| fd)
    };
    lock().map_err(Error::io("cannot open .syncfs/meta.db for this daemon alone"))
}

fn key(id: &FileId) -> (i64, i64) {
    (id.writer.0.cast_signed(), id.counter.cast_signed())
}

/// Covers the key too: a value under a wrong key is as bad as a wrong value.
fn checksum(writer: i64, counter: i64, value: &[u8]) -> u32 {
    let crc = crc32c::crc32c(&writer.to_le_bytes());
    crc32c::crc32c_append(crc32c::crc32c_append(crc, &counter.to_le_bytes()), value)
}

fn database(what: &'static str) -> impl Fn(rusqlite::Error) -> Error {
    move |source| Error::Database { what, source }
}

fn damaged() -> Error {
    Error::Corrupt {
        what: "the metadata store .syncfs/meta.db is damaged: mount again, it is then moved aside and begun anew"
            .into(),
    }
}

/// Bytes of a file in `.syncfs`; 0 if it is missing.
fn size(disk: &RealDisk, name: &str) -> Result<u64> {
    match rustix::fs::statat(disk.state(), name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(u64::try_from(stat.st_size).unwrap_or(0)),
        Err(Errno::NOENT) => Ok(0),
        Err(e) => Err(Error::io(format!("cannot look at .syncfs/{name}"))(e)),
    }
}

/// Moves the store, and what belongs to it, to the first number that is free. The main file goes
/// last: a crash in between leaves a store without its log, which is found to be damaged again or is
/// older but whole.
fn move_aside(disk: &RealDisk) -> Result<()> {
    let state = disk.state();
    let free = |n: &u32| {
        ["", COMPANIONS[0], COMPANIONS[1]].iter().all(|suffix| {
            let name = format!("{NAME}.damaged-{n}{suffix}");
            matches!(rustix::fs::statat(state, name, AtFlags::SYMLINK_NOFOLLOW), Err(Errno::NOENT))
        })
    };
    let n = (1..).find(free).unwrap_or(u32::MAX);
    for suffix in [COMPANIONS[0], COMPANIONS[1], ""] {
        let (from, to) = (format!("{NAME}{suffix}"), format!("{NAME}.damaged-{n}{suffix}"));
        match rustix::fs::renameat_with(state, &from, state, &to, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(e) => return Err(Error::io(format!("cannot move the damaged .syncfs/{from} to {to}"))(e)),
        }
    }
    rustix::fs::fsync(state).map_err(Error::io("cannot sync .syncfs"))
}

#[cfg(test)]
#[path = "meta_tests.rs"]
mod tests;
