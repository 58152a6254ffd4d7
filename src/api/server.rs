//! The daemon's end of its control socket.
//!
//! Invariants: the socket is its owner's alone; nothing a client sends or leaves out costs more than one head of a request,
//! one task and a bounded wait; who goes takes what it asked for along; the socket file is there as long as the daemon is,
//! so that others can wait for its end.

use super::answer::{Answer, Body};
use super::request::Request;
use crate::model::limits::{CLIENTS, HEAD_BYTES};
use anyhow::{Context, bail};
use hyper::Response;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::fs::Permissions;
use std::future::Future;
use std::io::{self, ErrorKind};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long answers that are on their way may take when the server closes.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// How long a client may take for a request, or leave its connection without one.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who answers.
pub trait Respond: Send + Sync + 'static {
    fn respond(&self, request: Request) -> impl Future<Output = Answer> + Send;
}

pub struct Server {
    path: PathBuf,
    runtime: Handle,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Server {
    /// Listens at `path`. A socket that a dead daemon left there is replaced.
    pub fn open(path: &Path, responder: impl Respond, runtime: &Handle) -> anyhow::Result<Server> {
        let listener =
            listen(path).with_context(|| format!("can't open the control socket {}", path.display()))?;
        let _inside = runtime.enter();
        let listener = UnixListener::from_std(listener)?;
        let server = Server {
            path: path.to_owned(),
            runtime: runtime.clone(),
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
        };
        server.listen(listener, responder);
        Ok(server)
    }

    /// Answers on `listener` as well, until it closes.
    pub fn also(&self, listener: std::net::TcpListener, responder: impl Respond) -> anyhow::Result<()> {
        let _inside = self.runtime.enter();
        listener.set_nonblocking(true)?;
        self.listen(TcpListener::from_std(listener)?, responder);
        Ok(())
    }

    fn listen(&self, door: impl Door, responder: impl Respond) {
        let (stop, tasks) = (self.stop.clone(), self.tasks.clone());
        let accepting = accept(door, Arc::new(responder), stop.clone(), tasks);
        self.tasks.spawn(stop.run_until_cancelled_owned(accepting));
    }

    /// Lets answers on their way arrive and removes the socket. From outside the runtime.
    pub fn close(self) {
        let _ = std::fs::remove_file(&self.path);
        self.stop.cancel();
        self.tasks.close();
        let _ = self.runtime.block_on(async { tokio::time::timeout(LAST_WORDS, self.tasks.wait()).await });
    }
}

fn listen(path: &Path) -> anyhow::Result<std::os::unix::net::UnixListener> {
    use std::os::unix::net::{UnixListener, UnixStream};
    match UnixStream::connect(path) {
        Ok(_) => bail!("another syncfs listens there"),
        Err(e) if e.kind() == ErrorKind::ConnectionRefused => std::fs::remove_file(path)?,
        Err(_) => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// Where clients come in.
trait Door: Send + Sync + 'static {
    type Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    fn next(&self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

impl Door for UnixListener {
    type Stream = UnixStream;

    async fn next(&self) -> io::Result<UnixStream> {
        Ok(self.accept().await?.0)
    }
}

impl Door for TcpListener {
    type Stream = TcpStream;

    async fn next(&self) -> io::Result<TcpStream> {
        Ok(self.accept().await?.0)
    }
}

async fn accept(door: impl Door, responder: Arc<impl Respond>, stop: CancellationToken, tasks: TaskTracker) {
    let places = Arc::new(Semaphore::new(CLIENTS));
    loop {
        let place = places.clone().acquire_owned().await.expect("it is never closed");
        match door.next().await {
            Ok(stream) => {
                let (responder, stop) = (responder.clone(), stop.clone());
                tasks.spawn(async move {
                    converse(stream, responder, stop).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a socket that clients ask at is closed; unmount with fusermount3 -u");
                return;
            }
        }
    }
}

/// Answers one client until it goes, says what is no HTTP, says nothing for long, or the server closes.
pub async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    responder: Arc<impl Respond>,
    stop: CancellationToken,
) {
    let answer = service_fn(|asked: hyper::Request<Incoming>| {
        let (responder, mut request) =
            (responder.clone(), Request::read(asked.method().clone(), asked.uri()));
        let header = |name: &str| asked.headers().get(name).and_then(|value| value.to_str().ok());
        request.since = header("last-event-id").and_then(|id| id.parse().ok());
        request.host = header("host").map(str::to_owned);
        async move { Ok::<Response<Body>, Infallible>(respond(&*responder, request).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .max_buf_size(HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), answer);
    let mut connection = pin!(connection);
    // How it ends is the client's affair.
    tokio::select! {
        _ = connection.as_mut() => {}
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            let _ = connection.await;
        }
    }
}

async fn respond(responder: &impl Respond, request: Request) -> Response<Body> {
    responder.respond(request).await.unwrap_or_else(|refusal| refusal.response())
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
