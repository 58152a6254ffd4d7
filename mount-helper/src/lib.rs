//! What mount(8) says to mount.syncfs, and what that is in the words of `syncfs`.
//!
//! Invariant: whatever mount(8) passes on, what comes out is a `syncfs mount` of that directory with that
//! peer, or is refused.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// What mount(8) asks for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub source: OsString,
    pub dir: OsString,
    pub options: Vec<OsString>,
    /// Only say whether it could be done (`-f`).
    pub fake: bool,
    /// Options that are not known are left out instead of refused (`-s`).
    pub sloppy: bool,
    pub verbose: bool,
}

/// Takes the words of mount(8) apart, the program itself left out. Errors say what is wrong in a few words.
pub fn parse(words: impl Iterator<Item = OsString>) -> Result<Request, String> {
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
                b's' => request.sloppy = true,
                // There is no /etc/mtab.
                b'n' => {}
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
        Ok([source, dir]) => Ok(Request { source, dir: a_path(dir), ..request }),
        Err(_) => Err("a peer and a directory are needed".to_owned()),
    }
}

/// A word without a slash could be the name of a config, and mount(8) means a directory.
fn a_path(dir: OsString) -> OsString {
    match dir.is_empty() || dir.as_bytes().contains(&b'/') {
        true => dir,
        false => OsString::from_iter([OsStr::new("./"), &dir]),
    }
}

/// The arguments of `syncfs`. Nothing of them can be taken for another one.
pub fn words(request: &Request) -> Vec<OsString> {
    let mut peer = OsString::from("--peer=");
    peer.push(&request.source);
    let mut words = vec!["mount".into(), peer];
    for options in &request.options {
        words.extend(["-o".into(), options.clone()]);
    }
    if request.sloppy {
        words.extend(["-o".into(), "sloppy".into()]);
    }
    words.extend(["--".into(), request.dir.clone()]);
    words
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
        assert_eq!(line(&request), "mount --peer=hostb -o rw,noatime -o sloppy -- /mnt/shared");
    }

    #[test]
    fn options_may_stick_or_stand_apart_and_come_first() {
        assert_eq!(line(&parsed("-oro -- hostb:99 -dir").unwrap()), "mount --peer=hostb:99 -o ro -- ./-dir");
        assert!(parsed("-f a b").unwrap().fake);
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        for line in ["hostb", "a b c", "a b -o", "a b -x", "a b -N 5"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }
}
