//! Floor 1: the kernel's door.
//!
//! Reading order: [`volume`] (what a directory must answer), [`adapter`] (decode, call, reply),
//! [`opens`] and [`modes`] (how a file may be opened beside other opens of it), [`kernel`] (telling
//! the kernel to forget), `replay`, [`replayer`] and `watchers` (showing programs that watch what the peer did), [`locks`], [`patience`]
//! (waiting for a caller that may be killed), [`mount`].

pub mod adapter;
pub mod error;
pub mod kernel;
pub mod locks;
mod modes;
pub mod mount;
mod opens;
mod patience;
mod replay;
pub mod replayer;
pub mod volume;
mod watchers;

#[cfg(test)]
mod tests;
