//! The control socket: requests as the daemon reads them, answers as a command reads them.

use super::block_on;
use serde_json::Value;
use std::sync::{Arc, Mutex};
use syncfs::cli::exit::Failure;
use syncfs::cli::protocol::{Answer, LINE_BYTES, Request, line};
use syncfs::cli::server::{Respond, converse};
use tokio_util::sync::CancellationToken;

/// A client's side of a conversation; and every line as an answer.
pub fn run(input: &[u8]) {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let mut said = Vec::new();
    let stream = tokio::io::join(input, &mut said);
    block_on(converse(stream, Arc::new(Scribe(asked.clone())), CancellationToken::new()));

    let lines: Vec<&[u8]> = input.split_inclusive(|b| *b == b'\n').collect();
    let limit = LINE_BYTES as usize;
    let read = lines.iter().take_while(|l| l.len() <= limit && l.ends_with(b"\n")).count();
    let too_long = lines.get(read).is_some_and(|l| l.len() >= limit);
    let answers: Vec<&[u8]> = said.split_inclusive(|b| *b == b'\n').collect();
    assert_eq!(answers.len(), read + usize::from(too_long), "a line without its answer");
    let mut understood = 0;
    for answer in answers {
        assert!(answer.len() <= limit && answer.ends_with(b"\n"), "an answer of {} bytes", answer.len());
        let answer: Answer = serde_json::from_slice(answer).expect("an answer that can be read");
        understood += usize::from(matches!(answer, Answer::Ok(_)));
    }
    let asked = asked.lock().unwrap();
    assert_eq!(asked.len(), understood);
    for request in &*asked {
        assert_eq!(&serde_json::from_slice::<Request>(&line(request)).unwrap(), request);
    }

    for text in lines {
        let Ok(answer) = serde_json::from_slice::<Answer>(text) else { continue };
        let again: Answer = serde_json::from_slice(&line(&answer)).expect("an answer that was read");
        assert_eq!(again, answer);
        let _: Result<Value, Failure> = answer.into();
    }
}

/// Writes down what it is asked.
struct Scribe(Arc<Mutex<Vec<Request>>>);

impl Respond for Scribe {
    async fn respond(&self, request: Request) -> Result<Value, Failure> {
        self.0.lock().unwrap().push(request);
        Ok(Value::Null)
    }
}
