//! The oracle: what users of two hosts did to their files, and what they may find in the end.
//!
//! It knows bytes, names and permission bits, and no chunk, version or journal. A file is known by its first byte. Each has
//! a life on either host since both last had the same: its states, one after each system call.
//! A kill takes nothing that a call accepted. Power loss takes what was neither synced nor on the other host,
//! byte by byte as it likes.

use crate::operation::Call;
use std::collections::{BTreeMap, BTreeSet};

pub const CONFLICT: &str = ".sync-conflict-";

/// A file as somebody finds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    pub bytes: Vec<u8>,
    pub mode: u32,
}

/// Everything on a host, by name.
pub type Share = BTreeMap<String, Found>;

#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    name: Option<String>,
    bytes: Vec<u8>,
    mode: u32,
}

/// One file on one host: its states, the first of which both hosts had.
#[derive(Clone, Debug)]
struct Life {
    states: Vec<State>,
    /// The first state that the file may end in.
    sure: usize,
    /// Any mixture of its states since is possible, too.
    torn: bool,
    /// Somebody was about to change it when the daemon was killed: that may count as a change.
    attempted: bool,
}

#[derive(Default)]
pub struct Ledger {
    lives: BTreeMap<u8, [Life; 2]>,
    /// Contents before: what was not synced may still lie on a disk, and shows until the other host is asked.
    past: BTreeMap<u8, Vec<Vec<u8>>>,
    /// Two files that one call renamed on a host, each with the state it came to.
    together: Vec<(usize, [(u8, usize); 2])>,
    /// Which host is in the middle of a call, and what was there before.
    under_way: Option<(usize, BTreeMap<u8, State>)>,
}

/// The letter of a file; `None` where its first byte never reached the disk.
fn letter(bytes: &[u8]) -> Option<u8> {
    bytes.first().copied().filter(|first| *first != 0)
}

impl Life {
    fn now(&self) -> &State {
        &self.states[self.states.len() - 1]
    }

    /// What may be left of it.
    fn possible(&self) -> &[State] {
        &self.states[self.sure..]
    }

    fn changed(&self, what: impl Fn(&State) -> bool) -> bool {
        self.possible().iter().any(what)
    }

    fn surely(&self, what: impl Fn(&State) -> bool) -> bool {
        self.possible().iter().all(what)
    }

    fn may_hold(&self, bytes: &[u8]) -> bool {
        let all: Vec<&[u8]> = self.possible().iter().map(|s| &s.bytes[..]).collect();
        all.contains(&bytes) || (self.torn && is_mixture(&all, bytes, true))
    }
}

impl Ledger {
    /// Both hosts have exactly this from now on. Where there are conflict copies the ledger is closed: it has seen
    /// that they are right.
    pub fn both_have(&mut self, share: &Share) {
        let mut ledger = Ledger { past: std::mem::take(&mut self.past), ..Ledger::default() };
        for (letter, lives) in &self.lives {
            let contents = lives.iter().flat_map(|life| &life.states).map(|s| s.bytes.clone());
            ledger.past.entry(*letter).or_default().extend(contents);
        }
        *self = ledger;
        if share.keys().any(|name| name.contains(CONFLICT)) {
            return;
        }
        for (name, found) in share {
            let Found { bytes, mode } = found.clone();
            let state = State { name: Some(name.clone()), bytes, mode };
            let life = Life { states: vec![state], sure: 0, torn: false, attempted: false };
            let letter = letter(&found.bytes).unwrap_or(0);
            self.lives.insert(letter, [life.clone(), life]);
        }
    }

    /// Nothing is known yet of what both have.
    pub fn is_empty(&self) -> bool {
        self.lives.is_empty()
    }

    fn on(&self, side: usize) -> BTreeMap<u8, State> {
        let named = self.lives.iter().filter(|(_, l)| l[side].now().name.is_some());
        named.map(|(letter, l)| (*letter, l[side].now().clone())).collect()
    }

    fn named(&self, side: usize, name: &str) -> Option<u8> {
        self.on(side).into_iter().find(|(_, s)| s.name.as_deref() == Some(name)).map(|(letter, _)| letter)
    }

    fn becomes(&mut self, side: usize, letter: u8, change: impl FnOnce(&mut State)) -> (u8, usize) {
        let life = &mut self.lives.get_mut(&letter).expect("it is known")[side];
        let mut state = life.now().clone();
        change(&mut state);
        life.states.push(state);
        (letter, life.states.len() - 1)
    }

