//! Where a daemon's log goes.
//!
//! Invariants: a panic is logged and ends the process; a mount never lives on with half a daemon. What the journal of systemd
//! takes in carries the level as the journal knows it, and no time, for it has its own.

use super::place;
use anyhow::Context;
use std::fs::OpenOptions;
use std::io::{IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use tracing::{Level, Metadata};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The variable that sets the level: `warn`, `debug`, `syncfs::wire=trace`, ...
const LEVEL: &str = "SYNCFS_LOG";

pub fn to_stderr() {
    match stderr_is_journal() {
        true => start(Journal, false, false),
        false => start(std::io::stderr, true, std::io::stderr().is_terminal()),
    }
}

pub fn to_file(path: &Path) -> anyhow::Result<()> {
    let failed = || format!("can't write the log {}", path.display());
    if let Some(dir) = path.parent() {
        place::make_private(dir).with_context(failed)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).with_context(failed)?;
    start(Mutex::new(file), true, false);
    Ok(())
}

/// Whether stderr is what systemd has connected with its journal: it names the file.
fn stderr_is_journal() -> bool {
    let named = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    rustix::fs::fstat(std::io::stderr()).is_ok_and(|stat| named == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// stderr, each line with its level before it: `<3>` is an error, see sd-daemon(3).
struct Journal;

impl<'a> MakeWriter<'a> for Journal {
    type Writer = std::io::StderrLock<'static>;

    fn make_writer(&'a self) -> Self::Writer {
        std::io::stderr().lock()
    }

    fn make_writer_for(&'a self, meta: &Metadata<'_>) -> Self::Writer {
        let priority = match *meta.level() {
            Level::ERROR => 3,
            Level::WARN => 4,
            Level::INFO => 6,
            _ => 7,
        };
        let mut stderr = self.make_writer();
        let _ = write!(stderr, "<{priority}>");
        stderr
    }
}

fn start<W: for<'a> MakeWriter<'a> + Send + Sync + 'static>(writer: W, times: bool, colours: bool) {
    let level = std::env::var(LEVEL).ok().filter(|text| !text.is_empty());
    let filter = level.as_deref().map(EnvFilter::try_new);
    let complaint = filter.as_ref().and_then(|f| f.as_ref().err()).map(ToString::to_string);
    let filter = filter.and_then(Result::ok).unwrap_or_else(|| EnvFilter::new("info"));
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colours);
    match times {
        true => lines.init(),
        false => lines.without_time().with_level(false).init(),
    }
    if let Some(complaint) = complaint {
        tracing::warn!("{LEVEL} is not understood ({complaint}): logging at level info");
    }
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("{panic}; the daemon ends here");
        std::process::abort();
    }));
}
