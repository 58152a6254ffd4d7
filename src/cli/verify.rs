//! `syncfs verify`: compares both sides from their disks, and with `--repair` makes them the same.

use super::args;
use super::bar::Bar;
use super::client::{self, AT_ONCE, Client};
use super::exit::{Exit, Failure, Outcome, complain, say};
use super::units::{bytes, many};
use crate::api::lists::RANGES;
use crate::api::request::Request;
use crate::model::limits::GROUP_BYTES;
use serde_json::{Value, json};

pub fn run(args: args::Verify) -> Outcome {
    let mut client = client::find(args.dir.as_deref())?;
    let run = client.ask(&Request::post("/verify").with("repair", args.repair), Some(AT_ONCE))?;
    let report = report(&mut client, &run["run"])?;
    match args.json {
        true => say(format_args!("{report:#}")),
        false => listing(&report, args.repair).iter().for_each(say),
    }
    let exit = exit(&report);
    if args.repair && report["same"] != true {
        // What was mended has yet to cross.
        client.ask(&Request::post("/flush"), None)?;
    }
    if exit == Exit::Conflicts {
        complain(&"both versions are kept, and conflict copies wait for you: syncfs conflicts");
    }
    Ok(exit)
}

/// Waits for the outcome; all of it.
fn report(client: &mut Client, run: &Value) -> Result<Value, Failure> {
    let mut bar = Bar::new();
    let asked = Request::get(format!("/verify/{run}"));
    loop {
        let mut told = client.ask(&asked, Some(AT_ONCE)).inspect_err(|_| bar.clear())?;
        if told["done"] != true {
            bar.show(told["read"].as_u64().unwrap_or(0), told["bytes"].as_u64().unwrap_or(0));
            continue;
        }
        bar.clear();
        let differences = told["differences"].take();
        let same = differences.as_array().is_some_and(Vec::is_empty);
        let (files, bytes) = (told["files"].take(), told["bytes"].take());
        return Ok(json!({"same": same, "files": files, "bytes": bytes, "differences": differences}));
    }
}

fn exit(report: &Value) -> Exit {
    let differences = report["differences"].as_array().map_or(&[][..], Vec::as_slice);
    match differences.iter().all(|differs| differs["repaired"] == true) {
        false => Exit::Other,
        true if differences.iter().any(|differs| differs["conflict_copy"] == true) => Exit::Conflicts,
        true => Exit::Ok,
    }
}

fn listing(report: &Value, repair: bool) -> Vec<String> {
    let number = |key: &str| report[key].as_u64().unwrap_or(0);
    let differences = report["differences"].as_array().map_or(&[][..], Vec::as_slice);
    if differences.is_empty() {
        let (files, size) = (many(number("files"), "file"), number("bytes"));
        return vec![format!("both sides hold the same {files}, {}", bytes(size))];
    }
    let line = |differs: &Value| {
        let name = differs["name"].as_str().unwrap_or("?");
        let mended = match (repair, differs["repaired"] == true, differs["conflict_copy"] == true) {
            (false, ..) => "",
            (true, true, true) => "; repaired, both versions are kept",
            (true, true, false) => "; repaired",
            (true, false, _) => "; not repaired",
        };
        format!("{name}: {}{mended}", how(differs))
    };
    let mut lines: Vec<String> = differences.iter().map(line).collect();
    let (differ, files) = (many(differences.len() as u64, "file"), many(number("files"), "file"));
    let s = if differences.len() == 1 { "s" } else { "" };
    lines.push(format!("{differ} differ{s}; this side has {files}, {}", bytes(number("bytes"))));
    lines
}

/// How a file differs, and where that helps what to do about it.
fn how(differs: &Value) -> String {
    match differs["what"].as_str().unwrap_or("?") {
        "content" => format!("content differs in {}", groups(differs)),
        "attributes" => "attributes differ (mode, time, owner or user.*)".into(),
        "only-here" => "only here".into(),
        "only-there" => "only on the peer".into(),
        "changing" => "is being changed, or mapped by a program; verify again when it rests".into(),
        "not-held-here" => "not wholly held here, so not compared".into(),
        "not-held-there" => "not wholly held on the peer, so not compared".into(),
        "unreadable-here" => "can't be read from the disk here; the log says why. If it is gone from \
            the store, it comes back from the peer when this side is mounted anew"
            .into(),
        "unreadable-there" => "can't be read from the disk of the peer; its log says why".into(),
        other => other.to_owned(),
    }
}

/// Chunk groups as ranges, and the bytes that they are.
fn groups(differs: &Value) -> String {
    let ranges = differs["groups"].as_array().map_or(&[][..], Vec::as_slice);
    let range = |range: &Value| {
        let (first, last) = (range[0].as_u64().unwrap_or(0), range[1].as_u64().unwrap_or(0));
        let (from, to) = (first * GROUP_BYTES, last.saturating_add(1).saturating_mul(GROUP_BYTES) - 1);
        match first == last {
            true => format!("group {first} (bytes {from}-{to})"),
            false => format!("groups {first}-{last} (bytes {from}-{to})"),
        }
    };
    let told: Vec<String> = ranges.iter().map(range).collect();
    let more = if told.len() == RANGES { ", ..." } else { "" };
    format!("{}{more}", told.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::lists::told;
    use crate::engine::verifying::Differs;
    use crate::model::chunk::ChunkSet;
    use crate::model::name::Name;
    use crate::model::verify::Difference;

    fn differs(name: &str, how: Difference, repaired: bool, copied: bool) -> Value {
        told(&Differs { name: Name::new(name.as_bytes()).unwrap(), how, repaired, copied })
    }

    fn report(differences: Vec<Value>) -> Value {
        json!({"files": 3001, "bytes": 1_500_000, "differences": differences})
    }

    #[test]
    fn sides_that_are_the_same_get_one_line() {
        let same = report(vec![]);
        assert_eq!(listing(&same, false), ["both sides hold the same 3,001 files, 1.50 MB"]);
        assert_eq!(exit(&same), Exit::Ok);
    }

    #[test]
    fn a_listing_says_which_groups_of_a_content_differ() {
        let content = Difference::Content([0..1, 3..5].into_iter().collect::<ChunkSet>());
        let found = report(vec![
            differs("a", content.clone(), true, true),
            differs("b", Difference::OnlyHere, true, false),
            differs("c", Difference::Changing, false, false),
        ]);
        assert_eq!(
            listing(&found, true),
            [
                "a: content differs in group 0 (bytes 0-499999), groups 3-4 (bytes 1500000-2499999); repaired, both versions are kept",
                "b: only here; repaired",
                "c: is being changed, or mapped by a program; verify again when it rests; not repaired",
                "3 files differ; this side has 3,001 files, 1.50 MB",
            ]
        );
        assert_eq!(exit(&found), Exit::Other);
        assert_eq!(exit(&report(vec![differs("a", content, true, true)])), Exit::Conflicts);
        assert_eq!(exit(&report(vec![differs("a", Difference::Attributes, true, false)])), Exit::Ok);
    }
}
