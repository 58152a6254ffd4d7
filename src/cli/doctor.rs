//! `syncfs doctor`: whether this host has what a mount needs, and what to do where it has not.
//!
//! Invariants: nothing is mounted, made or changed; one line for each thing; a note costs speed or comfort, a problem keeps
//! a mount from working.

use super::args;
use super::client;
use super::config;
use super::exit::{Exit, Failure, Outcome, say};
use super::mount;
use super::place::Places;
use super::units::bytes;
use crate::fs::mount::{DEVICE, HELPER};
use crate::wire::Peer;
use rustix::system::uname;
use std::fmt;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The kernel that has passthrough.
const PASSTHROUGH: (u32, u32) = (6, 9);
/// What the kernel may grow a connection's buffers to, unless somebody made it less; bytes.
const BUFFER: u64 = 4 << 20;
/// What the kernel says of network interfaces.
const INTERFACES: &str = "/sys/class/net";
/// Where fusermount3 finds what ordinary users may do.
const FUSE_CONF: &str = "/etc/fuse.conf";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    Note,
    Problem,
}

use Verdict::{Note, Problem};

#[derive(Debug, PartialEq, Eq)]
struct Finding {
    what: &'static str,
    verdict: Verdict,
    text: String,
}

impl Finding {
    fn new(what: &'static str, verdict: Verdict, text: impl fmt::Display) -> Finding {
        Finding { what, verdict, text: text.to_string() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Ok => "ok",
            Note => "note",
            Problem => "problem",
        };
        write!(f, "{verdict:<9}{:<13}{}", self.what, self.text)
    }
}

pub fn run(args: args::Doctor) -> Outcome {
    let places = Places::here();
    let root = rustix::process::geteuid().is_root();
    let mount = match &args.config {
        Some(name) => {
            let config = config::named(name, &places)?.ok_or_else(|| no_config(name, &places))?;
            config.complete(&args::Mount::plain(name))?
        }
        None => args::Mount::plain(Path::new("/")),
    };
    let mut findings = vec![device(), helper(root), others(root), passthrough(root), clock(), buffers()];
    findings.push(port(mount.listen, &places));
    findings.push(match mount::key_file(&mount, &places) {
        Ok(path) => Finding::new("key", Verdict::Ok, path.display()),
        Err(failure) => Finding::new("key", Problem, failure),
    });
    if mount.peer.as_deref().and_then(|peer| peer.parse::<Peer>().ok()).is_some_and(|peer| peer.is_auto()) {
        findings.push(multicast(Path::new(INTERFACES)));
    }
    if args.config.is_some() {
        let mut obstacles = mount::obstacles(&mount, &places);
        obstacles.retain(|failure| findings.iter().all(|finding| finding.text != failure.message));
        findings.extend(obstacles.iter().map(|failure| Finding::new("config", Problem, failure)));
    }
    findings.iter().for_each(say);
    let sound = findings.iter().all(|finding| finding.verdict != Problem);
    Ok(if sound { Exit::Ok } else { Exit::Other })
}

fn no_config(name: &Path, places: &Places) -> Failure {
    let path = config::path_of(name, places).unwrap_or_else(|| name.to_owned());
    Failure::other(format_args!("there is no config {}", path.display()))
}

fn device() -> Finding {
    let (verdict, text) = match File::options().read(true).write(true).open(DEVICE) {
        Ok(_) => (Verdict::Ok, DEVICE.to_owned()),
        Err(e) if matches!(e.kind(), ErrorKind::NotFound) || e.raw_os_error() == Some(libc::ENODEV) => {
            (Problem, format!("{DEVICE} is missing: `modprobe fuse`; in a container, pass the device in"))
        }
        Err(e) => (Problem, format!("{DEVICE} can't be opened: {e}; it needs mode 0666, or mount as root")),
    };
    Finding::new("device", verdict, text)
}

/// Root mounts without it.
fn helper(root: bool) -> Finding {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(HELPER)).find_map(|path| {
        let metadata = path.metadata().ok()?;
        Some((path, metadata.uid() == 0 && metadata.mode() & 0o4000 != 0))
    });
    let grave = if root { Note } else { Problem };
    let (verdict, text) = match found {
        Some((path, true)) => (Verdict::Ok, path.display().to_string()),
        Some((path, false)) => (
            grave,
            format!(
                "{0} is not set-uid root, so others than root can't mount: `chmod 4755 {0}`",
                path.display()
            ),
        ),
        None => (
            grave,
            format!("{HELPER} is not in PATH, so others than root can't mount: install the package fuse3"),
        ),
    };
    Finding::new("fusermount3", verdict, text)
}

/// Whether others than who mounts may look into the mount.
fn others(root: bool) -> Finding {
    let allowed = std::fs::read_to_string(FUSE_CONF).is_ok_and(|text| allows_others(&text));
    let (verdict, text) = match allowed {
        _ if root => (Verdict::Ok, "root mounts for everybody".to_owned()),
        true => (Verdict::Ok, format!("`-o allow_other` is allowed by {FUSE_CONF}")),
        false => (
            Note,
            format!(
                "only you will see your mounts: `-o allow_other` needs the line user_allow_other in {FUSE_CONF}"
            ),
        ),
    };
    Finding::new("allow_other", verdict, text)
}

fn allows_others(conf: &str) -> bool {
    conf.lines().any(|line| line.trim() == "user_allow_other")
}

