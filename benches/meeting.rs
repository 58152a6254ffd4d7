//! What it costs two filled directories to meet that are nearly the same, beside rsync and unison on the same pair.
//!
//!     cargo bench --bench meeting
//!     SYNCFS_FILES=20000 cargo bench --bench meeting
//!
//! 5,000 files of 10,000 bytes on the average, of which 10 differ. syncfs on two real mounts, joined over loopback, from the
//! start of the second daemon until both are level and durable; rsync without looking at times first (`-a`, whose files
//! have the same times) and with (`-ac`); unison, where it is installed, over a socket, for the first time. Bytes are those
//! of both directions. Needs what `tests/mounts` needs.

#[path = "../tests/common/rig.rs"]
mod rig;

use rig::{Pair, free_ports, noise, run};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Files that differ.
const DIFFER: usize = 10;

fn main() {
    let files: usize = std::env::var("SYNCFS_FILES").map_or(5_000, |n| n.parse().expect("a number"));
    let mut pair = Pair::new();
    let apart = tempfile::tempdir().unwrap();
    for n in 0..files {
        let bytes = noise(n as u64, n * 7_919 % 20_000);
        std::fs::write(pair.a.path(format!("file {n}")), bytes).unwrap();
    }
    run(apart.path(), &["cp", "-a", &format!("{}/.", pair.a.dir.display()), pair.b.dir.to_str().unwrap()]);
    let mut both = 0;
    for n in 0..DIFFER {
        let path = pair.a.path(format!("file {}", n * (files / DIFFER)));
        both += path.metadata().unwrap().len() + 10_000;
        std::fs::write(path, noise((files + n) as u64, 10_000)).unwrap();
    }
    for (name, dir) in [("rsync", &pair.b.dir), ("rsync-c", &pair.b.dir), ("unison", &pair.b.dir)] {
        run(apart.path(), &["cp", "-a", dir.to_str().unwrap(), name]);
    }
    let source = apart.path().join("source");
    run(apart.path(), &["cp", "-a", pair.a.dir.to_str().unwrap(), "source"]);

    pair.a.start();
    let begun = Instant::now();
    pair.b.start();
    pair.b.flush_with_conflicts();
    let seconds = begun.elapsed().as_secs_f64();
    let status = pair.b.status();
    let ours = status["sent_bytes"].as_u64().unwrap() + status["received_bytes"].as_u64().unwrap();
    assert_eq!(status["conflicts"].as_u64(), Some(DIFFER as u64), "one copy of each that differs");
    for host in [&mut pair.a, &mut pair.b] {
        assert!(host.unmount().success());
    }
    println!(
        "{files} files, {DIFFER} of them different, by {both} bytes in both versions, which syncfs keeps:"
    );
    println!("  syncfs {ours} bytes, {seconds:.2} s");
    for (how, dir) in [("-a", "rsync"), ("-ac", "rsync-c")] {
        let (bytes, seconds) = rsync(how, &source, &apart.path().join(dir));
        println!(
            "  rsync {how} {bytes} bytes, {seconds:.2} s; syncfs takes {:.2} of its bytes",
            ours as f64 / bytes as f64
        );
    }
    match unison(&source, &apart.path().join("unison"), apart.path()) {
        Some((bytes, seconds)) => {
            println!(
                "  unison {bytes} bytes, {seconds:.2} s; syncfs takes {:.2} of its bytes",
                ours as f64 / bytes as f64
            );
        }
        None => println!("  unison is not installed"),
    }
}

/// What rsync says it sent and received, and the seconds it took.
fn rsync(how: &str, from: &Path, to: &Path) -> (u64, f64) {
    let begun = Instant::now();
    let (from, to) = (format!("{}/", from.display()), format!("{}/", to.display()));
    let said = run(Path::new("/"), &["rsync", how, "--stats", "--no-whole-file", "--no-h", &from, &to]);
    let number = |start: &str| -> u64 {
        let line = said.lines().find_map(|l| l.strip_prefix(start)).unwrap_or_else(|| panic!("{said}"));
        line.replace(',', "").trim().parse().unwrap()
    };
    (number("Total bytes sent:") + number("Total bytes received:"), begun.elapsed().as_secs_f64())
}

/// What unison sends over a socket, both ways, and the seconds it takes.
fn unison(from: &Path, to: &Path, home: &Path) -> Option<(u64, f64)> {
    let [port, through] = free_ports();
    let mut server = Command::new("unison")
        .args(["-socket", &port.to_string()])
        .env("UNISON", home.join("unison-server"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let passed = count(through, port);
    rig::until("unison listens", || TcpStream::connect(("127.0.0.1", port)).is_ok());
    let begun = Instant::now();
    let root = format!("socket://127.0.0.1:{through}/{}", to.display());
    let done = Command::new("unison")
        .args([from.to_str().unwrap(), &root, "-batch", "-prefer", "newer", "-times", "-ui", "text"])
        .env("UNISON", home.join("unison-client"))
        .output()
        .unwrap();
    let seconds = begun.elapsed().as_secs_f64();
    server.kill().unwrap();
    server.wait().unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    Some((passed.load(Ordering::Relaxed), seconds))
}

/// Passes on what comes to port `at` to port `to`, and counts it, both ways.
fn count(at: u16, to: u16) -> Arc<AtomicU64> {
    let passed = Arc::new(AtomicU64::new(0));
    let listener = TcpListener::bind(("127.0.0.1", at)).unwrap();
    let counter = passed.clone();
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let server = TcpStream::connect(("127.0.0.1", to)).unwrap();
            for (mut from, mut into) in
                [(client.try_clone().unwrap(), server.try_clone().unwrap()), (server, client)]
            {
                let counter = counter.clone();
                std::thread::spawn(move || {
                    let mut bytes = vec![0; 1 << 16];
                    while let Ok(len @ 1..) = from.read(&mut bytes) {
                        counter.fetch_add(len as u64, Ordering::Relaxed);
                        if into.write_all(&bytes[..len]).is_err() {
                            break;
                        }
                    }
                    let _ = into.shutdown(std::net::Shutdown::Write);
                });
            }
        }
    });
    passed
}
