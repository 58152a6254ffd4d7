//! What happened lately, for people and programs to see.
//!
//! Invariants: who tells never waits, and what it tells costs one place in a ring; the last [`HISTORY`] events are here,
//! older ones are gone; numbers only grow, also from one mount to the next, so a reader knows what it missed.

use crate::model::conflict::{conflict, is_conflict_copy};
use crate::model::limits::HISTORY;
use crate::model::name::Name;
use parking_lot::Mutex;
use serde::Serialize;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::watch;

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "lowercase")]
pub enum Told {
    /// A session with the peer is up.
    Connected {
        replica: String,
        address: String,
    },
    Disconnected {
        reason: String,
    },
    /// A change of the peer's is here now; content may still be on its way.
    Came(Change),
    /// A change made here is durable at the peer.
    Went(Change),
    /// Both hosts changed `file`: the version of `side` is kept as `copy`.
    Conflict {
        file: String,
        copy: String,
        side: &'static str,
    },
    /// So many deletes of the peer wait for somebody.
    Paused {
        deletes: u64,
    },
    /// These pass.
    Resumed {
        deletes: u64,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Change {
    pub file: String,
    pub what: What,
    /// The name before, of what was renamed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum What {
    Created,
    Changed,
    Renamed,
    Deleted,
}

/// Something that happened, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Event {
    pub number: u64,
    /// Milliseconds since 1970.
    pub time_ms: u64,
    #[serde(flatten)]
    pub told: Told,
}

/// How often something happened since the mount. Changes in the order of [`What::ALL`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub sessions: u64,
    pub came: [u64; 4],
    pub went: [u64; 4],
    pub conflicts: u64,
    pub pauses: u64,
}

pub struct Events {
    ring: Mutex<Ring>,
    news: watch::Sender<()>,
}

struct Ring {
    kept: VecDeque<Arc<Event>>,
    /// The numbers of this mount's first event, and of the one to come.
    first: u64,
    next: u64,
    counts: Counts,
}

impl Change {
    /// What became of a file that was called `old` and is called `new`. `None` where it had no name and has none.
    pub fn of(old: Option<&Name>, new: Option<&Name>) -> Option<Change> {
        let (file, what) = match (old, new) {
            (None, None) => return None,
            (None, Some(new)) => (new, What::Created),
            (Some(old), Some(new)) if old == new => (new, What::Changed),
            (Some(_), Some(new)) => (new, What::Renamed),
            (Some(old), None) => (old, What::Deleted),
        };
        let from = old.filter(|_| what == What::Renamed).map(Name::to_string);
        Some(Change { file: file.to_string(), what, from })
    }
}

impl Told {
    /// The version of `side` lost, and is kept as `copy`.
    pub fn conflict(copy: &Name, side: &'static str) -> Told {
        let file = conflict(copy).map_or_else(|| copy.to_string(), |told| told.original.to_string());
        Told::Conflict { file, copy: copy.to_string(), side }
    }

    /// A change of the peer's; a conflict copy that it made is news of its own.
    pub fn came(old: Option<&Name>, new: Option<&Name>) -> Option<Told> {
        match new.filter(|new| old.is_none() && is_conflict_copy(new)) {
            Some(copy) => Some(Told::conflict(copy, "peer")),
            None => Change::of(old, new).map(Told::Came),
        }
    }
}

impl Default for Events {
    fn default() -> Events {
        // More than a million events a second would have to happen for the next mount to use a number twice.
        let first = now().as_micros() as u64;
        let ring = Ring { kept: VecDeque::new(), first, next: first, counts: Counts::default() };
        Events { ring: Mutex::new(ring), news: watch::channel(()).0 }
    }
}

impl Events {
    pub fn tell(&self, told: Told) {
        let mut ring = self.ring.lock();
        ring.counts.add(&told);
        let event = Event { number: ring.next, time_ms: now().as_millis() as u64, told };
        ring.next += 1;
        if ring.kept.len() == HISTORY {
            ring.kept.pop_front();
        }
        ring.kept.push_back(Arc::new(event));
        drop(ring);
        self.news.send_replace(());
    }

    /// How many of the events after number `after` are gone, and those that are still here; without a number, all that
    /// are here. Of an earlier mount's nothing is known.
    pub fn after(&self, after: Option<u64>) -> (u64, Vec<Arc<Event>>) {
        let ring = self.ring.lock();
        let oldest = ring.next - ring.kept.len() as u64;
        let from = after.map_or(oldest, |after| after.saturating_add(1).clamp(ring.first, ring.next));
        let seen = from.saturating_sub(oldest) as usize;
        (oldest.saturating_sub(from), ring.kept.iter().skip(seen).cloned().collect())
    }

