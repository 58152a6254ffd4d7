//! Frames made smaller on their way, where that pays.
//!
//! Who queues a message compresses it, on its own thread: the session's task, which also answers heartbeats, never
//! does. Small bodies stay as they are, and so does what hardly shrinks; of a large body a sample from its middle
//! tells first. What nobody can compress costs next to nothing that way, and nothing has to be remembered about it.
//!
//! Invariants: what is compressed is an eighth smaller at least; the same body always becomes the same frame; no memory
//! is claimed for the content of a peer's frame before its length is checked; a peer's bytes never panic us.

use super::error::{Error, Result};
use super::socket::Traffic;
use bytes::Bytes;
use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use zstd::bulk;

/// The fastest level that is worth its name.
const LEVEL: i32 = 1;
/// A smaller body fits a packet or two: compressing it takes longer than it saves.
const LEAST_BYTES: usize = 2 << 10;
/// A body of so many samples is tried by one.
const SAMPLE_BYTES: usize = 4 << 10;
const SAMPLES: usize = 8;

thread_local! {
    /// A context is large and takes long to make. With one for each thread nobody waits for another's.
    static CONTEXT: RefCell<Option<bulk::Compressor<'static>>> = RefCell::new(bulk::Compressor::new(LEVEL).ok());
}

/// Compresses the bodies of frames.
pub struct Compressor {
    traffic: Arc<Traffic>,
}

impl Compressor {
    pub fn new(traffic: Arc<Traffic>) -> Compressor {
        Compressor { traffic }
    }

    /// `body` made smaller; `None` where it is better sent as it is.
    pub fn compress(&self, body: &[u8]) -> Option<Vec<u8>> {
        if body.len() < LEAST_BYTES {
            return None;
        }
        let small = CONTEXT.with_borrow_mut(|context| {
            let context = context.as_mut()?;
            if body.len() >= SAMPLES * SAMPLE_BYTES {
                let middle = (body.len() - SAMPLE_BYTES) / 2;
                shrunk(context, &body[middle..middle + SAMPLE_BYTES])?;
            }
            shrunk(context, body)
        })?;
        self.traffic.saved.fetch_add((body.len() - small.len()) as u64, Relaxed);
        Some(small)
    }
}

/// `bytes` compressed, if they shrink by an eighth.
fn shrunk(context: &mut bulk::Compressor, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut small = context.compress(bytes).ok()?;
    small.shrink_to_fit();
    (small.len() <= bytes.len() - bytes.len() / 8).then_some(small)
}

/// Gives back what a peer compressed.
pub struct Decompressor {
    context: bulk::Decompressor<'static>,
    traffic: Arc<Traffic>,
}

impl Decompressor {
    /// # Errors
    /// Where there is no memory for it.
    pub fn new(traffic: Arc<Traffic>) -> Result<Decompressor> {
        Ok(Decompressor { context: bulk::Decompressor::new()?, traffic })
    }

