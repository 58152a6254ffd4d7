//! Two hosts with real mounts, and the guards around them.
//!
//! Invariants: whatever happens to a test, its mounts are gone and the processes it started have
//! ended when its guards have been dropped; every wait ends with an event or at a deadline, and then says what
//! was waited for.
#![allow(dead_code)]

mod ports;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Output, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

pub const SYNCFS: &str = env!("CARGO_BIN_EXE_syncfs");
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Waits until `done` says so. Only for what has no event of its own.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    wait_for(what, || done().then_some(()))
}

/// Waits until `look` finds something.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Bytes that do not compress and differ by `seed`.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// The error number of something that must fail.
#[track_caller]
pub fn errno<T>(result: std::io::Result<T>) -> i32 {
    match result {
        Ok(_) => panic!("it worked"),
        Err(e) => e.raw_os_error().unwrap_or_else(|| panic!("{e}")),
    }
}

/// Runs a tool to its end; it must succeed.
#[track_caller]
pub fn run(dir: &Path, words: &[&str]) -> String {
    let output = try_run(dir, words);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{words:?}: {}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a tool to its end, with the C locale and in `dir`.
#[track_caller]
pub fn try_run(dir: &Path, words: &[&str]) -> Output {
    command(dir, words).output().unwrap_or_else(|e| panic!("{} can't be run: {e}", words[0]))
}

fn command(dir: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).current_dir(dir).env("LC_ALL", "C").stdin(Stdio::null());
    command
}

/// A program that runs beside the test; ended with it.
pub struct Program {
    child: Child,
    lines: Receiver<String>,
}

impl Program {
    /// Starts it in `dir`; its output is read line by line.
    pub fn start(dir: &Path, words: &[&str]) -> Program {
        Program::spawn(command(dir, words).stdin(Stdio::piped()))
    }

    pub fn spawn(command: &mut Command) -> Program {
        let mut child = command.stdout(Stdio::piped()).spawn().expect("can't be started");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            output.lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        Program { child, lines }
    }

    /// The next line it prints.
    #[track_caller]
    pub fn line(&self) -> String {
        self.lines.recv_timeout(PATIENCE).expect("the program says nothing more")
    }

    /// Its lines until it ends.
    #[track_caller]
    pub fn last_line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the program does not end"),
        }
    }

    pub fn id(&self) -> i32 {
        self.child.id() as i32
    }

    pub fn stdin(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Its end, if it comes in time.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        let Ok(watch) = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()) else {
            return self.child.try_wait().expect("our child");
        };
        let patience = Timespec::try_from(PATIENCE).expect("small");
        let ended = poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&patience)).is_ok_and(|n| n > 0);
        // Dead, it is first seen by who traces it.
        ended.then(|| self.child.wait().expect("our child"))
    }

    /// Stops it, and waits until all its threads are, but for one that waits in the kernel for a directory: whether
    /// there is such a one.
    pub fn stand_still(&self) -> bool {
        self.signal(Signal::STOP);
        let mut stuck = false;
        until("the daemon stands still", || {
            let read = |task: &Path, what| std::fs::read_to_string(task.join(what)).unwrap_or_default();
            let tasks = std::fs::read_dir(format!("/proc/{}/task", self.id())).unwrap().flatten();
            tasks.map(|task| task.path()).all(|task| {
                let waits = read(&task, "wchan").contains("fuse_reverse_inval_entry");
                stuck |= waits;
                waits || read(&task, "stat").contains(") T ") || read(&task, "stat").is_empty()
            })
        });
        stuck
    }

    pub fn signal(&self, signal: Signal) {
        let watch = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty()).expect("our child");
        pidfd_send_signal(watch, signal).expect("our child");
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// One host: a directory, and while it runs a daemon that has it mounted.
pub struct Host {
    /// Where the mount is, and below it the raw directory.
    pub dir: PathBuf,
    pub log: PathBuf,
    /// What runs the daemon's command, where the test puts something around it.
    pub around: Vec<OsString>,
    /// How long it may take until the mount is ready.
    pub patience: Duration,
    words: Vec<OsString>,
    daemon: Option<Program>,
}

