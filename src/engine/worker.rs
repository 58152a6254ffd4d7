//! The engine's workers: what its threads do, one turn at a time. A thread turns its worker until it is
//! over; a test turns them all by hand, in an order of its own, and time stands still meanwhile.
//!
//! Invariant: without `wait` a turn never blocks but for the disk.

use super::host::Host;
use super::queues::Turn;
use std::sync::Arc;

pub(super) trait Worker: Send {
    /// Does what there is to do; with `wait`, once there is something.
    fn turn(&mut self, host: &Arc<Host>, wait: bool) -> Turn;
}
