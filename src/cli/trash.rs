//! `syncfs trash`: what the peer deleted or wrote over, and how it comes back.

use super::args::{self, TrashCommand};
use super::client::{self, AT_ONCE};
use super::exit::{Exit, Outcome, say};
use super::units::bytes;
use crate::api::request::Request;
use serde_json::Value;
use std::time::Duration;

/// How long a large file may take to be copied out of the trash.
const COPY: Duration = Duration::from_secs(3600);

pub fn run(args: args::Trash) -> Outcome {
    match args.command {
        TrashCommand::List(args) => list(&args),
        TrashCommand::Restore(args) => restore(args),
    }
}

fn list(args: &args::TrashList) -> Outcome {
    let entries = client::find(args.dir.as_deref())?.ask(&Request::get("/trash"), Some(AT_ONCE))?;
    match args.json {
        true => say(format_args!("{entries:#}")),
        false => listing(entries.as_array().map_or(&[], Vec::as_slice)).iter().for_each(say),
    }
    Ok(Exit::Ok)
}

fn restore(args: args::Restore) -> Outcome {
    let request = Request::post("/trash/restore").with("what", args.what).with_some("as", args.to);
    let restored = client::find(args.dir.as_deref())?.ask(&request, Some(COPY))?;
    let text = |key: &str| restored[key].as_str().unwrap_or("?").to_owned();
    say(format_args!("{} is back as {}", text("entry"), text("name")));
    Ok(Exit::Ok)
}

fn listing(entries: &[Value]) -> Vec<String> {
    if entries.is_empty() {
        return vec!["the trash is empty".into()];
    }
    let row = |entry: &Value| {
        let when = jiff::Timestamp::from_second(entry["deleted"].as_i64().unwrap_or(0)).unwrap_or_default();
        let when = when.strftime("%Y-%m-%d %H:%M:%S UTC");
        let text = |key: &str| entry[key].as_str().unwrap_or("?").to_owned();
        let size = bytes(entry["size"].as_u64().unwrap_or(0));
        format!("{when}  {size:>11}  {}\n    {}", text("name"), text("entry"))
    };
    let mut lines: Vec<String> = entries.iter().map(row).collect();
    lines.push("Bring one back with: syncfs trash restore ENTRY|NAME".into());
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_listing_says_when_each_file_went_and_what_it_was() {
        let entry = "20231114-221320-abcd2f-notes.txt";
        let entries = [json!({"entry": entry, "name": "notes.txt", "size": 1500, "deleted": 1_700_000_000})];
        assert_eq!(
            listing(&entries),
            [
                "2023-11-14 22:13:20 UTC      1.50 kB  notes.txt\n    20231114-221320-abcd2f-notes.txt",
                "Bring one back with: syncfs trash restore ENTRY|NAME",
            ]
        );
        assert_eq!(listing(&[]), ["the trash is empty"]);
    }
}
