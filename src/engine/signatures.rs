//! The peer's signatures of this session, ready to be searched.
//!
//! Invariant: at most `SIGNATURES` of them, and `SIGNED_BLOCKS` blocks in all; the oldest go first. Who asks against
//! one that is gone is told so.

use crate::model::delta::{Index, Signature};
use crate::model::limits::{SIGNATURES, SIGNED_BLOCKS};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::sync::Arc;

#[derive(Default)]
pub struct Signatures(Mutex<VecDeque<(u64, Arc<Index>)>>);

impl Signatures {
    pub fn learn(&self, number: u64, signature: Signature) {
        let index = Arc::new(Index::new(signature));
        let mut all = self.0.lock();
        all.push_back((number, index));
        let too_many = |all: &VecDeque<(u64, Arc<Index>)>| {
            all.len() > SIGNATURES || all.iter().map(|s| s.1.blocks()).sum::<usize>() > SIGNED_BLOCKS
        };
        while too_many(&all) {
            all.pop_front();
        }
    }

    pub fn get(&self, number: u64) -> Option<Arc<Index>> {
        self.0.lock().iter().find(|s| s.0 == number).map(|s| s.1.clone())
    }

    /// The session is over.
    pub fn clear(&self) {
        self.0.lock().clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_that_signs_all_day_fills_nothing() {
        let all = Signatures::default();
        for number in 0..2 * SIGNATURES as u64 {
            all.learn(number, Signature::of(&[7; 1_500]));
        }
        assert!(all.get(2 * SIGNATURES as u64 - 1).is_some() && all.get(SIGNATURES as u64).is_some());
        assert!(all.get(SIGNATURES as u64 - 1).is_none());
        all.clear();
        assert!(all.get(2 * SIGNATURES as u64 - 1).is_none());
    }
}
