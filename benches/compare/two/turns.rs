//! Rounds in which a contender gives several figures at once, and in which it may fail.
//!
//! Invariant: who fails is left out from then on, which is noted; the others go on.

use crate::figure::{Figure, attempt};
use crate::options::Options;
use crate::peers::Kind;
use std::collections::BTreeMap;

pub const ROUNDS: u64 = 5;

/// One number: for which of the figures, whose, and what.
pub type Sample = (usize, &'static str, f64);

pub struct Turn<'a> {
    pub who: &'static str,
    /// In so many rounds at most.
    pub most: usize,
    pub take: Box<dyn FnMut() -> Vec<Sample> + 'a>,
}

impl<'a> Turn<'a> {
    pub fn new(who: &'static str, take: impl FnMut() -> Vec<Sample> + 'a) -> Turn<'a> {
        Turn { who, most: usize::MAX, take: Box::new(take) }
    }

    /// Of who may take part in a few rounds only.
    pub fn of(kind: &Kind, take: impl FnMut() -> Vec<Sample> + 'a) -> Turn<'a> {
        Turn { most: kind.rounds(), ..Turn::new(kind.name, take) }
    }
}

/// Takes what belongs to these figures together. Where that panics, they say why.
pub fn taken(figures: &mut [Figure], take: impl FnOnce(&mut [Figure])) {
    if let Err(why) = attempt(|| take(figures)) {
        note(figures, &format!("left out: {why}"));
    }
}

/// Rounds, in each of which everybody comes once; the order is turned about each time.
pub fn turns(options: &Options, figures: &mut [Figure], mut turns: Vec<Turn>) {
    for round in 0..options.size(ROUNDS, 3) as usize {
        figures.iter_mut().for_each(|figure| figure.rounds.push(BTreeMap::new()));
        turns.retain_mut(|turn| {
            if round >= turn.most {
                return true;
            }
            match attempt(&mut turn.take) {
                Ok(samples) => {
                    for (figure, who, number) in samples {
                        figures[figure].rounds[round].insert(who.into(), number);
                    }
                    true
                }
                Err(why) => {
                    left_out(figures, turn.who, &why);
                    false
                }
            }
        });
        turns.reverse();
    }
}

/// Notes it in all of them.
pub fn left_out(figures: &mut [Figure], who: &str, why: &str) {
    note(figures, &format!("{who} left out: {why}"));
}

/// Notes it in all of them.
pub fn note(figures: &mut [Figure], text: &str) {
    figures.iter_mut().for_each(|figure| figure.notes.push(text.into()));
}
