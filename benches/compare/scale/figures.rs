//! Figures of one thing at one size, one sample each, and how they are taken.

use crate::figure::{Figure, Goal, Unit, attempt};
use crate::options::Options;
use std::collections::BTreeMap;
use std::time::Instant;

/// A size, as figures are called by it and as a number.
pub type Size = (&'static str, u64);

/// What a story finds at each size, as far as it is wanted. Where it fails, what it had found counts.
pub fn grown(options: &Options, prefix: &str, sizes: &[Size], story: fn(&mut Found, u64)) -> Vec<Figure> {
    if !options.wants_of(&format!("{prefix}-")) {
        return Vec::new();
    }
    let at = |&(size, number): &Size| {
        let mut found = Found { prefix, size, figures: Vec::new() };
        if let Err(why) = attempt(|| story(&mut found, number)) {
            found.left_out(&why);
        }
        found.figures
    };
    sizes.iter().flat_map(at).filter(|figure| options.wants(&figure.name)).collect()
}

/// Collects what is found at one size; `PREFIX-WHAT-SIZE` is what a figure is called.
pub struct Found<'a> {
    pub prefix: &'a str,
    pub size: &'a str,
    pub figures: Vec<Figure>,
}

impl Found<'_> {
    pub fn add(&mut self, what: &str, title: &str, unit: Unit, goal: Option<Goal>, sample: f64) {
        let name = format!("{}-{what}-{}", self.prefix, self.size);
        let mut figure = Figure::new(&name, &format!("{title}, {}", self.size), unit, goal);
        figure.rounds = vec![BTreeMap::from([("syncfs".into(), sample)])];
        self.figures.push(figure);
    }

    /// What somebody else takes for what was found last.
    pub fn beside(&mut self, who: &'static str, sample: f64) {
        let rounds = self.figures.last_mut().map(|figure| &mut figure.rounds);
        rounds.into_iter().flatten().for_each(|round| _ = round.insert(who.into(), sample));
    }

    /// Seconds that some work takes.
    pub fn time(&mut self, what: &str, title: &str, goal: Option<Goal>, work: impl FnOnce()) {
        self.add(what, title, Unit::Seconds, goal, timed(work));
    }

    /// Seconds that the middle one of several takes; each says how long it took.
    pub fn median(&mut self, what: &str, title: &str, count: u64, each: impl FnMut(u64) -> f64) {
        let mut times: Vec<f64> = (0..count).map(each).collect();
        times.sort_by(f64::total_cmp);
        self.add(what, title, Unit::Seconds, None, times[times.len() / 2]);
    }

    /// What stands in for all that could not be found.
    pub fn left_out(&mut self, why: &str) {
        let name = format!("{}-left-out-{}", self.prefix, self.size);
        let mut figure = Figure::new(&name, &format!("the rest, {}", self.size), Unit::Seconds, None);
        figure.notes.push(format!("left out: {why}"));
        self.figures.push(figure);
    }
}

pub fn timed(work: impl FnOnce()) -> f64 {
    let begun = Instant::now();
    work();
    begun.elapsed().as_secs_f64()
}
