//! Floor 4: the face.
//!
//! Reading order: [`args`] and [`options`] (what may be asked), [`exit`] (how a command ends),
//! [`place`] and [`config`] (where things lie, and what a name stands for), then the commands: `keygen`, `pair`, [`mount`] with
//! [`background`], [`daemon`], `guard`, `replay`, `manager` and [`log`] (a daemon's life), the commands that ask it over the control socket
//! ([`client`], [`api`](crate::api)), and [`demo`].
//!
//! Invariants: nothing here decides about content; every failure ends as one message that says what
//! happened, to which file, and what to do; no command waits without a bound unless it was asked to.

pub mod args;
mod background;
mod bar;
mod check;
mod client;
mod config;
mod conflicts;
mod daemon;
mod demo;
mod doctor;
pub mod exit;
mod flush;
mod generate;
mod guard;
mod history;
mod keygen;
mod log;
mod manager;
mod mount;
pub mod options;
mod pair;
mod place;
mod process;
mod replay;
mod residency;
mod resolve;
mod resume;
mod signals;
mod status;
mod trash;
mod units;
mod unmount;
mod verify;
mod watch;

use crate::api::Order;
use args::Command;
use std::process::ExitCode;

/// Runs the command that the arguments of this process ask for.
pub fn main() -> ExitCode {
    let command = match args::parse(std::env::args_os().collect()) {
        Ok(command) => command,
        // Prints help and version to stdout with code 0, usage errors to stderr with code 2.
        Err(error) => error.exit(),
    };
    let outcome = match command {
        Command::Keygen(args) => keygen::run(args),
        Command::Pair(args) => pair::run(args),
        Command::Mount(args) => mount::run(args),
        Command::Status(args) if args.watch => watch::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Log(args) => history::run(args),
        Command::Flush(args) => flush::run(args),
        Command::Conflicts(args) => conflicts::run(args),
        Command::Resolve(args) => resolve::run(args),
        Command::Resume(args) => resume::run(args),
        Command::Trash(args) => trash::run(args),
        Command::Verify(args) => verify::run(args),
        Command::Pin(args) => residency::run(&args, Order::Pin),
        Command::Unpin(args) => residency::run(&args, Order::Unpin),
        Command::Fetch(args) => residency::run(&args, Order::Fetch),
        Command::Free(args) => residency::run(&args, Order::Free),
        Command::Unmount(args) => unmount::run(args),
        Command::Config(args) => check::run(args),
        Command::Doctor(args) => doctor::run(args),
        Command::Demo(args) => demo::run(args),
        Command::Guard(args) => guard::run(args),
        Command::Replay => replay::run(),
        Command::Generate(args) => generate::run(args),
    };
    exit::end(outcome)
}
