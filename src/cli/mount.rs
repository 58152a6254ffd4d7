//! `syncfs mount`: checks what can be checked, then becomes the daemon or starts it.
//!
//! Invariant: nothing is refused later that could have been refused here, on the terminal.

use super::args;
use super::background;
use super::client::{self, Client};
use super::config;
use super::daemon::{self, Plan};
use super::exit::{Exit, Failure, Outcome, complain, say};
use super::log;
use super::manager::Manager;
use super::place::{self, Places};
use crate::api::request::Request;
use crate::engine;
use crate::fs::adapter::Owner;
use crate::fs::mount;
use crate::model::limits::CACHE_BYTES;
use crate::wire::Peer;
use crate::wire::key::Key;
use anyhow::Context;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the daemon that served the directory before may take to end.
const PREDECESSOR: Duration = Duration::from_secs(60);

pub fn run(args: args::Mount) -> Outcome {
    for name in &args.unknown {
        complain(&format_args!("mount option '{name}' is not known and means nothing here"));
    }
    let places = Places::here();
    let args = match config::named(&args.dir, &places)? {
        Some(config) => config.complete(&args)?,
        None => args,
    };
    let foreground = args.foreground;
    let manager = Manager::here().filter(|_| foreground);
    let plan = Plan { manager, ..plan(args, &places)? };
    places.make_sockets()?;
    wait_for_predecessor(&plan)?;
    free(&plan.mount)?;
    uncovered(&plan.options.store)?;
    if foreground {
        log::to_stderr();
        daemon::run(&plan, || {
            say(format_args!("{} is mounted", plan.mount.display()));
            Ok(())
        })?;
        return Ok(Exit::Ok);
    }
    let log_file = places.log(&plan.mount);
    background::start(|herald| {
        log::to_file(&log_file)?;
        daemon::run(&plan, || herald.ready()).inspect_err(|failure| tracing::error!("{failure}"))
    })
    .map_err(|failure| match failure.exit {
        Exit::Fatal => {
            Failure::new(Exit::Fatal, format_args!("{failure}\nthe log is {}", log_file.display()))
        }
        _ => failure,
    })
}

/// All that stands in the way of a mount and can be seen without mounting.
pub fn obstacles(args: &args::Mount, places: &Places) -> Vec<Failure> {
    let dir = config::directory(&args.dir, places).map_err(|failure| or_make(failure, &args.dir));
    // A dead mount is no directory, and goes.
    let is_dir = |dir: PathBuf| match client::is_mounted(&dir)? {
        true => Ok(()),
        false => a_directory(&dir),
    };
    let store = args.store.as_deref().map_or(Ok(()), |store| a_directory(&resolve(store)?));
    let key = key_file(args, places).map(drop);
    let checks = [dir.and_then(is_dir), store, peer(args).map(drop), key, consistent(args)];
    checks.into_iter().filter_map(Result::err).collect()
}

fn plan(args: args::Mount, places: &Places) -> Result<Plan, Failure> {
    let dir = config::directory(&args.dir, places).map_err(|failure| or_make(failure, &args.dir))?;
    let peer = peer(&args)?;
    let key_file = key_file(&args, places)?;
    consistent(&args)?;
    let store = match args.store {
        Some(path) => resolve(&path)?,
        None => dir.clone(),
    };
    Ok(Plan {
        socket: places.socket(&dir),
        mount: dir.clone(),
        http: args.http,
        kernel: args.kernel,
        owner: Owner { uid: args.uid, gid: args.gid },
        manager: None,
        options: engine::Options {
            store,
            peer,
            compress: !args.no_compress,
            bwlimit: Some(args.bwlimit).filter(|rate| *rate > 0),
            listen: args.listen,
            key_file,
            read_timeout: Duration::from_secs(args.read_timeout),
            new_peer: args.new_peer,
            first_sync: args.first_sync,
            trash_days: args.trash_days,
            max_delete: args.max_delete,
            adopt_deletes: args.adopt_deletes,
            direction: args.direction,
            interval: (args.interval > 0).then(|| Duration::from_secs(args.interval)),
            cache_size: args.cache_size,
            cache_min_free: args.cache_min_free,
            inline_bytes: crate::model::limits::INLINE_BYTES,
            mount: dir,
        },
    })
}

fn resolve(dir: &Path) -> Result<PathBuf, Failure> {
    place::resolve(dir).map_err(|failure| or_make(failure, dir))
}