    /// What `small` holds, at most `limit` bytes.
    ///
    /// # Errors
    /// [`Error::FrameTooLong`] for what says that it holds more; [`Error::Compressed`] for what does not say it, lies, or is
    /// damaged.
    pub fn decompress(&mut self, small: &[u8], limit: usize) -> Result<Bytes> {
        let length = match zstd::zstd_safe::get_frame_content_size(small) {
            Ok(Some(length)) => usize::try_from(length).unwrap_or(usize::MAX),
            _ => return Err(Error::Compressed("it does not say how long it is")),
        };
        if length > limit {
            return Err(Error::FrameTooLong(length));
        }
        // Nothing is written past what was promised.
        let Ok(body) = self.context.decompress(small, length) else {
            return Err(Error::Compressed("it is damaged, or longer than it says"));
        };
        if body.len() != length {
            return Err(Error::Compressed("it is shorter than it says"));
        }
        self.traffic.saved.fetch_add(length.saturating_sub(small.len()) as u64, Relaxed);
        Ok(body.into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::noise;
    use super::*;
    use crate::model::limits::FRAME_BYTES;

    fn compress(body: &[u8]) -> Option<Vec<u8>> {
        Compressor::new(Arc::default()).compress(body)
    }

    fn decompress(small: &[u8], limit: usize) -> Result<Bytes> {
        Decompressor::new(Arc::default()).unwrap().decompress(small, limit)
    }

    fn text(bytes: usize) -> Vec<u8> {
        (0..).flat_map(|n: u32| format!("this is line {n}\n").into_bytes()).take(bytes).collect()
    }

    #[test]
    fn text_becomes_a_fraction_and_comes_back_the_same() {
        for bytes in [LEAST_BYTES, 100_000, FRAME_BYTES] {
            let body = text(bytes);
            let small = compress(&body).unwrap();
            assert!(small.len() < bytes / 2, "{} of {bytes}", small.len());
            assert_eq!(decompress(&small, FRAME_BYTES).unwrap(), body);
        }
    }

    #[test]
    fn what_is_small_or_does_not_shrink_stays_as_it_is() {
        assert_eq!(compress(&text(LEAST_BYTES - 1)), None);
        for bytes in [LEAST_BYTES, SAMPLES * SAMPLE_BYTES, 500_000] {
            assert_eq!(compress(&noise(1, bytes)), None, "{bytes}");
        }
        // A sample that shrinks does not speak for all.
        let mut mixed = noise(1, 500_000);
        mixed[240_000..260_000].copy_from_slice(&text(20_000));
        assert_eq!(compress(&mixed), None);
    }

    #[test]
    fn what_was_saved_is_counted_on_both_sides() {
        let [sent, received] = [Arc::<Traffic>::default(), Arc::default()];
        let body = text(100_000);
        let small = Compressor::new(sent.clone()).compress(&body).unwrap();
        Decompressor::new(received.clone()).unwrap().decompress(&small, FRAME_BYTES).unwrap();
        let saved = (body.len() - small.len()) as u64;
        assert_eq!([&sent, &received].map(|traffic| traffic.saved.load(Relaxed)), [saved, saved]);
    }

    #[test]
    fn a_frame_that_holds_more_than_is_allowed_is_refused_before_it_is_looked_into() {
        let bomb = bulk::compress(&vec![0; FRAME_BYTES + 1], LEVEL).unwrap();
        assert!(bomb.len() < 1000, "{}", bomb.len());
        assert!(
            matches!(decompress(&bomb, FRAME_BYTES), Err(Error::FrameTooLong(n)) if n == FRAME_BYTES + 1)
        );
        // Cut off behind its header: nothing but the promise is read.
        assert!(matches!(decompress(&bomb[..12], FRAME_BYTES), Err(Error::FrameTooLong(_))));
    }

    #[test]
    fn lies_about_the_length_and_damage_are_errors() {
        let body = text(100_000);
        let small = compress(&body).unwrap();
        for cut in [0, 3, 10, small.len() / 2, small.len() - 1] {
            assert!(matches!(decompress(&small[..cut], FRAME_BYTES), Err(Error::Compressed(_))), "{cut}");
        }
        let twice = [&small[..], &small[..]].concat();
        assert!(matches!(decompress(&twice, FRAME_BYTES), Err(Error::Compressed(_))));
        for at in 0..small.len().min(2000) {
            let mut bent = small.clone();
            bent[at] ^= 0x55;
            if let Ok(other) = decompress(&bent, FRAME_BYTES) {
                assert!(other.len() <= FRAME_BYTES);
            }
        }
        // Two that follow one another, the first of which promises the length of both, or of less.
        let empty = bulk::compress(&[], LEVEL).unwrap();
        let more = [&empty[..], &small[..]].concat();
        assert!(matches!(decompress(&more, FRAME_BYTES), Err(Error::Compressed(_))));
    }
}
