//! `syncfs conflicts`: which files have conflict copies, and what each version is.
//!
//! Invariant: it looks and changes nothing; what it shows is what lies in the mount now.

use super::args;
use super::client::{self, AT_ONCE};
use super::exit::{Exit, Outcome, say};
use super::units::bytes;
use crate::api::request::Request;
use crate::api::versions::{Contested, Version};
use anyhow::Context;

pub fn run(args: args::Conflicts) -> Outcome {
    let found = client::find(args.dir.as_deref())?.ask(&Request::get("/conflicts"), Some(AT_ONCE))?;
    let found: Vec<Contested> = serde_json::from_value(found).context("the daemon answered nonsense")?;
    match args.json {
        true => say(format_args!("{:#}", serde_json::json!(found))),
        false => listing(&found).iter().for_each(say),
    }
    Ok(if found.is_empty() { Exit::Ok } else { Exit::Conflicts })
}

fn listing(entries: &[Contested]) -> Vec<String> {
    let mut lines = Vec::new();
    for Contested { file, this, copies } in entries {
        lines.push(file.clone());
        match this {
            Some(version) => lines.push(row("has it", version)),
            None => lines.push("  nothing has the name any more".into()),
        }
        let of = |copy: &Version| row(&format!("of {}", copy.side.as_deref().unwrap_or("?")), copy);
        lines.extend(copies.iter().map(of));
    }
    lines.push(match entries.len() {
        0 => "no conflicts".into(),
        _ => "Decide each with: syncfs resolve FILE --keep this|other|both".into(),
    });
    lines
}

fn row(what: &str, version: &Version) -> String {
    let when = jiff::Timestamp::from_second(version.mtime).unwrap_or_default();
    let when = when.strftime("%Y-%m-%d %H:%M:%S UTC");
    format!("  {what:<10}  {when}  {:>11}  {}", bytes(version.size), version.file)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, size: u64, side: Option<&str>) -> Version {
        Version { file: name.into(), size, mtime: 1_700_000_000, side: side.map(str::to_owned) }
    }

    #[test]
    fn a_listing_shows_both_versions_of_each_file() {
        let copy = "notes.sync-conflict-20231114-221320-abcd0000.txt";
        let copies = vec![file(copy, 5, Some("peer"))];
        let entries = [
            Contested { file: "notes.txt".into(), this: Some(file("notes.txt", 1500, None)), copies },
            Contested { file: "gone".into(), this: None, copies: vec![] },
        ];
        assert_eq!(
            listing(&entries),
            [
                "notes.txt",
                "  has it      2023-11-14 22:13:20 UTC      1.50 kB  notes.txt",
                &format!("  of peer     2023-11-14 22:13:20 UTC      5 bytes  {copy}"),
                "gone",
                "  nothing has the name any more",
                "Decide each with: syncfs resolve FILE --keep this|other|both",
            ]
        );
        assert_eq!(listing(&[]), ["no conflicts"]);
    }
}
