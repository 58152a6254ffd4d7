//! The words of mount(8) and of the command line.

use super::script::Script;
use clap::error::Error;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use syncfs::cli::args::{self, Command, Mount};
use syncfs::wire::Peer;
use syncfs_mount_helper::{Request, parse, words};

/// Whose words they are, and the words, with a NUL after each.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let helper = script.coin();
    let said: Vec<OsString> =
        script.rest().split(|b| *b == 0).map(|word| OsStr::from_bytes(word).to_owned()).collect();
    if helper {
        if let Ok(request) = parse(said.into_iter()) {
            passed_on(&request);
        }
    } else if let Ok(Command::Mount(mount)) = command(said) {
        if let Some(peer) = &mount.peer {
            let _ = peer.parse::<Peer>();
        }
        spelled_with_o(&mount);
    }
}

fn command(words: impl IntoIterator<Item = OsString>) -> Result<Command, Error> {
    args::parse(std::iter::once(OsString::from("syncfs")).chain(words).collect())
}

/// What mount(8) asks for becomes a mount of that directory with that peer, or a failure that it sees.
fn passed_on(request: &Request) {
    match command(words(request)) {
        Ok(Command::Mount(mount)) => {
            assert_eq!(mount.dir, request.dir);
            assert_eq!(mount.peer.as_deref().map(OsStr::new), Some(request.source.as_os_str()));
        }
        Ok(other) => panic!("{request:?} became {other:?}"),
        Err(error) => assert_ne!(error.exit_code(), 0, "{request:?} is taken for done: {error}"),
    }
}

/// What can be said with long options means the same said with `-o`.
fn spelled_with_o(mount: &Mount) {
    let Some(peer) = mount.peer.as_ref().filter(|p| !p.contains(',') && p.trim() == *p) else { return };
    let options = format!("-o=peer={peer},read_timeout={},listen={}", mount.read_timeout, mount.listen);
    let again = command(["mount".into(), options.into(), "--".into(), mount.dir.clone().into()]);
    let Ok(Command::Mount(again)) = again else { panic!("{mount:?} became {again:?}") };
    assert_eq!((&again.peer, again.read_timeout), (&mount.peer, mount.read_timeout));
    assert_eq!((again.listen, &again.dir), (mount.listen, &mount.dir));
}
