//! Deletes of the peer that look like an accident: who empties a directory over there by mistake shall not empty it here.
//!
//! Invariants: nothing is counted that came back under its name; once paused, no delete passes until somebody says so; what
//! that person let through is not counted again.

use super::cut::Cut;
use super::judge::{PlaceVerdict, Verdict};
use super::limits::STORM_FILES;
use super::name::Name;
use super::sabotage::{Bug, planted};
use super::share::Share;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Deletes are counted over this time.
const WINDOW: Duration = Duration::from_secs(60);

/// Times are durations since one fixed instant.
#[derive(Debug)]
pub struct Brake {
    /// Deletes in a window that are well; without it, half of all files, where these are many.
    max: Option<u64>,
    /// Names that were taken away in this window: when, and how many files there were before.
    gone: BTreeMap<Name, (Duration, u64)>,
    paused: bool,
    waiting: u64,
    /// Deletes that somebody let through and that have not come yet, and when one last came.
    granted: (u64, Duration),
}

/// What a cut does to the names of files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// They lead to nothing any more, ...
    pub gone: Vec<Name>,
    /// ... and these lead to something, or to something else.
    pub given: Vec<Name>,
}

/// Whether `deletes` of `files` are too many to be believed; `max` is what was said to be well.
pub fn is_storm(deletes: u64, files: u64, max: Option<u64>) -> bool {
    match max {
        Some(max) => deletes > max,
        None => files > STORM_FILES && deletes.saturating_mul(2) > files,
    }
}

impl Names {
    /// What `cut` does, as judged.
    pub fn of(share: &Share, cut: &Cut, verdicts: &[Verdict]) -> Names {
        let mut names = Names::default();
        for (file, verdict) in cut.files.iter().zip(verdicts) {
            let takes = matches!(verdict.place, PlaceVerdict::Take | PlaceVerdict::TakeFrom(_));
            match file.place.as_ref().filter(|_| takes).map(|place| &place.name) {
                Some(Some(name)) => names.given.push(name.clone()),
                Some(None) => names.gone.extend(share.file(file.file).and_then(|f| f.name.clone())),
                None => {}
            }
        }
        let given: BTreeSet<&Name> = names.given.iter().collect();
        names.gone.retain(|name| !given.contains(name));
        names
    }
}

impl Brake {
    /// `paused`: it was when the last daemon ended.
    pub fn new(max: Option<u64>, paused: bool) -> Brake {
        Brake { max, gone: BTreeMap::new(), paused, waiting: 0, granted: (0, Duration::ZERO) }
    }

    /// Whether the `waiting` deletes that have come may pass, of `files` that there are. From the answer no on it is
    /// paused.
    pub fn may_pass(&mut self, now: Duration, files: u64, waiting: u64) -> bool {
        self.gone.retain(|_, (at, _)| now.saturating_sub(*at) < WINDOW);
        if now.saturating_sub(self.granted.1) > WINDOW {
            self.granted.0 = 0;
        }
        self.waiting = waiting;
        let more = waiting.saturating_sub(self.granted.0);
        let at_first = self.gone.values().min().map_or(files, |(_, files)| *files);
        let storm = is_storm(self.gone.len() as u64 + more, at_first, self.max);
        self.paused |= storm && more > 0 && !planted(Bug::IgnoreStorm);
        !self.paused || waiting == 0
    }

    /// A cut was applied where there were `files` before.
    pub fn passed(&mut self, now: Duration, files: u64, names: Names) {
        for name in &names.given {
            self.gone.remove(name);
        }
        for name in names.gone {
            if self.granted.0 > 0 {
                self.granted = (self.granted.0 - 1, now);
            } else {
                self.gone.insert(name, (now, files));
            }
        }
    }

    /// Somebody lets through what waits. Returns how many deletes that are; `None` where it was not paused.
    pub fn resume(&mut self, now: Duration) -> Option<u64> {
        if !std::mem::take(&mut self.paused) {
            return None;
        }
        self.gone.clear();
        self.granted = (self.waiting, now);
        Some(std::mem::take(&mut self.waiting))
    }

    /// How many deletes wait for somebody; `None` where it is not paused.
    pub fn held(&self) -> Option<u64> {
        self.paused.then_some(self.waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn names(range: std::ops::Range<u32>) -> Vec<Name> {
        range.map(|n| Name::new(format!("f{n}").as_bytes()).unwrap()).collect()
    }

    fn gone(range: std::ops::Range<u32>) -> Names {
        Names { gone: names(range), given: Vec::new() }
    }

    #[test]
    fn more_than_half_of_more_than_a_hundred_is_a_storm() {
        assert!(!is_storm(100, 100, None) && !is_storm(100, 200, None) && !is_storm(51, 102, None));
        assert!(is_storm(52, 102, None) && is_storm(101, 200, None));
        assert!(is_storm(1, 5, Some(0)) && !is_storm(5, 5, Some(5)) && !is_storm(900, 1_000, Some(900)));
    }

    #[test]
    fn what_goes_one_by_one_is_stopped_at_half() {
        let mut brake = Brake::new(None, false);
        let passes = |n: u32| {
            let now = SECOND / 10 * n;
            let may = brake.may_pass(now, u64::from(200 - n), 1);
            brake.passed(now, u64::from(200 - n), gone(n..n + 1));
            may
        };
        assert_eq!((0..150).map(passes).take_while(|may| *may).count(), 100);
    }

    #[test]
    fn what_goes_slowly_passes() {
        let mut brake = Brake::new(None, false);
        for n in 0..199 {
            assert!(brake.may_pass(SECOND * 2 * n, u64::from(200 - n), 1), "{n}");
            brake.passed(SECOND * 2 * n, u64::from(200 - n), gone(n..n + 1));
        }
    }

    #[test]
    fn what_comes_back_under_its_name_is_no_delete() {
        let mut brake = Brake::new(None, false);
        for n in 0..200 {
            assert!(brake.may_pass(SECOND, 200, 1), "{n}");
            brake.passed(SECOND, 200, gone(n..n + 1));
            brake.passed(SECOND, 199, Names { gone: Vec::new(), given: names(n..n + 1) });
        }
    }

    #[test]
    fn paused_it_stays_so_until_somebody_lets_through_what_waits_and_no_more() {
        let mut brake = Brake::new(None, false);
        assert!(!brake.may_pass(SECOND, 400, 210) && brake.held() == Some(210));
        // After a reconnect they come once more, one by one; what deletes nothing passes.
        assert!(!brake.may_pass(SECOND * 200, 400, 1) && brake.may_pass(SECOND * 200, 400, 0));
        assert!(!brake.may_pass(SECOND * 200, 400, 210));
        assert_eq!(brake.resume(SECOND * 300), Some(210));
        assert_eq!((brake.held(), brake.resume(SECOND * 300)), (None, None));
        assert!(brake.may_pass(SECOND * 301, 400, 210));
        brake.passed(SECOND * 301, 400, gone(0..210));
        assert!(brake.may_pass(SECOND * 302, 190, 95) && !brake.may_pass(SECOND * 302, 190, 96));
    }

    #[test]
    fn what_was_let_through_and_did_not_come_is_not_let_through_later() {
        let mut brake = Brake::new(None, false);
        assert!(!brake.may_pass(SECOND, 400, 210));
        brake.resume(SECOND * 2);
        assert!(!brake.may_pass(SECOND * 100, 400, 210));
    }
}
