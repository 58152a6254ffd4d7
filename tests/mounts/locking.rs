//! Locks between two processes on one host.

use crate::rig::{Pair, Program, run, try_run};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, Stdio};

/// Names the file that the process to be started shall lock.
const HOLD: &str = "SYNCFS_TEST_HOLD";

#[test]
fn flock_keeps_a_second_process_out() {
    let pair = Pair::mounted();
    pair.a.save("lock", b"");
    let mut holder = Program::start(&pair.a.dir, &["flock", "lock", "sh", "-c", "echo held; read line"]);
    assert_eq!(holder.line(), "held");
    let busy = try_run(&pair.a.dir, &["flock", "-n", "-E", "42", "lock", "true"]);
    assert_eq!(busy.status.code(), Some(42));
    assert!(!try_run(&pair.a.dir, &["flock", "-n", "-s", "lock", "true"]).status.success());
    let mut waiting = Program::start(&pair.a.dir, &["flock", "lock", "echo", "mine"]);
    drop(holder.stdin());
    assert_eq!(waiting.line(), "mine");
    assert!(holder.ended().is_some() && waiting.ended().is_some());
    run(&pair.a.dir, &["flock", "-n", "lock", "true"]);
    drop((holder, waiting));
    pair.finish();
}

#[test]
fn fcntl_locks_keep_a_second_process_out_of_the_locked_bytes() {
    let pair = Pair::mounted();
    pair.a.save("lock", &[0; 100]);
    let mut holder = hold(&pair.a.path("lock"));
    assert_eq!(holder.line(), "held");
    let file = File::options().read(true).write(true).open(pair.a.path("lock")).unwrap();
    // Bytes 10 to 19 are taken, and who has them can be asked.
    assert_eq!(lock(&file, libc::F_SETLK, libc::F_WRLCK, 15, 1).unwrap_err(), libc::EAGAIN);
    assert_eq!(lock(&file, libc::F_SETLK, libc::F_RDLCK, 0, 0).unwrap_err(), libc::EAGAIN);
    lock(&file, libc::F_SETLK, libc::F_WRLCK, 20, 0).unwrap();
    lock(&file, libc::F_SETLK, libc::F_WRLCK, 0, 10).unwrap();
    let found = lock(&file, libc::F_GETLK, libc::F_WRLCK, 0, 0).unwrap();
    assert_eq!((i32::from(found.l_type), found.l_pid), (libc::F_WRLCK, holder.id()));
    assert_eq!((found.l_start, found.l_len), (10, 10));
    // Its end gives them free, and wakes who waits.
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| lock(&file, libc::F_SETLKW, libc::F_WRLCK, 0, 0).map(drop));
        drop(holder.stdin());
        assert!(holder.ended().is_some());
        waiting.join().unwrap().unwrap();
    });
    let found = lock(&file, libc::F_GETLK, libc::F_WRLCK, 0, 0).unwrap();
    assert_eq!(i32::from(found.l_type), libc::F_UNLCK);
    drop((holder, file));
    pair.finish();
}

#[test]
fn a_killed_process_leaves_no_lock() {
    let pair = Pair::mounted();
    pair.a.save("lock", &[0; 100]);
    let holder = hold(&pair.a.path("lock"));
    assert_eq!(holder.line(), "held");
    holder.signal(rustix::process::Signal::KILL);
    let file = File::options().read(true).write(true).open(pair.a.path("lock")).unwrap();
    lock(&file, libc::F_SETLKW, libc::F_WRLCK, 0, 0).unwrap();
    drop((holder, file));
    pair.finish();
}

/// A process that has bytes 10 to 19 locked until its standard input ends.
fn hold(path: &Path) -> Program {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--ignored",
        "--exact",
        "--nocapture",
        "--quiet",
        "locking::the_process_that_holds_a_lock",
    ]);
    let program = Program::spawn(command.env(HOLD, path).stdin(Stdio::piped()));
    // The test harness speaks first.
    while !program.line().ends_with("holding") {}
    program
}

#[test]
#[ignore = "what the tests of fcntl start as a second process"]
fn the_process_that_holds_a_lock() {
    let Some(path) = std::env::var_os(HOLD) else { return };
    let file = File::options().read(true).write(true).open(path).unwrap();
    lock(&file, libc::F_SETLK, libc::F_WRLCK, 10, 10).unwrap();
    println!("\nholding\nheld");
    let _ = std::io::stdin().read_line(&mut String::new());
}

/// fcntl(2) with a lock from `start`, `length` bytes long; 0 is to the end.
fn lock(file: &File, what: i32, kind: i32, start: i64, length: i64) -> Result<libc::flock, i32> {
    // SAFETY: plain numbers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as i16;
    lock.l_whence = libc::SEEK_SET as i16;
    lock.l_start = start;
    lock.l_len = length;
    // SAFETY: the descriptor lives and the lock is ours to change.
    match unsafe { libc::fcntl(file.as_raw_fd(), what, &mut lock) } {
        -1 => Err(std::io::Error::last_os_error().raw_os_error().unwrap_or(0)),
        _ => Ok(lock),
    }
}
