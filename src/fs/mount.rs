//! Mounting, unmounting and finding mounts, by ourselves.
//!
//! The library that speaks FUSE never mounts: its unmount can take down another mount that came to
//! the same path, and it has no lazy one. Here root uses mount(2) and umount2(2); everybody else
//! goes through the set-uid helper `fusermount3`.
//!
//! Invariants: every mount of ours has the type `fuse.syncfs`; nothing of another type is ever
//! unmounted; the descriptor handed out closes on exec.

use rustix::fs::{Mode, OFlags};
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsmount, fsopen};
use rustix::mount::{MountFlags, UnmountFlags};
use std::ffi::{CString, OsString};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const TYPE: &str = "fuse.syncfs";
pub const DEVICE: &str = "/dev/fuse";
/// What mounts for others than root.
pub const HELPER: &str = "fusermount3";
/// Where the kernel's connections to FUSE daemons are shown.
const CONTROL: &str = "/sys/fs/fuse/connections";

#[derive(Debug, thiserror::Error)]
pub enum MountError {
    #[error("/dev/fuse is missing: load the kernel module with `modprobe fuse`")]
    NoDevice,
    #[error("fusermount3 is missing: install the package fuse3, or mount as root")]
    NoHelper,
    #[error("{0} is not a directory")]
    NotADirectory(PathBuf),
    #[error("{0} is already mounted")]
    AlreadyMounted(PathBuf),
    #[error("{0} is a dead mount that is not ours")]
    ForeignStale(PathBuf),
    #[error("fusermount3: {0}")]
    Helper(String),
    #[error("{what} {path}: {source}")]
    Io { what: &'static str, path: PathBuf, source: io::Error },
}

pub type Result<T> = std::result::Result<T, MountError>;

/// How to mount. `source` is what /proc/mounts shows first, "syncfs" if empty; `extra` are options as mount(8) spells
/// them, one each.
#[derive(Clone, Debug, Default)]
pub struct MountOptions {
    pub source: String,
    pub allow_other: bool,
    pub default_permissions: bool,
    pub read_only: bool,
    pub extra: Vec<String>,
}

/// A syncfs mount as the kernel lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountInfo {
    pub target: PathBuf,
    pub source: String,
    /// The device number of the files in it (`st_dev`).
    pub device: u64,
    /// Whether other users may enter it than who mounted it.
    pub for_all: bool,
}

/// Mounts at `target` and returns the connection to serve. Nothing works below `target` until the
/// connection is served.
pub fn mount(target: &Path, options: &MountOptions) -> Result<OwnedFd> {
    let mut options = options.clone();
    if options.source.is_empty() {
        options.source = "syncfs".into();
    }
    let target = target.canonicalize().map_err(|e| failed("can't find", target, e))?;
    if !target.is_dir() {
        return Err(MountError::NotADirectory(target));
    }
    if rustix::process::geteuid().is_root() {
        mount_as_root(&target, &options)
    } else {
        mount_by_helper(&target, &options)
    }
}

/// Detaches the mount of a dead syncfs daemon at `target`; true if there was one. A live one is an
/// error.
pub fn detach_stale(target: &Path) -> Result<bool> {
    // Not stat: the kernel answers that from its cache long after the daemon's death. A daemon that is
    // just dying takes this question with it.
    let dead = match rustix::fs::statfs(target) {
        Ok(_) => false,
        Err(rustix::io::Errno::NOTCONN | rustix::io::Errno::CONNABORTED) => true,
        Err(e) => return Err(failed("can't look at", target, e.into())),
    };
    match (is_mounted(target)?, dead) {
        (true, false) => Err(MountError::AlreadyMounted(target.to_owned())),
        (false, true) => Err(MountError::ForeignStale(target.to_owned())),
        (false, false) => Ok(false),
        (true, true) => unmount(target, true).map(|()| true),
    }
}