fn passthrough(root: bool) -> Finding {
    let release = uname().release().to_string_lossy().into_owned();
    let (major, minor) = PASSTHROUGH;
    let (verdict, text) = match version(&release) {
        Some(kernel) if kernel < PASSTHROUGH => (
            Note,
            format!("reads are slower than they could be: kernel {release}; {major}.{minor} has passthrough"),
        ),
        Some(_) if !root => (Note, "reads are slower than they could be: passthrough needs root".to_owned()),
        Some(_) => (Verdict::Ok, format!("kernel {release}")),
        None => (Note, format!("kernel {release}, whatever that can")),
    };
    Finding::new("passthrough", verdict, text)
}

fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn clock() -> Finding {
    // SAFETY: all bits zero are a timex that asks for nothing to be set, and it outlives the call.
    let state = unsafe {
        let mut timex: libc::timex = std::mem::zeroed();
        libc::adjtimex(&raw mut timex)
    };
    let (verdict, text) = match state {
        -1 => (Note, "the kernel does not tell whether it is synchronised".to_owned()),
        libc::TIME_ERROR => (
            Note,
            "it is not synchronised: of two versions in conflict the wrong one may keep the name (none is lost); \
             `timedatectl set-ntp true`"
                .to_owned(),
        ),
        _ => (Verdict::Ok, "synchronised".to_owned()),
    };
    Finding::new("clock", verdict, text)
}

/// Over a long way a connection is as fast as its buffers let it be.
fn buffers() -> Finding {
    let small: Vec<String> = ["rmem", "wmem"]
        .into_iter()
        .filter_map(|name| {
            let limits = std::fs::read_to_string(format!("/proc/sys/net/ipv4/tcp_{name}")).ok()?;
            let most = largest(&limits).filter(|most| *most < BUFFER)?;
            Some(format!("net.ipv4.tcp_{name} ends at {}", bytes(most)))
        })
        .collect();
    let (verdict, text) = match small.is_empty() {
        true => (Verdict::Ok, "as large as they need to be".to_owned()),
        false => (
            Note,
            format!("{}: slow over a long way; {BUFFER} or more is better, see sysctl(8)", small.join(", ")),
        ),
    };
    Finding::new("TCP buffers", verdict, text)
}

/// Of least, default and most.
fn largest(limits: &str) -> Option<u64> {
    limits.split_whitespace().nth(2)?.parse().ok()
}

/// Whether a peer can be found on a local network: by an interface that is up, has neighbours and carries multicast.
fn multicast(interfaces: &Path) -> Finding {
    let wanted = libc::IFF_UP | libc::IFF_MULTICAST;
    let carries = |flags: i32| flags & (wanted | libc::IFF_LOOPBACK) == wanted;
    let flags = |dir: PathBuf| {
        let text = std::fs::read_to_string(dir.join("flags")).ok()?;
        i32::from_str_radix(text.trim().trim_start_matches("0x"), 16).ok()
    };
    let entries = interfaces.read_dir().into_iter().flatten().flatten();
    let found = entries.filter(|entry| flags(entry.path()).is_some_and(carries));
    let mut names: Vec<String> =
        found.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    let (verdict, text) = match names.is_empty() {
        true => (
            Problem,
            "`--peer auto` finds nobody: no network interface is up that carries multicast; name the host with --peer"
                .to_owned(),
        ),
        false => (Verdict::Ok, format!("on {}; UDP port 5353 has to be open", names.join(", "))),
    };
    Finding::new("multicast", verdict, text)
}

fn port(listen: SocketAddr, places: &Places) -> Finding {
    let (verdict, text) = match TcpListener::bind(listen) {
        Ok(_) => (Verdict::Ok, format!("{listen} is free")),
        Err(e) if e.kind() == ErrorKind::AddrInUse => match client::listening(listen, places) {
            Some(mount) => (Verdict::Ok, format!("{listen} is where {} waits for its peer", mount.display())),
            None => (
                Problem,
                format!(
                    "{listen} is taken: `ss -ltnp` says by whom; or another one with --listen, and in the peer's --peer"
                ),
            ),
        },
        Err(e) => (Problem, format!("nobody can wait at {listen}: {e}; another one with --listen")),
    };
    Finding::new("port", verdict, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart() {
        assert_eq!(version("6.18.0-rc1+"), Some((6, 18)));
        assert_eq!(version("5.10"), Some((5, 10)));
        assert!(version("6.8.12-1-pve") < Some(PASSTHROUGH) && version("10.0") > Some(PASSTHROUGH));
        assert_eq!(version("unknown"), None);
    }

    #[test]
    fn what_the_system_says_is_read() {
        assert!(
            allows_others("# mount_max = 1000\n user_allow_other \n")
                && !allows_others("#user_allow_other\n")
        );
        assert_eq!(largest("4096\t131072\t6291456\n"), Some(6_291_456));
        assert_eq!(largest("4096"), None);
    }

    #[test]
    fn an_interface_carries_multicast_only_where_it_is_up_and_leads_somewhere() {
        let dir = tempfile::tempdir().unwrap();
        let verdict = || multicast(dir.path()).verdict;
        for (name, flags) in [("lo", "0x1049"), ("down", "0x1002"), ("tun", "0x41")] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
            std::fs::write(dir.path().join(name).join("flags"), format!("{flags}\n")).unwrap();
            assert_eq!(verdict(), Problem, "{name}");
        }
        std::fs::create_dir(dir.path().join("eth0")).unwrap();
        std::fs::write(dir.path().join("eth0/flags"), "0x1003\n").unwrap();
        assert_eq!(verdict(), Verdict::Ok);
    }

    #[test]
    fn a_port_is_free_or_taken() {
        let places = Places::here();
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = taken.local_addr().unwrap();
        assert_eq!(port(listen, &places).verdict, Problem);
        drop(taken);
        assert_eq!(port("127.0.0.1:0".parse().unwrap(), &places).verdict, Verdict::Ok);
    }
}
