//! Frames: how values lie on the stream.
//!
//! A frame is a header of 4 bytes and a body. The header is a little-endian `u32`: its low 24 bits
//! are the body's length in bytes, its high 8 bits are flags. A frame with a flag that is unknown, or was
//! not agreed on, is refused, not guessed at.
//!
//! Invariants: a length is checked against its limit before anything is done with it; memory grows
//! only as bytes arrive, never by what a header promises. A compressed body is looked into only when all of it is there.
//!
//! A large frame may come in parts, so that what is more urgent need not wait for all of it. There are three lanes of parts, and a
//! frame at a time in each; other frames come in between.

use super::compression::Decompressor;
use super::error::{Error, Result};
use crate::model::limits::FRAME_BYTES;
use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Bytes of a frame before its body.
pub const HEADER_BYTES: usize = 4;
/// A buffer larger than this is given back once it is empty.
const KEEP_BYTES: usize = 256 << 10;
/// Least room for one read.
const READ_BYTES: usize = 16 << 10;

const _: () = assert!(FRAME_BYTES < 1 << 24, "a frame's length takes 24 bits");

/// The body is compressed, and says how long its content is.
const COMPRESSED: u8 = 1;
/// The body is a part of one in that lane.
const LANES: [u8; 3] = [2, 4, 8];
/// It goes on in the next part of its lane.
const MORE: u8 = 16;

/// Adds one frame to `out`. `body` is at most [`FRAME_BYTES`] long: the caller has checked.
pub fn put(out: &mut Vec<u8>, body: &[u8]) {
    put_with(out, 0, body);
}

/// The same for a body that [`Compressor`](super::compression::Compressor) has made smaller.
pub fn put_compressed(out: &mut Vec<u8>, body: &[u8]) {
    put_with(out, COMPRESSED, body);
}

/// Adds a part of a body to `out`, in lane 0, 1 or 2; `more` but for the last part.
pub fn put_part(out: &mut Vec<u8>, lane: usize, more: bool, compressed: bool, part: &[u8]) {
    let flag = |on: bool, flag: u8| if on { flag } else { 0 };
    put_with(out, LANES[lane] | flag(more, MORE) | flag(compressed, COMPRESSED), part);
}

fn put_with(out: &mut Vec<u8>, flags: u8, body: &[u8]) {
    let header = body.len() as u32 | u32::from(flags) << 24;
    out.extend_from_slice(&header.to_le_bytes());
    out.extend_from_slice(body);
}

/// Takes frames off a stream.
pub struct FrameReader<R> {
    stream: R,
    buffer: BytesMut,
    decompressor: Option<Decompressor>,
    /// What has come of a body in each lane, where parts may come.
    lanes: Option<[BytesMut; 3]>,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    pub fn new(stream: R) -> FrameReader<R> {
        FrameReader { stream, buffer: BytesMut::new(), decompressor: None, lanes: None }
    }

    /// From here on frames may be compressed.
    pub fn decompress_with(&mut self, decompressor: Decompressor) {
        self.decompressor = Some(decompressor);
    }

    /// From here on frames may come in parts.
    pub fn take_parts(&mut self) {
        self.lanes = Some(Default::default());
    }

    /// The body of the next frame, if all of it has arrived.
    ///
    /// # Errors
    /// [`Error::FrameTooLong`] for more than `limit` bytes, in parts or not; [`Error::UnknownFlags`]; those of [`Decompressor::decompress`].
    pub fn take(&mut self, limit: usize) -> Result<Option<Bytes>> {
        while let Some(header) = self.buffer.first_chunk::<HEADER_BYTES>() {
            let header = u32::from_le_bytes(*header);
            let (length, flags) = ((header & 0x00ff_ffff) as usize, (header >> 24) as u8);
            let part = LANES.iter().position(|lane| flags & !COMPRESSED & !MORE == *lane);
            let lane = part.and_then(|part| self.lanes.as_mut()?.get_mut(part));
            let compressed = flags & COMPRESSED != 0;
            if (flags & !COMPRESSED != 0 && lane.is_none()) || (compressed && self.decompressor.is_none()) {
                return Err(Error::UnknownFlags(flags));
            }
            let whole = lane.as_ref().map_or(0, |begun| begun.len()) + length;
            if whole > limit {
                return Err(Error::FrameTooLong(whole));
            }
            if self.buffer.len() < HEADER_BYTES + length {
                break;
            }
            self.buffer.advance(HEADER_BYTES);
            let mut body = self.buffer.split_to(length);
            if let Some(begun) = lane {
                begun.extend_from_slice(&body);
                if flags & MORE != 0 {
                    continue;
                }
                body = std::mem::take(begun);
            }
            let decompressor = self.decompressor.as_mut().filter(|_| compressed);
            return match decompressor {
                None => Ok(Some(body.freeze())),
                Some(decompressor) => decompressor.decompress(&body, limit).map(Some),
            };
        }
        Ok(None)
    }