    /// `call` begins on `side`.
    pub fn begin(&mut self, side: usize, call: &Call) {
        self.under_way = Some((side, self.on(side)));
        let file = |name: &str| self.named(side, name).expect("a call about a file that is there");
        match *call {
            Call::Create(name, letter) => {
                let nothing = State { name: None, bytes: Vec::new(), mode: 0o644 };
                let life = || Life { states: vec![nothing.clone()], sure: 0, torn: false, attempted: false };
                self.lives.insert(letter, [life(), life()]);
                self.becomes(side, letter, |s| s.name = Some(name.to_owned()));
            }
            Call::Write { name, at, ref bytes } => {
                self.becomes(side, file(name), |s| {
                    s.bytes.resize(s.bytes.len().max(at + bytes.len()), 0);
                    s.bytes[at..at + bytes.len()].copy_from_slice(bytes);
                });
            }
            Call::Truncate(name, size) => {
                self.becomes(side, file(name), |s| s.bytes.resize(size, 0));
            }
            Call::Chmod(name, mode) => {
                self.becomes(side, file(name), |s| s.mode = mode);
            }
            Call::Unlink(name) => {
                self.becomes(side, file(name), |s| s.name = None);
            }
            Call::Rename(from, to) => {
                let (moved, replaced) = (file(from), self.named(side, to));
                let moved = self.becomes(side, moved, |s| s.name = Some(to.to_owned()));
                if let Some(replaced) = replaced {
                    let replaced = self.becomes(side, replaced, |s| s.name = None);
                    self.together.push((side, [moved, replaced]));
                }
            }
            Call::Exchange(a, b) => {
                let (first, second) = (file(a), file(b));
                let first = self.becomes(side, first, |s| s.name = Some(b.to_owned()));
                let second = self.becomes(side, second, |s| s.name = Some(a.to_owned()));
                self.together.push((side, [first, second]));
            }
            Call::Open(_) | Call::Fsync(_) | Call::Close | Call::Checkpoint => {}
        }
    }

    /// It returned.
    pub fn returned(&mut self, side: usize, call: &Call) {
        self.under_way = None;
        if let Call::Fsync(name) = call {
            let letter = self.named(side, name).expect("it is open");
            let life = &mut self.lives.get_mut(&letter).expect("just found")[side];
            life.sure = life.states.len() - 1;
        }
    }

    /// `side` was killed, and this is what it shows now: all that was accepted, and of a call under way
    /// something between nothing and all.
    pub fn killed(&mut self, side: usize, shows: &Share) -> Result<(), String> {
        let Some((calling, before)) = self.under_way.take() else { return Ok(()) };
        if calling != side {
            return Ok(());
        }
        let after = self.on(side);
        let matches = |states: &BTreeMap<u8, State>| {
            let as_shown = |s: &State| {
                let shown = s.name.as_ref().and_then(|name| shows.get(name));
                shown.is_some_and(|f| f.bytes == s.bytes && f.mode == s.mode)
            };
            states.len() == shows.len() && states.values().all(as_shown)
        };
        let mut partly = after.clone();
        for (letter, state) in &mut partly {
            // A write that was cut short.
            let shown = state.name.as_ref().and_then(|name| shows.get(name));
            if let (Some(shown), Some(before)) = (shown, before.get(letter))
                && is_mixture(&[&before.bytes, &state.bytes], &shown.bytes, false)
            {
                state.bytes.clone_from(&shown.bytes);
            }
        }
        let Some(found) = [&before, &after, &partly].into_iter().find(|states| matches(states)) else {
            return Err(format!("host {side}, killed in a call, shows {}", tell(shows)));
        };
        for (letter, lives) in &mut self.lives {
            let life = &mut lives[side];
            life.attempted = before.get(letter) != after.get(letter);
            let state = match found.get(letter) {
                Some(state) => state.clone(),
                None => State { name: None, ..life.now().clone() },
            };
            life.states.push(state);
        }
        // A call that did not happen moved nothing.
        self.together.retain(|(on, pair)| {
            *on != side
                || pair
                    .iter()
                    .all(|(l, at)| self.lives[l][side].now().name == self.lives[l][side].states[*at].name)
        });
        Ok(())
    }

