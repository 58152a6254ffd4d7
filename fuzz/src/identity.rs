//! The two copies of who this replica is.

use super::memory_dir;
use super::script::Script;
use std::fs;
use syncfs::store::{Identity, RealDisk, Result, identity, load_or_create};

const COPIES: [&str; 2] = ["replica", "replica.2"];

/// For each copy: whether it is there, whether its checksum is put right, and its content.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let dir = memory_dir();
    let disk = RealDisk::open(dir.path()).unwrap();
    let load = || -> Result<Identity> { load_or_create(&disk, &mut identity::random) };
    let path = |name: &str| dir.path().join(".syncfs").join(name);
    let copies = COPIES.map(|_| match script.below(3) {
        0 => None,
        1 => Some(script.bytes().to_vec()),
        _ => Some(with_checksum(script.bytes())),
    });
    let put = || {
        for (name, copy) in COPIES.iter().zip(&copies) {
            let _ = fs::remove_file(path(name));
            copy.iter().for_each(|bytes| fs::write(path(name), bytes).unwrap());
        }
    };
    put();
    match load() {
        Ok(identity) => {
            assert!(identity.boots >= 1);
            let [a, b] = COPIES.map(|name| fs::read(path(name)).unwrap());
            assert_eq!(a, b, "the copies differ");
            let next = load().expect("what was just written");
            assert_eq!((next.replica, next.boots), (identity.replica, identity.boots.saturating_add(1)));
            if copies.iter().any(Option::is_some) {
                put();
                assert_eq!(load().unwrap(), identity, "an identity was made up");
            }
        }
        Err(error) => {
            assert!(!error.to_string().is_empty());
            for (name, copy) in COPIES.iter().zip(&copies) {
                assert_eq!(&fs::read(path(name)).ok(), copy, "{name} was touched, though {error}");
            }
        }
    }
}

/// `body` as it would lie there if it were whole.
pub fn with_checksum(body: &[u8]) -> Vec<u8> {
    let mut copy = body.to_vec();
    copy.extend(format!("crc {:08x}\n", crc32c::crc32c(body)).into_bytes());
    copy
}
