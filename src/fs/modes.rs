//! How one inode may be open in several ways at once.
//!
//! The kernel answers EIO to mixtures: opens through its page cache, or any that carry no backing
//! file, beside opens that carry one. It judges when it handles our reply, in an order we don't see.
//!
//! Invariant: while anything is open, all opens of the inode are of one family, plain (cached or
//! direct) or backed (passthrough, or direct with the backing file named). So no order of replies
//! can make a forbidden mixture.

/// What open(2) asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Read,
    Write,
    ReadWrite,
}

impl Access {
    pub fn of(flags: i32) -> Access {
        match flags & libc::O_ACCMODE {
            libc::O_RDONLY => Access::Read,
            libc::O_WRONLY => Access::Write,
            _ => Access::ReadWrite,
        }
    }
}

/// How an open is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Through the kernel's page cache, which is kept over opens: we invalidate what we change.
    Cached = 0,
    /// Reads and writes come to us as they are made.
    Direct = 1,
    /// Reads go to the backing file without us.
    Passthrough = 2,
    /// Reads and writes come to us; mappings go to the backing file, and we don't see their stores.
    DirectBacked = 3,
}

impl Mode {
    fn backed(self) -> bool {
        matches!(self, Mode::Passthrough | Mode::DirectBacked)
    }

    /// What goes to the kernel as the file handle: the volume's handle with the mode in the low two
    /// bits, so that a release tells us which open went. `None` for a handle of 2^62 or more.
    pub fn tag(self, handle: u64) -> Option<u64> {
        (handle >> 62 == 0).then_some(handle << 2 | self as u64)
    }

    /// Undoes [`Mode::tag`].
    pub fn untag(tagged: u64) -> (Mode, u64) {
        let mode = match tagged & 3 {
            0 => Mode::Cached,
            1 => Mode::Direct,
            2 => Mode::Passthrough,
            _ => Mode::DirectBacked,
        };
        (mode, tagged >> 2)
    }
}

/// The opens of one inode that live.
#[derive(Debug, Default)]
pub struct Opens {
    plain: u64,
    backed: u64,
}

impl Opens {
    /// Decides on one more open and counts it. `backing`: reads may go to the backing file that the
    /// backed opens of this inode share.
    pub fn admit(&mut self, access: Access, backing: bool) -> Mode {
        let mode = if self.backed > 0 {
            match access {
                Access::Read if backing => Mode::Passthrough,
                _ => Mode::DirectBacked,
            }
        } else {
            match access {
                Access::Read if backing && self.plain == 0 => Mode::Passthrough,
                // A mapping for writing must be cached, or its stores would never come to us.
                Access::Read | Access::ReadWrite => Mode::Cached,
                Access::Write => Mode::Direct,
            }
        };
        *self.count(mode) += 1;
        mode
    }

    pub fn release(&mut self, mode: Mode) {
        let count = self.count(mode);
        *count = count.saturating_sub(1);
    }

    pub fn any_backed(&self) -> bool {
        self.backed > 0
    }

    pub fn none(&self) -> bool {
        self.plain == 0 && self.backed == 0
    }

    fn count(&mut self, mode: Mode) -> &mut u64 {
        if mode.backed() { &mut self.backed } else { &mut self.plain }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Access::*;
    use Mode::*;

    fn after(before: &[(Access, bool)], access: Access, backing: bool) -> Mode {
        let mut opens = Opens::default();
        for &(access, backing) in before {
            opens.admit(access, backing);
        }
        opens.admit(access, backing)
    }

    #[test]
    fn idle() {
        assert_eq!(after(&[], Read, true), Passthrough);
        assert_eq!(after(&[], Read, false), Cached);
        assert_eq!(after(&[], Write, true), Direct);
        assert_eq!(after(&[], Write, false), Direct);
        assert_eq!(after(&[], ReadWrite, true), Cached);
        assert_eq!(after(&[], ReadWrite, false), Cached);
    }

    #[test]
    fn beside_passthrough() {
        let before = [(Read, true)];
        assert_eq!(after(&before, Read, true), Passthrough);
        assert_eq!(after(&before, Read, false), DirectBacked);
        assert_eq!(after(&before, Write, true), DirectBacked);
        assert_eq!(after(&before, Write, false), DirectBacked);
        assert_eq!(after(&before, ReadWrite, true), DirectBacked);
        assert_eq!(after(&before, ReadWrite, false), DirectBacked);
    }

    #[test]
    fn beside_cached_or_direct() {
        for before in [[(ReadWrite, true)], [(Read, false)], [(Write, true)]] {
            for backing in [false, true] {
                assert_eq!(after(&before, Read, backing), Cached);
                assert_eq!(after(&before, Write, backing), Direct);
                assert_eq!(after(&before, ReadWrite, backing), Cached);
            }
        }
    }

    #[test]
    fn the_last_release_frees_the_choice() {
        let mut opens = Opens::default();
        let (first, second) = (opens.admit(Read, true), opens.admit(ReadWrite, true));
        opens.release(first);
        assert_eq!(opens.admit(Read, true), Passthrough);
        opens.release(second);
        opens.release(Passthrough);
        assert!(opens.none());
        assert_eq!(opens.admit(ReadWrite, true), Cached);
    }

    #[test]
    fn families_never_mix() {
        let all = [
            (Read, true),
            (Read, false),
            (Write, true),
            (Write, false),
            (ReadWrite, true),
            (ReadWrite, false),
        ];
        // Every sequence of five opens and releases of the oldest.
        for mut number in 0..12u32.pow(5) {
            let (mut opens, mut live) = (Opens::default(), std::collections::VecDeque::new());
            for _ in 0..5 {
                let (access, backing) = all[(number % 6) as usize];
                if number / 6 % 2 == 1
                    && let Some(mode) = live.pop_front()
                {
                    opens.release(mode);
                }
                live.push_back(opens.admit(access, backing));
                assert!(live.iter().all(|mode: &Mode| mode.backed() == live[0].backed()));
                number /= 12;
            }
        }
    }

    #[test]
    fn a_tag_comes_off_again() {
        for mode in [Cached, Direct, Passthrough, DirectBacked] {
            assert_eq!(mode.tag(7).map(Mode::untag), Some((mode, 7)));
        }
        assert_eq!(Cached.tag(1 << 62), None);
    }
}
