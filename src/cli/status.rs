//! `syncfs status`: how a share is doing, for people and for programs.
//!
//! Invariants: what a daemon of another version leaves out is left out here, too; colours are only where somebody sees them.

use super::args;
use super::client::{self, AT_ONCE};
use super::exit::{Exit, Failure, Outcome, say};
use super::units::{bytes, many, roughly};
use crate::api::request::Request;
use serde_json::Value;
use std::time::{Duration, Instant};

/// How long what is under way is measured, so that it can be said how long it will take.
const MEASURED: Duration = Duration::from_millis(500);

/// How far clocks may be apart where nothing is wrong with them.
const CLOCKS_AGREE: Duration = Duration::from_secs(1);

/// Room for what a line is about.
const LABEL: usize = 11;

const GREEN: &str = "\x1b[32m";
const YELLOW: &str = "\x1b[33m";
const RED: &str = "\x1b[31m";
const BOLD: &str = "\x1b[1m";
const PLAIN: &str = "\x1b[0m";

pub fn run(args: &args::Status) -> Outcome {
    let status = ask(args)?;
    if args.json {
        say(format_args!("{status:#}"));
        return Ok(Exit::Ok);
    }
    let pace = match is_busy(&status) {
        true => measure(&status, args)?,
        false => None,
    };
    shown(&status, pace).iter().for_each(say);
    Ok(Exit::Ok)
}

/// Bytes a second, to the peer and from it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Pace {
    pub out: f64,
    pub back: f64,
}

impl Pace {
    /// From what the wire had carried at one time and has `later`.
    pub(super) fn between(before: &Value, later: &Value, took: Duration) -> Option<Pace> {
        let rate = |key: &str| {
            let carried = later[key].as_u64()?.checked_sub(before[key].as_u64()?)?;
            Some(carried as f64 / took.as_secs_f64())
        };
        Some(Pace { out: rate("sent_bytes")?, back: rate("received_bytes")? })
    }
}

/// What the daemon says.
pub(super) fn ask(args: &args::Status) -> Result<Value, Failure> {
    client::find(args.dir.as_deref())?.ask(&Request::get("/status"), Some(AT_ONCE))
}

fn measure(status: &Value, args: &args::Status) -> Result<Option<Pace>, Failure> {
    let began = Instant::now();
    std::thread::sleep(MEASURED);
    Ok(Pace::between(status, &ask(args)?, began.elapsed()))
}

/// Whether something is on its way.
pub(super) fn is_busy(status: &Value) -> bool {
    status["peer"]["connected"] == true
        && ["pending_files", "awaited_bytes"].iter().any(|key| status[*key].as_u64().is_some_and(|n| n > 0))
}

/// How it is, in a word, and in which colour.
fn state(status: &Value) -> Option<(&'static str, &'static str)> {
    let connected = status["peer"]["connected"].as_bool()?;
    Some(match () {
        () if status["paused"].is_u64() => ("paused", RED),
        () if !connected => ("offline", RED),
        () if is_busy(status) => ("syncing", YELLOW),
        () if status["conflicts"].as_u64().is_some_and(|n| n > 0) => ("conflicts", YELLOW),
        () => ("level", GREEN),
    })
}

/// The lines of a status, with colours.
pub(super) fn shown(status: &Value, pace: Option<Pace>) -> Vec<String> {
    let word = state(status).map(|(word, colour)| format!("{colour}{BOLD}{word}{PLAIN}"));
    let first = word.map(|word| ("state", word));
    let lines = first.into_iter().chain(listing(status, pace));
    lines.map(|(what, value)| format!("{what:<LABEL$}{value}")).collect()
}

