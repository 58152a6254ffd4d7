//! Both ends of the control socket, joined.

use super::*;
use crate::api::answer::{Refusal, json, list};
use crate::api::client::Client;
use crate::api::failure::{Exit, Failure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;

struct Fake(mpsc::SyncSender<&'static str>);

/// Says when it goes.
struct Tell<'a>(&'a mpsc::SyncSender<&'static str>);

impl Drop for Tell<'_> {
    fn drop(&mut self) {
        let _ = self.0.send("gone");
    }
}

impl Respond for Fake {
    async fn respond(&self, request: Request) -> Answer {
        match request.path.as_str() {
            "/status" => json(&json!({"files": 3})),
            "/flush" => Err(Failure::new(Exit::TryAgain, "the peer is not there").into()),
            "/many" => Ok(list(String::new(), 0..2500u64, "")),
            "/wait" => {
                let _tell = Tell(&self.0);
                let _ = self.0.send("asked");
                std::future::pending().await
            }
            _ => Err(Refusal::missing("there is no such route")),
        }
    }
}

struct Set {
    runtime: tokio::runtime::Runtime,
    temp: tempfile::TempDir,
    heard: mpsc::Receiver<&'static str>,
    tell: mpsc::SyncSender<&'static str>,
}

impl Set {
    fn new() -> Set {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let (tell, heard) = mpsc::sync_channel(9);
        Set { runtime: runtime.unwrap(), temp: tempfile::tempdir().unwrap(), heard, tell }
    }

    fn path(&self) -> PathBuf {
        self.temp.path().join("a.sock")
    }

    fn open(&self) -> anyhow::Result<Server> {
        Server::open(&self.path(), Fake(self.tell.clone()), self.runtime.handle())
    }

    fn client(&self) -> Client {
        Client::connect(&self.path()).unwrap().expect("somebody listens")
    }

    /// What comes back for `said`, until the server closes the connection.
    fn raw(&self, said: &[u8]) -> String {
        let mut stream = UnixStream::connect(self.path()).unwrap();
        // The server may have enough of it before all of it is said.
        let _ = stream.write_all(said);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8(answer).unwrap()
    }
}

#[test]
fn requests_are_answered_one_after_the_other() {
    let set = Set::new();
    let server = set.open().unwrap();
    let mut client = set.client();
    for _ in 0..3 {
        assert_eq!(client.ask(&Request::get("/status"), None), Ok(json!({"files": 3})));
        let refused = client.ask(&Request::post("/flush"), None).unwrap_err();
        assert_eq!(refused, Failure::new(Exit::TryAgain, "the peer is not there"));
    }
    server.close();
    assert!(!set.path().exists());
}

#[test]
fn a_long_list_comes_whole() {
    let set = Set::new();
    let _server = set.open().unwrap();
    let all: Vec<Value> = (0..2500u64).map(Value::from).collect();
    assert_eq!(set.client().ask(&Request::get("/many"), None), Ok(all.into()));
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
    let answer = set.raw(b"GET /reboot HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    assert!(answer.ends_with("{\"exit\":1,\"message\":\"there is no such route\"}\n"), "{answer}");
    assert!(set.raw(b"{\"cmd\":\"status\"}\r\n\r\n").starts_with("HTTP/1.1 400"));
}

#[test]
fn an_endless_request_is_cut_off() {
    let set = Set::new();
    let _server = set.open().unwrap();
    let endless = [b"GET /".to_vec(), vec![b'x'; 1 << 20]].concat();
    let answer = set.raw(&endless);
    // The connection may be reset before the answer was read.
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
    assert!(set.client().ask(&Request::get("/status"), None).is_ok());
}

#[test]
fn who_goes_takes_what_it_asked_for_along() {
    let set = Set::new();
    let _server = set.open().unwrap();
    let mut stream = UnixStream::connect(set.path()).unwrap();
    stream.write_all(b"GET /wait HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    assert_eq!(set.heard.recv(), Ok("asked"));
    drop(stream);
    assert_eq!(set.heard.recv_timeout(Duration::from_secs(20)), Ok("gone"));
}

#[test]
fn a_body_is_not_read() {
    let set = Set::new();
    let _server = set.open().unwrap();
    let mut stream = UnixStream::connect(set.path()).unwrap();
    stream.write_all(b"POST /status HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\nx").unwrap();
    let mut line = String::new();
    BufReader::new(stream).read_line(&mut line).unwrap();
    assert_eq!(line, "HTTP/1.1 200 OK\r\n");
}

#[test]
fn a_dead_daemons_socket_is_replaced_and_a_living_ones_is_not() {
    let set = Set::new();
    drop(std::os::unix::net::UnixListener::bind(set.path()).unwrap());
    let _server = set.open().unwrap();
    assert!(set.open().err().expect("refused").to_string().contains("a.sock"));
    assert!(set.client().ask(&Request::get("/status"), None).is_ok());
}

#[test]
fn a_client_gives_up_in_time() {
    let set = Set::new();
    let _server = set.open().unwrap();
    let failure = set.client().ask(&Request::get("/wait"), Some(Duration::from_millis(20))).unwrap_err();
    assert_eq!(failure.exit, Exit::TryAgain);
}