/// Cuts off the daemon behind `target` and detaches the mount. For a daemon that was killed but can't end:
/// one of its threads waits in the kernel for a directory lock that a program holds, the program waits for
/// the daemon's answer, and only breaking the connection frees the two. `target` is taken as it is, for to
/// look at it may wait as well.
pub fn abort(target: &Path) -> Result<()> {
    let flags = UnmountFlags::FORCE | UnmountFlags::NOFOLLOW;
    match rustix::mount::unmount(target, flags) {
        // Broken, but in use: then it goes when its last user does.
        Err(rustix::io::Errno::BUSY) => {
            rustix::mount::unmount(target, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW)
        }
        // Nothing is mounted there any more.
        Err(rustix::io::Errno::INVAL) => Ok(()),
        other => other,
    }
    .map_err(|e| failed("can't cut off the dead daemon of", target, e.into()))
}

/// A file that breaks the connection of the syncfs mounted at `target` when something is written to it: of that one,
/// never of a later one.
pub fn breaker(target: &Path) -> Result<File> {
    let mount = mounts()?.into_iter().rev().find(|mount| mount.target == target);
    let mount = mount.ok_or_else(|| failed("no mount at", target, io::ErrorKind::NotFound.into()))?;
    let name = format!("{}/abort", rustix::fs::minor(mount.device));
    let path = Path::new(CONTROL).join(&name);
    match File::options().write(true).open(&path) {
        // Nobody has mounted the control file system; root can look into it all the same.
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            let context = fsopen("fusectl", FsOpenFlags::FSOPEN_CLOEXEC);
            let root = context.and_then(|context| {
                fsconfig_create(&context)?;
                fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())
            });
            let flags = OFlags::WRONLY | OFlags::CLOEXEC;
            let file = root.and_then(|root| rustix::fs::openat(root, name.as_str(), flags, Mode::empty()));
            file.map(File::from).map_err(io::Error::from)
        }
        other => other,
    }
    .map_err(|e| failed("can't open", &path, e))
}

/// Whether the topmost mount at `target` is a syncfs, live or dead.
pub fn is_mounted(target: &Path) -> Result<bool> {
    let target = resolve(target)?;
    let table = mount_table()?;
    Ok(table.iter().rev().find(|line| line.info.target == target).is_some_and(|line| line.kind == TYPE))
}

/// All syncfs mounts this process sees, in the order they were mounted.
pub fn mounts() -> Result<Vec<MountInfo>> {
    Ok(mount_table()?.into_iter().filter(|line| line.kind == TYPE).map(|line| line.info).collect())
}

/// Unmounts the syncfs at `target`. `lazy` detaches a mount that is in use, and it goes when its last
/// user does.
pub fn unmount(target: &Path, lazy: bool) -> Result<()> {
    if !is_mounted(target)? {
        return Err(failed("can't unmount", target, io::Error::from_raw_os_error(libc::EINVAL)));
    }
    let target = resolve(target)?;
    let flags = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(&target, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::PERM) => {
            let mut helper = Command::new(HELPER);
            helper.arg(if lazy { "-uz" } else { "-u" }).arg("--").arg(&target);
            run_helper(&mut helper)
        }
        Err(e) => Err(failed("can't unmount", &target, e.into())),
    }
}

fn failed(what: &'static str, path: &Path, source: io::Error) -> MountError {
    MountError::Io { what, path: path.to_owned(), source }
}

/// An absolute path without links. The last part is not looked at: it may be a dead mount.
fn resolve(target: &Path) -> Result<PathBuf> {
    match target.canonicalize() {
        Ok(path) => Ok(path),
        Err(e) if e.raw_os_error() == Some(libc::ENOTCONN) => {
            let absolute = std::path::absolute(target).map_err(|e| failed("can't find", target, e))?;
            match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
                (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
                (Some(Err(e)), _) => Err(failed("can't find", target, e)),
                _ => Ok(absolute),
            }
        }
        Err(e) => Err(failed("can't find", target, e)),
    }
}

