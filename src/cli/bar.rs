//! A progress bar on a terminal; elsewhere, and where NO_COLOR is set, nothing.

use super::units::bytes;
use std::io::{IsTerminal, Write};

/// Characters of a full bar.
const WIDTH: usize = 30;

pub struct Bar {
    is_wanted: bool,
    is_shown: bool,
}

impl Bar {
    pub fn new() -> Bar {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Bar { is_wanted: std::io::stderr().is_terminal() && !plain, is_shown: false }
    }

    /// `done` of `total` bytes.
    pub fn show(&mut self, done: u64, total: u64) {
        if self.is_wanted {
            self.is_shown = true;
            let _ = write!(std::io::stderr(), "\r\x1b[K{}", bar(done, total));
        }
    }

    pub fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// `[######------]  50%  1.00 GB of 2.00 GB`
pub(super) fn bar(done: u64, total: u64) -> String {
    // Some things are done twice.
    let done = done.min(total);
    let part = if total == 0 { 0.0 } else { done as f64 / total as f64 };
    let full = (part * WIDTH as f64) as usize;
    let (full, empty) = ("#".repeat(full), "-".repeat(WIDTH - full));
    let wait = if done == total { ", waiting for the peer" } else { "" };
    format!("[{full}{empty}] {:>3.0}%  {} of {}{wait}", part * 100.0, bytes(done), bytes(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills() {
        assert_eq!(bar(0, 0), format!("[{}]   0%  0 bytes of 0 bytes, waiting for the peer", "-".repeat(30)));
        assert_eq!(
            bar(500, 1000),
            format!("[{}{}]  50%  500 bytes of 1.00 kB", "#".repeat(15), "-".repeat(15))
        );
    }
}
