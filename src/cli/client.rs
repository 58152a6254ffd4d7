//! The other end of a daemon's control socket, and how the right socket is found.
//!
//! Invariants: waits are bounded by the caller; a socket nobody listens at is removed, and never one
//! that came to its path since.

use super::exit::{Exit, Failure};
use super::place::{self, Places};
use super::process::Process;
use super::protocol::{self, Answer, LINE_BYTES, Request};
use crate::fs::mount;
use anyhow::Context;
use serde_json::Value;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a daemon may take for what it has at hand.
pub const AT_ONCE: Duration = Duration::from_secs(10);

/// A connection to one daemon.
pub struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    /// `None` if nobody listens at `socket`.
    pub fn connect(socket: &Path) -> io::Result<Option<Client>> {
        let inode = |path: &Path| path.symlink_metadata().map(|m| m.ino()).ok();
        let before = inode(socket);
        match UnixStream::connect(socket) {
            Ok(stream) => Ok(Some(Client { stream: BufReader::new(stream) })),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                if before.is_some() && inode(socket) == before {
                    let _ = std::fs::remove_file(socket);
                }
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    /// The answer to `request`; `timeout` of `None` waits until the daemon answers or ends.
    pub fn ask(&mut self, request: &Request, timeout: Option<Duration>) -> Result<Value, Failure> {
        let line = self.exchange(request, timeout).map_err(|e| match e.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                Failure::new(Exit::TryAgain, "the daemon did not answer in time")
            }
            _ => Failure::other(format_args!("the daemon ended before it answered ({e}); its log says why")),
        })?;
        let answer: Answer = serde_json::from_slice(&line).context("the daemon answered nonsense")?;
        answer.into()
    }

    /// The daemon's process, if it was killed but has not ended.
    pub fn dying(&self) -> Option<Process> {
        let peer = rustix::net::sockopt::socket_peercred(self.stream.get_ref()).ok()?;
        Process::is_dying(peer.pid).then(|| Process::new(peer.pid).ok())?
    }

    /// The same, and returns only when the daemon's process is gone and has let go of everything.
    pub fn ask_and_outlive(mut self, request: &Request, timeout: Option<Duration>) -> Result<(), Failure> {
        // Opened before the question, while the number is surely the daemon's.
        let daemon = rustix::net::sockopt::socket_peercred(self.stream.get_ref()).map_err(io::Error::from);
        let daemon =
            daemon.and_then(|peer| Process::new(peer.pid)).context("can't watch the daemon's process")?;
        self.ask(request, timeout)?;
        match daemon.ends_within(AT_ONCE).context("can't watch the daemon's process")? {
            true => Ok(()),
            false => Err(Failure::new(Exit::TryAgain, "the daemon has closed its store but does not end")),
        }
    }

    fn exchange(&mut self, request: &Request, timeout: Option<Duration>) -> io::Result<Vec<u8>> {
        self.stream.get_ref().set_read_timeout(timeout)?;
        self.stream.get_ref().set_write_timeout(Some(AT_ONCE))?;
        self.stream.get_mut().write_all(&protocol::line(request))?;
        let mut line = Vec::new();
        (&mut self.stream).take(LINE_BYTES).read_until(b'\n', &mut line)?;
        if line.last() == Some(&b'\n') { Ok(line) } else { Err(ErrorKind::UnexpectedEof.into()) }
    }
}

/// The daemon that serves `dir`; without one, of the only share that is mounted.
pub fn find(dir: Option<&Path>) -> Result<Client, Failure> {
    match dir {
        Some(dir) => at(dir),
        None => only(),
    }
}

fn at(dir: &Path) -> Result<Client, Failure> {
    let dir = place::resolve(dir)?;
    let socket = Places::here().socket(&dir);
    let failed = || format!("can't reach the daemon of {} at {}", dir.display(), socket.display());
    if let Some(client) = Client::connect(&socket).with_context(failed)? {
        return Ok(client);
    }
    let shown = dir.display();
    Err(Failure::other(match is_mounted(&dir)? {
        true => format!(
            "{shown} is mounted, but its daemon is gone or another user's; a dead mount goes with\n  \
             fusermount3 -u {shown}"
        ),
        false => format!("{shown} is not mounted"),
    }))
}

fn only() -> Result<Client, Failure> {
    let mut found: Vec<(PathBuf, Client)> = Vec::new();
    for socket in Places::here().sockets()? {
        if let Ok(Some(client)) = Client::connect(&socket) {
            found.push((socket, client));
        }
    }
    if found.len() > 1 {
        let mounts: Vec<String> = found.iter_mut().map(|(socket, client)| mount_of(socket, client)).collect();
        let message = format!("several shares are mounted; name one of\n  {}", mounts.join("\n  "));
        return Err(Failure::new(Exit::Usage, message));
    }
    match found.pop() {
        Some((_, client)) => Ok(client),
        None => Err(Failure::other("you have no share mounted on this host")),
    }
}

/// The mounted directory, for a message.
fn mount_of(socket: &Path, client: &mut Client) -> String {
    let status = client.ask(&Request::Status, Some(AT_ONCE)).unwrap_or_default();
    match status["mount"].as_str() {
        Some(mount) => mount.to_owned(),
        None => format!("(does not answer at {})", socket.display()),
    }
}

/// Whether a syncfs is mounted at `dir`, live or dead.
pub fn is_mounted(dir: &Path) -> Result<bool, Failure> {
    let mounts = mount::mounts().map_err(Failure::other)?;
    Ok(mounts.iter().any(|mount| mount.target == dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_nobody_listens_at_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let socket = temp.path().join("a.sock");
        assert!(Client::connect(&socket).unwrap().is_none());
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(Client::connect(&socket).unwrap().is_none());
        assert!(!socket.exists());
    }

    #[test]
    fn a_daemon_that_ends_is_told_apart_from_one_that_is_slow() {
        let temp = tempfile::tempdir().unwrap();
        let socket = temp.path().join("a.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mut client = Client::connect(&socket).unwrap().unwrap();
        drop(listener.accept().unwrap());
        assert_eq!(client.ask(&Request::Status, None).unwrap_err().exit, Exit::Other);
        let mut client = Client::connect(&socket).unwrap().unwrap();
        let slow = client.ask(&Request::Status, Some(Duration::from_millis(5))).unwrap_err();
        assert_eq!(slow.exit, Exit::TryAgain);
    }
}