/// One line for each thing worth knowing.
fn listing(status: &Value, pace: Option<Pace>) -> Vec<(&'static str, String)> {
    let number = |key: &str| status[key].as_u64();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let some = |n: Option<u64>| n.filter(|n| *n > 0);
    let mut lines: Vec<(&'static str, Option<String>)> = vec![("mount", text(&status["mount"]))];
    lines.push(("store", text(&status["store"]).filter(|_| status["store"] != status["mount"])));
    lines.push(("peer", connection(&status["peer"])));
    lines.push(("content", join([number("files").map(|n| many(n, "file")), number("bytes").map(bytes)])));
    lines.push(("pending", pending(status, pace)));
    lines.push(("missing", missing(status, pace)));
    let direction = text(&status["direction"]).filter(|word| word != "both");
    let kept = number("held_back").map(|n| format!("{} changed here alone", many(n, "file")));
    lines.push(("direction", direction.and_then(|word| join([Some(word), kept]))));
    lines.push(("interval", number("interval").map(|n| format!("{}; now: syncfs flush", many(n, "second")))));
    let conflicts = some(number("conflicts")).map(|n| {
        let wait = if n == 1 { "waits" } else { "wait" };
        format!("{} {wait} for you: syncfs conflicts", many(n, "conflict copy"))
    });
    lines.push(("conflicts", conflicts));
    let ignored = some(number("ignored"));
    lines.push(("ignored", ignored.map(|n| format!("{} by .syncfsignore, here alone", many(n, "file")))));
    let left_alone = some(number("left_alone"));
    lines.push(("left alone", left_alone.map(|n| many(n, "entry"))));
    let missed = some(number("missing_at_mount"));
    let missed =
        missed.map(|n| format!("{} at the mount, removed meanwhile; back from the peer", many(n, "file")));
    lines.push(("missed", missed));
    let paused = number("paused")
        .map(|n| format!("{} of the peer wait; let them pass: syncfs resume", many(n, "delete")));
    lines.push(("paused", paused));
    let trash = &status["trash"];
    let thrown = some(trash["entries"].as_u64());
    lines.push((
        "trash",
        thrown.and_then(|n| join([Some(many(n, "file")), trash["bytes"].as_u64().map(bytes)])),
    ));
    let carried = |key, way: &str| number(key).map(|n| format!("{} {way}", bytes(n)));
    let saved = some(number("saved_bytes")).map(|n| format!("{} saved by compression", bytes(n)));
    let carried = [carried("sent_bytes", "sent"), carried("received_bytes", "received"), saved];
    lines.push(("wire", join(carried)));
    lines.push(("limit", number("bwlimit").map(|n| format!("{} a second are sent at most", bytes(n)))));
    lines.push(("cache", cache(&status["cache"])));
    lines.into_iter().filter_map(|(what, value)| Some((what, value?))).collect()
}

fn connection(peer: &Value) -> Option<String> {
    let address = peer["address"].as_str().map(str::to_owned);
    let state = match peer["connected"].as_bool()? {
        true => None,
        false => Some(match peer["last_error"].as_str() {
            Some(error) => format!("not connected: {error}"),
            None => "not connected".to_owned(),
        }),
    };
    join([
        address,
        state,
        peer["rtt_ms"].as_f64().map(|ms| format!("round trip {ms:.1} ms")),
        peer["clock_skew_ms"].as_i64().map(clock),
    ])
}

/// How far the peer's clock is from this host's, of which it is `skew` milliseconds ahead.
fn clock(skew: i64) -> String {
    let apart = Duration::from_millis(skew.unsigned_abs());
    match skew {
        _ if apart < CLOCKS_AGREE => format!("clock {skew:+} ms"),
        1.. => format!("its clock is {} ahead of this one", roughly(apart)),
        _ => format!("its clock is {} behind this one", roughly(apart)),
    }
}

/// What the peer lacks.
fn pending(status: &Value, pace: Option<Pace>) -> Option<String> {
    let files = status["pending_files"].as_u64()?;
    if files == 0 {
        return Some("nothing".into());
    }
    let size = status["pending_bytes"].as_u64();
    join([Some(many(files, "file")), size.map(bytes), size.zip(pace).and_then(|(n, pace)| left(n, pace.out))])
}

/// What only the peer holds; where a cache is kept, that is as it should be.
fn missing(status: &Value, pace: Option<Pace>) -> Option<String> {
    let missing = status["missing_bytes"].as_u64().filter(|n| *n > 0)?;
    let awaited = status["awaited_bytes"].as_u64().filter(|n| *n > 0);
    join([Some(bytes(missing)), awaited.zip(pace).and_then(|(n, pace)| left(n, pace.back))])
}

/// How long `n` bytes will take, where they move at all.
fn left(n: u64, pace: f64) -> Option<String> {
    let seconds = n as f64 / pace;
    let left = Duration::try_from_secs_f64(seconds).ok().filter(|left| left.as_secs() < 100 * 86_400)?;
    Some(format!("{}/s, about {} left", bytes(pace as u64), roughly(left)))
}

fn cache(cache: &Value) -> Option<String> {
    let (used, limit) = (cache["used"].as_u64()?, cache["limit"].as_u64()?);
    let pinned = cache["pinned"].as_u64().filter(|n| *n > 0).map(|n| format!("{} pinned", bytes(n)));
    let percent = 100 * used / limit.max(1);
    join([Some(format!("{} of {} used ({percent}%)", bytes(used), bytes(limit))), pinned])
}

/// What there is of `parts`; `None` if nothing.
fn join<const N: usize>(parts: [Option<String>; N]) -> Option<String> {
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn lines(status: &Value, pace: Option<Pace>) -> Vec<String> {
        let plain = |line: String| anstream::adapter::strip_str(&line).to_string();
        shown(status, pace).into_iter().map(plain).collect()
    }

    #[test]
    fn a_listing_says_the_state_first_and_what_is_there() {
        let status = json!({
            "mount": "/mnt/shared", "store": "/mnt/shared", "replica": "00ab",
            "peer": {"address": "hostb:7377", "replica": "00cd", "connected": true, "rtt_ms": 0.31, "clock_skew_ms": -12},
            "files": 3001, "bytes": 1_073_741_824u64, "pending_files": 1, "pending_bytes": 30_000_000, "missing_bytes": 0,
            "conflicts": 2, "paused": null, "ignored": 0, "left_alone": 0, "trash": {"entries": 3, "bytes": 4096}, "sent_bytes": 500,
            "received_bytes": 1500, "saved_bytes": 2000, "bwlimit": 512_000, "cache": {"limit": 1000, "used": 500, "pinned": 100},
        });
        assert_eq!(
            lines(&status, Some(Pace { out: 1_000_000.0, back: 0.0 })),
            [
                "state      syncing",
                "mount      /mnt/shared",
                "peer       hostb:7377, round trip 0.3 ms, clock -12 ms",
                "content    3,001 files, 1.07 GB",
                "pending    1 file, 30.0 MB, 1.00 MB/s, about 30 s left",
                "conflicts  2 conflict copies wait for you: syncfs conflicts",
                "trash      3 files, 4.10 kB",
                "wire       500 bytes sent, 1.50 kB received, 2.00 kB saved by compression",
                "limit      512 kB a second are sent at most",
                "cache      500 bytes of 1.00 kB used (50%), 100 bytes pinned",
            ]
        );
        assert!(shown(&status, None)[0].contains("\x1b["), "a colour, where somebody sees it");
    }

    #[test]
    fn the_state_is_what_matters_most() {
        let word = |status: Value| state(&status).unwrap().0;
        let peer = json!({"connected": true});
        assert_eq!(word(json!({"peer": peer, "pending_files": 0, "conflicts": 0, "paused": null})), "level");
        assert_eq!(word(json!({"peer": peer, "conflicts": 1})), "conflicts");
        assert_eq!(word(json!({"peer": peer, "conflicts": 1, "awaited_bytes": 5})), "syncing");
        assert_eq!(word(json!({"peer": {"connected": false}, "pending_files": 1})), "offline");
        assert_eq!(word(json!({"peer": {"connected": false}, "paused": 150})), "paused");
    }

    #[test]
    fn a_lost_peer_is_shown_with_the_reason() {
        let peer = json!({"connected": false, "last_error": "connection refused", "rtt_ms": null});
        assert_eq!(connection(&peer).unwrap(), "not connected: connection refused");
        assert!(shown(&json!({}), None).is_empty());
    }

    #[test]
    fn a_clock_that_is_off_is_told_in_words() {
        let told = [-12, 999, 3 * 86_400_000, -90_000].map(clock);
        let days = "its clock is 3 days ahead of this one";
        assert_eq!(told, ["clock -12 ms", "clock +999 ms", days, "its clock is 2 min behind this one"]);
    }

    #[test]
    fn what_does_not_move_has_no_time_left() {
        assert_eq!(left(1000, 0.0), None);
        assert_eq!(left(1000, 0.00001), None);
        assert_eq!(left(90_000, 1000.0).unwrap(), "1.00 kB/s, about 2 min left");
    }

    #[test]
    fn a_pace_is_what_the_wire_carried_meanwhile() {
        let at = |sent, received| json!({"sent_bytes": sent, "received_bytes": received});
        let pace = Pace::between(&at(1000, 0), &at(2000, 10), Duration::from_millis(500));
        assert_eq!(pace, Some(Pace { out: 2000.0, back: 20.0 }));
        // A daemon that began anew counts from nothing.
        assert_eq!(Pace::between(&at(1000, 0), &at(0, 0), Duration::from_secs(1)), None);
    }
}
