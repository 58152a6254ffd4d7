//! The door, tried for real: a directory passed through, mounted as root, used by system calls.
//!
//! These tests need root and /dev/fuse and fail without them.

mod daemon;
mod files;
mod names;
mod passing;
mod rig;
mod waiting;
