//! A compressed frame: what a peer says it holds, and what is made of content that is compressed here.

use super::block_on;
use std::sync::Arc;
use syncfs::model::limits::FRAME_BYTES;
use syncfs::wire::Error;
use syncfs::wire::compression::{Compressor, Decompressor};
use syncfs::wire::frame::{FrameReader, put_compressed};

/// The body of a compressed frame; and the same as content.
pub fn run(input: &[u8]) {
    match taken(input) {
        Ok(body) => assert!(body.len() <= FRAME_BYTES),
        Err(Error::Compressed(_)) => (),
        Err(Error::FrameTooLong(length)) => assert!(length > FRAME_BYTES),
        Err(other) => panic!("{other}"),
    }
    if let Some(small) = Compressor::new(Arc::default()).compress(input) {
        assert!(small.len() < input.len(), "it grew");
        assert!(taken(&small).expect("what was compressed here") == input, "other bytes came back");
    }
}

fn taken(body: &[u8]) -> Result<Vec<u8>, Error> {
    let mut frame = Vec::new();
    put_compressed(&mut frame, body);
    let mut reader = FrameReader::new(&frame[..]);
    reader.decompress_with(Decompressor::new(Arc::default()).expect("memory"));
    block_on(reader.next(FRAME_BYTES)).map(|body| body.to_vec())
}
