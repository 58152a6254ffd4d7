//! Two whole hosts in one thread: the real engine, its workers turned by hand, on disks that tear, with a
//! network and a clock between them that do what a test says and nothing else.
//!
//! One sequence of calls here is one history: nothing depends on threads, addresses or the time of day.
#![allow(dead_code)]

pub mod calls;
pub mod hosts;
pub mod network;
pub mod side;
