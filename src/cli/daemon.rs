//! A daemon's life: open the store, mount, serve, connect, wait for the end, close.
//!
//! Invariants: the store is open before the mount covers it; whoever waits hears "ready" only when
//! the directory works; however the mount ends, the store is closed properly and only then the
//! control socket goes, for its going tells others that the daemon has ended.

use super::exit::{Exit, Failure};
use super::guard;
use super::options::KernelOptions;
use super::protocol::{Order, Request};
use super::server::{Respond, Server};
use super::signals::Signals;
use super::units::many;
use crate::engine::{self, FlushError, Host, ResidencyError, VerifyError};
use crate::fs::adapter::{self, Settings};
use crate::fs::mount::{self, MountOptions};
use anyhow::Context;
use serde_json::Value;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, mpsc};
use std::time::Duration;
use tokio::runtime::{Builder, Handle};
use tokio::sync::watch;

/// Threads that answer the kernel; about as many as CPUs, and two beat four.
const REQUEST_THREADS: usize = 2;
/// Threads that wait for network, timers and clients.
const WORKER_THREADS: usize = 2;
/// How long programs that still use a mount may hold up the end of a daemon that was told to end.
const LET_GO: Duration = Duration::from_secs(10);
/// How long tasks on the runtime may take when all else is done.
const WIND_UP: Duration = Duration::from_secs(2);
/// A flush without a timeout.
const FOR_EVER: Duration = Duration::from_secs(365 * 86_400);

/// Bytes of one answer about the trash; an entry takes 3 KiB at most.
const PAGE_BYTES: usize = 32 << 10;

/// How long who waits for a verification hears nothing at most.
const A_MOMENT: Duration = Duration::from_millis(200);

/// What to serve, and where.
pub struct Plan {
    pub mount: PathBuf,
    pub socket: PathBuf,
    pub kernel: KernelOptions,
    pub options: engine::Options,
}

/// Serves until the mount is gone. `ready` is called once, when the directory works; if it fails,
/// nobody waits for the mount any more and it goes.
pub fn run(plan: &Plan, ready: impl FnOnce() -> io::Result<()>) -> Result<(), Failure> {
    let runtime = Builder::new_multi_thread().worker_threads(WORKER_THREADS).enable_all().build();
    let runtime = runtime.context("can't start threads")?;
    let served = serve(plan, ready, runtime.handle());
    runtime.shutdown_timeout(WIND_UP);
    served
}

fn serve(plan: &Plan, ready: impl FnOnce() -> io::Result<()>, runtime: &Handle) -> Result<(), Failure> {
    // From here on a signal ends us the proper way.
    let signals = Signals::new(runtime)?;
    let host = Host::open(plan.options.clone(), runtime).map_err(fatal)?;
    let result = live(plan, ready, runtime, &host, signals);
    // What matters most when both fail is why it ended.
    let (ended, closed) = match result {
        Ok(past) => (Ok(()), past.close(host)),
        Err(failure) => (Err(failure), host.close().map_err(fatal)),
    };
    ended.and(closed)
}

/// A mount that has ended while its control socket still stands.
struct Past {
    server: Server,
    over: watch::Sender<Option<Result<(), Failure>>>,
}

impl Past {
    /// Closes the store, then tells those who wait for it.
    fn close(self, host: Arc<Host>) -> Result<(), Failure> {
        let closed = host.close().map_err(fatal);
        self.over.send_replace(Some(closed.clone()));
        self.server.close();
        tracing::info!("ended");
        closed
    }
}

