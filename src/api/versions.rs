//! Files in conflict: which there are, what each version is, and which one keeps the name.
//!
//! Invariants: it works through the mount, as any program would, so what it does is shared and logged; nothing is ever
//! written over but the version that was told to go.

use super::answer::{Answer, Refusal, json, list};
use super::failure::{Exit, Failure};
use super::share::Share;
use crate::fs::mount;
use crate::model::conflict::{Conflict, conflict};
use crate::model::name::Name;
use anyhow::Context;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::str::FromStr;

/// One file of which there is more than one version.
#[derive(Debug, Serialize, Deserialize)]
pub struct Contested {
    pub file: String,
    /// `null` where nothing has the name any more.
    pub this: Option<Version>,
    pub copies: Vec<Version>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Version {
    pub file: String,
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970.
    pub mtime: i64,
    /// Whose version a copy was: `here`, `peer`, or the first digits of another replica.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub side: Option<String>,
}

/// Which version keeps a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    This,
    Other,
    Both,
}

impl FromStr for Keep {
    type Err = ();

    fn from_str(word: &str) -> Result<Keep, ()> {
        match word {
            "this" => Ok(Keep::This),
            "other" => Ok(Keep::Other),
            "both" => Ok(Keep::Both),
            _ => Err(()),
        }
    }
}

/// What became of a conflict copy.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decided {
    pub copy: String,
    /// Its name now; `null` where it was removed.
    pub became: Option<String>,
}

/// Conflict copies of one file.
type Copies = Vec<(Name, Conflict)>;

impl Share {
    pub(super) async fn conflicts(&self) -> Answer {
        let found = self.on_host(|host| host.conflict_copies()).await?;
        let (ours, theirs) = self.host.replicas();
        let mount = self.mount.clone();
        let contested = move |(original, copies): (Name, Copies)| {
            let side = |told: &Conflict| side(&told.replica, &ours, theirs.as_deref());
            let copies = copies.iter().filter_map(|(copy, told)| version(&mount, copy, Some(side(told))));
            let copies: Vec<Version> = copies.collect();
            let this = version(&mount, &original, None);
            (!copies.is_empty()).then(|| Contested { file: original.to_string(), this, copies })
        };
        Ok(list(String::new(), found.into_iter().filter_map(contested), ""))
    }

    pub(super) async fn resolve(&self, file: String, keep: Keep) -> Answer {
        let mount = self.mount.clone();
        let decided = self.on_host(move |host| {
            let name = Name::new(file.as_bytes());
            let name = name.map_err(|e| Refusal::usage(format_args!("{file:?}: {e}")))?;
            // Where nothing is mounted any more, the raw directory lies.
            if !mount::is_mounted(&mount).map_err(Failure::other)? {
                return Err(Failure::other("the share is being unmounted").into());
            }
            let copies = |name: &Name| host.conflict_copies().remove(name).unwrap_or_default();
            resolve(&mount, &name, copies, keep)
        });
        json(&decided.await??)
    }
}

/// `None` where it has gone since.
fn version(dir: &Path, name: &Name, side: Option<String>) -> Option<Version> {
    let meta = dir.join(name.as_os_str()).symlink_metadata().ok()?;
    Some(Version { file: name.to_string(), size: meta.len(), mtime: meta.mtime(), side })
}

fn side(replica: &str, ours: &str, theirs: Option<&str>) -> String {
    match () {
        () if ours.starts_with(replica) => "here".into(),
        () if theirs.is_some_and(|theirs| theirs.starts_with(replica)) => "peer".into(),
        () => replica.to_owned(),
    }
}

/// Decides for the file `name`, or for the one conflict copy that has it.
fn resolve(
    dir: &Path,
    name: &Name,
    copies: impl Fn(&Name) -> Copies,
    keep: Keep,
) -> Result<Vec<Decided>, Refusal> {
    if dir.join(name.as_os_str()).symlink_metadata().is_err() {
        return Err(Refusal::missing(format_args!("{name}: no such file")));
    }
    if let Some(told) = conflict(name) {
        return Ok(vec![decide(dir, name, &told, opposite(keep))?]);
    }
    let copies = copies(name);
    if copies.is_empty() {
        return Err(Refusal::missing(format_args!(
            "{name} has no conflict copy; `syncfs conflicts` lists those that have"
        )));
    }
    if keep == Keep::Other && copies.len() > 1 {
        let names: Vec<String> = copies.iter().map(|(copy, _)| copy.to_string()).collect();
        let message = format!(
            "{name} has several other versions; say which one with --keep this and one of\n  {}",
            names.join("\n  ")
        );
        return Err(Failure::new(Exit::Usage, message).into());
    }
    copies.iter().map(|(copy, told)| Ok(decide(dir, copy, told, keep)?)).collect()
}

/// What keeping this or the other version means for the file itself, where the copy was named.
fn opposite(keep: Keep) -> Keep {
    match keep {
        Keep::This => Keep::Other,
        Keep::Other => Keep::This,
        Keep::Both => Keep::Both,
    }
}

/// Of a file and its conflict copy `copy`, keeps the first, the other or both.
fn decide(dir: &Path, copy: &Name, told: &Conflict, keep: Keep) -> Result<Decided, Failure> {
    let original = &told.original;
    let (this, other) = (dir.join(original.as_os_str()), dir.join(copy.as_os_str()));
    let became = match keep {
        Keep::This => {
            // The copy may be all there is: then nothing would be kept.
            this.symlink_metadata().with_context(|| format!("{original} is not there, so {copy} stays"))?;
            std::fs::remove_file(&other).with_context(|| format!("can't remove {copy}"))?;
            None
        }
        Keep::Other => {
            std::fs::rename(&other, &this).with_context(|| format!("can't rename {copy}"))?;
            Some(original.to_string())
        }
        Keep::Both => {
            let name = set_apart(dir, &other, told).with_context(|| format!("can't rename {copy}"))?;
            Some(name.to_string())
        }
    };
    Ok(Decided { copy: copy.to_string(), became })
}

/// Gives a conflict copy the first of its plain names that is free.
fn set_apart(dir: &Path, copy: &Path, told: &Conflict) -> rustix::io::Result<Name> {
    for name in told.plain_names() {
        match renameat_with(CWD, copy, CWD, dir.join(name.as_os_str()), RenameFlags::NOREPLACE) {
            Err(rustix::io::Errno::EXIST) => {}
            done => return done.map(|()| name),
        }
    }
    Err(rustix::io::Errno::NAMETOOLONG)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_of_whom_its_name_says() {
        let side = |replica| side(replica, "abcd0000ff", Some("12345678ee"));
        assert_eq!([side("abcd0000"), side("12345678"), side("99999999")], ["here", "peer", "99999999"]);
    }
}
