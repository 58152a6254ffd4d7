//! A peer that vanishes or freezes: local work goes on at its own speed, and who needs the peer is told in time.

use crate::able;
use crate::rig::{Host, Pair, Program, errno, noise, wait_for};
use crate::user::User;
use rustix::process::Signal;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// More than comes in the moment between the name and the freezing.
const HUGE: u64 = 400 << 20;
/// Below any patience with the network, above what a busy disk takes.
const LOCAL: Duration = Duration::from_secs(2);

/// Works on A for `time`; returns the slowest call.
fn work(host: &Host, user: &mut User, time: Duration) -> (Duration, String) {
    user.slowest = (Duration::ZERO, String::new());
    let end = Instant::now() + time;
    user.work(|| Instant::now() > end);
    assert!(!host.status()["replica"].is_null(), "the daemon answers");
    user.slowest.clone()
}

#[test]
fn local_work_does_not_notice_that_the_peer_is_gone_or_frozen() {
    if !able(&["setpriv"]) {
        return;
    }
    let mut pair = Pair::mounted();
    let mut user = User::new(&pair.a.dir, "a", 1);
    let time = Duration::from_millis(crate::number("SYNCFS_SILENCE", 3) * 1000);
    let with = work(&pair.a, &mut user, time);
    pair.b.daemon().signal(Signal::STOP);
    let frozen = work(&pair.a, &mut user, time);
    pair.b.daemon().signal(Signal::CONT);
    pair.b.kill();
    let gone = work(&pair.a, &mut user, time);
    println!("slowest local call: with the peer {with:?}, frozen {frozen:?}, gone {gone:?}");
    for (what, slowest) in [("frozen", frozen), ("gone", gone)] {
        assert!(slowest.0 < LOCAL, "with the peer {what}: {slowest:?}");
    }
    // One that never comes back takes nothing along.
    let output = pair.a.syncfs(&["flush", "--timeout", "1"]);
    assert_eq!(output.status.code(), Some(5));
    user.rest();
    user.check(&pair.a.contents()).unwrap();
    pair.b.start();
    user.check(&pair.assert_same()).unwrap();
    pair.finish();
}

/// A has the name of a file whose content only B has, and B is frozen.
fn out_of_reach() -> Pair {
    let mut pair = Pair::new();
    pair.a.option("--read-timeout", Path::new(&READ_TIMEOUT.as_secs().to_string()));
    pair.b.start();
    let file = File::create(pair.b.path("huge")).unwrap();
    for n in 0..HUGE >> 20 {
        file.write_all_at(&noise(n + 1, 1 << 20), n << 20).unwrap();
    }
    drop(file);
    pair.a.start();
    wait_for("the name is on A", || pair.a.path("huge").exists().then_some(()));
    pair.b.daemon().signal(Signal::STOP);
    assert!(pair.a.status()["missing_chunks"].as_u64() > Some(HUGE / 10_000), "all of it has come already");
    pair
}

#[test]
fn a_read_of_what_is_not_here_fails_in_time() {
    if !able(&["setpriv"]) {
        return;
    }
    let mut pair = out_of_reach();
    let file = File::open(pair.a.path("huge")).unwrap();
    let begun = Instant::now();
    let number = errno(file.read_at(&mut [0; 4096], HUGE - 10_000));
    let took = begun.elapsed();
    println!("a read that can't be served failed after {took:?}");
    assert_eq!(number, libc::EIO);
    assert!(took < READ_TIMEOUT + Duration::from_secs(1), "{took:?}");
    // Several at once wait no longer than one.
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for n in 0..8u64 {
            let file = &file;
            scope.spawn(move || {
                assert_eq!(errno(file.read_at(&mut [0; 4096], HUGE - 30_000_000 + n * 999_000)), libc::EIO)
            });
        }
    });
    assert!(begun.elapsed() < READ_TIMEOUT + Duration::from_secs(2), "{:?}", begun.elapsed());
    drop(file);
    pair.b.daemon().signal(Signal::CONT);
    let file = File::open(pair.a.path("huge")).unwrap();
    wait_for("the peer serves again", || file.read_at(&mut [1; 4096], HUGE - 20_000).ok());
    drop(file);
    std::fs::remove_file(pair.b.path("huge")).unwrap();
    pair.finish();
}

#[test]
fn a_reader_that_waits_for_the_peer_can_be_killed() {
    if !able(&["setpriv"]) {
        return;
    }
    let mut pair = out_of_reach();
    let skip = format!("skip={}", HUGE / 4096 - 5);
    let words = ["dd", "if=huge", "bs=4096", "count=1", &skip, "status=none"];
    let mut reader = Program::start(&pair.a.dir, &words);
    // In the read, where nothing but an answer or a kill ends it.
    wait_for("the reader waits", || {
        let call = std::fs::read_to_string(format!("/proc/{}/syscall", reader.id())).ok()?;
        call.starts_with("0 ").then_some(())
    });
    std::thread::sleep(Duration::from_millis(300));
    let begun = Instant::now();
    reader.signal(Signal::KILL);
    let status = reader.ended();
    let took = begun.elapsed();
    println!("a killed reader was gone after {took:?}");
    assert!(
        status.is_some_and(|s| s.code().is_none()) && took < Duration::from_secs(1),
        "{status:?} after {took:?}"
    );
    pair.b.daemon().signal(Signal::CONT);
    std::fs::remove_file(pair.b.path("huge")).unwrap();
    pair.finish();
}
