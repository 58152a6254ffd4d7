//! Disks of the tests' own, in files, whose power can be cut; and a world in which only the test sees them.
//!
//! Invariants: all that a test mounts is in its thread's own mount namespace, so nobody else holds a disk that is
//! to lose its power, and all of it goes with the test; a cut disk keeps only what had reached it.

use crate::rig::{Host, mounted, run, try_run, until};
use rustix::mount::{MountPropagationFlags, UnmountFlags, mount_change, unmount};
use rustix::thread::UnshareFlags;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::Output;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
/// XFS_IOC_GOINGDOWN, which is EXT4_IOC_SHUTDOWN too: `_IOR('X', 125, u32)`.
const SHUTDOWN: libc::c_ulong = 0x8004_587d;
/// Not even the log is flushed.
const NO_LOG_FLUSH: u32 = 2;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Ext4,
    Xfs,
}

impl Kind {
    pub fn name(self) -> &'static str {
        match self {
            Kind::Ext4 => "ext4",
            Kind::Xfs => "xfs",
        }
    }
}

/// The calling thread, and what it starts from here on, in a mount namespace of its own in which each host can
/// have a boot of its own.
pub struct World {
    boot: PathBuf,
    boots: u64,
}

impl World {
    /// `None`, with a word to the user, where the machine can't.
    pub fn new(root: &Path) -> Option<World> {
        // SAFETY: no descriptor is shared or closed; only the mount table is the thread's own.
        if let Err(error) = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) } {
            println!("passed over: no mount namespace: {error}");
            return None;
        }
        let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
        mount_change("/", private).unwrap();
        // Copies of other tests' mounts would keep their daemons and disks alive.
        let table = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        for line in table.lines().filter(|line| line.contains(" fuse.syncfs ") || line.contains(" /dev/loop"))
        {
            let _ = unmount(line.split(' ').nth(4).unwrap(), UnmountFlags::DETACH);
        }
        let world = World { boot: root.join("boot_id"), boots: 0 };
        std::fs::write(&world.boot, "").unwrap();
        run(root, &["mount", "--bind", world.boot.to_str().unwrap(), BOOT_ID]);
        Some(world)
    }

    /// Daemons that start from here on are told of another boot of the machine.
    pub fn boot(&mut self) {
        self.boots += 1;
        std::fs::write(&self.boot, format!("{:08x}-0000-4000-8000-000000000000\n", self.boots)).unwrap();
    }

    /// The power of the host goes, and it comes back: everything but the daemon.
    pub fn cut_power(&mut self, host: &mut Host, disk: &Disk) {
        // A daemon that ran on could answer a call that the disk no longer carries out.
        host.daemon().stand_still();
        disk.shutdown();
        host.kill();
        until("the dead mount is gone", || {
            mounted(&host.dir) && unmount(&host.dir, UnmountFlags::DETACH).is_ok() || !mounted(&host.dir)
        });
        disk.unmount();
        disk.mount();
        self.boot();
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let _ = unmount(BOOT_ID, UnmountFlags::DETACH);
    }
}

/// A file system in a file.
pub struct Disk {
    pub kind: Kind,
    image: PathBuf,
    pub dir: PathBuf,
    options: &'static str,
    _root: tempfile::TempDir,
}

impl Disk {
    pub fn new(kind: Kind, megabytes: u64) -> Disk {
        Disk::with(kind, megabytes, &[], "loop").expect("a plain file system can be mounted")
    }

    /// With more words for mkfs, and options for mount(8), `loop` among them. `None`, with a word to the user, where the
    /// machine can't mount it so.
    pub fn with(kind: Kind, megabytes: u64, format: &[&str], options: &'static str) -> Option<Disk> {
        let root = tempfile::tempdir().unwrap();
        let (image, dir) = (root.path().join("image"), root.path().join("disk"));
        File::create(&image).unwrap().set_len(megabytes << 20).unwrap();
        std::fs::create_dir(&dir).unwrap();
        let program = format!("mkfs.{}", kind.name());
        let mut words = vec![program.as_str(), "-q"];
        words.extend(format);
        words.push(image.to_str().unwrap());
        run(root.path(), &words);
        let disk = Disk { kind, image, dir, options, _root: root };
        let output = disk.try_mount();
        if !output.status.success() {
            println!("passed over: mount -o {options}: {}", String::from_utf8_lossy(&output.stderr).trim());
            return None;
        }
        std::fs::create_dir(disk.share()).unwrap();
        // As old as a real directory would be.
        rustix::fs::syncfs(File::open(disk.share()).unwrap()).unwrap();
        Some(disk)
    }

    /// The directory to be shared.
    pub fn share(&self) -> PathBuf {
        self.dir.join("share")
    }

    pub fn mount(&self) {
        let output = self.try_mount();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }

    fn try_mount(&self) -> Output {
        let (image, dir) = (self.image.to_str().unwrap(), self.dir.to_str().unwrap());
        try_run(&self.dir, &["mount", "-t", self.kind.name(), "-o", self.options, image, dir])
    }

    pub fn unmount(&self) {
        until("the disk is not busy", || unmount(&self.dir, UnmountFlags::empty()).is_ok());
    }

    /// What the disk has not got by now it will never get.
    fn shutdown(&self) {
        let dir = File::open(&self.dir).unwrap();
        // SAFETY: the call reads one u32.
        let done = unsafe { libc::ioctl(dir.as_raw_fd(), SHUTDOWN, &NO_LOG_FLUSH) };
        assert_eq!(done, 0, "{}: {}", self.kind.name(), std::io::Error::last_os_error());
    }

    /// Mounts what is mounted with other options.
    pub fn remount(&self, options: &str) {
        run(Path::new("/"), &["mount", "-o", &format!("remount,{options}"), self.dir.to_str().unwrap()]);
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        while mounted(&self.dir) && unmount(&self.dir, UnmountFlags::DETACH).is_ok() {}
    }
}

/// Whether the machine has loop devices, and file systems of this kind.
pub fn able(kind: Kind) -> bool {
    if !crate::able(&[&format!("mkfs.{}", kind.name()), "mount", "losetup"]) {
        return false;
    }
    let free = try_run(Path::new("/"), &["losetup", "-f"]);
    if !free.status.success() {
        println!("passed over: no loop devices");
    }
    free.status.success()
}
