//! Where things lie: the key, configs, the log, the control sockets.
//!
//! Invariants: works without HOME and without any XDG variable; every mount has a control socket and
//! a log of its own, named after the mounted path; control sockets lie only in directories that
//! nobody else can enter.

use super::exit::Failure;
use anyhow::{Context, bail};
use std::ffi::OsString;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

/// Longest file name before it is shortened: a socket's whole path has about 100 bytes.
const NAME_BYTES: usize = 64;

/// Where this user's things lie.
pub struct Places {
    uid: u32,
    /// Of the key and the configs.
    settings: Option<PathBuf>,
    logs: PathBuf,
    sockets: PathBuf,
}

impl Places {
    /// For who runs this process.
    pub fn here() -> Places {
        Places::of(rustix::process::geteuid().as_raw(), |name| std::env::var_os(name))
    }

    fn of(uid: u32, var: impl Fn(&str) -> Option<OsString>) -> Places {
        if uid == 0 {
            return Places {
                uid,
                settings: Some("/etc/syncfs".into()),
                logs: "/var/log/syncfs".into(),
                sockets: "/run/syncfs".into(),
            };
        }
        // A relative path means nothing to a daemon.
        let var = |name: &str| var(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = |xdg: &str, below: &str| var(xdg).or_else(|| Some(var("HOME")?.join(below)));
        let sockets = var("XDG_RUNTIME_DIR")
            .filter(|dir| dir.is_dir())
            .map_or_else(|| format!("/tmp/syncfs-{uid}").into(), |dir| dir.join("syncfs"));
        Places {
            uid,
            settings: home("XDG_CONFIG_HOME", ".config").map(|dir| dir.join("syncfs")),
            logs: home("XDG_STATE_HOME", ".local/state")
                .map_or_else(|| sockets.clone(), |dir| dir.join("syncfs")),
            sockets,
        }
    }

    /// The key to use when none was named.
    pub fn key(&self) -> Result<PathBuf, Failure> {
        self.settings.as_ref().map(|dir| dir.join("key")).ok_or_else(|| {
            Failure::other("can't tell where the key lies, for HOME is not set: name it with --key-file FILE")
        })
    }

    /// The key that was `named`, else the one to use, as a whole path: a daemon leaves the working directory, and the other
    /// host needs it spelled out.
    pub fn key_at(&self, named: Option<&Path>) -> Result<PathBuf, Failure> {
        match named {
            Some(path) => {
                Ok(std::path::absolute(path).with_context(|| format!("can't find {}", path.display()))?)
            }
            None => self.key(),
        }
    }

    /// Where configs lie; `None` where HOME is needed to tell and is not set.
    pub fn configs(&self) -> Option<&Path> {
        self.settings.as_deref()
    }

    /// The log of the daemon that serves `mount`.
    pub fn log(&self, mount: &Path) -> PathBuf {
        self.logs.join(escape(mount) + ".log")
    }

    /// The control socket of the daemon that serves `mount`.
    pub fn socket(&self, mount: &Path) -> PathBuf {
        self.sockets.join(escape(mount) + ".sock")
    }

    /// Makes the directory of the control sockets.
    pub fn make_sockets(&self) -> anyhow::Result<()> {
        make_private(&self.sockets).with_context(|| format!("can't make {}", self.sockets.display()))?;
        self.check_sockets()
    }

    /// All control sockets there are, of living daemons and dead ones.
    pub fn sockets(&self) -> anyhow::Result<Vec<PathBuf>> {
        if !self.sockets.exists() {
            return Ok(Vec::new());
        }
        self.check_sockets()?;
        let looking = || format!("can't list {}", self.sockets.display());
        let mut found = Vec::new();
        for entry in self.sockets.read_dir().with_context(looking)? {
            found.push(entry.with_context(looking)?.path());
        }
        found.retain(|path| path.extension().is_some_and(|e| e == "sock"));
        found.sort();
        Ok(found)
    }

    /// Whoever could write here could pose as a daemon.
    fn check_sockets(&self) -> anyhow::Result<()> {
        let dir = &self.sockets;
        let metadata = dir.symlink_metadata().with_context(|| format!("can't look at {}", dir.display()))?;
        if !metadata.is_dir() || metadata.uid() != self.uid || metadata.mode() & 0o077 != 0 {
            bail!(
                "{0} must be a directory of yours with mode 0700: remove it, or mend it with\n  chmod 700 {0}",
                dir.display()
            );
        }
        Ok(())
    }
}

/// Makes a directory, and those on the way, for its owner alone.
pub fn make_private(dir: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// The one absolute path of a directory, without links; also if a dead mount lies on it.
pub fn resolve(dir: &Path) -> Result<PathBuf, Failure> {
    let shown = dir.display();
    match dir.canonicalize() {
        Ok(path) => Ok(path),
        Err(e) if e.raw_os_error() == Some(libc::ENOTCONN) => {
            let absolute = std::path::absolute(dir).with_context(|| format!("can't find {shown}"))?;
            match (absolute.parent().map(Path::canonicalize), absolute.file_name()) {
                (Some(Ok(parent)), Some(name)) => Ok(parent.join(name)),
                _ => Ok(absolute),
            }
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            Err(Failure::other(format_args!("there is no directory {shown}")))
        }
        Err(e) => Err(Failure::other(format_args!("can't find {shown}: {e}"))),
    }
}

/// A path as one readable file name, two paths never as the same: `/mnt/a-b` becomes `mnt-a\x2db`.
fn escape(path: &Path) -> String {
    let mut name = String::new();
    for &byte in path.as_os_str().as_bytes().strip_prefix(b"/").unwrap_or_default() {
        match byte {
            b'/' => name.push('-'),
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => name.push(byte as char),
            b'.' if !name.is_empty() => name.push('.'),
            _ => name.push_str(&format!("\\x{byte:02x}")),
        }
    }
    if name.is_empty() {
        name.push('-');
    }
    if name.len() > NAME_BYTES {
        let hash = xxhash_rust::xxh3::xxh3_64(path.as_os_str().as_bytes());
        let tail = &name[name.len() - (NAME_BYTES - 17)..];
        name = format!("{hash:016x}-{tail}");
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{HashMap, HashSet};
    use std::os::unix::fs::PermissionsExt;

    fn places(uid: u32, vars: &[(&str, &str)]) -> Places {
        let vars: HashMap<&str, &str> = vars.iter().copied().collect();
        Places::of(uid, |name| vars.get(name).map(OsString::from))
    }

    #[test]
    fn root_needs_no_environment() {
        let places = places(0, &[("HOME", "/home/x"), ("XDG_CONFIG_HOME", "/c")]);
        assert_eq!(places.key().unwrap(), Path::new("/etc/syncfs/key"));
        assert_eq!(places.configs(), Some(Path::new("/etc/syncfs")));
        assert_eq!(places.log(Path::new("/mnt/a")), Path::new("/var/log/syncfs/mnt-a.log"));
        assert_eq!(places.socket(Path::new("/mnt/a")), Path::new("/run/syncfs/mnt-a.sock"));
    }

    #[test]
    fn others_follow_xdg_then_home_then_do_without() {
        let xdg =
            [("HOME", "/h"), ("XDG_CONFIG_HOME", "/c"), ("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/")];
        let full = places(7, &xdg);
        assert_eq!(full.key().unwrap(), Path::new("/c/syncfs/key"));
        assert_eq!(full.log(Path::new("/m")), Path::new("/s/syncfs/m.log"));
        assert_eq!(full.socket(Path::new("/m")), Path::new("/syncfs/m.sock"));
        let home = places(7, &[("HOME", "/h"), ("XDG_CONFIG_HOME", ""), ("XDG_STATE_HOME", "relative")]);
        assert_eq!(home.key().unwrap(), Path::new("/h/.config/syncfs/key"));
        assert_eq!(home.log(Path::new("/m")), Path::new("/h/.local/state/syncfs/m.log"));
        let bare = places(7, &[]);
        assert!(bare.key().unwrap_err().message.contains("--key-file"));
        assert_eq!(bare.log(Path::new("/m")), Path::new("/tmp/syncfs-7/m.log"));
        assert_eq!(bare.socket(Path::new("/m")), Path::new("/tmp/syncfs-7/m.sock"));
    }

    #[test]
    fn two_paths_never_share_a_name() {
        let long = "/x".repeat(200);
        let paths = ["/", "/a-b", "/a/b", "/a.b", "/.a", "/a\\x2db", "/ä", "/a_b", &long, &long[2..]];
        let names: HashSet<String> = paths.iter().map(|p| escape(Path::new(p))).collect();
        assert_eq!(names.len(), paths.len(), "{names:?}");
        assert!(names.iter().all(|n| n.len() <= NAME_BYTES && !n.contains('/') && !n.starts_with('.')));
    }

    #[test]
    fn a_directory_that_others_can_enter_is_refused() {
        let temp = tempfile::tempdir().unwrap();
        let uid = rustix::process::geteuid().as_raw();
        let dir = temp.path().join("run/syncfs");
        let places = Places { uid, settings: None, logs: dir.clone(), sockets: dir.clone() };
        assert!(places.sockets().unwrap().is_empty());
        places.make_sockets().unwrap();
        std::fs::write(dir.join("a.sock"), "").unwrap();
        std::fs::write(dir.join("a.log"), "").unwrap();
        assert_eq!(places.sockets().unwrap(), [dir.join("a.sock")]);
        std::fs::set_permissions(&dir, std::fs::Permissions::from_mode(0o750)).unwrap();
        assert!(places.sockets().unwrap_err().to_string().contains("chmod 700"));
        let stranger = Places { uid: uid + 1, ..places };
        assert!(stranger.make_sockets().is_err());
    }

    #[test]
    fn a_path_is_resolved_or_said_not_to_be_there() {
        let missing = resolve(Path::new("/nowhere/at all")).unwrap_err();
        assert_eq!(missing.message, "there is no directory /nowhere/at all");
        assert_eq!(resolve(Path::new("/usr/../usr")).unwrap(), Path::new("/usr"));
    }
}