impl Host {
    fn new(dir: PathBuf, log: PathBuf, listen: u16, peer: u16, key: &Path) -> Host {
        let mut words: Vec<OsString> = vec!["mount".into(), dir.clone().into(), "--peer".into()];
        words.push(format!("127.0.0.1:{peer}").into());
        words.extend(["--listen".into(), format!("127.0.0.1:{listen}").into()]);
        words.extend(["--key-file".into(), key.into(), "--read-timeout".into(), "10".into()]);
        Host { log, dir, around: Vec::new(), patience: PATIENCE, words, daemon: None }
    }

    pub fn path(&self, name: impl AsRef<OsStr>) -> PathBuf {
        self.dir.join(name.as_ref())
    }

    /// Mounts with another value of an option from now on.
    pub fn option(&mut self, name: &str, value: &Path) {
        match self.words.iter().position(|word| word == name) {
            Some(at) => self.words[at + 1] = value.into(),
            None => self.words.extend([name.into(), value.into()]),
        }
    }

    /// Mounts with an option that has no value from now on.
    pub fn flag(&mut self, name: &str) {
        self.words.push(name.into());
    }

    /// Mounts without it from now on.
    pub fn unflag(&mut self, name: &str) {
        self.words.retain(|word| word != name);
    }

    /// `syncfs mount` as it is for this host, to be changed and run.
    pub fn mount_command(&self) -> Command {
        let mut command = Command::new(SYNCFS);
        command.args(&self.words).stdin(Stdio::null());
        command
    }

    /// Returns when the mount is ready.
    #[track_caller]
    pub fn start(&mut self) {
        if let Err(end) = self.try_start() {
            panic!("no mount ({end:?}): {}", self.log_text());
        }
    }

    /// Returns when the mount is ready, or how the daemon ended before it was.
    pub fn try_start(&mut self) -> Result<(), Option<ExitStatus>> {
        assert!(self.daemon.is_none(), "runs already");
        let log = File::options().create(true).append(true).open(&self.log).unwrap();
        // A test that is killed takes its daemons along, and SIGTERM lets them unmount.
        let mut words = self.around.clone();
        words.extend(["setpriv", "--pdeathsig", "TERM", SYNCFS].map(OsString::from));
        let mut command = Command::new(&words[0]);
        command.args(&words[1..]).args(&self.words).arg("--foreground");
        let mut daemon = Program::spawn(command.stdin(Stdio::null()).stderr(log));
        match daemon.lines.recv_timeout(self.patience) {
            Ok(line) => assert!(line.contains("is mounted"), "{line}"),
            Err(_) => return Err(daemon.ended()),
        }
        self.daemon = Some(daemon);
        Ok(())
    }

    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn daemon(&mut self) -> &mut Program {
        self.daemon.as_mut().expect("runs")
    }

    /// `kill -9`
    pub fn kill(&mut self) {
        let mut daemon = self.daemon.take().expect("runs");
        daemon.signal(Signal::KILL);
        daemon.ended().expect("nothing outlives SIGKILL");
    }

    /// How the daemon ended, if it does.
    pub fn ended(&mut self) -> ExitStatus {
        let status = self.daemon().ended();
        self.daemon = None;
        status.unwrap_or_else(|| panic!("the daemon does not end: {}", self.log_text()))
    }

    /// `fusermount3 -u`; returns how the daemon ended.
    pub fn unmount(&mut self) -> ExitStatus {
        let dir = self.dir.to_str().unwrap().to_owned();
        // A program of another test that was just being started may hold our files for a moment.
        wait_for("the mount is not busy", || {
            let output = try_run(Path::new("/"), &["fusermount3", "-u", &dir]);
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(output.status.success() || errors.contains("busy"), "{errors}");
            output.status.success().then_some(())
        });
        self.ended()
    }

    pub fn syncfs(&self, words: &[&str]) -> Output {
        let mut command = Command::new(SYNCFS);
        command.arg(words[0]).arg(&self.dir).args(&words[1..]);
        command.stdin(Stdio::null()).output().unwrap()
    }

