//! What a journal record holds.

use super::same_again;
use syncfs::model::codec::decode_own;
use syncfs::model::record::Record;

pub fn run(input: &[u8]) {
    same_again::<Record>(decode_own, input);
}
