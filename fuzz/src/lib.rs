//! What is fed to every decoder of syncfs, and what must hold whatever is fed.
//!
//! One module for each target: `run` takes the fuzzer's bytes and panics where syncfs breaks a promise.
//! Every target calls the function that the product calls. Reading order: [`script`] (bytes as a series
//! of small choices), the targets, [`seeds`] (what a run begins with).
//!
//! Compiled twice: here for libFuzzer, and by tests/seeds.rs, which runs every target over its seeds with
//! the stable compiler.

pub mod compressed;
pub mod control;
pub mod frames;
pub mod greeting;
pub mod identity;
pub mod journal;
pub mod judge;
pub mod key;
pub mod messages;
pub mod mount;
pub mod names;
pub mod record;
pub mod rows;
pub mod script;
pub mod seeds;

use std::fmt::Debug;
use syncfs::model::codec;

/// A target: its name, which is also that of its seeds' directory, and what it does with its input.
pub type Target = (&'static str, fn(&[u8]));

/// Every target, the most exposed first.
pub const TARGETS: [Target; 13] = [
    ("messages", messages::run),
    ("frames", frames::run),
    ("compressed", compressed::run),
    ("judge", judge::run),
    ("greeting", greeting::run),
    ("journal", journal::run),
    ("record", record::run),
    ("rows", rows::run),
    ("control", control::run),
    ("mount", mount::run),
    ("identity", identity::run),
    ("names", names::run),
    ("key", key::run),
];

/// What `decode` makes of `input` encodes to what it makes the same of.
fn same_again<T: bincode::Encode + PartialEq + Debug>(
    decode: fn(&[u8]) -> Result<T, codec::CodecError>,
    input: &[u8],
) {
    let Ok(value) = decode(input) else { return };
    let again = decode(&codec::encode(&value)).expect("what was decoded encodes to what decodes");
    assert!(again == value, "{value:?} came back as {again:?}");
}

/// A runtime for targets whose decoder reads a stream.
fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(future)
}

/// A directory that costs no disk, where there is such a thing.
fn memory_dir() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a directory")
}