    pub fn status(&self) -> serde_json::Value {
        let output = self.syncfs(&["status", "--json"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    /// `syncfs flush`, also while the two are still finding each other.
    #[track_caller]
    pub fn flush(&self) {
        self.flush_until(&[0]);
    }

    /// As `flush`, also where conflict copies wait for somebody.
    #[track_caller]
    pub fn flush_with_conflicts(&self) {
        self.flush_until(&[0, 11]);
    }

    #[track_caller]
    fn flush_until(&self, codes: &[i32]) {
        let last = std::cell::RefCell::default();
        let flushed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            wait_for("both sides are level", || {
                let output = self.syncfs(&["flush", "--timeout", "20"]);
                let success = output.status.code().is_some_and(|code| codes.contains(&code));
                last.replace(String::from_utf8_lossy(&output.stderr).into_owned());
                success.then_some(())
            })
        }));
        if flushed.is_err() {
            panic!("not level: {}{}\n{}", last.take(), self.status(), self.log_text());
        }
    }

    /// `echo > name`
    #[track_caller]
    pub fn save(&self, name: impl AsRef<OsStr>, bytes: &[u8]) {
        std::fs::write(self.path(name), bytes).unwrap();
    }

    #[track_caller]
    pub fn read(&self, name: impl AsRef<OsStr>) -> Vec<u8> {
        std::fs::read(self.path(name)).unwrap()
    }

    pub fn has(&self, name: impl AsRef<OsStr>, bytes: &[u8]) -> bool {
        std::fs::read(self.path(name)).is_ok_and(|found| found == bytes)
    }

    /// Runs a tool in the directory.
    #[track_caller]
    pub fn run(&self, words: &[&str]) -> String {
        run(&self.dir, words)
    }

    /// What `ls` shows.
    pub fn ls(&self) -> Vec<String> {
        self.run(&["ls", "-A"]).lines().map(str::to_owned).filter(|name| name != ".syncfs").collect()
    }

    /// All that travels, as it is seen in the directory.
    #[track_caller]
    pub fn contents(&self) -> BTreeMap<OsString, Item> {
        let mut found = BTreeMap::new();
        for entry in self.dir.read_dir().unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != ".syncfs" {
                found.insert(entry.file_name(), Item::of(&entry.path()));
            }
        }
        found
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Where somebody wants to read what the daemons said: `SYNCFS_KEEP=DIRECTORY`.
            if let (Ok(keep), Some(name)) = (std::env::var("SYNCFS_KEEP"), self.log.file_name()) {
                let _ = std::fs::copy(&self.log, Path::new(&keep).join(name));
            }
        }
        // The last resort: a mount that nobody uses any more ends its daemon, living or dead.
        while mounted(&self.dir) {
            if rustix::mount::unmount(&self.dir, UnmountFlags::DETACH).is_err() {
                let _ = Command::new("fusermount3").arg("-uz").arg(&self.dir).status();
                break;
            }
        }
        // Dropped in the middle of a failure it gets a moment to end by itself, and then it is killed.
        if let Some(mut daemon) = self.daemon.take() {
            let _ = daemon.ended();
        }
    }
}

pub fn mounted(dir: &Path) -> bool {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
    table.lines().any(|line| line.split(' ').nth(4).is_some_and(|target| Path::new(target) == dir))
}

/// A file as it must be the same on both sides.
#[derive(Clone, PartialEq, Eq)]
pub struct Item {
    pub bytes: Vec<u8>,
    pub mode: u32,
    pub mtime: (i64, i64),
    pub attributes: BTreeMap<OsString, Vec<u8>>,
}

impl Item {
    #[track_caller]
    pub fn of(path: &Path) -> Item {
        let file = File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let meta = file.metadata().unwrap();
        let bytes = std::fs::read(path).unwrap();
        assert_eq!(bytes.len() as u64, meta.len(), "{}", path.display());
        Item {
            bytes,
            mode: meta.permissions().mode(),
            mtime: (meta.mtime(), meta.mtime_nsec()),
            attributes: attributes(&file),
        }
    }
}

impl std::fmt::Debug for Item {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Item { bytes, mode, mtime, attributes } = self;
        let start = String::from_utf8_lossy(&bytes[..bytes.len().min(60)]);
        write!(f, "{} bytes {start:?}, mode {mode:o}, mtime {mtime:?}, {attributes:?}", bytes.len())
    }
}

