//! Waiting: for locks, for late answers, and being killed meanwhile.

use super::rig::{Child, Rig, c, soon};
use crate::fs::locks::flocked;
use crate::fs::mount;
use std::ffi::CStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

fn open(path: &CStr) -> i32 {
    // SAFETY: a call with a valid string.
    unsafe { libc::open(path.as_ptr(), libc::O_RDWR) }
}

/// fcntl on the bytes `start` to `start + length`; 0 or an errno.
fn fcntl(fd: i32, kind: i32, start: i64, length: i64, wait: bool) -> i32 {
    // SAFETY: all zeroes is a valid value, and the call reads it only.
    unsafe {
        let mut lock: libc::flock = std::mem::zeroed();
        (lock.l_type, lock.l_start, lock.l_len) = (kind as i16, start, length);
        let command = if wait { libc::F_SETLKW } else { libc::F_SETLK };
        if libc::fcntl(fd, command, &lock) == 0 { 0 } else { *libc::__errno_location() }
    }
}

/// flock; 0 or an errno.
fn flock(fd: i32, how: i32) -> i32 {
    // SAFETY: plain numbers.
    unsafe { if libc::flock(fd, how) == 0 { 0 } else { *libc::__errno_location() } }
}

fn close(fd: i32) {
    // SAFETY: a descriptor of ours that nobody else uses.
    unsafe { libc::close(fd) };
}

#[test]
fn two_processes_lock_ranges() {
    let rig = Rig::new();
    fs::write(rig.at("a"), [0; 100]).unwrap();
    let ino = fs::metadata(rig.at("a")).unwrap().ino();
    let path = c(&rig.at("a"));
    let fd = open(&path);
    assert_eq!(fcntl(fd, libc::F_WRLCK, 0, 10, false), 0);
    let other = |start, wait| {
        let path = path.clone();
        Child::run(move || fcntl(open(&path), libc::F_WRLCK, start, 10, wait))
    };
    assert_eq!(other(5, false).answer(), libc::EAGAIN);
    assert_eq!(other(10, false).answer(), 0);
    let waits = other(5, true);
    std::thread::sleep(Duration::from_millis(100));
    assert_eq!(fcntl(fd, libc::F_UNLCK, 0, 0, false), 0);
    assert_eq!(waits.answer(), 0);
    // The end of a process is the end of its locks, and so is a close.
    assert_eq!(fcntl(fd, libc::F_WRLCK, 0, 0, false), 0);
    assert!(rig.volume.locked(ino));
    close(open(&path));
    assert!(!rig.volume.locked(ino));
    close(fd);
    rig.done();
}

#[test]
fn whole_file_locks_of_both_kinds_do_not_meet() {
    let rig = Rig::new();
    fs::write(rig.at("a"), "").unwrap();
    let ino = fs::metadata(rig.at("a")).unwrap().ino();
    let path = c(&rig.at("a"));
    let fd = open(&path);
    assert_eq!(flock(fd, libc::LOCK_EX | libc::LOCK_NB), 0);
    assert_eq!(fcntl(fd, libc::F_WRLCK, 0, 0, false), 0);
    let theirs = path.clone();
    let other = Child::run(move || flock(open(&theirs), libc::LOCK_EX | libc::LOCK_NB));
    assert_eq!(other.answer(), libc::EWOULDBLOCK);
    let mine = mount::mounts().unwrap().into_iter().find(|mount| mount.target == rig.target()).unwrap();
    assert_eq!(fs::metadata(rig.at("a")).unwrap().dev(), mine.device);
    assert!(flocked(mine.device).unwrap().contains(&ino));
    // Not left to the close: a process that another test forks meanwhile may have the file open, too.
    assert_eq!(flock(fd, libc::LOCK_UN), 0);
    close(fd);
    assert!(!flocked(mine.device).unwrap().contains(&ino));
    rig.done();
}

#[test]
fn who_waits_for_a_lock_can_be_killed_or_interrupted() {
    extern "C" fn nothing(_: i32) {}
    let rig = Rig::new();
    fs::write(rig.at("a"), "").unwrap();
    let ino = fs::metadata(rig.at("a")).unwrap().ino();
    let path = c(&rig.at("a"));
    let fd = open(&path);
    assert_eq!(fcntl(fd, libc::F_WRLCK, 0, 0, false), 0);
    for (signal, answer) in
        [(libc::SIGKILL, -libc::SIGKILL), (libc::SIGTERM, -libc::SIGTERM), (libc::SIGALRM, libc::EINTR)]
    {
        let theirs = path.clone();
        let waits = Child::run(move || {
            // SAFETY: a handler that does nothing, and does not have the call begin anew.
            unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                action.sa_sigaction = nothing as *const () as usize;
                libc::sigaction(libc::SIGALRM, &action, std::ptr::null_mut());
            }
            fcntl(open(&theirs), libc::F_WRLCK, 0, 0, true)
        });
        std::thread::sleep(Duration::from_millis(100));
        let start = Instant::now();
        waits.kill(signal);
        assert_eq!(waits.answer(), answer);
        assert!(start.elapsed() < Duration::from_secs(1), "{signal}: {:?}", start.elapsed());
    }
    // Nothing of the dead is left.
    assert_eq!(fcntl(fd, libc::F_UNLCK, 0, 0, false), 0);
    assert!(!rig.volume.locked(ino));
    close(fd);
    rig.done();
}

#[test]
fn a_hold_delays_lockers() {
    let rig = Rig::new();
    fs::write(rig.at("a"), "").unwrap();
    let ino = fs::metadata(rig.at("a")).unwrap().ino();
    let path = c(&rig.at("a"));
    let hold = rig.volume.locks().try_hold(&[ino]).expect("free");
    let start = Instant::now();
    let other = Child::run(move || fcntl(open(&path), libc::F_RDLCK, 0, 0, false));
    std::thread::sleep(Duration::from_millis(200));
    drop(hold);
    assert_eq!(other.answer(), 0);
    assert!(start.elapsed() >= Duration::from_millis(200));
    rig.done();
}

#[test]
fn a_late_read_blocks_nobody_else_and_can_be_killed() {
    let rig = Rig::new();
    fs::write(rig.at("a"), "late").unwrap();
    rig.volume.whole.store(false, Relaxed);
    rig.volume.late.store(300, Relaxed);
    let start = Instant::now();
    // More readers than request threads.
    std::thread::scope(|scope| {
        for number in 0..5 {
            fs::write(rig.at(&format!("late{number}")), "late").unwrap();
            let path = rig.at(&format!("late{number}"));
            scope.spawn(move || assert_eq!(fs::read(path).unwrap(), b"late"));
        }
        std::thread::sleep(Duration::from_millis(50));
        fs::write(rig.at("b"), "prompt").unwrap();
        assert!(start.elapsed() < Duration::from_millis(290), "{:?}", start.elapsed());
    });
    rig.volume.late.store(60_000, Relaxed);
    let path = c(&rig.at("a"));
    let reads = Child::run(move || {
        let fd = open(&path);
        // SAFETY: a buffer of that size.
        unsafe { libc::read(fd, [0u8; 4].as_mut_ptr().cast(), 4) as i32 }
    });
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    reads.kill(libc::SIGKILL);
    assert_eq!(reads.answer(), -libc::SIGKILL);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    soon("all is closed", || rig.volume.left().0 == 0);
    rig.done();
}
