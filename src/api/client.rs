//! The other end of a daemon's control socket, for programs that wait.
//!
//! Invariants: waits are bounded by the caller; a socket nobody listens at is removed, and never one that came to its path
//! since.

use super::failure::{Exit, Failure};
use super::request::Request;
use anyhow::Context;
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::HOST;
use hyper::{Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustix::process::Pid;
use serde_json::Value;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// How long a daemon may take for what it has at hand.
pub const AT_ONCE: Duration = Duration::from_secs(10);

/// A connection to one daemon.
pub struct Client {
    /// Turns only while somebody waits, on the thread that waits.
    runtime: Runtime,
    sender: SendRequest<Empty<Bytes>>,
    daemon: io::Result<Pid>,
}

impl Client {
    /// `None` if nobody listens at `socket`.
    pub fn connect(socket: &Path) -> io::Result<Option<Client>> {
        let inode = |path: &Path| path.symlink_metadata().map(|m| m.ino()).ok();
        let before = inode(socket);
        match UnixStream::connect(socket) {
            Ok(stream) => Client::over(stream).map(Some),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) if e.kind() == ErrorKind::ConnectionRefused => {
                if before.is_some() && inode(socket) == before {
                    let _ = std::fs::remove_file(socket);
                }
                Ok(None)
            }
            Err(e) => Err(e),
        }
    }

    fn over(stream: UnixStream) -> io::Result<Client> {
        let daemon = rustix::net::sockopt::socket_peercred(&stream).map(|peer| peer.pid);
        stream.set_nonblocking(true)?;
        let runtime = Builder::new_current_thread().enable_io().enable_time().build()?;
        let sender = runtime.block_on(async {
            let stream = TokioIo::new(tokio::net::UnixStream::from_std(stream)?);
            let (sender, connection) = http1::handshake(stream).await.map_err(io::Error::other)?;
            tokio::spawn(connection);
            io::Result::Ok(sender)
        })?;
        Ok(Client { runtime, sender, daemon: daemon.map_err(io::Error::from) })
    }

    /// The daemon's process, as long as it has not ended.
    pub fn daemon(&self) -> &io::Result<Pid> {
        &self.daemon
    }

    /// The answer to `request`; `timeout` of `None` waits until the daemon answers or ends.
    pub fn ask(&mut self, request: &Request, timeout: Option<Duration>) -> Result<Value, Failure> {
        let (status, body) = self.text(request, timeout)?;
        let value = serde_json::from_slice(&body);
        if status.is_success() {
            return Ok(value.context("the daemon answered nonsense")?);
        }
        let told: Value = value.unwrap_or_default();
        let exit = told["exit"].as_u64().and_then(|exit| u8::try_from(exit).ok());
        match (exit, told["message"].as_str()) {
            (Some(exit), Some(message)) => Err(Failure::new(Exit::from_number(exit), message)),
            _ => Err(Failure::other(format_args!("the daemon can't answer that: {status}"))),
        }
    }

    /// Calls `heard` with each line of an answer that may have no end, as it comes.
    pub fn lines(&mut self, request: &Request, mut heard: impl FnMut(&str)) -> Result<(), Failure> {
        let sender = &mut self.sender;
        let listen = async {
            let response = send(sender, request).await?;
            let status = response.status();
            if !status.is_success() {
                return Ok(status);
            }
            let mut body = response.into_body();
            let mut rest = Vec::new();
            while let Some(frame) = body.frame().await {
                rest.extend(frame?.into_data().unwrap_or_default());
                while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
                    let line: Vec<u8> = rest.drain(..=end).collect();
                    heard(&String::from_utf8_lossy(&line[..end]));
                }
            }
            Ok::<_, hyper::Error>(status)
        };
        match self.runtime.block_on(listen) {
            Ok(status) if status.is_success() => Ok(()),
            Ok(status) => Err(Failure::other(format_args!("the daemon can't answer that: {status}"))),
            Err(error) => Err(ended(&error)),
        }
    }

    /// The answer to `request`, whatever it is.
    fn text(&mut self, request: &Request, timeout: Option<Duration>) -> Result<(StatusCode, Bytes), Failure> {
        let sender = &mut self.sender;
        let exchange = async {
            let response = send(sender, request).await?;
            let status = response.status();
            Ok::<_, hyper::Error>((status, response.into_body().collect().await?.to_bytes()))
        };
        let answered = self.runtime.block_on(async {
            match timeout {
                Some(timeout) => tokio::time::timeout(timeout, exchange).await,
                None => Ok(exchange.await),
            }
        });
        match answered {
            Ok(answered) => answered.map_err(|error| ended(&error)),
            Err(_) => Err(Failure::new(Exit::TryAgain, "the daemon did not answer in time")),
        }
    }
}

async fn send(
    sender: &mut SendRequest<Empty<Bytes>>,
    request: &Request,
) -> Result<Response<Incoming>, hyper::Error> {
    let head = hyper::Request::builder().method(&request.method).uri(request.target());
    let asked = head.header(HOST, "localhost").body(Empty::new()).expect("a target of ours is valid");
    sender.ready().await?;
    sender.send_request(asked).await
}

fn ended(error: &hyper::Error) -> Failure {
    Failure::other(format_args!("the daemon ended before it answered ({error}); its log says why"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_nobody_listens_at_is_removed() {
        let temp = tempfile::tempdir().unwrap();
        let socket = temp.path().join("a.sock");
        assert!(Client::connect(&socket).unwrap().is_none());
        drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
        assert!(Client::connect(&socket).unwrap().is_none());
        assert!(!socket.exists());
    }

    #[test]
    fn a_daemon_that_ends_is_told_apart_from_one_that_is_slow() {
        let temp = tempfile::tempdir().unwrap();
        let socket = temp.path().join("a.sock");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        let mut client = Client::connect(&socket).unwrap().unwrap();
        drop(listener.accept().unwrap());
        assert_eq!(client.ask(&Request::get("/status"), None).unwrap_err().exit, Exit::Other);
        let mut client = Client::connect(&socket).unwrap().unwrap();
        let slow = client.ask(&Request::get("/status"), Some(Duration::from_millis(5))).unwrap_err();
        assert_eq!(slow.exit, Exit::TryAgain);
    }
}