/// Why `dir` can't be found, and what to do where it is merely not there.
fn or_make(failure: Failure, dir: &Path) -> Failure {
    match dir.try_exists() {
        Ok(false) => Failure::new(
            failure.exit,
            format_args!("{failure}; a directory is made with\n  mkdir -p {}", dir.display()),
        ),
        _ => failure,
    }
}

fn peer(args: &args::Mount) -> Result<String, Failure> {
    let peer = args.peer.clone().filter(|peer| !peer.is_empty()).ok_or_else(|| {
        let message = "say which host to keep the directory the same with: --peer HOST[:PORT]";
        Failure::new(Exit::Usage, message)
    })?;
    peer.parse::<Peer>().map_err(|e| Failure::new(Exit::Usage, e))?;
    Ok(peer)
}

/// Where a key lies that can be used.
pub fn key_file(args: &args::Mount, places: &Places) -> Result<PathBuf, Failure> {
    let path = places.key_at(args.key_file.as_deref())?;
    Key::load(&path).map_err(Failure::other)?;
    Ok(path)
}

/// No option makes another one void.
fn consistent(args: &args::Mount) -> Result<(), Failure> {
    let prefers = (args.first_sync.prefers_ours(), args.direction.prefers_ours());
    if let (Some(first), Some(direction)) = prefers
        && first != direction
    {
        return Err(Failure::new(
            Exit::Usage,
            format_args!(
                "--first-sync {} and --direction {} contradict each other: a receiver's files never count on the sender",
                args.first_sync.word(),
                args.direction.word()
            ),
        ));
    }
    if args.cache_size.is_some_and(|size| size < CACHE_BYTES) {
        return Err(Failure::new(
            Exit::Usage,
            format_args!(
                "--cache-size must be {}M at least: with less, files could not be read",
                CACHE_BYTES >> 20
            ),
        ));
    }
    if let Some(address) = args.http.filter(|address| !address.ip().is_loopback() && !args.http_public) {
        let message = format!(
            "--http {address}: others could see there which files you have; where that is meant, add --http-public"
        );
        return Err(Failure::new(Exit::Usage, message));
    }
    Ok(())
}

/// After `fusermount3 -u` the old daemon is still putting things on the disk.
fn wait_for_predecessor(plan: &Plan) -> Result<(), Failure> {
    let failed = || format!("can't reach {}", plan.socket.display());
    let Some(old) = Client::connect(&plan.socket).with_context(failed)? else { return Ok(()) };
    if let Some(daemon) = client::dying(&old) {
        mount::abort(&plan.mount).map_err(Failure::other)?;
        daemon.ends_within(client::AT_ONCE).context("can't watch the dead daemon")?;
        return Ok(());
    }
    if client::is_mounted(&plan.mount)? {
        return Ok(()); // Refused below, with the reason.
    }
    match client::outlive(old, &Request::get("/wait"), Some(PREDECESSOR)) {
        Err(failure) if failure.exit == Exit::TryAgain => Err(Failure::new(
            Exit::TryAgain,
            format_args!("the daemon that served {} before has not ended yet", plan.mount.display()),
        )),
        // However it ended: it is gone.
        _ => Ok(()),
    }
}

/// The raw directory below a mount can't be reached: it has its daemon, or had.
fn uncovered(store: &Path) -> Result<(), Failure> {
    let shown = store.display();
    match client::is_mounted(store)? {
        false => Ok(()),
        true => Err(Failure::other(format_args!(
            "{shown} is mounted already and can't be the store of another mount; unmount it with\n  \
             syncfs unmount {shown}"
        ))),
    }
}

/// Makes sure that `dir` can be mounted on; the mount of a dead daemon goes first.
fn free(dir: &Path) -> Result<(), Failure> {
    let shown = dir.display();
    mount::detach_stale(dir).map_err(|error| match error {
        mount::MountError::AlreadyMounted(_) => Failure::other(format_args!(
            "{shown} is mounted already; unmount it with\n  syncfs unmount {shown}"
        )),
        error => Failure::other(error),
    })?;
    a_directory(dir)
}

fn a_directory(dir: &Path) -> Result<(), Failure> {
    match dir.is_dir() {
        true => Ok(()),
        false => Err(Failure::other(format_args!(
            "{} is not a directory; only a directory can be shared",
            dir.display()
        ))),
    }
}
