//! The daemon's end of its control socket.
//!
//! Invariants: the socket is its owner's alone; nothing a client sends or leaves out costs more than
//! one line of memory and one task; the socket file is there as long as the daemon is, so that
//! others can wait for its end.

use super::exit::Failure;
use super::protocol::{self, Answer, LINE_BYTES, Request};
use anyhow::{Context, bail};
use serde_json::Value;
use std::fs::Permissions;
use std::future::Future;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{
    AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader,
};
use tokio::net::UnixListener;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// How long answers that are on their way may take when the server closes.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// Characters of an error that a client is told: it may quote the request, and the answer is one line, too.
const WHY_CHARS: usize = 300;

/// Who answers.
pub trait Respond: Send + Sync + 'static {
    fn respond(&self, request: Request) -> impl Future<Output = Result<Value, Failure>> + Send;
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
        let (stop, tasks) = (server.stop.clone(), server.tasks.clone());
        server.tasks.spawn(async move {
            stop.clone().run_until_cancelled_owned(accept(listener, Arc::new(responder), stop, tasks)).await
        });
        Ok(server)
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

async fn accept(
    listener: UnixListener,
    responder: Arc<impl Respond>,
    stop: CancellationToken,
    tasks: TaskTracker,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tasks.spawn(converse(stream, responder.clone(), stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the control socket is closed; unmount with fusermount3 -u");
                return;
            }
        }
    }
}

/// Answers one client until it goes, says something too long, or the server closes.
pub async fn converse(
    stream: impl AsyncRead + AsyncWrite + Unpin,
    responder: Arc<impl Respond>,
    stop: CancellationToken,
) {
    let mut stream = BufReader::new(stream);
    while let Some(Some(line)) = stop.run_until_cancelled(read_line(&mut stream)).await {
        let (answer, last) = match line {
            Ok(line) => (answer(&line, &*responder).await, false),
            Err(TooLong) => (refusal("the request is too long"), true),
        };
        if stream.write_all(&protocol::line(&answer)).await.is_err() || last {
            return;
        }
    }
}

async fn answer(line: &[u8], responder: &impl Respond) -> Answer {
    match serde_json::from_slice(line) {
        Ok(request) => responder.respond(request).await.into(),
        Err(error) => {
            let why: String = error.to_string().chars().take(WHY_CHARS).collect();
            refusal(format_args!("the request can't be understood: {why}"))
        }
    }
}

fn refusal(message: impl std::fmt::Display) -> Answer {
    Err(Failure::other(message)).into()
}

struct TooLong;

/// The next line; `None` when the client is gone.
async fn read_line(stream: &mut (impl AsyncBufRead + Unpin)) -> Option<Result<Vec<u8>, TooLong>> {
    let mut line = Vec::new();
    stream.take(LINE_BYTES).read_until(b'\n', &mut line).await.ok()?;
    match line.last() {
        Some(b'\n') => Some(Ok(line)),
        _ if line.len() as u64 == LINE_BYTES => Some(Err(TooLong)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::client::Client;
    use crate::cli::exit::Exit;
    use serde_json::json;
    use std::io::{BufRead, Write};

    struct Fake;

    impl Respond for Fake {
        async fn respond(&self, request: Request) -> Result<Value, Failure> {
            match request {
                Request::Status => Ok(json!({"files": 3})),
                Request::Flush { .. } => Err(Failure::new(Exit::TryAgain, "the peer is not there")),
                _ => std::future::pending().await,
            }
        }
    }

    struct Set {
        runtime: tokio::runtime::Runtime,
        temp: tempfile::TempDir,
    }

    impl Set {
        fn new() -> Set {
            let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
            Set { runtime: runtime.unwrap(), temp: tempfile::tempdir().unwrap() }
        }

        fn path(&self) -> PathBuf {
            self.temp.path().join("a.sock")
        }

        fn open(&self) -> anyhow::Result<Server> {
            Server::open(&self.path(), Fake, self.runtime.handle())
        }

        fn client(&self) -> Client {
            Client::connect(&self.path()).unwrap().expect("somebody listens")
        }
    }

    #[test]
    fn requests_are_answered_one_after_the_other() {
        let set = Set::new();
        let server = set.open().unwrap();
        let mut client = set.client();
        for _ in 0..3 {
            assert_eq!(client.ask(&Request::Status, None), Ok(json!({"files": 3})));
            let refused = client.ask(&Request::Flush { timeout_ms: Some(1) }, None).unwrap_err();
            assert_eq!(refused.exit, Exit::TryAgain);
        }
        server.close();
        assert!(!set.path().exists());
    }

    #[test]
    fn the_socket_is_its_owners_alone() {
        let set = Set::new();
        let _server = set.open().unwrap();
        assert_eq!(set.path().metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_not_understood_is_answered_with_an_error() {
        let set = Set::new();
        let _server = set.open().unwrap();
        let mut stream = std::os::unix::net::UnixStream::connect(set.path()).unwrap();
        stream.write_all(b"{\"cmd\":\"reboot\"}\nnonsense\n{\"cmd\":\"status\"}\n").unwrap();
        let mut lines = std::io::BufReader::new(stream).lines().map(Result::unwrap);
        assert!(lines.next().unwrap().contains("reboot"));
        assert!(lines.next().unwrap().starts_with("{\"error\""));
        assert_eq!(lines.next().unwrap(), "{\"ok\":{\"files\":3}}");
    }

    #[test]
    fn a_long_request_that_is_not_understood_gets_an_answer_that_fits() {
        let set = Set::new();
        let _server = set.open().unwrap();
        let mut stream = std::os::unix::net::UnixStream::connect(set.path()).unwrap();
        let name = "x".repeat(LINE_BYTES as usize - 11);
        stream.write_all(format!("{{\"cmd\":\"{name}\"}}\n").as_bytes()).unwrap();
        let mut answer = String::new();
        std::io::BufReader::new(stream).read_line(&mut answer).unwrap();
        assert!(answer.contains("understood") && answer.len() as u64 <= LINE_BYTES, "{}", answer.len());
    }

    #[test]
    fn an_endless_line_is_cut_off() {
        let set = Set::new();
        let _server = set.open().unwrap();
        let mut stream = std::os::unix::net::UnixStream::connect(set.path()).unwrap();
        let _ = stream.write_all(&vec![b'x'; 1 << 20]);
        let mut answer = String::new();
        // The connection may be reset before all of our flood was read.
        let _ = std::io::BufReader::new(stream).read_line(&mut answer);
        assert!(answer.is_empty() || answer.contains("too long"), "{answer}");
        assert!(set.client().ask(&Request::Status, None).is_ok());
    }

    #[test]
    fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not() {
        let set = Set::new();
        drop(std::os::unix::net::UnixListener::bind(set.path()).unwrap());
        let _server = set.open().unwrap();
        assert!(set.open().err().expect("refused").to_string().contains("a.sock"));
        assert!(set.client().ask(&Request::Status, None).is_ok());
    }

    #[test]
    fn a_client_gives_up_in_time() {
        let set = Set::new();
        let _server = set.open().unwrap();
        let failure = set.client().ask(&Request::Wait, Some(Duration::from_millis(20))).unwrap_err();
        assert_eq!(failure.exit, Exit::TryAgain);
    }
}
