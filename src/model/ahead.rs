//! How far ahead of a reader content is asked for: not at all while it reads here and there, further and further while it reads
//! on where it stopped.
//!
//! Invariant: what is asked for ahead of one reader is at most so many bytes behind where it reads as may be.

use super::limits::GROUP_BYTES;
use std::ops::Range;

/// One reader of one file.
#[derive(Debug, Default)]
pub struct Ahead {
    /// Where it would go on, bytes.
    next: u64,
    /// Up to where content is asked for ahead of it.
    asked: u64,
    /// Where it began to read on.
    begun: u64,
}

/// Who has read on for so many bytes is taken to go on: less is a piece that somebody wanted.
const RUN: u64 = 1 << 20;

/// The kernel reads ahead by itself, with several requests at a time that overtake one another: so much later or earlier
/// than expected still counts as going on.
const SLIP: u64 = 1 << 20;

impl Ahead {
    /// It reads `bytes` now; returns what is to be asked for beside, in bytes, up to `most` ahead of it. Costs nothing where
    /// the reader jumps.
    pub fn read(&mut self, bytes: &Range<u64>, most: u64) -> Range<u64> {
        let nothing = bytes.end..bytes.end;
        let goes_on = bytes.start <= self.next + SLIP && bytes.end + SLIP >= self.next && self.next > 0;
        if !goes_on {
            // Whether it goes on from there its next read tells.
            (self.next, self.asked, self.begun) = (bytes.end, bytes.end, bytes.start);
            return nothing;
        }
        self.next = self.next.max(bytes.end);
        let run = self.next - self.begun;
        if run < RUN {
            return nothing;
        }
        // As far as it has come, so far it may well go.
        let (from, upto) = (self.asked.max(self.next), self.next + run.min(most));
        // One group after the other, for what is asked for in large portions comes in large portions, and the link rests
        // in between.
        if upto < from + GROUP_BYTES.min(most / 2) {
            return nothing;
        }
        self.asked = upto;
        from..upto
    }
}

#[cfg(test)]
mod tests {
    use super::super::limits::AHEAD_BYTES;
    use super::*;

    #[test]
    fn a_reader_that_jumps_has_nothing_brought_ahead() {
        let mut ahead = Ahead::default();
        for n in [7u64, 3, 900, 12, 500_000, 4] {
            let at = n * 10_000_000;
            assert!(ahead.read(&(at..at + 4_096), AHEAD_BYTES).is_empty());
        }
    }

    #[test]
    fn who_reads_one_piece_gets_no_more() {
        let mut ahead = Ahead::default();
        for piece in [70u64, 3, 500] {
            for n in 0..4 {
                let at = piece * 10_000_000 + n * 131_072;
                assert!(ahead.read(&(at..at + 131_072), AHEAD_BYTES).is_empty());
            }
        }
    }

    #[test]
    fn a_reader_that_goes_on_finds_more_and_more_there() {
        let (mut ahead, mut upto, mut gaps) = (Ahead::default(), 0, 0);
        for n in 0..2_000u64 {
            let bytes = n * 131_072..(n + 1) * 131_072;
            let more = ahead.read(&bytes, AHEAD_BYTES);
            assert!(more.end <= bytes.end + AHEAD_BYTES);
            if !more.is_empty() {
                assert!(more.start >= upto, "nothing is asked for twice");
                gaps += u64::from(more.start > upto.max(bytes.end));
                upto = more.end;
            }
        }
        assert_eq!((gaps, upto >= 2_000 * 131_072 + AHEAD_BYTES / 2), (0, true));
    }

    #[test]
    fn requests_that_overtake_one_another_still_go_on() {
        let mut ahead = Ahead::default();
        let mut most = 0;
        for n in [0u64, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10] {
            let more = ahead.read(&(n * 131_072..(n + 1) * 131_072), AHEAD_BYTES);
            most = most.max(more.end);
        }
        assert!(most > 12 * 131_072);
    }
}