fn mount_as_root(target: &Path, options: &MountOptions) -> Result<OwnedFd> {
    let device =
        rustix::fs::open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()).map_err(|e| match e {
            rustix::io::Errno::NOENT | rustix::io::Errno::NODEV | rustix::io::Errno::NXIO => {
                MountError::NoDevice
            }
            e => failed("can't open", Path::new(DEVICE), e.into()),
        })?;
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, options.read_only);
    let (uid, gid) = (rustix::process::getuid(), rustix::process::getgid());
    let fd = device.as_raw_fd();
    let mut data = format!("fd={fd},rootmode=40000,user_id={},group_id={}", uid.as_raw(), gid.as_raw());
    for option in kernel_options(options) {
        match option {
            "nodev" | "nosuid" | "rw" | "defaults" => {}
            "ro" => flags |= MountFlags::RDONLY,
            "dev" => flags -= MountFlags::NODEV,
            "suid" => flags -= MountFlags::NOSUID,
            "noexec" => flags |= MountFlags::NOEXEC,
            "exec" => flags -= MountFlags::NOEXEC,
            "noatime" => flags |= MountFlags::NOATIME,
            "nodiratime" => flags |= MountFlags::NODIRATIME,
            "relatime" => flags |= MountFlags::RELATIME,
            "sync" => flags |= MountFlags::SYNCHRONOUS,
            "dirsync" => flags |= MountFlags::DIRSYNC,
            other => data.extend([",", other]),
        }
    }
    let refused = |e: io::Error| failed("can't mount on", target, e);
    let data = CString::new(data).map_err(|e| refused(e.into()))?;
    match rustix::mount::mount(options.source.as_str(), target, TYPE, flags, data.as_c_str()) {
        Ok(()) => Ok(device),
        Err(rustix::io::Errno::NODEV) => Err(MountError::NoDevice),
        // Root without the right to mount, as in a container.
        Err(rustix::io::Errno::PERM) => mount_by_helper(target, options),
        Err(e) => Err(refused(e.into())),
    }
}

fn kernel_options(options: &MountOptions) -> impl Iterator<Item = &str> {
    let chosen = [(options.allow_other, "allow_other"), (options.default_permissions, "default_permissions")];
    chosen
        .into_iter()
        .filter_map(|(on, name)| on.then_some(name))
        .chain(options.extra.iter().flat_map(|extra| extra.split(',')))
        .filter(|option| !option.is_empty())
}

/// The helper mounts and sends the connection back over a socket whose number it finds in its
/// environment.
fn mount_by_helper(target: &Path, options: &MountOptions) -> Result<OwnedFd> {
    if !Path::new(DEVICE).exists() {
        return Err(MountError::NoDevice);
    }
    let refused = |e: io::Error| failed("can't mount on", target, e);
    let (ours, theirs) = UnixStream::pair().map_err(refused)?;
    // A duplicate without close-on-exec would leak into any program another thread starts now; the
    // helper's standard input goes to it alone.
    let mut list = format!("fsname={},subtype=syncfs,nosuid,nodev", escape(&options.source));
    if options.read_only {
        list.push_str(",ro");
    }
    for option in kernel_options(options) {
        list.extend([",", option]);
    }
    let mut helper = Command::new(HELPER);
    helper.env("_FUSE_COMMFD", "0").stdin(OwnedFd::from(theirs)).arg("-o").arg(list).arg("--").arg(target);
    run_helper(&mut helper)?;
    drop(helper); // Holds the other end open, and we would wait for ever.
    receive_descriptor(&ours).map_err(refused)
}

fn run_helper(helper: &mut Command) -> Result<()> {
    let output =
        helper.stdout(Stdio::null()).stderr(Stdio::piped()).output().map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => MountError::NoHelper,
            _ => failed("can't run", Path::new(HELPER), e),
        })?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    Err(MountError::Helper(text.trim().trim_start_matches("fusermount3: ").to_owned()))
}

