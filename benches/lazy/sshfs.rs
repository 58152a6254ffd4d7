//! What users would take instead: A's directory, mounted on B by sshfs over the same link.

use crate::link::Link;
use crate::rig::{Program, mounted, run, until};
use rustix::mount::UnmountFlags;
use std::fs::File;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// It starts itself anew for each connection, and must be called by its whole path.
const SSHD: &str = "/usr/sbin/sshd";
const PORT: u16 = 7022;

pub struct Sshfs {
    pub dir: PathBuf,
    _client: Program,
    _server: Program,
    _root: TempDir,
}

impl Sshfs {
    /// None where it is not installed, or sshd is not.
    pub fn mount(link: &Link, from: &Path) -> Option<Sshfs> {
        Command::new("sshfs").arg("--version").output().ok()?;
        Command::new(SSHD).arg("-V").output().ok()?;
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name).display().to_string();
        for key in ["host", "user"] {
            run(root.path(), &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key]);
        }
        // Here sshd locks up what has not logged in yet.
        std::fs::create_dir_all("/run/sshd").unwrap();
        let server = format!(
            "ListenAddress {}:{PORT}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n",
            link.a.address,
            at("host"),
            at("user.pub"),
        );
        let client = format!(
            "IdentityFile {}\nIdentitiesOnly yes\nBatchMode yes\nStrictHostKeyChecking no\n\
             UserKnownHostsFile /dev/null\nLogLevel ERROR\n",
            at("user"),
        );
        std::fs::write(at("server.conf"), server).unwrap();
        std::fs::write(at("client.conf"), client).unwrap();
        let start = |around: [String; 2], words: &[&str], log: &str| {
            let mut command = Command::new(&around[0]);
            command.arg(&around[1]).args(["setpriv", "--pdeathsig", "TERM"]).args(words);
            Program::spawn(command.stdin(Stdio::null()).stderr(File::create(at(log)).unwrap()))
        };
        let server = start(link.a.around(), &[SSHD, "-D", "-e", "-f", &at("server.conf")], "server.log");
        link.b.within(|| until("sshd listens", || TcpStream::connect((link.a.address, PORT)).is_ok()));
        let dir = root.path().join("mount");
        std::fs::create_dir(&dir).unwrap();
        let user = run(root.path(), &["id", "-un"]);
        let from = format!("{}@{}:{}", user.trim(), link.a.address, from.display());
        let (port, config) = (PORT.to_string(), at("client.conf"));
        let words = ["sshfs", "-f", "-p", &port, "-F", &config, &from, dir.to_str().unwrap()];
        let client = start(link.b.around(), &words, "client.log");
        let sshfs = Sshfs { dir, _client: client, _server: server, _root: root };
        until("sshfs is mounted", || mounted(&sshfs.dir));
        Some(sshfs)
    }
}

impl Drop for Sshfs {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.dir, UnmountFlags::DETACH);
    }
}