    /// `side` lost power while the other host, still up, shows this.
    pub fn lost_power(&mut self, side: usize, other_shows: &Share) {
        self.under_way = None;
        for (letter, lives) in &mut self.lives {
            let life = &mut lives[side];
            let there = other_shows.iter().find(|(_, found)| self::letter(&found.bytes) == Some(*letter));
            let had = |s: &State| match (&s.name, there) {
                (Some(name), Some((at, found))) => {
                    name == at && found.bytes == s.bytes && found.mode == s.mode
                }
                (None, None) => true,
                _ => false,
            };
            // The other may itself have moved or changed it: then what it shows is not of this life. And where the file was
            // so more than once, nobody knows which time it was that the other has heard of.
            let had = life.states.iter().position(had).unwrap_or(0);
            (life.sure, life.torn) = (life.sure.max(had), true);
        }
        for lives in self.lives.values_mut() {
            let other = &mut lives[1 - side];
            other.sure = other.states.len() - 1;
        }
    }

    /// Whether `bytes` may be seen now, on any host, as content of some file: what it once was, or what power
    /// loss left of it until the other host could be asked.
    pub fn ever(&self, bytes: &[u8]) -> bool {
        let is = |letter: &u8, lives: &[Life; 2]| {
            let states = lives.iter().flat_map(|life| &life.states);
            let mut all: Vec<&[u8]> = states.map(|s| &s.bytes[..]).collect();
            if all.contains(&bytes) || !lives.iter().any(|life| life.torn) {
                return all.contains(&bytes);
            }
            // What the other host did may be torn here as well.
            all.extend(self.past.get(letter).into_iter().flatten().map(Vec::as_slice));
            is_mixture(&all, bytes, true)
        };
        let named = |l: &u8| letter(bytes).is_none_or(|letter| *l == letter);
        self.lives.iter().filter(|(l, _)| named(l)).any(|(letter, lives)| is(letter, lives))
    }

    /// Both hosts are level and equal and have this: is it what their users may expect?
    pub fn check(&mut self, share: &Share) -> Result<(), String> {
        for life in self.lives.values_mut().flatten().filter(|life| !life.torn) {
            life.sure = life.states.len() - 1;
        }
        let mut copies: BTreeMap<u8, Vec<(&String, &Found)>> = BTreeMap::new();
        let (named, nameless): (Vec<_>, Vec<_>) = share.iter().partition(|(_, f)| letter(&f.bytes).is_some());
        for (name, found) in named.into_iter().chain(nameless) {
            // Without a first byte it must be one whose creation was cut short or torn, and which is not there.
            let may = |l: &&u8| self.lives[l].iter().any(|life| life.may_hold(&found.bytes));
            let absent = self.lives.keys().filter(may).find(|l| !copies.contains_key(l)).copied();
            let letter = letter(&found.bytes).or(absent).or_else(|| self.lives.keys().find(may).copied());
            let known = letter.filter(|l| self.lives.contains_key(l));
            copies.entry(known.ok_or(format!("{name} is nobody's file"))?).or_default().push((name, found));
        }
        for (letter, lives) in &self.lives {
            let found = copies.get(letter).map_or(&[][..], Vec::as_slice);
            self.check_file(*letter, lives, found)
                .map_err(|why| format!("file {}: {why}", char::from(*letter)))?;
        }
        for (side, pair) in &self.together {
            self.check_together(*side, pair, &copies)?;
        }
        Ok(())
    }

    fn check_file(&self, letter: u8, lives: &[Life; 2], found: &[(&String, &Found)]) -> Result<(), String> {
        let base = &lives[0].states[0];
        let edited =
            |life: &Life| life.attempted || life.changed(|s| s.bytes != base.bytes || s.mode != base.mode);
        let moved = |life: &Life| life.changed(|s| s.name != base.name);
        // Who did nothing to it has no say in what becomes of it.
        let say = |changed: &dyn Fn(&Life) -> bool| -> Vec<&Life> {
            let who: Vec<&Life> = lives.iter().filter(|life| changed(life)).collect();
            if who.is_empty() { vec![&lives[0]] } else { who }
        };
        let (edits, moves) = (say(&edited), say(&moved));
        let mut names: BTreeSet<&Option<String>> =
            moves.iter().flat_map(|l| l.possible()).map(|s| &s.name).collect();
        if names.contains(&None) {
            // An edit that did not know of the unlink outlives it.
            names.extend(edits.iter().filter(|l| edited(l)).flat_map(|l| l.possible()).map(|s| &s.name));
        }
        let contested = lives.iter().all(edited) || self.is_name_contested(letter, &names);
        for (name, file) in found {
            let plain = name.split(CONFLICT).next().unwrap_or(name);
            let ours = names.iter().any(|n| n.as_deref() == Some(plain));
            if !ours || (plain.len() < name.len() && !contested) {
                return Err(format!("it is called {name}, of {names:?}"));
            }
            if !edits.iter().any(|life| life.may_hold(&file.bytes)) {
                return Err(format!("{name} holds {}, which it never did", runs(&file.bytes)));
            }
            if edits.len() < 2 && !edits[0].changed(|s| s.mode == file.mode) {
                return Err(format!("{name} has mode {:o}", file.mode));
            }
        }
        if found.len() > if lives.iter().all(edited) { 2 } else { 1 } {
            return Err(format!("there are {} of it", found.len()));
        }
        for life in lives {
            let written = |s: &State| s.name.is_some() && s.bytes != base.bytes;
            let kept = found.iter().any(|(_, file)| life.may_hold(&file.bytes));
            if life.surely(written) && !kept {
                let what: Vec<String> = life.possible().iter().map(|s| runs(&s.bytes)).collect();
                return Err(format!("what somebody wrote is lost: {}", what.join(" or ")));
            }
        }
        match names.contains(&None) {
            false if found.is_empty() => Err(format!("it is lost, and was called {names:?}")),
            _ => Ok(()),
        }
    }

