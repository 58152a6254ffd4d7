//! Two directories that play two hosts, and the daemons that serve them.
//!
//! Invariants: the daemons are this very program, started as a user would start it; none outlives
//! the stage; files are only removed where nothing is mounted any more.

use crate::api::request::Request;
use crate::cli::client::{AT_ONCE, Client, is_mounted};
use crate::cli::place::{self, Places};
use crate::cli::process::Process;
use crate::fs::mount;
use crate::wire::key::Key;
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use std::fs::{DirBuilder, File};
use std::io::{BufRead, BufReader, ErrorKind};
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// How long a daemon may take to end. It gives programs that use its mount 10 s.
const END: Duration = Duration::from_secs(30);
/// Lines of a daemon's log that are shown when something went wrong.
const LOG_LINES: usize = 20;

pub struct Stage {
    root: PathBuf,
    pub a: Side,
    pub b: Side,
    /// `None` when no more may be started.
    daemons: Mutex<Option<Vec<Child>>>,
}

/// One of the two hosts.
pub struct Side {
    pub name: &'static str,
    pub dir: PathBuf,
    address: SocketAddr,
}

impl Stage {
    /// Two empty directories, a key, two free ports. Nothing is mounted yet.
    pub fn set() -> anyhow::Result<Stage> {
        let root = fresh_dir(&std::env::temp_dir().canonicalize()?)?;
        let set = || {
            // Both at once, or they could be the same.
            let ports = [TcpListener::bind("127.0.0.1:0")?, TcpListener::bind("127.0.0.1:0")?];
            let side = |name, port: &TcpListener| -> anyhow::Result<Side> {
                let dir = root.join(name);
                place::make_private(&dir)?;
                Ok(Side { name, dir, address: port.local_addr()? })
            };
            Key::generate(&root.join("key"))?;
            Ok((side("A", &ports[0])?, side("B", &ports[1])?))
        };
        match set() {
            Ok((a, b)) => Ok(Stage { a, b, root, daemons: Mutex::new(Some(Vec::new())) }),
            Err(error) => {
                let _ = std::fs::remove_dir_all(&root);
                Err(error)
            }
        }
    }

    /// Starts both daemons; returns when both mounts work.
    pub fn start(&self) -> anyhow::Result<()> {
        self.start_one(&self.a, &self.b)?;
        self.start_one(&self.b, &self.a)
    }

    fn start_one(&self, side: &Side, peer: &Side) -> anyhow::Result<()> {
        let log = File::create(self.log(side))?;
        let mut command = Command::new("/proc/self/exe");
        command
            .arg("mount")
            .arg(&side.dir)
            .args([
                "--foreground",
                "--listen",
                &side.address.to_string(),
                "--peer",
                &peer.address.to_string(),
            ])
            .arg("--key-file")
            .arg(self.root.join("key"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            // Ctrl-C is for us; we tell the daemons.
            .process_group(0);
        let stdout = {
            let mut daemons = self.daemons.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(daemons) = daemons.as_mut() else { bail!("the demo is over") };
            let mut child = command.spawn().context("can't start a daemon")?;
            let stdout = child.stdout.take().context("a daemon without stdout")?;
            daemons.push(child);
            stdout
        };
        // In the foreground a daemon says in one line that its mount works; no line, no mount.
        if BufReader::new(stdout).read_line(&mut String::new())? == 0 {
            bail!("the daemon of {} did not start", side.name);
        }
        Ok(())
    }

    /// Ends both daemons, as a user's `kill` would, and makes sure that their mounts are gone.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.stop_and_leave(Some(Vec::new()))
    }

    fn stop_and_leave(&self, next: Option<Vec<Child>>) -> anyhow::Result<()> {
        let children =
            std::mem::replace(&mut *self.daemons.lock().unwrap_or_else(PoisonError::into_inner), next);
        let mut children = children.unwrap_or_default();
        for child in &children {
            // One that has ended already needs no telling.
            let _ = kill_process(Pid::from_child(child), Signal::TERM);
        }
        let results: Vec<anyhow::Result<()>> = children.iter_mut().map(ended).collect();
        for side in [&self.a, &self.b] {
            if is_mounted(&side.dir)? {
                mount::unmount(&side.dir, true)?;
            }
        }
        results.into_iter().collect()
    }

    /// Ends what still runs and removes everything.
    pub fn clear(&self) -> anyhow::Result<()> {
        let stopped = self.stop_and_leave(None);
        for side in [&self.a, &self.b] {
            if is_mounted(&side.dir)? {
                bail!(
                    "{} is still mounted; unmount it and remove {}",
                    side.dir.display(),
                    self.root.display()
                );
            }
        }
        std::fs::remove_dir_all(&self.root)
            .with_context(|| format!("can't remove {}", self.root.display()))?;
        stopped
    }

    /// The end of each daemon's log.
    pub fn logs(&self) -> Vec<String> {
        let end = |side: &Side| {
            let log = std::fs::read(self.log(side)).ok()?;
            let log = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(LOG_LINES)..];
            (!last.is_empty()).then(|| format!("the daemon of {} said\n  {}", side.name, last.join("\n  ")))
        };
        [&self.a, &self.b].into_iter().filter_map(end).collect()
    }

    fn log(&self, side: &Side) -> PathBuf {
        self.root.join(side.name).with_extension("log")
    }
}

impl Side {
    /// What the daemon of this side says.
    pub fn ask(&self, request: &Request) -> anyhow::Result<Value> {
        let client = Client::connect(&Places::here().socket(&self.dir))?;
        let mut client = client.with_context(|| format!("the daemon of {} has ended", self.name))?;
        let patience = (request.path != "/flush").then_some(AT_ONCE);
        Ok(client.ask(request, patience)?)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }
}

fn ended(child: &mut Child) -> anyhow::Result<()> {
    if !Process::new(Pid::from_child(child))?.ends_within(END)? {
        child.kill()?;
    }
    let status = child.wait()?;
    match status.success() {
        true => Ok(()),
        false => bail!("a daemon ended with {status}"),
    }
}

/// A new directory in `parent`, for its owner alone.
fn fresh_dir(parent: &Path) -> anyhow::Result<PathBuf> {
    let process = std::process::id();
    for attempt in 0.. {
        let dir = parent.join(format!("syncfs-demo-{process}-{attempt}"));
        match DirBuilder::new().mode(0o700).create(&dir) {
            Ok(()) => return Ok(dir),
            Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
            Err(e) => return Err(e).with_context(|| format!("can't make {}", dir.display())),
        }
    }
    unreachable!("every number is taken")
}
