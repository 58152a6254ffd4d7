//! The words before a session.

use super::{block_on, same_again};
use std::net::SocketAddr;
use syncfs::model::codec::decode;
use syncfs::model::limits::{FEATURE_BYTES, FEATURES};
use syncfs::wire::Error;
use syncfs::wire::frame::FrameReader;
use syncfs::wire::greeting::{Word, hear};

/// A stream of frames.
pub fn run(input: &[u8]) {
    let address = SocketAddr::from(([127, 0, 0, 1], 1));
    let mut reader = FrameReader::new(input);
    loop {
        match block_on(hear(&mut reader, address)) {
            Ok(Word::Hello { hello, .. }) => {
                assert!(hello.features.len() <= FEATURES);
                assert!(hello.features.iter().all(|feature| feature.len() <= FEATURE_BYTES));
            }
            Ok(_) => {}
            Err(Error::Refused { reason, .. }) => {
                assert!(reason.chars().count() <= 300 && !reason.contains(char::is_control), "{reason:?}");
            }
            Err(Error::Superfluous { .. } | Error::Senseless(_) | Error::Malformed(_)) => {}
            Err(_) => break,
        }
    }
    same_again::<Word>(decode, input);
    if let Some(body) = input.get(4..) {
        same_again::<Word>(decode, body);
    }
}