/// Mounts and serves; returns when the mount is gone.
fn live(
    plan: &Plan,
    ready: impl FnOnce() -> io::Result<()>,
    runtime: &Handle,
    host: &Arc<Host>,
    signals: Signals,
) -> Result<Past, Failure> {
    let connection = mount::mount(&plan.mount, &mount_options(plan)).map_err(Failure::other)?;
    if let Err(error) = guard::post(&plan.mount) {
        tracing::warn!("nobody stands by for the case that this daemon is killed: {error:#}");
    }
    let settings = Settings {
        target: plan.mount.clone(),
        threads: REQUEST_THREADS,
        passthrough: rustix::process::geteuid().is_root(),
    };
    let serving = adapter::serve(host.clone(), connection, runtime.clone(), host.kernel(), settings)
        .map_err(|e| {
            let _ = mount::unmount(&plan.mount, true);
            Failure::other(format_args!("can't serve {}: {e}", plan.mount.display()))
        })?;
    let (gone, end) = mpsc::channel();
    let unmounted = gone.clone();
    let waiting = std::thread::Builder::new().name("mount-end".into());
    let waiting = waiting.spawn(move || unmounted.send(serving.wait().context("serving the mount failed")));
    waiting.context("can't start a thread")?;

    let (over, listening) = watch::channel(None);
    let begun = begin(plan, host, listening, runtime).and_then(|server| match ready() {
        Ok(()) => Ok(server),
        Err(_) => {
            server.close();
            Err(Failure::other("whoever asked for the mount has gone; it goes, too"))
        }
    });
    let server = begun.inspect_err(|_| {
        // Nobody was told of the mount, so nobody is asked before it goes.
        if mount::unmount(&plan.mount, true).is_ok() {
            let _ = end.recv_timeout(LET_GO);
        }
    })?;
    tracing::info!(mount = %plan.mount.display(), peer = %plan.options.peer, "mounted");
    let _leaving = runtime.spawn(leave_on_signal(signals, plan.mount.clone(), gone));
    match end.recv() {
        Ok(Ok(())) => tracing::info!("the mount is gone"),
        Ok(Err(error)) => tracing::error!("{error:#}"),
        Err(mpsc::RecvError) => tracing::error!("lost sight of the mount"),
    }
    Ok(Past { server, over })
}

/// What comes when the mount stands: the peer, and the control socket.
fn begin(
    plan: &Plan,
    host: &Arc<Host>,
    over: watch::Receiver<Option<Result<(), Failure>>>,
    runtime: &Handle,
) -> Result<Server, Failure> {
    host.connect().map_err(fatal)?;
    let share = Share { host: host.clone(), mount: plan.mount.clone(), over };
    Ok(Server::open(&plan.socket, share, runtime)?)
}

fn mount_options(plan: &Plan) -> MountOptions {
    // Root mounts for everybody, and then the kernel judges who may do what by mode and owner.
    let for_all = plan.kernel.allow_other || rustix::process::geteuid().is_root();
    MountOptions {
        source: plan.options.peer.clone(),
        allow_other: for_all,
        default_permissions: for_all || plan.kernel.default_permissions,
        read_only: plan.kernel.read_only,
        extra: plan.kernel.extra.clone(),
    }
}

fn fatal(error: engine::Error) -> Failure {
    Failure::new(Exit::Fatal, error)
}

/// Unmounts when told to end: properly if nobody uses the mount, else so that it goes with its last
/// user, who gets a bounded time for that.
async fn leave_on_signal(mut signals: Signals, mount: PathBuf, gone: mpsc::Sender<anyhow::Result<()>>) {
    signals.any().await;
    tracing::info!("told to end");
    let Err(error) = unmount(&mount, false).await else { return };
    tracing::warn!("{error}; detaching the mount, it goes when its last user does");
    if let Err(error) = unmount(&mount, true).await {
        tracing::error!("{error}");
    }
    tokio::time::sleep(LET_GO).await;
    let _ = gone.send(Err(anyhow::anyhow!("programs still use the detached mount; ending without them")));
}

async fn unmount(path: &Path, lazy: bool) -> Result<(), Failure> {
    let path = path.to_owned();
    match tokio::task::spawn_blocking(move || mount::unmount(&path, lazy)).await {
        Ok(result) => result.map_err(Failure::other),
        Err(error) => Err(Failure::other(error)),
    }
}