    /// Whether another file may have come to one of these names on the other host.
    fn is_name_contested(&self, letter: u8, names: &BTreeSet<&Option<String>>) -> bool {
        let others = self.lives.iter().filter(|(l, _)| **l != letter);
        let may_claim = |lives: &[Life; 2]| {
            let states = lives.iter().flat_map(|life| life.possible());
            states.filter(|s| s.name.is_some()).any(|s| names.contains(&s.name))
        };
        let both_sides_moved = (0..2).all(|side| {
            self.lives.values().any(|lives| {
                let life = &lives[side];
                life.attempted || life.changed(|s| s != &life.states[0])
            })
        });
        both_sides_moved && others.map(|(_, lives)| lives).any(may_claim)
    }

    /// Two files that were renamed in one call were renamed both or neither, where nobody else touched them.
    fn check_together(
        &self,
        side: usize,
        pair: &[(u8, usize); 2],
        copies: &BTreeMap<u8, Vec<(&String, &Found)>>,
    ) -> Result<(), String> {
        let untouched = |(letter, _): &(u8, usize)| self.lives[letter][1 - side].states.len() == 1;
        if !pair.iter().all(untouched) {
            return Ok(());
        }
        let may = |done: bool| {
            pair.iter().all(|(letter, at)| {
                let life = &self.lives[letter][side];
                let name = copies.get(letter).map(|found| found[0].0);
                let states = if done { at.max(&life.sure)..&life.states.len() } else { &life.sure..at };
                (*states.start..*states.end).any(|n| life.states[n].name.as_ref() == name)
            })
        };
        match may(true) || may(false) {
            true => Ok(()),
            false => Err("a rename happened by half".into()),
        }
    }
}

/// What is written as a whole where any of it has changed, in bytes.
const CHUNK: usize = 1000;

/// Whether each byte is of one of `states`, or where `torn`, and something near it was written, zero.
fn is_mixture(states: &[&[u8]], bytes: &[u8], torn: bool) -> bool {
    let least = states.iter().map(|s| s.len()).min().unwrap_or(0);
    let most = states.iter().map(|s| s.len()).max().unwrap_or(0);
    let chunk = |s: &[u8], n: usize| s.get(n..s.len().min(n + CHUNK)).unwrap_or(&[]).to_vec();
    let written = |n: usize| states.iter().any(|s| chunk(s, n) != chunk(states[0], n));
    (least..=most).contains(&bytes.len())
        && (0..bytes.len()).step_by(CHUNK).all(|at| {
            let zeros = torn && written(at);
            let mut here = (at..bytes.len().min(at + CHUNK)).map(|n| (n, bytes[n]));
            here.all(|(n, byte)| states.iter().any(|s| s.get(n) == Some(&byte)) || (zeros && byte == 0))
        })
}

/// `2300 f`, or `500 f, 1000 A, 800 f`.
fn runs(bytes: &[u8]) -> String {
    let runs = bytes.chunk_by(|a, b| a == b).map(|run| format!("{} {}", run.len(), run[0].escape_ascii()));
    runs.collect::<Vec<_>>().join(", ")
}

pub fn tell(share: &Share) -> String {
    let files = share.iter().map(|(name, f)| format!("{name}: {} {:o}", runs(&f.bytes), f.mode));
    format!("[{}]", files.collect::<Vec<_>>().join("; "))
}
