//! Frames off a stream, however the stream is cut up.

use super::block_on;
use super::script::Script;
use std::pin::Pin;
use std::task::{Context, Poll};
use syncfs::model::limits::{FRAME_BYTES, HELLO_BYTES};
use syncfs::wire::Error;
use syncfs::wire::compression::Decompressor;
use syncfs::wire::frame::{FrameReader, put};
use tokio::io::{AsyncRead, ReadBuf};

/// A limit, whether flags were agreed on, how the stream is cut up, and the stream.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let limit = if script.coin() { FRAME_BYTES } else { HELLO_BYTES };
    let agreed = script.coin();
    let sizes = script.bytes();
    let stream = script.rest();
    let (whole, end) = frames(stream, limit, agreed);
    let (split, split_end) = frames(Drip { stream, sizes, turn: 0 }, limit, agreed);
    assert_eq!(whole, split, "frames depend on how the stream is cut up");
    assert_eq!(end.to_string(), split_end.to_string());

    assert!(whole.iter().all(|body| body.len() <= limit), "more than the limit");
    if agreed {
        return;
    }
    let mut again = Vec::new();
    whole.iter().for_each(|body| put(&mut again, body));
    assert_eq!(again, stream[..again.len()], "what was taken off is not what was put on");
    let rest = &stream[again.len()..];
    let header = rest.first_chunk().map(|header| u32::from_le_bytes(*header));
    match end {
        Error::Closed => {
            assert!(header.is_none_or(|h| rest.len() < 4 + h as usize), "a whole frame was left")
        }
        Error::FrameTooLong(length) => assert!(length > limit && header == Some(length as u32)),
        Error::UnknownFlags(flags) => assert_eq!(header.map(|h| h >> 24), Some(flags.into())),
        other => panic!("{other}"),
    }
}

/// All frames of a stream, and what ended it.
fn frames(stream: impl AsyncRead + Unpin, limit: usize, agreed: bool) -> (Vec<Vec<u8>>, Error) {
    let mut reader = FrameReader::new(stream);
    if agreed {
        reader.decompress_with(Decompressor::new(Default::default()).expect("memory"));
        reader.take_parts();
    }
    let mut bodies = Vec::new();
    block_on(async {
        loop {
            match reader.next(limit).await {
                Ok(body) => bodies.push(body.to_vec()),
                Err(end) => return (bodies, end),
            }
        }
    })
}

/// A stream that gives as many bytes at a time as `sizes` say, over and over.
struct Drip<'a> {
    stream: &'a [u8],
    sizes: &'a [u8],
    turn: usize,
}

impl AsyncRead for Drip<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf,
    ) -> Poll<std::io::Result<()>> {
        let size = self.sizes.get(self.turn % self.sizes.len().max(1)).map_or(1, |n| usize::from(*n) + 1);
        let (now, later) = self.stream.split_at(size.min(self.stream.len()).min(buffer.remaining()));
        buffer.put_slice(now);
        (self.stream, self.turn) = (later, self.turn + 1);
        Poll::Ready(Ok(()))
    }
}