fn receive_descriptor(socket: &UnixStream) -> io::Result<OwnedFd> {
    use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    recvmsg(socket.as_fd(), &mut [IoSliceMut::new(&mut byte)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(mut descriptors) = message
            && let Some(fd) = descriptors.next()
        {
            return Ok(fd);
        }
    }
    Err(io::Error::other("fusermount3 sent no descriptor"))
}

/// For the helper, a comma ends an option; the kernel itself takes the source apart from the options.
fn escape(source: &str) -> String {
    source.replace('\\', "\\\\").replace(',', "\\,")
}

struct Line {
    info: MountInfo,
    kind: String,
}

fn mount_table() -> Result<Vec<Line>> {
    let path = Path::new("/proc/self/mountinfo");
    let text = std::fs::read(path).map_err(|e| failed("can't read", path, e))?;
    Ok(text.split(|b| *b == b'\n').filter_map(parse_line).collect())
}

/// `id parent major:minor root target options [tags] - type source super-options`
fn parse_line(line: &[u8]) -> Option<Line> {
    let mut fields = line.split(|b| *b == b' ');
    let (major, minor) = std::str::from_utf8(fields.nth(2)?).ok()?.split_once(':')?;
    let target = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    fields.find(|field| *field == b"-")?;
    let kind = String::from_utf8_lossy(fields.next()?).into_owned();
    let source = String::from_utf8_lossy(&unescape(fields.next()?)).into_owned();
    let device = rustix::fs::makedev(major.parse().ok()?, minor.parse().ok()?);
    let for_all = fields.next()?.split(|b| *b == b',').any(|option| option == b"allow_other");
    Some(Line { info: MountInfo { target, source, device, for_all }, kind })
}

/// Undoes `\040` and its like: a backslash and three octal digits.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&first, tail)) = rest.split_first() {
        let octal =
            tail.get(..3).filter(|digits| first == b'\\' && digits.iter().all(|d| (b'0'..=b'7').contains(d)));
        match octal {
            Some(digits) => {
                out.push(digits.iter().fold(0u8, |n, d| (n << 3) | (d - b'0')));
                rest = &tail[3..];
            }
            None => {
                out.push(first);
                rest = tail;
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_mountinfo_line_is_taken_apart() {
        let line =
            br"36 35 0:58 / /mnt/a\040b\134c rw,nosuid shared:1 master:2 - fuse.syncfs host\040b: rw,fd=3";
        let line = parse_line(line).expect("parses");
        assert_eq!(line.info.target.as_os_str().as_bytes(), br"/mnt/a b\c");
        assert_eq!(line.info.source, "host b:");
        assert_eq!(line.info.device, rustix::fs::makedev(0, 58));
        assert_eq!(line.kind, TYPE);
        assert!(!line.info.for_all);
        let line = b"36 35 0:58 / /mnt rw,nosuid - fuse.syncfs host: rw,fd=3,allow_other";
        assert!(parse_line(line).expect("parses").info.for_all);
        assert!(parse_line(b"").is_none());
        assert!(parse_line(b"36 35 0:58 / /mnt").is_none());
    }

    #[test]
    fn a_broken_escape_stays_as_it_is() {
        assert_eq!(unescape(br"a\04"), br"a\04");
        assert_eq!(unescape(br"\999\\"), br"\999\\");
    }

    #[test]
    fn commas_in_the_source_inject_nothing() {
        assert_eq!(escape(r"a,allow_other\"), r"a\,allow_other\\");
    }

    #[test]
    fn the_helper_mounts_too() {
        let dir = tempfile::tempdir().unwrap();
        let options = MountOptions { source: r"a,b\ c".into(), read_only: true, ..Default::default() };
        let connection = mount_by_helper(dir.path(), &options).unwrap();
        let mine = mounts().unwrap().into_iter().find(|mount| mount.target == dir.path());
        assert_eq!(mine.map(|mount| mount.source), Some(options.source.clone()));
        let flags = rustix::io::fcntl_getfd(&connection).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
        // Dead already: nobody serves it.
        drop(connection);
        assert!(detach_stale(dir.path()).unwrap());
        assert!(matches!(mount_by_helper(Path::new("/nowhere"), &options), Err(MountError::Helper(_))));
    }
}
