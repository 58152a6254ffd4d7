//! What is said over a control socket: one JSON object a line, a request and its answer in turn.
//!
//! ```text
//! {"cmd":"status"}                     {"ok":{"mount":"/mnt/shared",...}}
//! {"cmd":"flush","timeout_ms":5000}    {"error":{"exit":5,"message":"..."}}
//! {"cmd":"resume"}                     {"ok":150}: so many deletes pass; null: nothing was paused
//! {"cmd":"trash","from":0}             {"ok":{"entries":[...],"more":true}}   from that many on
//! {"cmd":"restore","what":"f"}         {"ok":{"entry":"20261125-...-f","name":"f"}}
//! {"cmd":"verify","repair":false}      {"ok":5}: the number of the run
//! {"cmd":"verified","run":5,"from":0}  {"ok":{"done":false,"read":7,"bytes":9}}, after a moment if it goes on
//!                                      {"ok":{"done":true,"files":2,"bytes":9,"differences":[...],"more":false}}
//! {"cmd":"hold","order":"pin","name":"f"}   {"ok":{"size":9,"held":3,"pinned":true,"state":"partial"}}
//!                                      unpin, fetch and free as well; fetch answers after a moment if it goes on
//! {"cmd":"unmount"}                    answered when the daemon has put everything on the disk
//! {"cmd":"wait"}                       the same, without asking it to unmount
//! ```
//!
//! Invariant: no line is longer than [`LINE_BYTES`], on either side.

use super::exit::{Exit, Failure};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest line, newline included.
pub const LINE_BYTES: u64 = 64 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "cmd", rename_all = "lowercase")]
pub enum Request {
    Status,
    Flush {
        /// Without it, as long as the peer is there.
        timeout_ms: Option<u64>,
    },
    /// Lets deletes of the peer through that wait.
    Resume,
    /// What lies in the trash from number `from` on, as much as a line holds.
    Trash {
        from: usize,
    },
    Restore {
        what: String,
        /// Without it, the name that it had.
        name: Option<String>,
    },
    /// Begins to compare both sides from their disks.
    Verify {
        repair: bool,
    },
    /// How far that is, or what it found, from difference number `from` on as much as a line holds.
    Verified {
        run: u64,
        from: usize,
    },
    /// What of a file is held becomes other.
    Hold {
        order: Order,
        name: String,
    },
    Unmount,
    Wait,
}

/// What is to be held of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    Pin,
    Unpin,
    Fetch,
    Free,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Answer {
    Ok(Value),
    Error { exit: u8, message: String },
}

impl From<Result<Value, Failure>> for Answer {
    fn from(result: Result<Value, Failure>) -> Answer {
        match result {
            Ok(value) => Answer::Ok(value),
            Err(Failure { exit, message }) => Answer::Error { exit: exit as u8, message },
        }
    }
}

impl From<Answer> for Result<Value, Failure> {
    fn from(answer: Answer) -> Result<Value, Failure> {
        match answer {
            Answer::Ok(value) => Ok(value),
            Answer::Error { exit, message } => Err(Failure::new(Exit::from_number(exit), message)),
        }
    }
}

/// `message` as one line.
pub fn line(message: &impl Serialize) -> Vec<u8> {
    let mut line = serde_json::to_vec(message).expect("requests and answers have text keys only");
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_read_as_documented() {
        let request = |text: &str| serde_json::from_str::<Request>(text);
        assert_eq!(request(r#"{"cmd":"status"}"#).unwrap(), Request::Status);
        assert_eq!(request(r#"{"cmd":"flush"}"#).unwrap(), Request::Flush { timeout_ms: None });
        let timed = Request::Flush { timeout_ms: Some(5000) };
        assert_eq!(request(r#"{"cmd":"flush","timeout_ms":5000}"#).unwrap(), timed);
        assert_eq!(request(r#"{"cmd":"trash","from":3}"#).unwrap(), Request::Trash { from: 3 });
        assert_eq!(request(r#"{"cmd":"verify","repair":true}"#).unwrap(), Request::Verify { repair: true });
        let back = Request::Restore { what: "f".into(), name: None };
        assert_eq!(request(r#"{"cmd":"restore","what":"f"}"#).unwrap(), back);
        assert!(request(r#"{"cmd":"reboot"}"#).is_err());
        assert_eq!(line(&Request::Unmount), b"{\"cmd\":\"unmount\"}\n");
    }

    #[test]
    fn a_failure_arrives_as_it_left() {
        let failure = Failure::new(Exit::TryAgain, "the peer is not there");
        let line = line(&Answer::from(Err(failure.clone())));
        let answer: Answer = serde_json::from_slice(&line).unwrap();
        assert_eq!(Result::from(answer), Err(failure));
    }
}
