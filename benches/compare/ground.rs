//! File systems to work on: each contender has one of its own, and all are equal.
//!
//! Invariant: an image has no name once it is mounted, so its disk space goes with the mount.

use crate::rig::{run, try_run};
use rustix::mount::UnmountFlags;
use std::fs::{File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// On a disk; what lies in /tmp may lie in memory.
const PLACE: &str = "/var/tmp";

/// Bytes that lie together, if they are worth giving back.
const LARGE: &str = "1M";

/// An ext4 in a sparse file.
pub struct Ground {
    /// An empty directory on it.
    pub dir: PathBuf,
    at: PathBuf,
    _root: TempDir,
}

impl Ground {
    /// With room for so many bytes.
    pub fn new(bytes: u64) -> Ground {
        Ground::made(bytes, &[])
    }

    /// With room for so many bytes in so many files.
    pub fn for_files(bytes: u64, files: u64) -> Ground {
        Ground::made(bytes, &["-N", &(files + files / 8 + 4096).to_string()])
    }

    fn made(bytes: u64, words: &[&str]) -> Ground {
        let root = tempfile::Builder::new().prefix("syncfs-bench-").tempdir_in(PLACE).expect("a directory");
        // Users who are not root work in it, too.
        std::fs::set_permissions(root.path(), Permissions::from_mode(0o755)).expect("its mode");
        let (image, at) = (root.path().join("image"), root.path().join("mount"));
        File::create(&image).and_then(|file| file.set_len(bytes)).expect("an image");
        std::fs::create_dir(&at).expect("a directory");
        let (image, target) = (image.to_str().expect("plain"), at.to_str().expect("plain"));
        // Nothing is left to be initialized in the background.
        let lazily = ["-E", "lazy_itable_init=1,lazy_journal_init=0,nodiscard"];
        run(root.path(), &[&["mkfs.ext4", "-q", "-F"], &lazily[..], words, &[image]].concat());
        // Past the cache of the file system that the image lies on.
        let device = run(root.path(), &["losetup", "--find", "--show", "--direct-io=on", image]);
        let mounted = try_run(root.path(), &["mount", "-o", "noinit_itable", device.trim(), target]);
        // Still in use, it goes when it is no longer.
        run(root.path(), &["losetup", "--detach", device.trim()]);
        assert!(mounted.status.success(), "{}", String::from_utf8_lossy(&mounted.stderr));
        std::fs::remove_file(image).expect("the image's name");
        let dir = at.join("dir");
        std::fs::create_dir(&dir).expect("a directory");
        Ground { dir, at, _root: root }
    }

    /// Returns when all that was written is on the disk, and what was deleted takes no room there any more.
    pub fn sync(&self) {
        let dir = File::open(&self.at).expect("the mount");
        rustix::fs::syncfs(dir).expect("synced");
        run(&self.at, &["fstrim", "--minimum", LARGE, "."]);
    }

    pub fn path(&self) -> &Path {
        &self.at
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = rustix::mount::unmount(&self.at, UnmountFlags::DETACH);
    }
}

/// Forgets what the kernel keeps of files in memory, of all file systems of this machine.
pub fn drop_caches() {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").expect("root may");
}
