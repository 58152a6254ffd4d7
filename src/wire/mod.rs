//! Floor 1: the network's door.
//!
//! One authenticated, encrypted TCP connection to the one peer, kept up for as long as the daemon
//! runs. Reading order: [`link`] (what the engine sees), `dial` and `accept` (how a connection comes
//! about), `peer` and `discovery` with `sightings` and `beacon` (where to dial), `connection` (its life), `greeting`, `stage` (which of several connections lives), `session`, `writer`,
//! `outbox`, `frame`, [`compression`]; beneath them `terms` (what both sides can do), `context` (what the tasks share), [`key`], `tls`, `socket`, `system`.
//! Beside all that, [`pair`] and [`code`]: how a host gets the key of another.
//!
//! Invariants: nothing a peer sends is looked at before TLS has proved that it holds the share's
//! key; nothing a peer sends makes us panic, wait for ever or claim memory beyond
//! [`limits`](crate::model::limits).

mod accept;
mod beacon;
pub mod code;
pub mod compression;
mod connection;
mod context;
mod dial;
mod discovery;
pub mod error;
pub mod frame;
pub mod greeting;
pub mod key;
pub mod link;
mod log;
mod outbox;
pub mod pair;
#[cfg(test)]
mod pair_tests;
mod peer;
pub mod session;
mod sightings;
mod socket;
mod stage;
mod strangers;
mod system;
mod terms;
#[cfg(test)]
mod tests;
mod tls;
mod writer;

pub use code::Code;
pub use context::{Admit, Session};
pub use error::{Error, Result};
pub use key::Key;
pub use link::{Config, Counters, Event, Events, Link};
pub use outbox::Class;
pub use peer::{DEFAULT_PORT, Peer};