    /// Waits for more bytes. Nothing is lost if the wait is given up.
    ///
    /// # Errors
    /// [`Error::Closed`] at the end of the stream, [`Error::Broken`].
    pub async fn fill(&mut self) -> Result<()> {
        if self.buffer.is_empty() && self.buffer.capacity() > KEEP_BYTES {
            self.buffer = BytesMut::new();
        }
        self.buffer.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(Error::Closed),
            _ => Ok(()),
        }
    }

    /// The body of the next frame.
    pub async fn next(&mut self, limit: usize) -> Result<Bytes> {
        loop {
            match self.take(limit)? {
                Some(body) => return Ok(body),
                None => self.fill().await?,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::compression::Compressor;
    use super::*;

    fn reader(bytes: &[u8]) -> FrameReader<&[u8]> {
        FrameReader::new(bytes)
    }

    /// The worked example of docs/protocol.md.
    #[test]
    fn a_retrieve_lies_on_the_stream_as_the_protocol_page_shows_it() {
        use crate::model::ids::{FileId, WriterId};
        use crate::model::message::Message;
        let writer = WriterId(0x1122_3344_5566_7788);
        let file = FileId { writer, counter: 5 };
        let version = crate::model::version::Version::default().with(writer, 9);
        let message = Message::Retrieve {
            request: 3,
            file,
            version,
            start: 500,
            end: 1000,
            urgent: true,
            digest: None,
        };
        let mut frame = Vec::new();
        put(&mut frame, &crate::model::codec::encode(&message));
        let hex: Vec<String> = frame.iter().map(|b| format!("{b:02x}")).collect();
        let expected = "46 00 00 00 \
             04 00 00 00 03 00 00 00 00 00 00 00 \
             88 77 66 55 44 33 22 11 05 00 00 00 00 00 00 00 \
             01 00 00 00 00 00 00 00 88 77 66 55 44 33 22 11 09 00 00 00 00 00 00 00 \
             f4 01 00 00 00 00 00 00 e8 03 00 00 00 00 00 00 01 00";
        assert_eq!(hex.join(" "), expected);
    }

    #[tokio::test]
    async fn frames_come_back_whole_and_in_order() {
        let mut bytes = Vec::new();
        put(&mut bytes, b"one");
        put(&mut bytes, b"");
        put(&mut bytes, &[7; 100_000]);
        let mut reader = reader(&bytes);
        assert_eq!(&reader.next(FRAME_BYTES).await.unwrap()[..], b"one");
        assert_eq!(&reader.next(FRAME_BYTES).await.unwrap()[..], b"");
        assert_eq!(&reader.next(FRAME_BYTES).await.unwrap()[..], &[7; 100_000]);
        assert!(matches!(reader.next(FRAME_BYTES).await, Err(Error::Closed)));
    }

    #[tokio::test]
    async fn what_was_compressed_comes_back_only_where_that_was_agreed_on() {
        let traffic = std::sync::Arc::default();
        let small = Compressor::new(std::sync::Arc::clone(&traffic)).compress(&[7; 100_000]).unwrap();
        let mut bytes = Vec::new();
        put_compressed(&mut bytes, &small);
        put(&mut bytes, b"plain");
        assert!(matches!(reader(&bytes).next(FRAME_BYTES).await, Err(Error::UnknownFlags(COMPRESSED))));
        let mut reader = reader(&bytes);
        reader.decompress_with(Decompressor::new(traffic).unwrap());
        assert_eq!(&reader.next(FRAME_BYTES).await.unwrap()[..], &[7; 100_000]);
        assert_eq!(&reader.next(FRAME_BYTES).await.unwrap()[..], b"plain");
    }

    #[tokio::test]
    async fn parts_of_frames_and_whole_ones_between_them_come_back_as_they_were() {
        let mut bytes = Vec::new();
        put_part(&mut bytes, 1, true, false, b"bulk, ");
        put_part(&mut bytes, 0, true, false, b"soon, ");
        put(&mut bytes, b"word");
        put_part(&mut bytes, 0, false, false, b"all of it");
        put_part(&mut bytes, 1, true, false, b"");
        put_part(&mut bytes, 1, false, false, b"at last");
        assert!(matches!(reader(&bytes).next(FRAME_BYTES).await, Err(Error::UnknownFlags(20))));
        let mut reader = reader(&bytes);
        reader.take_parts();
        for body in ["word", "soon, all of it", "bulk, at last"] {
            assert_eq!(reader.next(FRAME_BYTES).await.unwrap(), body.as_bytes());
        }
    }

    #[tokio::test]
    async fn parts_are_no_way_around_the_limit_nor_in_two_lanes_at_once() {
        let mut bytes = Vec::new();
        put_part(&mut bytes, 1, true, false, &[7; 600]);
        put_part(&mut bytes, 1, true, false, &[7; 401]);
        let mut long = reader(&bytes);
        long.take_parts();
        assert!(matches!(long.next(1000).await, Err(Error::FrameTooLong(1001))));
        for flags in [LANES[0] | LANES[1], MORE, 32] {
            let bytes = (u32::from(flags) << 24).to_le_bytes();
            let mut reader = reader(&bytes);
            reader.take_parts();
            assert!(matches!(reader.next(1000).await, Err(Error::UnknownFlags(f)) if f == flags));
        }
    }

    #[tokio::test]
    async fn a_frame_past_the_limit_and_an_unknown_flag_are_refused_at_the_header() {
        let long = (FRAME_BYTES as u32 + 1).to_le_bytes();
        assert!(matches!(reader(&long).next(FRAME_BYTES).await, Err(Error::FrameTooLong(_))));
        let flagged = (1u32 << 24 | 3).to_le_bytes();
        assert!(matches!(reader(&flagged).next(FRAME_BYTES).await, Err(Error::UnknownFlags(1))));
    }

    #[tokio::test]
    async fn a_promised_frame_costs_no_memory_until_it_arrives() {
        let mut bytes = (FRAME_BYTES as u32).to_le_bytes().to_vec();
        bytes.extend([0; 1000]);
        let mut reader = reader(&bytes);
        assert!(matches!(reader.next(FRAME_BYTES).await, Err(Error::Closed)));
        assert!(reader.buffer.capacity() <= 2 * (READ_BYTES + bytes.len()), "{}", reader.buffer.capacity());
    }
}
