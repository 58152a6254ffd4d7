//! What figures were measured on, and when.

use crate::rig::try_run;
use serde::{Deserialize, Serialize};
use std::path::Path;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Year, month and day, in UTC.
    pub date: String,
    pub kernel: String,
    pub cpus: usize,
    pub cpu: String,
    /// GiB.
    pub memory: u64,
    /// Of syncfs.
    pub version: String,
}

impl Machine {
    pub fn this() -> Machine {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let field = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.split_once(':')).map(|(_, value)| value.trim().to_owned())
        };
        let memory = field(&read("/proc/meminfo"), "MemTotal").unwrap_or_default();
        let memory: u64 = memory.trim_end_matches(" kB").parse().unwrap_or(0);
        Machine {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d").to_string(),
            kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            cpus: std::thread::available_parallelism().map_or(1, Into::into),
            cpu: field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "unknown".into()),
            memory: (memory + (1 << 19)) >> 20,
            version: commit().unwrap_or_else(|| env!("CARGO_PKG_VERSION").into()),
        }
    }

    /// In a line.
    pub fn shown(&self) -> String {
        let Machine { date, kernel, cpus, cpu, memory, version } = self;
        format!("{date}, syncfs {version}, Linux {kernel}, {cpus} CPUs ({cpu}), {memory} GiB of memory")
    }
}

/// The version with the commit, where this is a clone.
fn commit() -> Option<String> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    let said = try_run(dir, &["git", "describe", "--always", "--abbrev=10"]);
    let said = String::from_utf8_lossy(&said.stdout).trim().to_owned();
    (!said.is_empty()).then(|| format!("{} ({said})", env!("CARGO_PKG_VERSION")))
}
