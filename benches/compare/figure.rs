//! A figure: one thing measured of several contenders in turn, round after round on the same machine, and what is to
//! come of it. Only figures of one round are ever compared.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Who is measured: `syncfs`, `native`, `bare`, `sshfs`, `rsync` and so on.
pub type Who = Cow<'static, str>;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Figure {
    /// What `--only` calls it: lower case, words joined by `-`. Figures of one group begin alike: `write-1m`, `write-128k`.
    pub name: String,
    /// As the table shows it, in a few words.
    pub title: String,
    pub unit: Unit,
    pub goals: Vec<Goal>,
    /// Each round has one sample of everybody who took part, taken in turn.
    pub rounds: Vec<BTreeMap<Who, f64>>,
    /// What must be known to read it: who was left out and why, what was different from what the goal asks.
    pub notes: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Unit {
    /// Bytes a second; more is better.
    Throughput,
    /// Operations a second; more is better.
    Rate,
    /// Less is better, from here on.
    Seconds,
    Bytes,
    Percent,
    /// Just a number, such as wake-ups a second.
    Count,
}

/// Characters of what a panic said.
const LINE: usize = 1000;

/// What is wanted of syncfs.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Goal {
    /// At least so many times as good as another: 0.9 is nine tenths of its rate, or its time divided by 0.9.
    Against(Who, f64),
    /// The figure itself, at most.
    AtMost(f64),
    AtLeast(f64),
}

impl Unit {
    pub fn more_is_better(self) -> bool {
        matches!(self, Unit::Throughput | Unit::Rate)
    }
}

/// Of several numbers: the middle one, and how far the others lie off.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    pub least: f64,
    pub median: f64,
    pub most: f64,
}

impl Spread {
    /// None of none.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Spread> {
        let mut numbers: Vec<f64> = numbers.into_iter().collect();
        numbers.sort_by(f64::total_cmp);
        let (least, most) = (*numbers.first()?, *numbers.last()?);
        let (low, high) = (numbers[(numbers.len() - 1) / 2], numbers[numbers.len() / 2]);
        Some(Spread { least, median: (low + high) / 2.0, most })
    }
}

impl Figure {
    /// Not yet measured.
    pub fn new(name: &str, title: &str, unit: Unit, goals: impl IntoIterator<Item = Goal>) -> Figure {
        let (name, title, goals) = (name.into(), title.into(), goals.into_iter().collect());
        Figure { name, title, unit, goals, rounds: Vec::new(), notes: Vec::new() }
    }

    /// Measured by `take`. Where that panics the figure is left out, and says why.
    pub fn measured(mut self, take: impl FnOnce(&mut Figure)) -> Figure {
        if let Err(why) = attempt(|| take(&mut self)) {
            self.notes.push(format!("left out: {why}"));
        }
        self
    }

    pub fn of(&self, who: &str) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| round.get(who).copied()))
    }

    /// How good syncfs is beside `other`, round by round: above 1 it is the better of the two.
    pub fn beside(&self, other: &str) -> Option<Spread> {
        self.compared("syncfs", other)
    }

    /// How good `who` is beside `other`, round by round.
    pub fn compared(&self, who: &str, other: &str) -> Option<Spread> {
        Spread::of(self.rounds.iter().filter_map(|round| {
            let (ours, theirs) = (round.get(who)?, round.get(other)?);
            Some(if self.unit.more_is_better() { ours / theirs } else { theirs / ours })
        }))
    }

    /// Everybody who was measured; syncfs first.
    pub fn all(&self) -> Vec<&str> {
        let others: BTreeSet<&str> = self.rounds.iter().flatten().map(|(who, _)| who.as_ref()).collect();
        let mut all: Vec<&str> = others.into_iter().collect();
        all.sort_by_key(|who| *who != "syncfs");
        all
    }

    /// Whether `goal` is reached by the median; `None` where it was not measured.
    pub fn reaches(&self, goal: &Goal) -> Option<bool> {
        Some(match goal {
            Goal::Against(other, ratio) => self.beside(other)?.median >= *ratio,
            Goal::AtMost(most) => self.of("syncfs")?.median <= *most,
            Goal::AtLeast(least) => self.of("syncfs")?.median >= *least,
        })
    }
}

/// Does what may panic, and says then what the panic said, in a line.
pub fn attempt<T>(work: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(work)).map_err(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("a panic");
        text.chars().take_while(|c| *c != '\n').take(LINE).collect()
    })
}

/// One who takes part, and how a sample of it is taken.
pub type Contender<'a> = (&'static str, Box<dyn FnMut() -> f64 + 'a>);

/// `count` rounds; in each everybody once, the order turned about each time.
pub fn rounds(count: usize, contenders: &mut [Contender<'_>]) -> Vec<BTreeMap<Who, f64>> {
    let mut rounds = Vec::new();
    for _ in 0..count {
        rounds.push(contenders.iter_mut().map(|(who, sample)| (Who::from(*who), sample())).collect());
        contenders.reverse();
    }
    rounds
}
