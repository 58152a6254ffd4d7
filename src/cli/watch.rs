//! `syncfs status --watch`: the same, again and again, until the daemon ends or somebody types Ctrl-C.
//!
//! Invariants: on a terminal the lines stay where they are, none is wider than it, and what was there before stays; nothing
//! has to be put back at the end, however it comes.

use super::args;
use super::bar::bar;
use super::client::is_mounted;
use super::exit::{Exit, Outcome, say};
use super::status::{Pace, ask, is_busy, shown};
use serde_json::Value;
use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// Looks that the pace is taken from.
const LOOKS: usize = 6;

pub fn run(args: &args::Status) -> Outcome {
    let mut progress = Progress::default();
    let mut mount = PathBuf::new();
    let mut above = 0;
    loop {
        let status = match ask(args) {
            Ok(status) => status,
            // Unmounted: there is no more to see.
            Err(_) if !mount.as_os_str().is_empty() && !is_mounted(&mount)? => {
                say(format_args!("{} is not mounted any more", mount.display()));
                return Ok(Exit::Ok);
            }
            Err(failure) => return Err(failure),
        };
        mount = status["mount"].as_str().unwrap_or_default().into();
        let mut lines = progress.look(status, Instant::now());
        above = match width() {
            Some(width) => {
                lines.iter_mut().for_each(|line| *line = fitting(line, width));
                if above > 0 {
                    // Not by way of who leaves out colours.
                    let _ = write!(std::io::stdout(), "\x1b[{above}F\x1b[J");
                }
                say(lines.join("\n"));
                lines.len()
            }
            None => {
                say(format_args!("{}\n", lines.join("\n")));
                0
            }
        };
        std::thread::sleep(EVERY);
    }
}

/// What was seen lately.
#[derive(Default)]
struct Progress {
    looks: VecDeque<(Instant, Value)>,
    /// The most bytes that were on their way since nothing was.
    most: u64,
}

impl Progress {
    /// The lines to be shown of `status`.
    fn look(&mut self, status: Value, now: Instant) -> Vec<String> {
        let oldest = self.looks.front();
        let pace = oldest.and_then(|(then, before)| Pace::between(before, &status, now - *then));
        let mut lines = shown(&status, pace.filter(|_| is_busy(&status)));
        let number = |key: &str| status[key].as_u64().unwrap_or(0);
        let open = number("pending_bytes") + number("awaited_bytes");
        self.most = if is_busy(&status) { self.most.max(open) } else { 0 };
        if self.most > 0 {
            lines.push(format!("           {}", bar(self.most - open, self.most)));
        }
        if self.looks.len() == LOOKS {
            self.looks.pop_front();
        }
        self.looks.push_back((now, status));
        lines
    }
}

/// Columns of the terminal; `None` where there is none.
fn width() -> Option<usize> {
    let out = std::io::stdout();
    let columns = rustix::termios::tcgetwinsize(&out).ok()?.ws_col;
    out.is_terminal().then_some(if columns == 0 { 80 } else { usize::from(columns) })
}

/// The beginning of `line` that `width` columns hold. Colours take none.
fn fitting(line: &str, width: usize) -> String {
    let (mut out, mut columns, mut colour) = (String::new(), 0, false);
    for c in line.chars() {
        colour |= c == '\x1b';
        if colour || columns < width {
            out.push(c);
        }
        columns += usize::from(!colour);
        colour &= c != 'm';
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_line_is_cut_at_the_edge_and_keeps_its_colours() {
        assert_eq!(fitting("state      level", 80), "state      level");
        assert_eq!(fitting("ab\x1b[32mcdef\x1b[0m", 4), "ab\x1b[32mcd\x1b[0m");
    }

    #[test]
    fn progress_is_measured_against_the_most_there_was() {
        let status = |pending: u64, sent: u64| {
            json!({
                "peer": {"connected": true}, "pending_files": u64::from(pending > 0), "pending_bytes": pending,
                "sent_bytes": sent, "received_bytes": 0,
            })
        };
        let (mut progress, began) = (Progress::default(), Instant::now());
        let mut look = |seconds, pending, sent| {
            let lines = progress.look(status(pending, sent), began + Duration::from_secs(seconds));
            lines.join("\n")
        };
        assert!(look(0, 0, 0).contains("nothing"));
        assert!(look(1, 4000, 0).contains("]   0%"));
        let half = look(2, 2000, 2000);
        assert!(half.contains("]  50%") && half.contains("1.00 kB/s, about 2 s left"), "{half}");
        assert!(!look(3, 0, 4000).contains('%'));
        assert!(look(4, 100, 4000).contains("]   0%"));
    }
}
