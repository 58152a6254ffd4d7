//! How much may be sent when: a rate that is kept on average, whatever is sent in one piece.
//!
//! What is sent takes its time at the rate, and nothing more may go before that time is over. Who was late may catch
//! up a moment's worth, so that timers that come late don't make the rate a lower one. Time is passed in, as
//! time since any one instant.

use std::time::Duration;

/// What may be made up for, and what should be sent in one piece at most.
const MOMENT: Duration = Duration::from_millis(100);

#[derive(Clone, Copy, Debug)]
pub struct Bucket {
    /// Bytes a second, not 0.
    rate: u64,
    /// When all that was sent has passed at the rate.
    passed: Duration,
}

impl Bucket {
    /// Lets through `rate` bytes a second, at least one.
    pub fn new(rate: u64, now: Duration) -> Bucket {
        Bucket { rate: rate.max(1), passed: now }
    }

    /// How long nothing may go; zero: it may go now.
    pub fn wait(&self, now: Duration) -> Duration {
        self.passed.saturating_sub(now)
    }

    /// Bytes that pass in a moment, at least one.
    pub fn moment(&self) -> usize {
        usize::try_from(self.rate / 10).unwrap_or(usize::MAX).max(1)
    }

    /// So many bytes were sent, whether they were allowed to or not.
    pub fn sent(&mut self, now: Duration, bytes: usize) {
        let takes = Duration::from_secs_f64(bytes as f64 / self.rate as f64);
        self.passed = self.passed.max(now.saturating_sub(MOMENT)) + takes;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// Sends pieces whenever that is allowed, by a timer that is late; bytes sent within `time`.
    fn sent(rate: u64, piece: usize, late: Duration, time: Duration) -> u64 {
        let (mut bucket, mut now, mut bytes) = (Bucket::new(rate, SECOND), SECOND, 0);
        while now < SECOND + time {
            bucket.sent(now, piece);
            bytes += piece as u64;
            let wait = bucket.wait(now);
            now += if wait.is_zero() { Duration::ZERO } else { wait + late };
        }
        bytes
    }

    #[test]
    fn the_rate_is_kept_whatever_the_pieces_and_however_late_the_timer() {
        for (rate, piece) in
            [(1_000_000, 64_000), (1_000_000, 500_000), (20_000, 16_000), (1_000_000_000, 64_000)]
        {
            for late in [0, 1, 20] {
                let bytes = sent(rate, piece, Duration::from_millis(late), 100 * SECOND);
                let right = (rate * 100) as f64;
                let most = right * 1.001 + 2.0 * piece as f64;
                assert!((right * 0.99..most).contains(&(bytes as f64)), "{rate} {piece} {late}: {bytes}");
            }
        }
    }

    #[test]
    fn who_was_silent_for_long_may_send_a_moment_more_and_no_more() {
        let mut bucket = Bucket::new(1000, SECOND);
        bucket.sent(3600 * SECOND, 100);
        assert_eq!(bucket.wait(3600 * SECOND), Duration::ZERO);
        bucket.sent(3600 * SECOND, 1000);
        assert_eq!(bucket.wait(3600 * SECOND), SECOND);
    }

    #[test]
    fn what_goes_unasked_is_made_up_for() {
        let mut bucket = Bucket::new(1000, SECOND);
        bucket.sent(SECOND, 500);
        bucket.sent(SECOND, 500);
        assert!(bucket.wait(SECOND) > 800 * SECOND / 1000);
        assert_eq!(bucket.wait(SECOND * 3), Duration::ZERO);
    }

    #[test]
    fn no_rate_and_no_size_are_too_much() {
        let mut bucket = Bucket::new(0, Duration::ZERO);
        bucket.sent(Duration::ZERO, 1 << 30);
        assert!(bucket.wait(Duration::ZERO) > 1_000_000 * SECOND && bucket.moment() == 1);
        Bucket::new(u64::MAX, Duration::ZERO).sent(SECOND, usize::MAX);
    }
}
