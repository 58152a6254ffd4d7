//! `GET /metrics`: figures for Prometheus, in its text format.
//!
//! Invariants: base units (bytes, seconds), and `_total` for what only grows; a family is there from the beginning on,
//! whether anything has happened or not.

use super::answer::{Answer, text};
use super::share::Share;
use crate::engine::events::{Counts, What};
use crate::engine::status::Status;
use std::fmt::{Display, Write};

/// What Prometheus calls its text format.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Share {
    pub(super) async fn metrics(&self) -> Answer {
        let (status, counts) = self.on_host(|host| (host.status(), host.events().counts())).await?;
        Ok(text(TEXT, exposition(&status, &counts)))
    }
}

/// All families, each with its help and its type.
fn exposition(status: &Status, counts: &Counts) -> String {
    let mut out = Exposition::default();
    let version = env!("CARGO_PKG_VERSION");
    out.gauge("build_info", "The version of syncfs; always 1.", &format!("{{version=\"{version}\"}}"), 1);
    let peer = &status.peer;
    out.plain("peer_connected", "Whether a session with the peer is up.", u8::from(peer.connected));
    let rtt = peer.rtt_ms.map(|ms| ms / 1000.0);
    out.maybe("peer_round_trip_seconds", "The last round trip to the peer.", rtt);
    let skew = peer.clock_skew_ms.map(|ms| ms as f64 / 1000.0);
    out.maybe("peer_clock_skew_seconds", "How far the peer's clock is ahead of this host's.", skew);
    out.plain("files", "Files in the share.", status.files);
    out.plain("size_bytes", "Bytes of all files, held here or not.", status.bytes);
    out.plain("pending_files", "Files of which the peer lacks something.", status.pending_files);
    out.plain("pending_bytes", "Bytes changed here that the peer lacks.", status.pending_bytes);
    out.plain("missing_bytes", "Bytes that only the peer holds.", status.missing_bytes);
    out.plain("conflict_copies", "Conflict copies that wait for somebody.", status.conflicts);
    out.plain("paused", "Whether deletes of the peer wait for somebody.", u8::from(status.paused.is_some()));
    out.plain("paused_deletes", "Deletes of the peer that wait for somebody.", status.paused.unwrap_or(0));
    out.plain("trash_files", "Files in the trash.", status.trash.entries);
    out.plain("trash_bytes", "Bytes that the trash takes on the disk.", status.trash.bytes);
    out.plain("held_bytes", "Bytes of content held here.", status.cache.used);
    out.maybe("cache_limit_bytes", "Bytes of content that may be held here.", status.cache.limit);
    out.plain("pinned_bytes", "Bytes of pinned files.", status.cache.pinned);
    out.total("sent_bytes", "Bytes sent to the peer.", &[("", status.sent_bytes)]);
    out.total("received_bytes", "Bytes received from the peer.", &[("", status.received_bytes)]);
    out.total("sessions", "Sessions with the peer.", &[("", counts.sessions)]);
    let by_what = |counts: &[u64; 4]| {
        What::ALL.map(|what| (format!("{{what=\"{}\"}}", what.word()), counts[what as usize]))
    };
    out.total("changes_came", "Changes of the peer's that are here now.", &by_what(&counts.came));
    out.total("changes_went", "Changes made here that are durable at the peer.", &by_what(&counts.went));
    out.total("conflicts", "Versions that lost and were kept as conflict copies.", &[("", counts.conflicts)]);
    out.total("pauses", "Times that the peer deleted too much to be believed.", &[("", counts.pauses)]);
    out.0
}

#[derive(Default)]
struct Exposition(String);

impl Exposition {
    fn head(&mut self, name: &str, help: &str, kind: &str) {
        let _ = write!(self.0, "# HELP syncfs_{name} {help}\n# TYPE syncfs_{name} {kind}\n");
    }

    fn gauge(&mut self, name: &str, help: &str, labels: &str, value: impl Display) {
        self.head(name, help, "gauge");
        let _ = writeln!(self.0, "syncfs_{name}{labels} {value}");
    }

    fn plain(&mut self, name: &str, help: &str, value: impl Display) {
        self.gauge(name, help, "", value);
    }

    /// Without a value there is no sample.
    fn maybe(&mut self, name: &str, help: &str, value: Option<impl Display>) {
        match value {
            Some(value) => self.plain(name, help, value),
            None => self.head(name, help, "gauge"),
        }
    }

    fn total(&mut self, name: &str, help: &str, samples: &[(impl Display, u64)]) {
        self.head(&format!("{name}_total"), help, "counter");
        for (labels, value) in samples {
            let _ = writeln!(self.0, "syncfs_{name}_total{labels} {value}");
        }
    }
}
