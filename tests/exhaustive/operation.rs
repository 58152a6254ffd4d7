//! The alphabet: what somebody does to one or two small files, as the system calls it takes.
//!
//! All of them are about one file, called `f` and after a rename `n`, and its neighbour `g`. Every byte that an
//! operation writes is the operation's own letter, and no operation changes the first byte of a file: so that
//! byte says which file it is, whatever it is called.

use crate::simulated::calls::{self, EXCHANGE, Result, process};
use syncfs::engine::Host;
use syncfs::fs::volume::Volume;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    Create,
    Overwrite,
    Append,
    Truncate,
    Rename,
    Replace,
    Exchange,
    Unlink,
    Chmod,
    Fsync,
    Checkpoint,
}

pub const ALL: [Operation; 11] = [
    Operation::Create,
    Operation::Overwrite,
    Operation::Append,
    Operation::Truncate,
    Operation::Rename,
    Operation::Replace,
    Operation::Exchange,
    Operation::Unlink,
    Operation::Chmod,
    Operation::Fsync,
    Operation::Checkpoint,
];

/// One system call. What is written goes to the file opened last.
#[derive(Clone, Debug)]
pub enum Call {
    Create(&'static str, u8),
    Open(&'static str),
    Write {
        name: &'static str,
        at: usize,
        bytes: Vec<u8>,
    },
    Truncate(&'static str, usize),
    Rename(&'static str, &'static str),
    Exchange(&'static str, &'static str),
    Unlink(&'static str),
    Chmod(&'static str, u32),
    Fsync(&'static str),
    Close,
    /// None of a program's: the daemon tidies up.
    Checkpoint,
}

/// What lies in the share before each history, with permission bits 0644.
pub fn beginning() -> [(&'static str, Vec<u8>); 2] {
    [("f", vec![b'f'; 2_300]), ("g", vec![b'g'; 1_200])]
}

impl Operation {
    /// The calls of this operation, the `nth` of its history, where these names are; `None` where it makes
    /// no sense.
    pub fn calls(self, nth: usize, names: &[String]) -> Option<Vec<Call>> {
        let has = |name: &str| names.iter().any(|n| n == name);
        let letter = b'A' + nth as u8;
        let bytes = |len: usize| vec![letter; len];
        let file = if has("f") { "f" } else { "n" };
        let edit = |call: Call| vec![Call::Open(file), call, Call::Close];
        let possible = match self {
            Operation::Create => !has("n"),
            Operation::Rename => has("f"),
            Operation::Replace | Operation::Exchange => has(file) && has("g"),
            Operation::Checkpoint => true,
            _ => has(file),
        };
        possible.then(|| match self {
            Operation::Create => {
                let write = Call::Write { name: "n", at: 0, bytes: bytes(1_500) };
                vec![Call::Create("n", letter), write, Call::Close]
            }
            Operation::Overwrite => edit(Call::Write { name: file, at: 500, bytes: bytes(1_000) }),
            // To the end of what was there at the beginning, or past the end.
            Operation::Append => edit(Call::Write { name: file, at: 2_300, bytes: bytes(900) }),
            Operation::Truncate => vec![Call::Truncate(file, 700)],
            Operation::Rename => vec![Call::Rename("f", "n")],
            Operation::Replace => vec![Call::Rename("g", file)],
            Operation::Exchange => vec![Call::Exchange(file, "g")],
            Operation::Unlink => vec![Call::Unlink(file)],
            Operation::Chmod => vec![Call::Chmod(file, 0o600 + nth as u32)],
            Operation::Fsync => edit(Call::Fsync(file)),
            Operation::Checkpoint => vec![Call::Checkpoint],
        })
    }
}

impl Call {
    /// Makes the call. `open` is what is open.
    pub fn make(&self, host: &Host, open: &mut Option<u64>) -> Result<()> {
        let handle = open.unwrap_or(0);
        match self {
            Call::Create(name, _) => *open = Some(calls::create(host, process(1), name)?),
            Call::Open(name) => *open = Some(calls::open(host, process(1), name)?),
            Call::Write { at, bytes, .. } => calls::write(host, handle, *at as u64, bytes)?,
            Call::Truncate(name, size) => calls::truncate(host, name, *size as u64)?,
            Call::Rename(from, to) => host.rename(from.as_bytes(), to.as_bytes(), 0)?,
            Call::Exchange(a, b) => host.rename(a.as_bytes(), b.as_bytes(), EXCHANGE)?,
            Call::Unlink(name) => host.unlink(name.as_bytes())?,
            Call::Chmod(name, mode) => {
                calls::set_mode_and_time(host, name, *mode, 1_600_000_000 + u64::from(*mode))?;
            }
            Call::Fsync(_) => host.fsync(handle, false)?,
            Call::Close => {
                calls::close(host, handle);
                *open = None;
            }
            Call::Checkpoint => unreachable!("the daemon's own"),
        }
        Ok(())
    }
}