fn attributes(file: &File) -> BTreeMap<OsString, Vec<u8>> {
    let mut names = vec![0; 1 << 16];
    let length = rustix::fs::flistxattr(file, &mut names[..]).unwrap();
    let names = names[..length].split(|b| *b == 0).filter(|name| name.starts_with(b"user."));
    let value = |name: &[u8]| {
        let mut value = vec![0; 1 << 16];
        let length = rustix::fs::fgetxattr(file, name, &mut value[..]).unwrap();
        value.truncate(length);
        (OsStr::from_bytes(name).to_owned(), value)
    };
    names.map(value).collect()
}

/// Two hosts that share a directory.
pub struct Pair {
    pub a: Host,
    pub b: Host,
    pub root: tempfile::TempDir,
}

impl Pair {
    /// Not yet running.
    pub fn new() -> Pair {
        let root = tempfile::tempdir().unwrap();
        let dirs = ["a", "b"].map(|name| root.path().join(name));
        dirs.iter().for_each(|dir| std::fs::create_dir(dir).unwrap());
        Pair::of(dirs, root)
    }

    /// Of directories that are there already, and not yet running; `root` is for key and logs.
    pub fn of(dirs: [PathBuf; 2], root: tempfile::TempDir) -> Pair {
        let at = |name: &str| root.path().join(name);
        let key = at("key");
        run(root.path(), &[SYNCFS, "keygen", "--key-file", key.to_str().unwrap()]);
        let ([a, b], [to_a, to_b]) = (dirs, free_ports());
        Pair {
            a: Host::new(a, at("a.log"), to_a, to_b, &key),
            b: Host::new(b, at("b.log"), to_b, to_a, &key),
            root,
        }
    }

    /// Mounted and connected.
    pub fn mounted() -> Pair {
        let mut pair = Pair::new();
        pair.a.start();
        pair.b.start();
        pair.a.flush();
        pair
    }

    /// Both hosts change the file `name` while apart, `b` later.
    #[track_caller]
    pub fn contest(&mut self, name: &str) {
        self.b.unmount();
        self.a.save(name, b"of a");
        self.a.run(&["touch", "-d", "2026-01-01 00:00:00 UTC", name]);
        self.b.save(name, b"of b, later");
        self.b.start();
        self.a.flush_with_conflicts();
    }

    /// Brings both sides level, then they must show the same.
    #[track_caller]
    pub fn assert_same(&self) -> BTreeMap<OsString, Item> {
        self.a.flush();
        self.b.flush();
        self.compare()
    }

    /// The last lines of both daemons' logs.
    pub fn logs(&self) -> String {
        let tail = |text: String| {
            let lines: Vec<_> = text.lines().rev().take(200).map(str::to_owned).collect();
            lines.into_iter().rev().collect::<Vec<_>>().join("\n")
        };
        format!("A: {}\nB: {}", tail(self.a.log_text()), tail(self.b.log_text()))
    }

    /// Both sides show the same, which is returned.
    #[track_caller]
    pub fn compare(&self) -> BTreeMap<OsString, Item> {
        let (a, b) = (self.a.contents(), self.b.contents());
        assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
        for (name, item) in &a {
            assert!(*item == b[name], "{name:?}:\n  {item:?}\n  {:?}", b[name]);
        }
        a
    }

    /// The end of a test: both sides are the same through their mounts, the daemons end well when they are
    /// unmounted, and the raw directories hold the same as was seen in the mounts.
    #[track_caller]
    pub fn finish(mut self) -> BTreeMap<OsString, Item> {
        let seen = self.assert_same();
        for host in [&mut self.a, &mut self.b] {
            let status = host.unmount();
            assert!(status.success(), "{status}: {}", host.log_text());
            let raw = host.contents();
            assert_eq!(raw.keys().collect::<Vec<_>>(), seen.keys().collect::<Vec<_>>());
            for (name, item) in &seen {
                assert!(
                    *item == raw[name],
                    "{name:?} in {}:\n  {item:?}\n  {:?}",
                    host.dir.display(),
                    raw[name]
                );
            }
        }
        seen
    }
}

/// Two ports of the loopback interface that nobody listens on.
pub fn free_ports() -> [u16; 2] {
    [(); 2].map(|()| ports::free_port())
}
