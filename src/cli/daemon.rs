//! A daemon's life: open the store, mount, serve, connect, wait for the end, close.
//!
//! Invariants: the store is open before the mount covers it; whoever waits hears "ready" only when
//! the directory works; however the mount ends, the store is closed properly and only then the
//! control socket goes, for its going tells others that the daemon has ended.

use super::exit::{Exit, Failure};
use super::guard;
use super::manager::Manager;
use super::options::KernelOptions;
use super::replay;
use super::signals::Signals;
use crate::api::server::Server;
use crate::api::web::Web;
use crate::api::{Share, unmount};
use crate::engine::{self, Host};
use crate::fs::adapter::{self, Owner, Settings};
use crate::fs::kernel::Kernel;
use crate::fs::mount::{self, MountOptions};
use crate::wire;
use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
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

/// What to serve, and where.
pub struct Plan {
    pub mount: PathBuf,
    pub socket: PathBuf,
    /// Where browsers may look.
    pub http: Option<SocketAddr>,
    pub kernel: KernelOptions,
    pub owner: Owner,
    /// Who waits to hear how it goes.
    pub manager: Option<Manager>,
    pub options: engine::Options,
}

/// Serves until the mount is gone. `ready` is called once, when the directory works; if it fails,
/// nobody waits for the mount any more and it goes.
pub fn run(plan: &Plan, ready: impl FnOnce() -> io::Result<()>) -> Result<(), Failure> {
    // A file is kept open for each that the peer has yet to decide on, and for each that a program has open.
    let files = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: files.maximum, ..files }) {
        tracing::warn!("can't open more files at once than {:?}: {error}", files.current);
    }
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
    let connection = mount::mount(&plan.mount, &mount_options(plan)).map_err(|error| {
        Failure::other(format_args!("{error}\nwhat this host lacks for a mount is told by\n  syncfs doctor"))
    })?;
    if let Err(error) = guard::post(&plan.mount) {
        tracing::warn!("nobody stands by for the case that this daemon is killed: {error:#}");
    }
    let settings = Settings {
        target: plan.mount.clone(),
        threads: REQUEST_THREADS,
        passthrough: rustix::process::geteuid().is_root(),
        owner: plan.owner,
        replayer: replay::start()
            .inspect_err(|error| {
                tracing::warn!("who watches the mount does not hear of what the peer does: {error:#}")
            })
            .ok(),
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
        Ok(()) => {
            if let Some(manager) = plan.manager {
                manager.ready();
                runtime.spawn(manager.follow(Arc::downgrade(host), plan.options.peer.clone()));
            }
            Ok(server)
        }
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
    let _leaving =
        runtime.spawn(leave_on_signal(signals, (host.kernel(), plan.mount.clone()), plan.manager, gone));
    let end = end.recv();
    plan.manager.inspect(|manager| manager.stopping());
    match end {
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
    host.connect().map_err(alone)?;
    let share = Share { host: host.clone(), mount: plan.mount.clone(), socket: plan.socket.clone(), over };
    let server = Server::open(&plan.socket, share.clone(), runtime)?;
    if let Some(address) = plan.http {
        let shown = || format!("can't show the share at http://{address}");
        let listener = TcpListener::bind(address).with_context(shown);
        if let Err(error) = listener.and_then(|listener| server.also(listener, Web(share))) {
            server.close();
            return Err(Failure::new(Exit::Fatal, format_args!("{error:#}; name another port with --http")));
        }
        tracing::info!("shown at http://{address}");
    }
    Ok(server)
}

/// Why the peer can't come in; of a port that is taken also by whom, and that the other host must hear of another one.
fn alone(error: engine::Error) -> Failure {
    match &error {
        engine::Error::Wire(wire::Error::Listen { address, source })
            if source.kind() == io::ErrorKind::AddrInUse =>
        {
            let port = address.port();
            Failure::new(
                Exit::Fatal,
                format_args!(
                    "{error}, and on the other host --peer THISHOST:PORT; who has this port is told by\n  \
                     ss -ltnp 'sport = :{port}'"
                ),
            )
        }
        _ => fatal(error),
    }
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
async fn leave_on_signal(
    mut signals: Signals,
    (kernel, mount): (Kernel, PathBuf),
    manager: Option<Manager>,
    gone: mpsc::Sender<anyhow::Result<()>>,
) {
    signals.any().await;
    tracing::info!("told to end");
    manager.inspect(|manager| manager.stopping());
    if let Err(error) = unmount(&kernel, &mount, false).await {
        tracing::warn!("{error}; detaching the mount, it goes when its last user does");
        if let Err(error) = unmount(&kernel, &mount, true).await {
            tracing::error!("{error}");
        }
    }
    // Also one that is gone from here may have users: in another mount namespace, begun while it stood.
    tokio::time::sleep(LET_GO).await;
    let _ = gone.send(Err(anyhow::anyhow!("programs still use the detached mount; ending without them")));
}
