//! `syncfs log`: what came, what went, and what conflicted, lately and from now on.
//!
//! Invariant: a name never reaches the terminal with what a terminal would take for an order.

use super::args;
use super::client;
use super::exit::{Exit, Outcome, say};
use super::units::many;
use crate::api::request::Request;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;

pub fn run(args: args::Log) -> Outcome {
    let mut client = client::find(args.dir.as_deref())?;
    let zone = TimeZone::system();
    client.lines(&Request::get("/events").with("follow", args.follow), |line| {
        let Some(data) = line.strip_prefix("data: ") else { return };
        match serde_json::from_str(data) {
            Ok(event) if !args.json => say(row(&event, &zone)),
            _ => say(data),
        }
    })?;
    Ok(Exit::Ok)
}

/// One event for people, at their time.
fn row(event: &Value, zone: &TimeZone) -> String {
    let text = |key: &str| plain(event[key].as_str().unwrap_or("?"));
    let number = |key: &str| event[key].as_u64().unwrap_or(0);
    let kind = event["event"].as_str().unwrap_or("?");
    let told = match kind {
        "connected" => format!("with replica {:.8} at {}", text("replica"), text("address")),
        "disconnected" => text("reason"),
        "came" | "went" => match event["from"].as_str() {
            Some(from) => format!("{}, {} from {}", text("file"), text("what"), plain(from)),
            None => format!("{}, {}", text("file"), text("what")),
        },
        "conflict" => {
            let whose = if event["side"] == "here" { "this host's" } else { "the peer's" };
            format!("{}; {whose} version is {}", text("file"), text("copy"))
        }
        "paused" => {
            format!("{} of the peer wait; let them pass: syncfs resume", many(number("deletes"), "delete"))
        }
        "resumed" => format!("{} of the peer pass", many(number("deletes"), "delete")),
        "missed" => return format!("({} before this are not remembered)", many(number("missed"), "event")),
        _ => plain(&event.to_string()),
    };
    let time = i64::try_from(number("time_ms")).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let time = time.unwrap_or_default().to_zoned(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string();
    format!("{time}  {kind:<12}  {told}")
}

/// `text` without what would move the cursor, or worse.
fn plain(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(mut event: Value) -> String {
        event["time_ms"] = 1_700_000_000_123u64.into();
        row(&event, &TimeZone::fixed(jiff::tz::offset(1)))
    }

    #[test]
    fn every_event_is_one_line_at_local_time() {
        let rows = [
            json!({"event": "connected", "replica": "abcd1234ffff", "address": "10.0.0.2:7377"}),
            json!({"event": "came", "file": "a.txt", "what": "changed"}),
            json!({"event": "went", "file": "b.txt", "what": "renamed", "from": "a\x1b[2J.txt"}),
            json!({"event": "conflict", "file": "a", "copy": "a.sync-conflict-x", "side": "here"}),
            json!({"event": "paused", "deletes": 150}),
        ];
        assert_eq!(
            rows.map(shown),
            [
                "2023-11-14 23:13:20  connected     with replica abcd1234 at 10.0.0.2:7377",
                "2023-11-14 23:13:20  came          a.txt, changed",
                "2023-11-14 23:13:20  went          b.txt, renamed from a\u{fffd}[2J.txt",
                "2023-11-14 23:13:20  conflict      a; this host's version is a.sync-conflict-x",
                "2023-11-14 23:13:20  paused        150 deletes of the peer wait; let them pass: syncfs resume",
            ]
        );
        assert_eq!(
            shown(json!({"event": "missed", "missed": 3})),
            "(3 events before this are not remembered)"
        );
    }
}