/// What the control socket speaks for.
struct Share {
    host: Arc<Host>,
    mount: PathBuf,
    /// How the store was closed, when it was.
    over: watch::Receiver<Option<Result<(), Failure>>>,
}

impl Respond for Share {
    async fn respond(&self, request: Request) -> Result<Value, Failure> {
        match request {
            Request::Status => self.status().await,
            Request::Flush { timeout_ms } => self.flush(timeout_ms).await,
            Request::Resume => self.resume().await,
            Request::Trash { from } => self.trash(from).await,
            Request::Restore { what, name } => self.restore(what, name).await,
            Request::Verify { repair } => self.verify(repair).await,
            Request::Verified { run, from } => self.verified(run, from).await,
            Request::Hold { order, name } => self.hold(order, name).await,
            Request::Unmount => self.unmount().await,
            Request::Wait => self.wait().await,
        }
    }
}

impl Share {
    async fn status(&self) -> Result<Value, Failure> {
        let host = self.host.clone();
        let status = tokio::task::spawn_blocking(move || serde_json::to_value(host.status())).await;
        Ok(status.context("status was cancelled")?.context("status can't be written down")?)
    }

    async fn flush(&self, timeout_ms: Option<u64>) -> Result<Value, Failure> {
        let timeout = timeout_ms.map_or(FOR_EVER, Duration::from_millis).min(FOR_EVER);
        let failed = |why: &str| {
            let mount = self.mount.display();
            Failure::new(
                Exit::TryAgain,
                format_args!("{mount}: {why}; what is here stays here, try again later"),
            )
        };
        match self.host.flush(timeout).await {
            Ok(()) => Ok(Value::Null),
            Err(FlushError::NotConnected) => Err(failed("the peer is not there")),
            Err(FlushError::Paused(n)) => {
                let mount = self.mount.display();
                let deletes = many(n, "delete");
                let message = format!(
                    "{mount}: paused: {deletes} of the peer wait for you; if they are meant\n  syncfs resume {mount}"
                );
                Err(Failure::new(Exit::TryAgain, message))
            }
            Err(error @ FlushError::Disk(_)) => {
                Err(Failure::other(format_args!("{}: {error}", self.mount.display())))
            }
            Err(FlushError::TimedOut) => Err(failed("the two sides did not get level in time")),
        }
    }

    async fn resume(&self) -> Result<Value, Failure> {
        let host = self.host.clone();
        let resumed = tokio::task::spawn_blocking(move || host.resume()).await;
        Ok(resumed.context("resuming was cancelled")?.map_err(Failure::other)?.into())
    }

    /// As many entries of the trash as go into one line.
    async fn trash(&self, from: usize) -> Result<Value, Failure> {
        let host = self.host.clone();
        let entries = tokio::task::spawn_blocking(move || host.thrown()).await.context("it was cancelled")?;
        let (all, mut room) = (entries.len(), PAGE_BYTES);
        let mut page = Vec::new();
        for entry in entries.into_iter().skip(from) {
            let entry = serde_json::to_value(entry).context("the trash can't be written down")?;
            room = room.saturating_sub(entry.to_string().len());
            if room == 0 {
                break;
            }
            page.push(entry);
        }
        Ok(serde_json::json!({"more": from + page.len() < all, "entries": page}))
    }

    async fn restore(&self, what: String, name: Option<String>) -> Result<Value, Failure> {
        let host = self.host.clone();
        let restored = tokio::task::spawn_blocking(move || host.restore(&what, name.as_deref())).await;
        let restored = restored.context("restoring was cancelled")?.map_err(Failure::other)?;
        Ok(serde_json::to_value(restored).context("the answer can't be written down")?)
    }

    async fn verify(&self, repair: bool) -> Result<Value, Failure> {
        let host = self.host.clone();
        let begun = tokio::task::spawn_blocking(move || host.verify(repair)).await;
        Ok(begun.context("it was cancelled")?.map_err(|error| self.unverified(&error))?.into())
    }

