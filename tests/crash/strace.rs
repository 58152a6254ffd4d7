//! Faults put into a running daemon's system calls, by strace.
//!
//! Invariants: a [`Tracer`] that is dropped has let go of the daemon; strace is never asked for paths (`-y`), as it looks
//! at them, and below a mount it would wait for the very daemon that it holds.

use crate::rig::PATIENCE;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, kill_process, pidfd_open};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::time::Duration;

/// Calls that change what a crash leaves: on the disk, at the peer or in what programs were told.
pub const CALLS: [&str; 18] = [
    "pwrite64",
    "write",
    "writev",
    "sendto",
    "fsync",
    "fdatasync",
    "syncfs",
    "renameat",
    "renameat2",
    "unlinkat",
    "openat",
    "ftruncate",
    "fchmod",
    "utimensat",
    "fsetxattr",
    "mkdirat",
    "copy_file_range",
    "fallocate",
];

/// What is to happen.
pub struct Fault {
    pub call: &'static str,
    /// As strace writes it: `signal=KILL`, `error=EIO`.
    pub what: &'static str,
    /// Which calls of a thread, as strace counts: `3`, `1+`.
    pub when: String,
}

impl Fault {
    pub fn kill(call: &'static str, nth: u64) -> Fault {
        Fault { call, what: "signal=KILL", when: nth.to_string() }
    }

    /// The call fails, each time.
    pub fn error(call: &'static str, what: &'static str) -> Fault {
        Fault { call, what, when: "1+".into() }
    }

    /// The beginning of the command line.
    pub fn words(&self, output: &Path) -> Vec<String> {
        let Fault { call, what, when } = self;
        ["strace", "-f", "-Y", "-s", "0", "-o", output.to_str().expect("ours"), "-e"]
            .map(String::from)
            .into_iter()
            .chain([format!("trace={call}"), "-e".into(), format!("inject={call}:{what}:when={when}")])
            .collect()
    }
}

/// strace attached to a daemon.
pub struct Tracer {
    strace: Child,
    output: PathBuf,
    /// What the daemon had open when it was attached to.
    open: Open,
}

/// Descriptors and their paths.
type Open = BTreeMap<String, String>;

fn open_files(pid: i32) -> Open {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a daemon of ours");
    let links = links.filter_map(|entry| {
        let entry = entry.ok()?;
        let path = std::fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().into_string().ok()?, path.to_string_lossy().into_owned()))
    });
    links.collect()
}

impl Tracer {
    /// Returns when it is attached.
    pub fn attach(pid: i32, fault: &Fault) -> Tracer {
        let output = tempfile::NamedTempFile::new().unwrap().into_temp_path().keep().unwrap();
        let words = fault.words(&output);
        let open = open_files(pid);
        let mut strace = Command::new(&words[0])
            .args(&words[1..])
            .args(["-p", &pid.to_string()])
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("strace can't be run");
        let lines = BufReader::new(strace.stderr.take().expect("piped")).lines();
        let (sender, said) = channel();
        std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| sender.send(line)));
        let tracer = Tracer { strace, output, open };
        let mut all = Vec::new();
        while let Ok(line) = said.recv_timeout(PATIENCE) {
            if line.contains("attached") {
                return tracer;
            }
            all.push(line);
        }
        panic!("strace did not attach: {all:?}");
    }

    /// Lets go, and tells where the faults happened.
    pub fn sites(mut self) -> Vec<String> {
        self.detach();
        let text = std::fs::read_to_string(&self.output).unwrap_or_default();
        sites(&text, &self.open)
    }

    fn detach(&mut self) {
        if matches!(self.strace.try_wait(), Ok(None)) {
            let id = Pid::from_child(&self.strace);
            let _ = kill_process(id, Signal::INT);
            // It waits for all threads of a daemon that was killed, one of which may be in the kernel until the
            // mount goes.
            if !ends_within(id, Duration::from_millis(500)) {
                let _ = kill_process(id, Signal::KILL);
            }
        }
        let _ = self.strace.wait();
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        self.detach();
        let _ = std::fs::remove_file(&self.output);
    }
}

/// Whether a process is gone by then, with all its threads.
pub fn ends_within(id: Pid, time: Duration) -> bool {
    let watch = pidfd_open(id, PidfdFlags::empty()).expect("not waited for yet");
    let timeout = Timespec::try_from(time).expect("small");
    poll(&mut [PollFd::new(&watch, PollFlags::IN)], Some(&timeout)).expect("poll") > 0
}

/// Where the faults of a trace happened: `call(thread, what it was done to)`.
pub fn sites(trace: &str, open: &Open) -> Vec<String> {
    let (mut under_way, mut sites) = (BTreeMap::new(), Vec::new());
    for line in trace.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let call = call.trim_start();
        if call.contains("(INJECTED)") {
            sites.extend(site(thread, call, open));
        } else if call.contains("<unfinished ...>") {
            under_way.insert(thread, call);
        } else if call.starts_with("<...") {
            let begun = under_way.remove(thread);
            if call.ends_with("= ?") {
                sites.extend(begun.and_then(|call| site(thread, call, open)));
            }
        } else if call.ends_with("= ?") {
            sites.extend(site(thread, call, open));
        }
    }
    if sites.is_empty() && trace.contains("killed by SIGKILL") {
        sites.extend(under_way.iter().filter_map(|(thread, call)| site(thread, call, open)));
    }
    sites
}

fn site(thread: &str, call: &str, open: &Open) -> Option<String> {
    let thread = thread.split_once('<').map_or("?", |t| t.1.trim_end_matches('>'));
    let thread = thread.trim_end_matches(|c: char| c.is_ascii_digit() || c == '-');
    let (call, arguments) = call.split_once('(')?;
    let descriptor = arguments.split([',', ')', ' ']).next()?;
    let path = open.get(descriptor).map_or("", String::as_str);
    let name = arguments.split('"').nth(1).unwrap_or("");
    Some(format!("{call}({thread}, {})", kind(path, name)))
}

/// What a descriptor, and a name in the directory that it is of, are for.
fn kind(path: &str, name: &str) -> String {
    // Names are told apart by what they begin with, as the rest is numbers.
    let stem = name.split(['-', '.', '/']).find(|part| !part.is_empty()).unwrap_or("");
    let entry = |what: &str| if name.is_empty() { what.to_owned() } else { format!("{what}/{stem}") };
    match path.split_once("/.syncfs") {
        _ if path.starts_with("socket:") => "a socket".into(),
        _ if path.starts_with("anon_inode:") || path.starts_with("/dev/") => path.into(),
        _ if name.starts_with('/') => "a path".into(),
        _ if path.is_empty() => entry("opened since"),
        Some((_, "/staging")) => entry("staging"),
        Some((_, "/journal" | "/partial")) => path.rsplit('/').next().unwrap_or("").into(),
        Some((_, inner)) => match inner.rsplit_once('/') {
            Some(("", file)) => file.into(),
            Some((room, _)) => format!("a file of {}", room.trim_start_matches('/')),
            None if name.starts_with("meta") => name.into(),
            None => entry("state"),
        },
        None if path.ends_with(".log") => "the log".into(),
        None if Path::new(path).file_name().is_some_and(|f| f == "a" || f == "b") => {
            if name.is_empty() {
                "the directory".into()
            } else {
                "a name of the share".into()
            }
        }
        None => "a file of the share".into(),
    }
}
