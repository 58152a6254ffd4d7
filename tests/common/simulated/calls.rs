//! What programs ask of a simulated host, in the words of system calls. Each call is a process of its own,
//! unless said otherwise.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};
use syncfs::engine::Host;
use syncfs::fs::error::Error;
use syncfs::fs::volume::{Answer, Caller, SetAttr, Volume, WriteMode};

pub type Result<T> = std::result::Result<T, Error>;

pub const EXCHANGE: u32 = 2;
/// Threads of such numbers do not exist, so each is a process of its own.
const ANYBODY: u32 = 5_000_000;

/// The `n`th of the processes on a host.
pub fn process(n: u32) -> Caller {
    Caller { uid: 0, gid: 0, thread: ANYBODY + n }
}

/// Makes a new empty file and opens it.
pub fn create(host: &Host, caller: Caller, name: &str) -> Result<u64> {
    let flags = libc::O_CREAT | libc::O_EXCL | libc::O_RDWR;
    Ok(host.create(caller, name.as_bytes(), 0o644, flags)?.1.handle)
}

pub fn open(host: &Host, caller: Caller, name: &str) -> Result<u64> {
    let attr = host.lookup(name.as_bytes())?;
    Ok(host.open(caller, attr.ino, libc::O_RDWR)?.handle)
}

/// Writes all of `bytes`.
pub fn write(host: &Host, handle: u64, at: u64, bytes: &[u8]) -> Result<()> {
    match host.write(handle, at, bytes, WriteMode::default())? as usize {
        n if n == bytes.len() => Ok(()),
        _ => Err(Error::Io(std::io::Error::from_raw_os_error(libc::ENOSPC))),
    }
}

/// close(2) of the one descriptor.
pub fn close(host: &Host, handle: u64) {
    let _ = Volume::flush(host, handle, 0);
    host.release(handle, None);
}

pub fn truncate(host: &Host, name: &str, size: u64) -> Result<()> {
    set(host, name, SetAttr { size: Some(size), ..SetAttr::default() })
}

/// chmod(2) and utimensat(2) in one.
pub fn set_mode_and_time(host: &Host, name: &str, mode: u32, seconds: u64) -> Result<()> {
    let mtime = Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    set(host, name, SetAttr { mode: Some(mode), mtime, ..SetAttr::default() })
}

fn set(host: &Host, name: &str, set: SetAttr) -> Result<()> {
    let ino = host.lookup(name.as_bytes())?.ino;
    host.setattr(process(0), ino, None, set).map(drop)
}

/// All of a file; `None` where there is none, or part of it is still on its way.
pub fn read(host: &Host, name: &str) -> Option<Vec<u8>> {
    let attr = host.lookup(name.as_bytes()).ok()?;
    let opened = host.open(process(0), attr.ino, libc::O_RDONLY).ok()?;
    let bytes = read_open(host, opened.handle, u32::try_from(attr.size).ok()?);
    host.release(opened.handle, None);
    bytes
}

/// All of a file, once it is all here; `None` where it is, or there is none.
pub fn read_later(host: &Host, name: &str) -> Option<impl Future<Output = Result<Vec<u8>>> + Send + use<>> {
    let attr = host.lookup(name.as_bytes()).ok()?;
    let opened = host.open(process(0), attr.ino, libc::O_RDONLY).ok()?;
    // It may grow meanwhile.
    let answer = host.read(opened.handle, 0, 1 << 20);
    host.release(opened.handle, None);
    match answer {
        Answer::Later(later) => Some(later),
        Answer::Now(_) => None,
    }
}

/// The first `size` bytes of a file that is open, whether it has a name or not.
pub fn read_open(host: &Host, handle: u64, size: u32) -> Option<Vec<u8>> {
    match host.read(handle, 0, size) {
        Answer::Now(bytes) => bytes.ok(),
        Answer::Later(_) => None,
    }
}

/// Permission bits of a file, where there is one.
pub fn mode(host: &Host, name: &str) -> Option<u32> {
    host.lookup(name.as_bytes()).ok().map(|attr| attr.mode)
}

pub fn names(host: &Host) -> Vec<String> {
    let names = host.list().into_iter().map(|(name, _)| String::from_utf8(name).unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

/// Every file that can be read wholly now.
pub fn whole_files(host: &Host) -> BTreeMap<String, Vec<u8>> {
    names(host).into_iter().filter_map(|name| Some((name.clone(), read(host, &name)?))).collect()
}
