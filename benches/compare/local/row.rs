//! One row: what is made ready, what is then measured, and in which figures that ends.

use super::place::Place;
use super::yardsticks::LOGGED;
use crate::figure::{Contender, Figure, Goal, Unit, rounds};
use crate::options::Options;
use std::path::Path;
use std::time::{Duration, Instant};

/// With `--quick`, and without.
const ROUNDS: [usize; 2] = [3, 5];
/// A sample takes so long at least.
const LEAST: Duration = Duration::from_millis(300);

/// Works in a directory; which sample it is, from 0, makes content that nobody had before.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    pub dir: &'a Path,
    pub sample: u64,
    /// For what is not measured.
    pub scratch: &'a Path,
    pub options: &'a Options,
}

#[derive(Clone)]
pub struct Row {
    pub name: &'static str,
    pub title: &'static str,
    pub unit: Unit,
    /// Of syncfs with a peer that replicates meanwhile.
    pub goal: Goal,
    /// Beside a daemon that also logs.
    pub logged: bool,
    /// Of syncfs whose peer is not there, where that is asked for.
    pub offline: Option<Goal>,
    /// Not timed; settled after it.
    pub prepare: fn(Task),
    /// The sample.
    pub take: fn(Task) -> f64,
}

impl Row {
    fn offline_name(&self) -> String {
        format!("{}-offline", self.name)
    }

    pub fn wanted(&self, options: &Options) -> bool {
        options.wants(self.name) || self.offline.is_some() && options.wants(&self.offline_name())
    }

    fn figure(&self) -> Figure {
        Figure::new(self.name, self.title, self.unit, [self.goal.clone()])
    }

    pub fn left_out(&self, why: &str) -> Figure {
        let mut figure = self.figure();
        figure.notes.push(format!("left out: {why}"));
        figure
    }

    /// One figure, or two if it is also measured offline.
    pub fn measure(&self, place: &Place, options: &Options) -> Vec<Figure> {
        let mut figure = self.figure().measured(|figure| {
            let scratch = tempfile::tempdir().expect("a directory");
            let scratch = scratch.path();
            figure.notes.extend(place.notes.iter().cloned());
            let takes_part = |who: &str| match who {
                "offline" => self.offline.is_some(),
                LOGGED => self.logged,
                _ => true,
            };
            let dirs = place.dirs.iter().filter(|(who, _)| takes_part(who));
            let mut contenders: Vec<Contender> = dirs
                .map(|(who, dir)| {
                    let mut samples = 0..;
                    let sample = move || {
                        let task = Task { dir, sample: samples.next().expect("endless"), scratch, options };
                        (self.prepare)(task);
                        place.settle();
                        let sample = (self.take)(task);
                        place.settle();
                        sample
                    };
                    (*who, Box::new(sample) as Box<dyn FnMut() -> f64>)
                })
                .collect();
            figure.rounds = rounds(ROUNDS[usize::from(!options.quick)], &mut contenders);
        });
        let offline = self.offline.clone().map(|goal| self.apart(&mut figure, goal));
        std::iter::once(figure).chain(offline).collect()
    }

    /// What was measured offline becomes a figure of its own, beside the same samples of the others.
    fn apart(&self, figure: &mut Figure, goal: Goal) -> Figure {
        let mut apart = figure.clone();
        (apart.name, apart.goals) = (self.offline_name(), vec![goal]);
        apart.title.push_str(", offline");
        for (with, without) in figure.rounds.iter_mut().zip(&mut apart.rounds) {
            let sample = with.remove("offline");
            without.remove("offline");
            sample.map(|sample| without.insert("syncfs".into(), sample));
        }
        apart
    }
}

/// How much is done a second: work that says how much it was, again and again for a while.
pub fn repeated(mut work: impl FnMut() -> u64) -> f64 {
    let (begun, mut done) = (Instant::now(), 0);
    while begun.elapsed() < LEAST {
        done += work();
    }
    done as f64 / begun.elapsed().as_secs_f64()
}