    /// How far a verification is, after a moment; or what it came to.
    async fn verified(&self, run: u64, from: usize) -> Result<Value, Failure> {
        let Some(run) = self.host.verification(run) else {
            return Err(Failure::other(
                "somebody else has begun to verify since; its outcome is not here any more",
            ));
        };
        let _ = tokio::time::timeout(A_MOMENT, run.wait()).await;
        let Some(outcome) = run.outcome() else {
            let (read, bytes) = (run.read.load(Relaxed), run.bytes.load(Relaxed));
            return Ok(serde_json::json!({"done": false, "read": read, "bytes": bytes}));
        };
        let report = outcome.map_err(|error| self.unverified(&error))?;
        let (mut page, mut room) = (Vec::new(), PAGE_BYTES);
        for differs in report.differences.iter().skip(from) {
            let told = super::verify::told(differs);
            room = room.saturating_sub(told.to_string().len());
            if room == 0 && !page.is_empty() {
                break;
            }
            page.push(told);
        }
        let more = from + page.len() < report.differences.len();
        let (files, bytes) = (report.files, report.bytes);
        Ok(
            serde_json::json!({"done": true, "files": files, "bytes": bytes, "differences": page, "more": more}),
        )
    }

    fn unverified(&self, error: &VerifyError) -> Failure {
        let mount = self.mount.display();
        match error {
            VerifyError::NotLevel(_) | VerifyError::PeerNotLevel => Failure::new(
                Exit::TryAgain,
                format_args!(
                    "{mount}: {error}; wait until both sides are level, and verify then\n  syncfs flush {mount} && syncfs verify {mount}"
                ),
            ),
            VerifyError::Failed(_) => Failure::other(format_args!("{mount}: {error}")),
            _ => Failure::new(Exit::TryAgain, format_args!("{mount}: {error}; try again later")),
        }
    }

    /// Does that, or begins it, and tells how the file stands after a moment.
    async fn hold(&self, order: Order, name: String) -> Result<Value, Failure> {
        let (host, file) = (self.host.clone(), name.clone());
        let done = tokio::task::spawn_blocking(move || match order {
            Order::Pin => host.pin(&file, true).map(|()| 0),
            Order::Unpin => host.pin(&file, false).map(|()| 0),
            Order::Fetch => host.fetch(&file).map(|()| 0),
            Order::Free => host.free(&file),
        });
        let failed = |error| match error {
            ResidencyError::NotConnected | ResidencyError::PeerHoldsLess | ResidencyError::Full => {
                Failure::new(Exit::TryAgain, error)
            }
            error => Failure::other(error),
        };
        let freed = done.await.context("it was cancelled")?.map_err(failed)?;
        if order == Order::Fetch {
            let _ = tokio::time::timeout(A_MOMENT, self.host.until_held(&name)).await;
        }
        let residency = self.host.residency(&name).map_err(failed)?;
        let mut told = serde_json::to_value(residency).context("the answer can't be written down")?;
        told["freed"] = freed.into();
        Ok(told)
    }

    async fn unmount(&self) -> Result<Value, Failure> {
        // A lost race with somebody else's unmount is no failure.
        if let Err(failure) = unmount(&self.mount, false).await
            && super::client::is_mounted(&self.mount)?
        {
            let message = format!("{failure}; who uses it says\n  fuser -vm {}", self.mount.display());
            return Err(Failure::new(Exit::TryAgain, message));
        }
        self.wait().await
    }

    async fn wait(&self) -> Result<Value, Failure> {
        let mut over = self.over.clone();
        let result = over.wait_for(Option::is_some).await.map(|result| result.clone());
        match result {
            Ok(Some(result)) => result.map(|()| Value::Null),
            _ => Err(Failure::other("the daemon ended without closing its store")),
        }
    }
}
