//! What a service manager is told that started this daemon and waits to hear of it (systemd, `Type=notify`).
//!
//! Invariants: "ready" is said only when the directory works; how it goes is told when it changes, and never
//! so often that finding it out takes more than a small part of the time; a manager that has gone stops nothing.

use super::units::many;
use crate::engine::{Host, Status};
use crate::wire::Peer;
use sd_notify::NotifyState;
use std::sync::Weak;
use std::time::Duration;
use tokio::time::Instant;

/// How long what was told stands at least.
const REST: Duration = Duration::from_secs(1);
/// Part of the time that finding out how it goes may take.
const SHARE: u32 = 20;

/// Whoever reads what is sent to NOTIFY_SOCKET.
#[derive(Clone, Copy, Debug)]
pub struct Manager(());

impl Manager {
    /// `None` where nobody waits for this process.
    pub fn here() -> Option<Manager> {
        std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()).map(|_| Manager(()))
    }

    pub fn ready(self) {
        tell(&NotifyState::Ready);
    }

    pub fn stopping(self) {
        tell(&NotifyState::Stopping);
    }

    /// Tells how `host` is doing with `peer`, until it is closed.
    pub async fn follow(self, host: Weak<Host>, peer: String) {
        let Some(mut progress) = host.upgrade().map(|host| host.progress()) else { return };
        let mut told = String::new();
        loop {
            progress.borrow_and_update();
            let Some(host) = host.upgrade() else { return };
            let began = Instant::now();
            let Ok(status) = tokio::task::spawn_blocking(move || host.status()).await else { return };
            let now = summary(&status, &peer);
            if now != told {
                tell(&NotifyState::Status(&now));
                told = now;
            }
            tokio::time::sleep(REST.max(began.elapsed() * SHARE)).await;
            if progress.changed().await.is_err() {
                return;
            }
        }
    }
}

fn tell(state: &NotifyState) {
    if let Err(error) = sd_notify::notify(std::slice::from_ref(state)) {
        tracing::debug!(%error, "the service manager does not listen");
    }
}

/// One line.
fn summary(status: &Status, peer: &str) -> String {
    let some = |n: u64, what: String| (n > 0).then_some(what);
    let connected = status.peer.connected;
    let connection = if connected { "connected with" } else { "not connected with" };
    let found = connected && peer.parse::<Peer>().is_ok_and(|peer| peer.is_auto());
    let peer = if found { &status.peer.address } else { peer };
    let paused =
        status.paused.map(|n| format!("paused, {} of the peer wait for `syncfs resume`", many(n, "delete")));
    let parts = [
        Some(format!("{connection} {peer}")),
        some(status.pending_files, format!("{} pending", many(status.pending_files, "file"))),
        some(status.conflicts, many(status.conflicts, "conflict copy")),
        paused,
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join("; ")
}
