//! A message of the peer, decoded and checked as a session does it.

use syncfs::model::chunk;
use syncfs::model::codec;
use syncfs::model::cut::Piece;
use syncfs::model::delta::{Index, Part, Recipe};
use syncfs::model::limits::{CHUNK, FILE_BYTES, SPAN_BYTES};
use syncfs::model::message::Message;
use syncfs::wire::session::parse;

/// The body of a frame.
pub fn run(input: &[u8]) {
    let Ok(message) = parse(input) else { return };
    assert_eq!(codec::encode(&message), input, "{message:?} was read from bytes that are not its own");
    match &message {
        Message::Announce(cut) => {
            for body in cut.files.iter().filter_map(|f| f.body.as_ref()) {
                let end = chunk::count(body.attrs.size);
                let delta = body.delta(cut.writer, &body.base);
                assert!(delta.iter().all(|r| r.end <= end), "a change outside its file: {body:?}");
                body.pieces.iter().for_each(writable);
            }
            assert!(cut.inline_bytes() <= input.len() as u64);
        }
        Message::Deliver { pieces, .. } => pieces.iter().for_each(writable),
        Message::Retrieve { start, end, .. } => {
            let bytes = chunk::bytes(&(*start..*end), FILE_BYTES);
            assert!(bytes.start < bytes.end && bytes.end - bytes.start <= (end - start) * CHUNK);
        }
        Message::Compare { start, end, .. } | Message::Match { start, end, .. } => {
            assert!(start < end && (end - start) * CHUNK <= SPAN_BYTES && *end <= chunk::count(FILE_BYTES));
        }
        Message::Recipes { recipes, .. } => {
            assert!(recipes.iter().map(Recipe::len).sum::<u64>() <= SPAN_BYTES);
            assert!(recipes.iter().all(|r| r.chunks().end <= chunk::count(FILE_BYTES)));
        }
        // What follows is content like any other: whatever was signed, it is given, and all of it.
        Message::Signature { signature, .. } => {
            let index = Index::new(signature.clone());
            let content = &input[..input.len().min(5_000)];
            for want in [0..content.len(), content.len() / 3..content.len() / 2] {
                let parts = index.scan(content, want.clone());
                assert_eq!(parts.iter().map(Part::len).sum::<u64>(), want.len() as u64);
            }
        }
        _ => {}
    }
}

/// A piece lies where a file can have bytes.
fn writable(piece: &Piece) {
    let chunks = piece.chunks();
    assert!(!chunks.is_empty() && chunks.end <= chunk::count(FILE_BYTES), "{chunks:?}");
}
