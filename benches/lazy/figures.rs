//! Numbers: how large things are to be, what is drawn at random, and how long things take.

use crate::link::{Yardstick, number};
use crate::rig::noise;
use std::time::{Duration, Instant};

pub const MIB: u64 = 1 << 20;
pub const GIB: u64 = 1 << 30;
const PATIENCE: Duration = Duration::from_secs(600);

/// A size or a count, made smaller or larger by `SYNCFS_SCALE`.
pub fn scaled(full: u64) -> u64 {
    ((full as f64 * number("SYNCFS_SCALE", 1.0)) as u64).max(1)
}

/// So many numbers, the same each time.
pub fn random(seed: u64, count: u64) -> Vec<u64> {
    let bytes = noise(seed, 8 * count as usize);
    bytes.chunks_exact(8).map(|n| u64::from_le_bytes(n.try_into().expect("eight")) >> 8).collect()
}

pub fn timed<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let begun = Instant::now();
    (work(), begun.elapsed())
}

/// How long it takes until `done` says so, and whether it does: longer than a test would wait.
pub fn awaited(done: impl Fn() -> bool) -> (bool, Duration) {
    let begun = Instant::now();
    loop {
        let looked = Instant::now();
        let over = done();
        if over || begun.elapsed() > PATIENCE {
            return (over, begun.elapsed());
        }
        // Looking is work for those who are waited for.
        std::thread::sleep(Duration::from_millis(50).max(2 * looked.elapsed()));
    }
}

/// How long each of many took.
pub struct Times(Vec<Duration>);

impl Times {
    pub fn of(mut times: Vec<Duration>) -> Times {
        times.sort();
        Times(times)
    }

    pub fn median(&self) -> Duration {
        self.0[self.0.len() / 2]
    }

    pub fn p99(&self) -> Duration {
        self.0[self.0.len() * 99 / 100]
    }

    /// As people read it.
    pub fn shown(&self, link: &Yardstick) -> String {
        let [median, p99] = [self.median(), self.p99()].map(|t| (t.as_secs_f64() * 1e3, link.rtts(t)));
        format!("median {:.2} ms ({:.2} RTT), p99 {:.2} ms ({:.2} RTT)", median.0, median.1, p99.0, p99.1)
    }
}
