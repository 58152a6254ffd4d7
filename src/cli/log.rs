//! Where a daemon's log goes.
//!
//! Invariant: a panic is logged and ends the process; a mount never lives on with half a daemon.

use super::place;
use anyhow::Context;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Mutex;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;

/// The variable that sets the level: `warn`, `debug`, `syncfs::wire=trace`, ...
const LEVEL: &str = "SYNCFS_LOG";

pub fn to_stderr() {
    start(std::io::stderr, std::io::IsTerminal::is_terminal(&std::io::stderr()));
}

pub fn to_file(path: &Path) -> anyhow::Result<()> {
    let failed = || format!("can't write the log {}", path.display());
    if let Some(dir) = path.parent() {
        place::make_private(dir).with_context(failed)?;
    }
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path).with_context(failed)?;
    start(Mutex::new(file), false);
    Ok(())
}

fn start<W: for<'a> MakeWriter<'a> + Send + Sync + 'static>(writer: W, colours: bool) {
    let level = std::env::var(LEVEL).ok().filter(|text| !text.is_empty());
    let filter = level.as_deref().map(EnvFilter::try_new);
    let complaint = filter.as_ref().and_then(|f| f.as_ref().err()).map(ToString::to_string);
    let filter = filter.and_then(Result::ok).unwrap_or_else(|| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).with_ansi(colours).init();
    if let Some(complaint) = complaint {
        tracing::warn!("{LEVEL} is not understood ({complaint}): logging at level info");
    }
    std::panic::set_hook(Box::new(|panic| {
        tracing::error!("{panic}; the daemon ends here");
        std::process::abort();
    }));
}
