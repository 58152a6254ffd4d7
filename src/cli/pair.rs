//! `syncfs pair`: one host shows a code, the other one is told it, and then both have the key.
//!
//! Invariants: no file that is there is changed; the host that shows the code has its key durably before it hands it on, so
//! that whatever is cut short, pairing again mends it; when this ends, it has said what to do next.

use super::args;
use super::client;
use super::exit::{Exit, Failure, Outcome, complain, say};
use super::place::Places;
use super::signals::Signals;
use crate::model::limits::PAIR_TRIES;
use crate::wire::pair::{self, Partner, Shown};
use crate::wire::{Code, DEFAULT_PORT, Error, Key, Peer};
use anyhow::Context;
use rustix::system::uname;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, timeout_at};

/// How long a code is worth something.
const VALID: Duration = Duration::from_secs(600);

/// Whose key, and where.
struct Pairing {
    key_file: PathBuf,
    /// The option that names it, where it is not the usual one.
    option: String,
}

pub fn run(args: args::Pair) -> Outcome {
    let places = Places::here();
    let key_file = places.key_at(args.key_file.as_deref())?;
    let option = args.key_file.as_ref().map(|_| format!(" --key-file {}", key_file.display()));
    let pairing = Pairing { key_file, option: option.unwrap_or_default() };
    let runtime = Builder::new_current_thread().enable_all().build().context("can't start a runtime")?;
    match &args.host {
        None => pairing.show(args.listen, &places, &runtime),
        Some(host) => {
            let peer: Peer = host.parse().map_err(|e: Error| Failure::new(Exit::Usage, e))?;
            if peer.is_auto() {
                return Err(Failure::new(Exit::Usage, "say which host shows the code: a name or an address"));
            }
            let code = args.code.concat().parse().map_err(|e: Error| Failure::new(Exit::Usage, e))?;
            runtime.block_on(pairing.take(&peer, &code))
        }
    }
}

impl Pairing {
    fn show(&self, listen: SocketAddr, places: &Places, runtime: &Runtime) -> Outcome {
        let key = match Key::load(&self.key_file) {
            Err(Error::KeyMissing { .. }) => None,
            key => Some(key.map_err(Failure::other)?),
        };
        let code = Code::random().context("there are no random numbers")?;
        let signals = Signals::new(runtime.handle())?;
        let shown = runtime.block_on(Shown::open(listen, code.clone()));
        let shown = shown.map_err(|error| not_listening(error, places))?;
        let port = match shown.port() {
            DEFAULT_PORT => String::new(),
            port => format!(":{port}"),
        };
        let name = uname().nodename().to_string_lossy().into_owned();
        say(format_args!(
            "The code is {code}. Within {} minutes say on the other host\n  syncfs pair {name}{port} {code}\n\
             (an address of this host does as well as its name). Ctrl-C ends this.",
            VALID.as_secs() / 60
        ));
        runtime.block_on(self.give(key, shown, signals))
    }

    async fn give(&self, key: Option<Key>, shown: Shown, mut signals: Signals) -> Outcome {
        let partner = tokio::select! {
            partner = wait(shown) => partner?,
            () = signals.any() => return Err(Failure::other("ended before anybody had the key; nothing has changed")),
        };
        // From here on it is a matter of seconds, and is not cut short.
        let made = key.is_none();
        let key = key.map_or_else(|| self.make(), Ok)?;
        let address = partner.address.ip();
        partner.give(&key).await.map_err(|error| self.half_done(&error, made))?;
        say(format_args!("{address} has the key now, the same as this host in {}.", self.key_file.display()));
        self.next(&address.to_string());
        Ok(Exit::Ok)
    }

    fn make(&self) -> Result<Key, Failure> {
        let key = Key::random().context("there are no random numbers")?;
        key.store(&self.key_file).map_err(Failure::other)?;
        Ok(key)
    }

    /// This host has its key, and the other one perhaps not.
    fn half_done(&self, error: &Error, made: bool) -> Failure {
        let here = if made { "This host has its key now" } else { "This host has its key as before" };
        Failure::other(format_args!(
            "{error}. {here}, in {}. If the other host says that it has it, too, all is well; if not, say `syncfs pair` \
             here once more",
            self.key_file.display()
        ))
    }

    async fn take(&self, peer: &Peer, code: &Code) -> Outcome {
        if self.key_file.symlink_metadata().is_ok() {
            return Err(Failure::other(format_args!(
                "this host has a key already, {}, and it is never overwritten. To give that one to the other host, say \
                 `syncfs pair{}` here. To take the other host's, move it away first, where no mount needs it any more, \
                 or name another file with --key-file",
                self.key_file.display(),
                self.option
            )));
        }
        let mut partner = pair::dial(peer, code).await.map_err(refused)?;
        let key = partner.take().await.map_err(|error| {
            Failure::other(format_args!(
                "{error}; there is no key here yet, so do it once more on both hosts"
            ))
        })?;
        let stored = key.store(&self.key_file);
        partner.thank(stored.is_ok()).await;
        stored.map_err(Failure::other)?;
        say(format_args!("The key is in {}, the same as on {peer}.", self.key_file.display()));
        // A share listens at a port of its own, not at that of the pairing.
        self.next(peer.host());
        Ok(Exit::Ok)
    }

    fn next(&self, host: &str) {
        say(format_args!(
            "Next, on this host:\n  syncfs mount DIR --peer {host}{}\n\
             or, where both are on one local network and the other host says so, too, with --peer auto",
            self.option
        ));
    }
}

/// Waits for somebody who knows the code.
async fn wait(mut shown: Shown) -> Result<Partner, Failure> {
    let end = Instant::now() + VALID;
    loop {
        let guest = timeout_at(end, shown.guest()).await.map_err(|_| {
            let message =
                "nobody typed the code in time; it is worth nothing any more, and nothing has changed";
            Failure::new(Exit::TryAgain, message)
        })?;
        let error = match shown.prove(guest).await {
            Ok(partner) => return Ok(partner),
            Err(error) => error,
        };
        match shown.tries_left() {
            0 => {
                return Err(Failure::other(format_args!(
                    "{error}. That was try {PAIR_TRIES} of {PAIR_TRIES}: the code is worth nothing any more, and nothing \
                     has changed. Say `syncfs pair` once more"
                )));
            }
            left => complain(&format_args!("{error}; tries left: {left}")),
        }
    }
}

fn not_listening(error: Error, places: &Places) -> Failure {
    let Error::Listen { address, source } = &error else { return Failure::other(error) };
    if source.kind() != ErrorKind::AddrInUse {
        return Failure::other(error);
    }
    let who = client::listening(*address, places);
    let who = who.map_or("another program".to_owned(), |mount| format!("the share {}", mount.display()));
    let other = SocketAddr::new(address.ip(), address.port().checked_add(1).unwrap_or(DEFAULT_PORT));
    Failure::other(format_args!(
        "{who} waits at port {} already, so no code can be taken there. Say\n  syncfs pair --listen {other}\nand let \
         that port through a firewall; what is to be typed on the other host will name it",
        address.port()
    ))
}

fn refused(error: Error) -> Failure {
    match error {
        Error::Connect { .. } | Error::Resolve { .. } => Failure::new(
            Exit::TryAgain,
            format_args!(
                "{error}. Is `syncfs pair` waiting there, and the port open? Nothing has changed here"
            ),
        ),
        error => Failure::other(format_args!("{error}. Nothing has changed here")),
    }
}
