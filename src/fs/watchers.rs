//! Whether any program watches a mount, as far as can be told: inotify(7) and fanotify(7) have no list of watchers, but
//! proc(5) shows what each process's descriptors of the two watch.
//!
//! Invariant: the answer is no only if nobody watches. Whoever can't be looked at counts as one who does; but not where only
//! this process's user can enter: then it is somebody else, or has ended, or hides from its own user, as what keeps secrets does.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// The inode of the PID namespace from which all processes are seen: PROC_PID_INIT_INO, which is part of the kernel's interface.
const ALL_PROCESSES: u64 = 0xEFFF_FFFC;

/// Whether somebody may watch files of `device`, or its directory. `private` is a mount that only this process's user can
/// enter.
pub(super) fn may_be_watched(device: u64, private: bool) -> bool {
    !matches!(look(device, private), Ok(false))
}

fn look(device: u64, private: bool) -> io::Result<bool> {
    if fs::metadata("/proc/self/ns/pid")?.ino() != ALL_PROCESSES {
        return Ok(true);
    }
    for process in fs::read_dir("/proc")? {
        let process = process?.path();
        let is_process = process.file_name().is_some_and(|name| name.as_encoded_bytes()[0].is_ascii_digit());
        if !is_process {
            continue;
        }
        match watches(&process, device) {
            Ok(true) => return Ok(true),
            Ok(false) => {}
            Err(error) if is_gone(&error) => {}
            Err(_) if private => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(libc::ESRCH)
}

/// Whether one process does, which is at `process` in /proc.
fn watches(process: &Path, device: u64) -> io::Result<bool> {
    let infos = process.join("fdinfo");
    for descriptor in fs::read_dir(process.join("fd"))? {
        let descriptor = descriptor?;
        let seen = fs::read_link(descriptor.path()).and_then(|what| {
            let what = what.into_os_string();
            let notifies = ["anon_inode:inotify", "anon_inode:[fanotify]"].iter().any(|kind| what == **kind);
            if !notifies {
                return Ok(false);
            }
            Ok(is_about(&fs::read_to_string(infos.join(descriptor.file_name()))?, device))
        });
        match seen {
            Ok(false) => {}
            // Closed meanwhile.
            Err(error) if is_gone(&error) => {}
            other => return other,
        }
    }
    Ok(false)
}

/// Whether one of the marks in `info`, a descriptor's, is on a file of `device`, or on a whole mount, whichever that is.
fn is_about(info: &str, device: u64) -> bool {
    // The kernel's own way to write a device number.
    let number = u64::from(rustix::fs::major(device)) << 20 | u64::from(rustix::fs::minor(device));
    let mut marks = info.lines().filter(|line| line.starts_with("inotify ") || line.starts_with("fanotify "));
    marks.any(|mark| {
        mark.split(' ').any(|field| match field.split_once(':') {
            Some(("sdev", digits)) => u64::from_str_radix(digits, 16).is_ok_and(|sdev| sdev == number),
            Some(("mnt_id" | "mnt_ns", _)) => true,
            _ => false,
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::inotify::{CreateFlags, WatchFlags, add_watch, init};
    use rustix::fs::makedev;

    #[test]
    fn a_mark_is_about_a_device_or_a_whole_mount() {
        let inotify = "pos:\t0\nflags:\t02\nmnt_id:\t15\nino:\t1057\n\
                       inotify wd:2 ino:4f sdev:800013 mask:3cc ignored_mask:0 fhandle-bytes:8 fhandle-type:1 f_handle:4f\n\
                       inotify wd:1 ino:1 sdev:2d mask:3cc ignored_mask:0\n";
        assert!(is_about(inotify, makedev(0, 0x2d)) && is_about(inotify, makedev(8, 0x13)));
        assert!(!is_about(inotify, makedev(0, 0x2e)) && !is_about(inotify, makedev(0, 15)));
        let fanotify = "fanotify flags:10 event-flags:0\nfanotify ino:4f sdev:2d mflags:0 mask:1 ignored_mask:40000000\n";
        assert!(is_about(fanotify, makedev(0, 0x2d)) && !is_about(fanotify, makedev(0, 0x2e)));
        assert!(is_about("fanotify mnt_id:12 mflags:40 mask:38 ignored_mask:40000003\n", makedev(0, 0x2d)));
    }

    #[test]
    fn who_watches_is_found_while_they_do() {
        let (us, dir) = (Path::new("/proc/self"), tempfile::tempdir().unwrap());
        let device = dir.path().metadata().unwrap().dev();
        let nowhere = makedev(0, 0xf_ffff);
        assert!(!watches(us, nowhere).unwrap());
        let inotify = init(CreateFlags::CLOEXEC).unwrap();
        add_watch(&inotify, dir.path(), WatchFlags::CREATE).unwrap();
        assert!(watches(us, device).unwrap() && may_be_watched(device, true));
        assert!(!watches(us, nowhere).unwrap());
    }

    #[test]
    fn who_cannot_be_looked_at_counts() {
        assert!(watches(Path::new("/nowhere"), 1).is_err_and(|error| is_gone(&error)));
        assert!(watches(Path::new("/etc/passwd"), 1).is_err_and(|error| !is_gone(&error)));
    }
}
