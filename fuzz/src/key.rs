//! The key file.

use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use syncfs::wire::{Error, Key};

/// The file's content.
pub fn run(input: &[u8]) {
    let dir = super::memory_dir();
    let path = dir.path().join("key");
    let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).unwrap();
    file.write_all(input).unwrap();
    match Key::load(&path) {
        Ok(_) => assert_eq!(input.len(), 32),
        Err(Error::NotAKey { .. }) => assert_ne!(input.len(), 32),
        Err(other) => panic!("{other}"),
    }
}