    /// Wakes who waits for the next event.
    pub fn news(&self) -> watch::Receiver<()> {
        self.news.subscribe()
    }

    pub fn counts(&self) -> Counts {
        self.ring.lock().counts
    }
}

impl What {
    pub const ALL: [What; 4] = [What::Created, What::Changed, What::Renamed, What::Deleted];

    pub fn word(self) -> &'static str {
        match self {
            What::Created => "created",
            What::Changed => "changed",
            What::Renamed => "renamed",
            What::Deleted => "deleted",
        }
    }
}

impl Counts {
    fn add(&mut self, told: &Told) {
        match told {
            Told::Connected { .. } => self.sessions += 1,
            Told::Came(change) => self.came[change.what as usize] += 1,
            Told::Went(change) => self.went[change.what as usize] += 1,
            Told::Conflict { .. } => self.conflicts += 1,
            Told::Paused { .. } => self.pauses += 1,
            Told::Disconnected { .. } | Told::Resumed { .. } => {}
        }
    }
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        Name::new(text.as_bytes()).unwrap()
    }

    fn numbers(events: &[Arc<Event>]) -> Vec<u64> {
        events.iter().map(|event| event.number).collect()
    }

    #[test]
    fn a_late_reader_sees_what_is_left_and_how_much_it_missed() {
        let events = Events::default();
        assert_eq!(events.after(None), (0, vec![]));
        for deletes in 0..HISTORY as u64 + 10 {
            events.tell(Told::Resumed { deletes });
        }
        let (missed, all) = events.after(None);
        assert_eq!((missed, all.len(), &all[0].told), (0, HISTORY, &Told::Resumed { deletes: 10 }));
        let first = all[0].number;
        assert_eq!(numbers(&all), (first..first + HISTORY as u64).collect::<Vec<_>>());
        let (missed, rest) = events.after(Some(first - 4));
        assert_eq!((missed, rest.len()), (3, HISTORY));
        let (missed, rest) = events.after(Some(first + 1));
        assert_eq!((missed, numbers(&rest)[0]), (0, first + 2));
        let last = first + HISTORY as u64 - 1;
        assert_eq!(events.after(Some(last)), (0, vec![]));
        // Numbers of another mount, and made-up ones.
        assert_eq!((events.after(Some(7)).0, events.after(Some(7)).1.len()), (10, HISTORY));
        assert_eq!(events.after(Some(u64::MAX)), (0, vec![]));
    }

    #[test]
    fn a_change_is_what_became_of_a_name() {
        let (a, b) = (name("a"), name("b"));
        let change = |old, new| Change::of(old, new).map(|c| (c.file, c.what, c.from));
        assert_eq!(change(None, Some(&a)), Some(("a".into(), What::Created, None)));
        assert_eq!(change(Some(&a), Some(&a)), Some(("a".into(), What::Changed, None)));
        assert_eq!(change(Some(&a), Some(&b)), Some(("b".into(), What::Renamed, Some("a".into()))));
        assert_eq!(change(Some(&a), None), Some(("a".into(), What::Deleted, None)));
        assert_eq!(change(None, None), None);
    }

    #[test]
    fn a_conflict_copy_that_comes_is_a_conflict() {
        let copy = name("notes.sync-conflict-20231114-221320-abcd0000.txt");
        let told = Told::came(None, Some(&copy)).unwrap();
        assert_eq!(told, Told::Conflict { file: "notes.txt".into(), copy: copy.to_string(), side: "peer" });
        let json = serde_json::to_value(Event { number: 7, time_ms: 8, told }).unwrap();
        assert_eq!(
            (&json["event"], &json["file"], &json["number"]),
            (&"conflict".into(), &"notes.txt".into(), &7.into())
        );
    }

    #[test]
    fn what_happens_is_counted() {
        let events = Events::default();
        events.tell(Told::Came(Change::of(None, Some(&name("a"))).unwrap()));
        events.tell(Told::Went(Change::of(Some(&name("a")), None).unwrap()));
        let counts = events.counts();
        assert_eq!((counts.came, counts.went, counts.sessions), ([1, 0, 0, 0], [0, 0, 0, 1], 0));
        assert_eq!(What::ALL.map(|what| what as usize), [0, 1, 2, 3]);
    }
}
