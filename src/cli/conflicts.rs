//! `syncfs conflicts`: which files have conflict copies, and what each version is.
//!
//! Invariant: it looks and changes nothing; what it shows is what lies in the mount now.

use super::args;
use super::client::{self, AT_ONCE};
use super::exit::{Exit, Failure, Outcome, say};
use super::protocol::Request;
use super::units::bytes;
use crate::model::conflict::{Conflict, conflict};
use crate::model::name::Name;
use anyhow::Context;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// One file of which there is more than one version.
#[derive(Serialize)]
struct Entry {
    file: String,
    /// `null` where nothing has the name any more.
    this: Option<Version>,
    copies: Vec<Version>,
}

#[derive(Serialize)]
struct Version {
    file: String,
    /// Bytes.
    size: u64,
    /// Seconds since 1970.
    mtime: i64,
    /// Whose version a copy was: `here`, `peer`, or the first digits of another replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    side: Option<String>,
}

pub fn run(args: args::Conflicts) -> Outcome {
    let status = client::find(args.dir.as_deref())?.ask(&Request::Status, Some(AT_ONCE))?;
    let dir =
        PathBuf::from(status["mount"].as_str().ok_or_else(|| Failure::other("the daemon names no mount"))?);
    let entries: Vec<Entry> = find(&dir)?
        .into_iter()
        .map(|(original, copies)| Entry {
            file: original.to_string(),
            this: version(&dir, &original, None),
            copies: copies
                .iter()
                .filter_map(|(copy, told)| version(&dir, copy, Some(side(&told.replica, &status))))
                .collect(),
        })
        .filter(|entry| !entry.copies.is_empty())
        .collect();
    if args.json {
        say(format_args!("{:#}", serde_json::json!(entries)));
    } else {
        listing(&entries).iter().for_each(say);
    }
    Ok(if entries.is_empty() { Exit::Ok } else { Exit::Conflicts })
}

/// The conflict copies in `dir`, by the names they lost.
pub fn find(dir: &Path) -> Result<BTreeMap<Name, Vec<(Name, Conflict)>>, Failure> {
    let mut found: BTreeMap<Name, Vec<(Name, Conflict)>> = BTreeMap::new();
    let failed = || format!("can't read {}", dir.display());
    for entry in std::fs::read_dir(dir).with_context(failed)? {
        let name = entry.with_context(failed)?.file_name();
        let Ok(name) = Name::new(name.as_bytes()) else { continue };
        if let Some(told) = conflict(&name) {
            found.entry(told.original.clone()).or_default().push((name, told));
        }
    }
    found.values_mut().for_each(|copies| copies.sort_by(|a, b| a.0.cmp(&b.0)));
    Ok(found)
}

/// `None` where it has gone since.
fn version(dir: &Path, name: &Name, side: Option<String>) -> Option<Version> {
    let meta = dir.join(name.as_os_str()).symlink_metadata().ok()?;
    Some(Version { file: name.to_string(), size: meta.len(), mtime: meta.mtime(), side })
}

fn side(replica: &str, status: &Value) -> String {
    let is = |id: &Value| id.as_str().is_some_and(|id| id.starts_with(replica));
    match () {
        () if is(&status["replica"]) => "here".into(),
        () if is(&status["peer"]["replica"]) => "peer".into(),
        () => replica.to_owned(),
    }
}

fn listing(entries: &[Entry]) -> Vec<String> {
    let mut lines = Vec::new();
    for Entry { file, this, copies } in entries {
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
            Entry { file: "notes.txt".into(), this: Some(file("notes.txt", 1500, None)), copies },
            Entry { file: "gone".into(), this: None, copies: vec![] },
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

    #[test]
    fn a_version_is_of_whom_its_name_says() {
        let status = serde_json::json!({"replica": "abcd0000ff", "peer": {"replica": "12345678ee"}});
        assert_eq!(
            [side("abcd0000", &status), side("12345678", &status), side("99999999", &status)],
            ["here", "peer", "99999999"]
        );
    }
}
