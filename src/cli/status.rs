//! `syncfs status`: how a share is doing, for people and for programs.
//!
//! Invariant: what a daemon of another version leaves out is left out here, too.

use super::args;
use super::client::{self, AT_ONCE};
use super::exit::{Exit, Outcome, say};
use super::units::{bytes, many};
use crate::api::request::Request;
use serde_json::Value;

pub fn run(args: args::Status) -> Outcome {
    let status = client::find(args.dir.as_deref())?.ask(&Request::get("/status"), Some(AT_ONCE))?;
    match args.json {
        true => say(format_args!("{status:#}")),
        false => listing(&status).iter().for_each(|(what, value)| say(format_args!("{what:<11}{value}"))),
    }
    Ok(Exit::Ok)
}

/// One line for each thing worth knowing.
fn listing(status: &Value) -> Vec<(&'static str, String)> {
    let number = |key: &str| status[key].as_u64();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut lines: Vec<(&'static str, Option<String>)> = vec![
        ("mount", text(&status["mount"])),
        ("store", text(&status["store"])),
        ("replica", text(&status["replica"])),
        ("peer", text(&status["peer"]["address"])),
    ];
    lines.push(("", connection(&status["peer"])));
    lines.push((
        "content",
        number("files").map(|n| join([Some(many(n, "file")), number("bytes").map(bytes)])),
    ));
    lines.push((
        "pending",
        number("pending_files")
            .map(|n| join([Some(many(n, "file")), number("dirty_chunks").map(|n| many(n, "dirty chunk"))])),
    ));
    let direction = text(&status["direction"]).filter(|word| word != "both");
    let kept = number("held_back").map(|n| format!("{} changed here alone", many(n, "file")));
    lines.push(("direction", direction.map(|word| join([Some(word), kept]))));
    lines.push(("interval", number("interval").map(|n| format!("{}; now: syncfs flush", many(n, "second")))));
    lines.push(("missing", number("missing_chunks").map(|n| many(n, "chunk"))));
    lines.push((
        "conflicts",
        number("conflicts").map(|n| many(n, "conflict copy").replace("copys", "copies")),
    ));
    let left_alone = number("left_alone").filter(|n| *n > 0);
    lines.push(("left alone", left_alone.map(|n| many(n, "entry").replace("entrys", "entries"))));
    let missing = number("missing_at_mount").filter(|n| *n > 0);
    let missing =
        missing.map(|n| format!("{} at the mount, removed meanwhile; back from the peer", many(n, "file")));
    lines.push(("missed", missing));
    let paused = number("paused")
        .map(|n| format!("{} of the peer wait; let them pass: syncfs resume", many(n, "delete")));
    lines.push(("paused", paused));
    let trash = &status["trash"];
    let thrown = trash["entries"].as_u64().filter(|n| *n > 0);
    lines.push(("trash", thrown.map(|n| join([Some(many(n, "file")), trash["bytes"].as_u64().map(bytes)]))));
    lines.push((
        "wire",
        number("sent_bytes").map(|n| {
            let received = number("received_bytes").map(|n| format!("{} received", bytes(n)));
            let saved = number("saved_bytes").filter(|n| *n > 0);
            let saved = saved.map(|n| format!("{} saved by compression", bytes(n)));
            join([Some(format!("{} sent", bytes(n))), received, saved])
        }),
    ));
    lines.push(("limit", number("bwlimit").map(|n| format!("{} a second are sent at most", bytes(n)))));
    lines.push(("cache", cache(&status["cache"])));
    lines.into_iter().filter_map(|(what, value)| Some((what, value?))).collect()
}

fn connection(peer: &Value) -> Option<String> {
    let state = match peer["connected"].as_bool()? {
        true => "connected".to_owned(),
        false => match peer["last_error"].as_str() {
            Some(error) => format!("not connected: {error}"),
            None => "not connected".to_owned(),
        },
    };
    Some(join([
        Some(state),
        peer["replica"].as_str().map(|id| format!("replica {id}")),
        peer["rtt_ms"].as_f64().map(|ms| format!("round trip {ms:.1} ms")),
        peer["clock_skew_ms"].as_f64().map(|ms| format!("clock {ms:+.0} ms")),
    ]))
}

fn cache(cache: &Value) -> Option<String> {
    let used = bytes(cache["used"].as_u64()?);
    Some(format!("{used} of {}", bytes(cache["limit"].as_u64()?)))
}

fn join<const N: usize>(parts: [Option<String>; N]) -> String {
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_listing_says_what_is_there() {
        let status = json!({
            "mount": "/mnt/shared", "store": "/mnt/shared", "replica": "00ab",
            "peer": {"address": "hostb:7377", "replica": "00cd", "connected": true, "rtt_ms": 0.31, "clock_skew_ms": -12},
            "files": 3001, "bytes": 1_073_741_824u64, "pending_files": 1, "dirty_chunks": 2, "missing_chunks": 0,
            "conflicts": 2, "paused": 150, "left_alone": 0, "trash": {"entries": 3, "bytes": 4096}, "sent_bytes": 500, "received_bytes": 1500, "saved_bytes": 2000, "bwlimit": 512_000,
            "cache": {"limit": null, "used": 5},
        });
        let lines: Vec<String> = listing(&status).iter().map(|(k, v)| format!("{k:<11}{v}")).collect();
        assert_eq!(
            lines,
            [
                "mount      /mnt/shared",
                "store      /mnt/shared",
                "replica    00ab",
                "peer       hostb:7377",
                "           connected, replica 00cd, round trip 0.3 ms, clock -12 ms",
                "content    3,001 files, 1.07 GB",
                "pending    1 file, 2 dirty chunks",
                "missing    0 chunks",
                "conflicts  2 conflict copies",
                "paused     150 deletes of the peer wait; let them pass: syncfs resume",
                "trash      3 files, 4.10 kB",
                "wire       500 bytes sent, 1.50 kB received, 2.00 kB saved by compression",
                "limit      512 kB a second are sent at most",
            ]
        );
    }

    #[test]
    fn a_lost_peer_is_shown_with_the_reason() {
        let peer = json!({"connected": false, "last_error": "connection refused", "rtt_ms": null});
        assert_eq!(connection(&peer).unwrap(), "not connected: connection refused");
        assert!(listing(&json!({})).is_empty());
    }
}
