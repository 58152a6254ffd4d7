//! mount.syncfs: what mount(8) and /etc/fstab call.
//!
//!     mount.syncfs SOURCE DIR [-fnsv] [-N NAMESPACE] [-t TYPE] [-o OPTION,...]
//!
//! It is built as `mount-syncfs`, for a crate can't be named with a dot, and installed as /usr/sbin/mount.syncfs, and as
//! mount.fuse.syncfs beside it, which is what mount(8) calls for what is mounted: the kernel knows it as fuse.syncfs. SOURCE
//! is the peer. Becomes `syncfs mount DIR --peer SOURCE -o OPTION,...`.
//!
//! Invariants: decides nothing that `syncfs` can decide; needs no PATH, no HOME and nothing but std,
//! for mount(8) may run it early at boot and with an empty environment.

use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitCode};
use syncfs_mount_helper::{parse, words};

/// mount(8)'s code for wrong usage or permissions.
const USAGE: u8 = 1;
/// mount(8)'s code for a system error.
const SYSTEM: u8 = 2;
/// Where `syncfs` lies if not beside this program.
const PLACES: [&str; 2] = ["/usr/bin/syncfs", "/usr/local/bin/syncfs"];
/// Where `syncfs` finds fusermount3 when the environment names no place.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

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

fn syncfs() -> Option<PathBuf> {
    let beside = std::env::current_exe().ok().and_then(|me| Some(me.parent()?.join("syncfs")));
    beside.into_iter().chain(PLACES.map(PathBuf::from)).find(|path| path.is_file())
}
