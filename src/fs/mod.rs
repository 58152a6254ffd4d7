//! Floor 1: the kernel's door.

pub mod error;
pub mod volume;
