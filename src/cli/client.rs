//! How the daemon of a share is found and, where it ends, outlived.

use super::config;
use super::exit::{Exit, Failure};
use super::place::Places;
use super::process::Process;
use crate::api::request::Request;
use crate::fs::mount;
use crate::model::name::Name;
use anyhow::Context;
use std::net::SocketAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use crate::api::client::{AT_ONCE, Client};

/// The daemon's process, if it was killed but has not ended.
pub fn dying(client: &Client) -> Option<Process> {
    let daemon = *client.daemon().as_ref().ok()?;
    Process::is_dying(daemon).then(|| Process::new(daemon).ok())?
}

/// Asks, and returns only when the daemon's process is gone and has let go of everything.
pub fn outlive(mut client: Client, request: &Request, timeout: Option<Duration>) -> Result<(), Failure> {
    let watching = "can't watch the daemon's process";
    let daemon = client.daemon().as_ref().map_err(|e| Failure::other(format_args!("{watching}: {e}")))?;
    // Opened before the question, while the number is surely the daemon's.
    let daemon = Process::new(*daemon).context(watching)?;
    client.ask(request, timeout)?;
    match daemon.ends_within(AT_ONCE).context(watching)? {
        true => Ok(()),
        false => Err(Failure::new(Exit::TryAgain, "the daemon has closed its store but does not end")),
    }
}

/// The daemon that serves `dir`, which may be a config's name; without one, of the only share that is mounted.
pub fn find(dir: Option<&Path>) -> Result<Client, Failure> {
    match dir {
        Some(dir) => at(dir),
        None => only(),
    }
}

/// The daemon of the share that `file` lies in, and the file's name there.
pub fn of_file(file: &Path) -> Result<(Client, String), Failure> {
    let shown = file.display();
    let failed = || format!("can't find {shown}");
    let absolute = std::path::absolute(file).with_context(failed)?;
    let dir = absolute.parent().map(Path::canonicalize).transpose().with_context(failed)?;
    let name = absolute.file_name().filter(|name| Name::new(name.as_bytes()).is_ok());
    let (dir, name) = match dir.zip(name) {
        Some((dir, name)) if is_mounted(&dir)? => (dir, name),
        _ => return Err(Failure::other(format_args!("{shown} does not lie in a mounted share"))),
    };
    let name = name.to_str().ok_or_else(|| {
        Failure::other(format_args!("{shown}: its name is not UTF-8, and can't be said to the daemon"))
    })?;
    Ok((at(&dir)?, name.to_owned()))
}

fn at(dir: &Path) -> Result<Client, Failure> {
    let places = Places::here();
    let dir = config::directory(dir, &places)?;
    let socket = places.socket(&dir);
    let failed = || format!("can't reach the daemon of {} at {}", dir.display(), socket.display());
    if let Some(client) = Client::connect(&socket).with_context(failed)? {
        return Ok(client);
    }
    let shown = dir.display();
    Err(Failure::other(match is_mounted(&dir)? {
        true => format!(
            "{shown} is mounted, but no daemon of yours serves it: another user's answers to that user alone; one that \
             was killed comes back when it is mounted again as before, or its dead mount goes with\n  syncfs unmount {shown}"
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
        None => Err(none()?),
    }
}

/// The mount of this user whose daemon waits for its peer at the port of `listen`.
pub fn listening(listen: SocketAddr, places: &Places) -> Option<PathBuf> {
    places.sockets().ok()?.iter().find_map(|socket| {
        let status = Client::connect(socket).ok()??.ask(&Request::get("/status"), Some(AT_ONCE)).ok()?;
        let theirs: SocketAddr = status["listen"].as_str()?.parse().ok()?;
        (theirs.port() == listen.port()).then(|| PathBuf::from(status["mount"].as_str().unwrap_or_default()))
    })
}

/// What to say where no daemon of this user answers.
fn none() -> Result<Failure, Failure> {
    let mounts = mount::mounts().map_err(Failure::other)?;
    let mounts: Vec<String> = mounts.iter().map(|mount| mount.target.display().to_string()).collect();
    let message = "you have no share mounted on this host";
    Ok(Failure::other(match mounts.is_empty() {
        true => format!("{message}; one is mounted with\n  syncfs mount DIR --peer HOST"),
        false => format!("{message}; these are dead, or another user's:\n  {}", mounts.join("\n  ")),
    }))
}

/// The mounted directory, for a message.
fn mount_of(socket: &Path, client: &mut Client) -> String {
    let status = client.ask(&Request::get("/status"), Some(AT_ONCE)).unwrap_or_default();
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
