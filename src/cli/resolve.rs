//! `syncfs resolve`: which version of a file in conflict keeps the name.
//!
//! Invariant: it works through the mount, as any program would, so what it does is shared and logged; nothing is ever
//! written over but the version that was told to go.

use super::args::{self, Keep};
use super::client;
use super::conflicts;
use super::exit::{Exit, Failure, Outcome, say};
use crate::model::conflict::{Conflict, conflict};
use crate::model::name::Name;
use anyhow::Context;
use rustix::fs::{CWD, RenameFlags, renameat_with};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

pub fn run(args: args::Resolve) -> Outcome {
    let shown = args.file.display();
    let (dir, name) = locate(&args.file)?;
    if dir.join(name.as_os_str()).symlink_metadata().is_err() {
        return Err(Failure::other(format_args!("{shown}: no such file")));
    }
    match conflict(&name) {
        Some(told) => decide(&dir, &name, &told, opposite(args.keep))?,
        None => {
            let copies = conflicts::find(&dir)?.remove(&name).unwrap_or_default();
            if copies.is_empty() {
                return Err(Failure::other(format_args!(
                    "{shown} has no conflict copy; `syncfs conflicts` lists those that have"
                )));
            }
            if args.keep == Keep::Other && copies.len() > 1 {
                let names: Vec<String> = copies.iter().map(|(copy, _)| copy.to_string()).collect();
                let message = format!(
                    "{shown} has several other versions; say which one with --keep this and one of\n  {}",
                    names.join("\n  ")
                );
                return Err(Failure::new(Exit::Usage, message));
            }
            copies.iter().try_for_each(|(copy, told)| decide(&dir, copy, told, args.keep))?;
        }
    }
    Ok(Exit::Ok)
}

/// What keeping this or the other version means for the file itself, where the copy was named.
fn opposite(keep: Keep) -> Keep {
    match keep {
        Keep::This => Keep::Other,
        Keep::Other => Keep::This,
        Keep::Both => Keep::Both,
    }
}

/// The mount that a file lies in, and its name there.
pub(super) fn locate(file: &Path) -> Result<(PathBuf, Name), Failure> {
    let shown = file.display();
    let absolute = std::path::absolute(file).with_context(|| format!("can't find {shown}"))?;
    let dir = absolute
        .parent()
        .map(Path::canonicalize)
        .transpose()
        .with_context(|| format!("can't find {shown}"))?;
    let name = absolute.file_name().and_then(|name| Name::new(name.as_bytes()).ok());
    match dir.zip(name) {
        Some((dir, name)) if client::is_mounted(&dir)? => Ok((dir, name)),
        _ => Err(Failure::other(format_args!("{shown} does not lie in a mounted share"))),
    }
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

/// Of `original` and its conflict copy `copy`, keeps the first, the other or both.
fn decide(dir: &Path, copy: &Name, told: &Conflict, keep: Keep) -> Result<(), Failure> {
    let original = &told.original;
    let (this, other) = (dir.join(original.as_os_str()), dir.join(copy.as_os_str()));
    match keep {
        Keep::This => {
            // The copy may be all there is: then nothing would be kept.
            this.symlink_metadata().with_context(|| format!("{original} is not there, so {copy} stays"))?;
            std::fs::remove_file(&other).with_context(|| format!("can't remove {copy}"))?;
            say(format_args!("removed {copy}"));
        }
        Keep::Other => {
            std::fs::rename(&other, &this).with_context(|| format!("can't rename {copy}"))?;
            say(format_args!("{copy} is {original} now"));
        }
        Keep::Both => {
            let name = set_apart(dir, &other, told).with_context(|| format!("can't rename {copy}"))?;
            say(format_args!("{copy} is {name} now, and no conflict copy any more"));
        }
    }
    Ok(())
}
