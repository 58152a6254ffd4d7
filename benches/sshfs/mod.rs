//! What users would take instead: A's directory, mounted on B by sshfs over the same link, or over loopback.

use crate::link::{End, Link};
use crate::rig::{Program, free_ports, mounted, run, until};
use rustix::mount::UnmountFlags;
use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// It starts itself anew for each connection, and must be called by its whole path.
const SSHD: &str = "/usr/sbin/sshd";

pub struct Sshfs {
    pub dir: PathBuf,
    _client: Program,
    _server: Program,
    _root: TempDir,
}

impl Sshfs {
    /// Over loopback where there is no link. None where it is not installed, or sshd is not.
    pub fn mount(link: Option<&Link>, from: &Path) -> Option<Sshfs> {
        Command::new("sshfs").arg("--version").output().ok()?;
        Command::new(SSHD).arg("-V").output().ok()?;
        let root = tempfile::tempdir().unwrap();
        let [port, _] = free_ports();
        let address = link.map_or(Ipv4Addr::LOCALHOST, |link| link.a.address);
        let at = |name: &str| root.path().join(name).display().to_string();
        for key in ["host", "user"] {
            run(root.path(), &["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key]);
        }
        // Here sshd locks up what has not logged in yet.
        std::fs::create_dir_all("/run/sshd").unwrap();
        let server = format!(
            "ListenAddress {address}:{port}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nStrictModes no\n\
             PermitRootLogin prohibit-password\nPasswordAuthentication no\nSubsystem sftp internal-sftp\n",
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
        let start = |end: Option<&End>, words: &[&str], log: &str| {
            let mut all = end.map_or(Vec::new(), |end| end.around().to_vec());
            all.extend(["setpriv", "--pdeathsig", "TERM"].iter().chain(words).map(|word| word.to_string()));
            let mut command = Command::new(&all[0]);
            command.args(&all[1..]);
            Program::spawn(command.stdin(Stdio::null()).stderr(File::create(at(log)).unwrap()))
        };
        let server =
            start(link.map(|link| &link.a), &[SSHD, "-D", "-e", "-f", &at("server.conf")], "server.log");
        let listens = || until("sshd listens", || TcpStream::connect((address, port)).is_ok());
        link.map_or_else(listens, |link| link.b.within(listens));
        let dir = root.path().join("mount");
        std::fs::create_dir(&dir).unwrap();
        let user = run(root.path(), &["id", "-un"]);
        let from = format!("{}@{}:{}", user.trim(), address, from.display());
        let (port, config) = (port.to_string(), at("client.conf"));
        let words = ["sshfs", "-f", "-p", &port, "-F", &config, &from, dir.to_str().unwrap()];
        let client = start(link.map(|link| &link.b), &words, "client.log");
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
