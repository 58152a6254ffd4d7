//! A machine of its own as far as mounts go: a mount namespace whose /etc, /usr/bin, /usr/sbin and /run can be written
//! without a trace here, with `syncfs` and `mount.syncfs` installed in it.
//!
//! What runs in it begins with an empty environment, as what systemd or mount(8) starts at boot.

use crate::rig::{Host, Program, SYNCFS, until};
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const HELPER: &str = env!("CARGO_BIN_EXE_mount-syncfs");

/// $1 is a directory for what is written, $2 is `syncfs`, $3 `mount.syncfs`.
const INSTALL: &str = r#"
set -e
mount -t tmpfs tmpfs "$1"
for dir in etc usr/bin usr/sbin; do
    mkdir -p "$1/new/$dir" "$1/work/$dir"
    mount -t overlay -o "lowerdir=/$dir,upperdir=$1/new/$dir,workdir=$1/work/$dir" overlay "/$dir"
done
mount -t tmpfs tmpfs /run
# Whatever is installed outside.
rm -rf /etc/syncfs
mkdir -m 700 /etc/syncfs
cp "$2" /usr/bin/syncfs
cp "$3" /usr/sbin/mount.syncfs
ln -s mount.syncfs /usr/sbin/mount.fuse.syncfs
echo installed
exec cat
"#;

pub struct Machine {
    /// Holds the namespace.
    holder: Program,
    root: tempfile::TempDir,
}

impl Machine {
    /// `None`, and a word of it, where this user can't have one.
    pub fn new() -> Option<Machine> {
        if !rustix::process::geteuid().is_root() {
            eprintln!("not tested: only root can make a mount namespace");
            return None;
        }
        let root = tempfile::tempdir().unwrap();
        let words = ["unshare", "--mount", "--propagation", "private", "sh", "-c", INSTALL, "install"];
        let words = [&words[..], &[root.path().to_str().unwrap(), SYNCFS, HELPER]].concat();
        let holder = Program::start(Path::new("/"), &words);
        assert_eq!(holder.line(), "installed");
        Some(Machine { holder, root })
    }

    /// Whether this process, by its directory in /proc, runs in it.
    pub fn has(&self, process: &Path) -> bool {
        let space = |process: &Path| std::fs::read_link(process.join("ns/mnt")).ok();
        space(process)
            .is_some_and(|its| Some(its) == space(Path::new(&format!("/proc/{}", self.holder.id()))))
    }

    /// A path of the machine as it is reached from outside.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let inside = path.as_ref().strip_prefix("/").expect("a whole path");
        Path::new(&format!("/proc/{}/root", self.holder.id())).join(inside)
    }

    #[track_caller]
    pub fn write(&self, path: &str, text: &str) {
        std::fs::write(self.path(path), text).unwrap();
    }

    /// Runs these words in the machine, in `/`.
    pub fn command<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Command {
        let mut command = Command::new("/usr/bin/nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", self.holder.id())).arg("--wd=/").arg("--");
        command.args(words).env_clear().stdin(Stdio::null());
        command
    }

    /// The same, to its end.
    pub fn run<W: AsRef<OsStr>>(&self, words: impl IntoIterator<Item = W>) -> Output {
        self.command(words).output().unwrap()
    }

    /// Writes the config `name`, which mounts as `host` would.
    #[track_caller]
    pub fn configure(&self, name: &str, host: &Host) {
        let command = host.mount_command();
        let words: Vec<&str> = command.get_args().map(|word| word.to_str().unwrap()).collect();
        let mut lines = format!("dir = '{}'\n", words[1]);
        for option in words[2..].chunks(2) {
            lines += &format!("{} = '{}'\n", option[0].trim_start_matches("--").replace('-', "_"), option[1]);
        }
        self.write(&format!("/etc/syncfs/{name}.toml"), &lines);
    }

    pub fn mounted(&self, dir: &Path) -> bool {
        self.mount_line(dir).is_some()
    }

    /// What the kernel says of the mount at `dir`.
    pub fn mount_line(&self, dir: &Path) -> Option<String> {
        let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", self.holder.id())).unwrap();
        let at = |line: &&str| line.split(' ').nth(4).is_some_and(|target| Path::new(target) == dir);
        table.lines().find(at).map(str::to_owned)
    }

    /// Waits until nothing but the holder runs in it: what was unmounted has put all on the disk.
    #[track_caller]
    pub fn rests(&self) {
        until("daemons have ended", || self.others().is_empty());
    }

    /// Who else runs in it.
    fn others(&self) -> Vec<Pid> {
        let namespace = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let ours = namespace(self.holder.id());
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let all = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let others = all.filter(|pid| *pid != self.holder.id() && ours.is_some() && namespace(*pid) == ours);
        others.filter_map(Pid::from_raw).collect()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for pid in self.others() {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = &self.root;
    }
}
