//! SQLite at work in a process of its own: rows go in one by one, each told when it is committed.

use crate::rig::{Program, run};
use rusqlite::Connection;
use std::path::Path;
use std::process::{Command, Stdio};

/// The journal modes that databases are written in.
pub const MODES: [&str; 2] = ["delete", "wal"];
const PATH: &str = "SYNCFS_TEST_DATABASE";
const MODE: &str = "SYNCFS_TEST_DATABASE_MODE";

/// A program that writes one database without pause.
pub struct Database {
    program: Program,
    committed: u64,
}

impl Database {
    pub fn write(path: &Path, mode: &str) -> Database {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args([
            "--ignored",
            "--exact",
            "--nocapture",
            "--quiet",
            "database::the_program_that_commits",
        ]);
        command.env(PATH, path).env(MODE, mode).stdin(Stdio::piped());
        Database { program: Program::spawn(&mut command), committed: 0 }
    }

    /// Waits until that many more rows are committed.
    pub fn committed_since_start(&mut self, rows: u64) {
        let mut seen = 0;
        while seen < rows {
            let line = self.program.line();
            assert!(!line.contains("FAILED") && !line.contains("panicked"), "{line}");
            if let Some(row) = line.strip_prefix("row ") {
                self.committed = row.parse().unwrap();
                seen += 1;
            }
        }
    }

    /// Ends it; returns the last row whose commit it told. `dead`: its daemon is, and so must it be.
    pub fn end(mut self, dead: bool) -> u64 {
        drop(self.program.stdin());
        let mut failed = false;
        while let Some(line) = self.program.last_line() {
            if let Some(row) = line.strip_prefix("row ") {
                self.committed = row.parse().unwrap();
            }
            failed |= line.starts_with("error ");
            assert!(!failed || dead, "{line}");
        }
        self.committed
    }
}

#[test]
#[ignore = "what the tests of databases start as a process"]
fn the_program_that_commits() {
    let (Some(path), Ok(mode)) = (std::env::var_os(PATH), std::env::var(MODE)) else { return };
    println!();
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = stop.clone();
    std::thread::spawn(move || {
        let _ = std::io::stdin().read_line(&mut String::new());
        told.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    if let Err(error) = insert(Path::new(&path), &mode, &stop) {
        println!("error {error}");
    }
}

fn insert(path: &Path, mode: &str, stop: &std::sync::atomic::AtomicBool) -> rusqlite::Result<()> {
    let db = Connection::open(path)?;
    // In the other mode FULL leaves it open whether the directory has forgotten the journal, and with it the commit.
    db.pragma_update(None, "synchronous", if mode == "wal" { "FULL" } else { "EXTRA" })?;
    let _: String = db.query_row(&format!("PRAGMA journal_mode={mode}"), [], |row| row.get(0))?;
    db.execute_batch("CREATE TABLE IF NOT EXISTS t(id INTEGER PRIMARY KEY, text BLOB NOT NULL)")?;
    while !stop.load(std::sync::atomic::Ordering::Relaxed) {
        db.execute("INSERT INTO t(text) VALUES (randomblob(abs(random()) % 3000))", [])?;
        println!("row {}", db.last_insert_rowid());
    }
    Ok(())
}

/// Whether the database `name` in `dir` is whole and has at least the rows up to `rows`.
pub fn check(dir: &Path, name: &str, rows: u64) -> Result<(), String> {
    // Looked at elsewhere, as looking may write. The shared memory is made anew.
    let aside = tempfile::tempdir().unwrap();
    for suffix in ["", "-wal", "-journal"] {
        let from = dir.join(format!("{name}{suffix}"));
        if from.exists() {
            run(dir, &["cp", from.to_str().unwrap(), aside.path().to_str().unwrap()]);
        }
    }
    let look = || -> rusqlite::Result<(String, u64, u64)> {
        let db = Connection::open(aside.path().join(name))?;
        let verdict = db.query_row("PRAGMA integrity_check", [], |row| row.get(0))?;
        let (count, last) = db.query_row("SELECT count(*), coalesce(max(id), 0) FROM t", [], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64))
        })?;
        Ok((verdict, count, last))
    };
    match look() {
        Ok((verdict, ..)) if verdict != "ok" => Err(verdict),
        Ok((_, count, last)) if count != last || last < rows => {
            Err(format!("{count} rows up to {last}, {rows} were committed"))
        }
        Ok(_) => Ok(()),
        Err(error) => Err(error.to_string()),
    }
}
