//! The control socket: what a client sends.

use super::block_on;
use std::sync::{Arc, Mutex};
use syncfs::api::answer::{Answer, json};
use syncfs::api::request::Request;
use syncfs::api::server::{Respond, converse};
use tokio_util::sync::CancellationToken;

pub fn run(input: &[u8]) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let mut said = Vec::new();
    let stream = tokio::io::join(input, &mut said);
    block_on(converse(stream, Arc::new(Scribe(asked.clone())), CancellationToken::new()));

    let said = String::from_utf8(said).expect("answers are text");
    assert!(said.is_empty() || said.starts_with("HTTP/1."), "{said}");
    let answered = said.matches(" 200 OK\r\n").count();
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), answered, "a request without its answer: {said}");
    for request in asked.iter().filter(|request| request.path.starts_with('/')) {
        let target = request.target().parse().expect("what was a target is one");
        let mut again = Request::read(request.method.clone(), &target);
        (again.since, again.host) = (request.since, request.host.clone());
        assert_eq!(&again, request);
    }
}

/// Writes down what it is asked.
struct Scribe(Arc<Mutex<Vec<Request>>>);

impl Respond for Scribe {
    async fn respond(&self, request: Request) -> Answer {
        self.0.lock().unwrap().push(request);
        json(&serde_json::json!({}))
    }
}
