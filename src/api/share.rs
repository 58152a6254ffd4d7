//! What a daemon does when it is asked.
//!
//! Invariants: whatever waits for a lock or the disk does so on a thread that may; every failure says what happened, to
//! which file, and what to do.

use super::answer::{Answer, Refusal, json};
use super::failure::{Exit, Failure};
use super::request::Request;
use crate::engine::{FlushError, Host, ResidencyError, RestoreError};
use crate::fs::kernel::Kernel;
use crate::fs::mount;
use anyhow::Context;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// A flush without a timeout.
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);

/// How long who waits for something long hears nothing at most.
pub(super) const A_MOMENT: Duration = Duration::from_millis(200);

/// What the control socket speaks for.
#[derive(Clone)]
pub struct Share {
    pub host: Arc<Host>,
    pub mount: PathBuf,
    /// Where it is asked.
    pub socket: PathBuf,
    /// How the store was closed, when it was.
    pub over: watch::Receiver<Option<Result<(), Failure>>>,
}

/// What is to be held of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    Pin,
    Unpin,
    Fetch,
    Free,
}

impl Order {
    pub fn request(self, name: &str) -> Request {
        let path = match self {
            Order::Pin => "/pin",
            Order::Unpin => "/unpin",
            Order::Fetch => "/fetch",
            Order::Free => "/free",
        };
        Request::post(path).with("name", name)
    }
}

impl Share {
    /// Does what may wait.
    pub(super) async fn on_host<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Arc<Host>) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let host = self.host.clone();
        Ok(tokio::task::spawn_blocking(move || work(&host)).await.context("it was cancelled")?)
    }

    pub(super) async fn status(&self) -> Answer {
        let status = self.on_host(|host| host.status()).await?;
        let mut told = serde_json::to_value(status).context("the answer can't be written down")?;
        told["socket"] = self.socket.display().to_string().into();
        json(&told)
    }

    pub(super) async fn flush(&self, timeout: Option<Duration>) -> Answer {
        let mount = self.mount.display();
        let again = |why: &str| {
            let message = format!("{mount}: {why}; what is here stays here, try again later");
            Failure::new(Exit::TryAgain, message)
        };
        self.host.flush(timeout.unwrap_or(FOR_EVER).min(FOR_EVER)).await.map_err(|error| match error {
            FlushError::NotConnected => again("the peer is not there"),
            FlushError::TimedOut => again("the two sides did not get level in time"),
            FlushError::Paused(1) => paused(&self.mount, "1 delete"),
            FlushError::Paused(n) => paused(&self.mount, &format!("{n} deletes")),
            error @ FlushError::Disk(_) => Failure::other(format_args!("{mount}: {error}")),
        })?;
        json(&json!({"conflicts": self.on_host(|host| host.status().conflicts).await?}))
    }

    pub(super) async fn resume(&self) -> Answer {
        let resumed = self.on_host(|host| host.resume()).await?.map_err(Failure::other)?;
        json(&json!({"deletes": resumed}))
    }

    /// From now on `rate` bytes a second are sent at most; 0: as many as go.
    pub(super) fn limit(&self, rate: u64) -> Answer {
        self.host.set_bwlimit(Some(rate));
        json(&json!({"bwlimit": self.host.bwlimit()}))
    }

    pub(super) async fn restore(&self, what: String, name: Option<String>) -> Answer {
        let restored = self.on_host(move |host| host.restore(&what, name.as_deref())).await?;
        json(&restored.map_err(|error| match error {
            RestoreError::Unknown(_) => Refusal::missing(error),
            error => Failure::other(error).into(),
        })?)
    }

    /// Does that, or begins it, and tells how the file stands after a moment.
    pub(super) async fn hold(&self, order: Order, name: String) -> Answer {
        let file = name.clone();
        let done = self.on_host(move |host| match order {
            Order::Pin => host.pin(&file, true).map(|()| 0),
            Order::Unpin => host.pin(&file, false).map(|()| 0),
            Order::Fetch => host.fetch(&file).map(|()| 0),
            Order::Free => host.free(&file),
        });
        let freed = done.await?.map_err(not_held)?;
        if order == Order::Fetch {
            let _ = tokio::time::timeout(A_MOMENT, self.host.until_held(&name)).await;
        }
        let residency = self.host.residency(&name).map_err(not_held)?;
        let mut told = serde_json::to_value(residency).context("the answer can't be written down")?;
        told["freed"] = freed.into();
        json(&told)
    }

    pub(super) async fn unmount(&self) -> Answer {
        // A lost race with somebody else's unmount is no failure.
        if let Err(failure) = unmount(&self.host.kernel(), &self.mount, false).await
            && mount::is_mounted(&self.mount).map_err(Failure::other)?
        {
            let message = format!("{failure}; who uses it says\n  fuser -vm {}", self.mount.display());
            return Err(Failure::new(Exit::TryAgain, message).into());
        }
        self.wait().await
    }

    /// Answers when the daemon has put everything on the disk and ends.
    pub(super) async fn wait(&self) -> Answer {
        let mut over = self.over.clone();
        let result = over.wait_for(Option::is_some).await.map(|result| result.clone());
        match result {
            Ok(Some(result)) => {
                result?;
                json(&json!({}))
            }
            _ => Err(Failure::other("the daemon ended without closing its store").into()),
        }
    }
}

fn paused(mount: &Path, deletes: &str) -> Failure {
    let mount = mount.display();
    let message = format!(
        "{mount}: paused: {deletes} of the peer wait for you; if they are meant\n  syncfs resume {mount}"
    );
    Failure::new(Exit::TryAgain, message)
}

fn not_held(error: ResidencyError) -> Refusal {
    match error {
        ResidencyError::NoSuchFile(_) => Refusal::missing(error),
        ResidencyError::NotConnected | ResidencyError::PeerHoldsLess | ResidencyError::Full => {
            Failure::new(Exit::TryAgain, error).into()
        }
        error => Failure::other(error).into(),
    }
}

/// Unmounts `path`; `lazy` detaches it, and it goes when its last user does.
pub async fn unmount(kernel: &Kernel, path: &Path, lazy: bool) -> Result<(), Failure> {
    let (kernel, path) = (kernel.clone(), path.to_owned());
    match tokio::task::spawn_blocking(move || kernel.at_rest(|| mount::unmount(&path, lazy))).await {
        Ok(result) => result.map_err(Failure::other),
        Err(error) => Err(Failure::other(error)),
    }
}
