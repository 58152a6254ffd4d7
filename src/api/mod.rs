//! Floor 3: what a daemon can be asked, as HTTP with JSON over its control socket.
//!
//! Reading order: [`request`] and [`answer`] (what is said), [`failure`] (how it fails), [`routes`] (what there is to ask,
//! and who answers), then what a daemon does for each: [`share`], [`lists`], [`versions`], `events`, `metrics`; [`server`] and [`client`] are the
//! two ends of the socket, and [`web`] is for browsers. docs/api.md is for who asks without this code.
//!
//! Invariants: nothing here decides about content; a client costs one connection, one head of a request and one part of an
//! answer, whatever it sends or leaves out; what a client asked for ends when it goes.

pub mod answer;
pub mod client;
mod events;
pub mod failure;
pub mod lists;
mod metrics;
pub mod request;
mod routes;
pub mod server;
mod share;
pub mod versions;
pub mod web;

pub use routes::ROUTES;
pub use share::{Order, Share, unmount};
