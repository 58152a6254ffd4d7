//! Where two hosts are: a file system for each, on this machine or at the ends of a link.

use crate::ground::Ground;
use crate::link::Link;
use crate::rig::{Program, free_ports, until};
use std::fs::File;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::rc::Rc;
use tempfile::TempDir;

#[derive(Clone, Copy, PartialEq)]
pub enum Side {
    A,
    B,
}

pub struct Ends {
    pub link: Option<Rc<Link>>,
    /// Put before each command of either host.
    around: Vec<String>,
    a: Ground,
    b: Ground,
    /// For keys, configurations and logs.
    root: TempDir,
}

impl Ends {
    /// File systems of so many bytes each.
    pub fn new(link: Option<&Rc<Link>>, bytes: u64) -> Ends {
        let [a, b] = [(); 2].map(|()| Ground::new(bytes));
        let root = tempfile::tempdir().expect("a directory");
        Ends { link: link.cloned(), around: Vec::new(), a, b, root }
    }

    /// The same, with something put before each command.
    pub fn with_around(self, around: Vec<String>) -> Ends {
        Ends { around, ..self }
    }

    /// Empty at first, on a file system of this host's own.
    pub fn dir(&self, side: Side) -> &Path {
        match side {
            Side::A => &self.a.dir,
            Side::B => &self.b.dir,
        }
    }

    /// A file or directory for what a tool needs beside the files.
    pub fn at(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    pub fn address(&self, side: Side) -> Ipv4Addr {
        match (&self.link, side) {
            (None, _) => Ipv4Addr::LOCALHOST,
            (Some(link), Side::A) => link.a.address,
            (Some(link), Side::B) => link.b.address,
        }
    }

    /// One that nobody listens on.
    pub fn port(&self) -> u16 {
        free_ports()[0]
    }

    pub fn around(&self, side: Side) -> Vec<String> {
        let end = self.link.as_ref().map(|link| match side {
            Side::A => link.a.around(),
            Side::B => link.b.around(),
        });
        end.into_iter().flatten().chain(self.around.iter().cloned()).collect()
    }

    /// What a command is on that host.
    pub fn command(&self, side: Side, words: &[&str]) -> Command {
        let mut all = self.around(side);
        all.extend(words.iter().map(|word| word.to_string()));
        let mut command = Command::new(&all[0]);
        command.args(&all[1..]).env("LC_ALL", "C.UTF-8").env("HOME", self.root.path()).stdin(Stdio::null());
        command
    }

    /// Runs to its end; it must succeed.
    pub fn run(&self, side: Side, words: &[&str]) -> String {
        let output = self.command(side, words).output().unwrap_or_else(|e| panic!("{}: {e}", words[0]));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {}: {errors}", output.status);
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Runs beside; what it complains of goes to a file of the name `log`.
    pub fn spawn(&self, side: Side, words: &[&str], log: &str) -> Program {
        let words = [&["setpriv", "--pdeathsig", "TERM"], words].concat();
        let log = File::create(self.at(log)).expect("a log");
        Program::spawn(self.command(side, &words).stderr(log))
    }

    /// Waits until the other host can connect to a port of this one.
    pub fn listens(&self, side: Side, port: u16) {
        let address = (self.address(side), port);
        let look = || until("somebody listens", || TcpStream::connect(address).is_ok());
        match (&self.link, side) {
            (None, _) => look(),
            (Some(link), Side::A) => link.b.within(look),
            (Some(link), Side::B) => link.a.within(look),
        }
    }
}
