//! What is answered: JSON whole or in parts, text, or a failure.
//!
//! Invariant: of a list no more than [`PAGE`] entries are made before the client has taken those before.

use super::failure::{Exit, Failure};
use crate::model::limits::PAGE;
use anyhow::Context;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, channel};
use hyper::body::Bytes;
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use hyper::{Response, StatusCode};
use serde::Serialize;
use serde_json::json;
use std::convert::Infallible;
use std::fmt;

pub type Body = UnsyncBoxBody<Bytes, Infallible>;
pub type Answer = Result<Response<Body>, Refusal>;

/// A failure, and as what HTTP tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    status: StatusCode,
    /// The methods that would do.
    allow: Option<&'static str>,
    failure: Failure,
}

impl Refusal {
    /// What was asked can't be understood.
    pub fn usage(message: impl fmt::Display) -> Refusal {
        Failure::new(Exit::Usage, message).into()
    }

    /// What was asked for is not there.
    pub fn missing(message: impl fmt::Display) -> Refusal {
        Refusal { status: StatusCode::NOT_FOUND, allow: None, failure: Failure::other(message) }
    }

    /// What was asked for is there, and is asked for otherwise.
    pub fn method(allow: &'static str, message: impl fmt::Display) -> Refusal {
        let failure = Failure::new(Exit::Usage, message);
        Refusal { status: StatusCode::METHOD_NOT_ALLOWED, allow: Some(allow), failure }
    }

    /// Who asks may not.
    pub fn forbidden(message: impl fmt::Display) -> Refusal {
        Refusal { status: StatusCode::FORBIDDEN, allow: None, failure: Failure::other(message) }
    }

    pub fn response(self) -> Response<Body> {
        let Failure { exit, message } = self.failure;
        let told = json!({"exit": exit as u8, "message": message});
        let mut response = text("application/json", format!("{told}\n"));
        *response.status_mut() = self.status;
        if let Some(allow) = self.allow {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allow));
        }
        response
    }
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Refusal {
        let status = match failure.exit {
            Exit::Usage => StatusCode::BAD_REQUEST,
            Exit::TryAgain => StatusCode::SERVICE_UNAVAILABLE,
            Exit::Ok | Exit::Other | Exit::Fatal | Exit::Conflicts => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Refusal { status, allow: None, failure }
    }
}

impl From<anyhow::Error> for Refusal {
    fn from(error: anyhow::Error) -> Refusal {
        Failure::from(error).into()
    }
}

/// One value as JSON.
pub fn json(value: &impl Serialize) -> Answer {
    let mut text = serde_json::to_vec(value).context("the answer can't be written down")?;
    text.push(b'\n');
    Ok(self::text("application/json", text))
}

pub fn text(kind: &'static str, text: impl Into<Bytes>) -> Response<Body> {
    respond(kind, Full::from(text.into()).boxed_unsync())
}

/// `before`, the entries as a JSON array, and `after`: made on threads that may wait, as fast as the client reads.
pub fn list<T: Serialize>(
    before: String,
    entries: impl Iterator<Item = T> + Send + 'static,
    after: &'static str,
) -> Response<Body> {
    let (mut client, response) = stream("application/json");
    tokio::spawn(async move {
        let mut rest = Some((entries, before + "["));
        while let Some((mut entries, mut part)) = rest.take() {
            let made = tokio::task::spawn_blocking(move || {
                let mut made = 0;
                for entry in entries.by_ref().take(PAGE) {
                    part.push_str(if part.ends_with('[') { "\n" } else { ",\n" });
                    part.push_str(&serde_json::to_string(&entry).expect("entries have text keys only"));
                    made += 1;
                }
                (part, (made == PAGE).then_some(entries))
            });
            let Ok((mut part, more)) = made.await else { return };
            if more.is_none() {
                part.push(']');
                part.push_str(after);
                part.push('\n');
            }
            if client.send_data(part.into()).await.is_err() {
                return;
            }
            rest = more.map(|entries| (entries, String::new()));
        }
    });
    response
}

/// An answer that is made as it is read.
pub fn stream(kind: &'static str) -> (channel::Sender<Bytes>, Response<Body>) {
    let (client, body) = channel::Channel::new(1);
    (client, respond(kind, body.boxed_unsync()))
}

fn respond(kind: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
