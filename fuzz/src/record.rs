//! What a journal record holds.

use super::same_again;
use syncfs::model::record::Record;

pub fn run(input: &[u8]) {
    same_again::<Record>(input);
}
