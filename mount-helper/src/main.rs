//! mount.syncfs: what mount(8) and /etc/fstab call.
//!
//!     mount.syncfs SOURCE DIR [-fnsv] [-N NAMESPACE] [-t TYPE] [-o OPTION,...]
//!
//! It is built as `mount-syncfs`, for a crate can't be named with a dot, and installed as
//! /usr/sbin/mount.syncfs. SOURCE is the peer. Becomes `syncfs mount DIR --peer SOURCE -o OPTION,...`.
//!
//! Invariants: decides nothing that `syncfs` can decide; needs no PATH, no HOME and nothing but std,
//! for mount(8) may run it early at boot and with an empty environment.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// mount(8)'s code for wrong usage or permissions.
const USAGE: u8 = 1;
/// mount(8)'s code for a system error.
const SYSTEM: u8 = 2;
/// Where `syncfs` lies if not beside this program.
const PLACES: [&str; 2] = ["/usr/bin/syncfs", "/usr/local/bin/syncfs"];
/// Where `syncfs` finds fusermount3 when the environment names no place.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What mount(8) asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Request {
    source: OsString,
    dir: OsString,
    options: Vec<OsString>,
    /// Only say whether it could be done (`-f`).
    fake: bool,
    verbose: bool,
}

fn main() -> ExitCode {
    let request = match parse(std::env::args_os().skip(1)) {
        Ok(request) => request,
        Err(message) => {
            eprintln!("mount.syncfs: {message}\nusage: mount.syncfs PEER DIR [-fnsv] [-o OPTION,...]");
            return ExitCode::from(USAGE);
        }
    };
    if request.fake {
        return ExitCode::SUCCESS;
    }
    let Some(program) = syncfs() else {
        eprintln!("mount.syncfs: there is no syncfs beside this program, nor at {}", PLACES.join(" or "));
        return ExitCode::from(SYSTEM);
    };
    let mut command = Command::new(&program);
    command.args(words(&request));
    if std::env::var_os("PATH").is_none() {
        command.env("PATH", PATH);
    }
    if request.verbose {
        eprintln!("mount.syncfs: {command:?}");
    }
    let error = command.exec();
    eprintln!("mount.syncfs: can't run {}: {error}", program.display());
    ExitCode::from(SYSTEM)
}

/// The arguments of `syncfs`. Nothing of them can be taken for another one.
fn words(request: &Request) -> Vec<OsString> {
    let mut peer = OsString::from("--peer=");
    peer.push(&request.source);
    let mut words = vec!["mount".into(), peer];
    for options in &request.options {
        words.extend(["-o".into(), options.clone()]);
    }
    words.extend(["--".into(), request.dir.clone()]);
    words
}

fn syncfs() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|me| Some(me.parent()?.join("syncfs")));
    beside.into_iter().chain(PLACES.map(PathBuf::from)).find(|path| path.is_file())
}

fn parse(words: impl Iterator<Item = OsString>) -> Result<Request, String> {
    let mut request = Request::default();
    let mut plain = Vec::new();
    let mut words = words;
    let mut only_plain = false;
    while let Some(word) = words.next() {
        let flags = match word.as_bytes() {
            b"--" if !only_plain => {
                only_plain = true;
                continue;
            }
            [b'-', flags @ ..] if !only_plain && !flags.is_empty() => flags,
            _ => {
                plain.push(word);
                continue;
            }
        };
        for (i, flag) in flags.iter().enumerate() {
            match flag {
                b'f' => request.fake = true,
                b'v' => request.verbose = true,
                // No /etc/mtab, and sloppy options are for syncfs to judge.
                b'n' | b's' => {}
                b'o' | b't' | b'N' => {
                    let rest = &flags[i + 1..];
                    let value = match rest {
                        [] => words.next().ok_or(format!("-{} needs a value", *flag as char))?,
                        _ => OsStr::from_bytes(rest).to_owned(),
                    };
                    match flag {
                        b'o' => request.options.push(value),
                        b'N' => return Err("mounting in another namespace is not supported".to_owned()),
                        _ => {}
                    }
                    break;
                }
                _ => return Err(format!("-{} is not known", *flag as char)),
            }
        }
    }
    match <[OsString; 2]>::try_from(plain) {
        Ok([source, dir]) => Ok(Request { source, dir, ..request }),
        Err(_) => Err("a peer and a directory are needed".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Request, String> {
        parse(line.split(' ').map(OsString::from))
    }

    fn line(request: &Request) -> String {
        words(request).join(OsStr::new(" ")).into_string().unwrap()
    }

    #[test]
    fn what_mount_says_becomes_what_syncfs_reads() {
        let request = parsed("hostb /mnt/shared -sn -o rw,noatime -v -t fuse.syncfs").unwrap();
        assert!(request.verbose && !request.fake);
        assert_eq!(line(&request), "mount --peer=hostb -o rw,noatime -- /mnt/shared");
    }

    #[test]
    fn options_may_stick_or_stand_apart_and_come_first() {
        assert_eq!(line(&parsed("-oro -- hostb:99 -dir").unwrap()), "mount --peer=hostb:99 -o ro -- -dir");
        assert!(parsed("-f a b").unwrap().fake);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in ["hostb", "a b c", "a b -o", "a b -x", "a b -N 5"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
