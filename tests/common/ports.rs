//! Ports of the loopback interface, for who has to name one before he listens on it.
//!
//! Invariant: no port is given twice, nor one that the kernel gives to whoever asks for any: else a connection of somebody else
//! may have it before its owner does.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

/// Below those that the kernel gives away.
const FIRST: u32 = 10_000;
const COUNT: u32 = 20_000;
/// Programs that run at a time begin so far from one another.
const APART: u32 = 97;

/// A port that nobody listens on.
pub fn free_port() -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    let next = || {
        let n = std::process::id().wrapping_mul(APART).wrapping_add(GIVEN.fetch_add(1, Relaxed));
        (FIRST + n % COUNT) as u16
    };
    let free = |port: &u16| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok();
    std::iter::repeat_with(next).take(COUNT as usize).find(free).expect("a port that nobody listens on")
}
