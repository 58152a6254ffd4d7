//! Whether two sides that ought to hold the same do: what they say to each other to find out, and what comes of it.
//!
//! First a [`survey`](super::survey) of all names finds the suspects. At these both look once more and tell what they see;
//! where content differs, a tree of digests over its chunk groups, compared from the top down, finds the groups.
//!
//! Invariants: both sides have the same suspects and the same questions at all times, and come to the same findings, each
//! from its own point of view; a round has at most [`SURVEY_QUESTIONS`] questions; of one file no more than
//! [`VERIFY_GROUPS`] groups are found one by one, what is left is found coarsely.

use super::chunk::ChunkSet;
use super::ids::ReplicaId;
use super::limits::{FILE_BYTES, GROUP_BYTES, SURVEY_QUESTIONS, VERIFY_GROUPS, VERIFY_LOOKS};
use super::survey::{self, Answer};
use bincode::{Decode, Encode};
use sha2::{Digest, Sha256};
use std::ops::Range;

/// A question about groups is split into so many.
const FAN: u64 = 16;

/// What is said in a verification.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Word {
    /// Asks for one, and answers that the sender is ready. `owner`: owner and group are its to keep.
    Begin { repair: bool, owner: bool },
    /// There is none.
    Refused(Refusal),
    /// The sender's answers to one round of questions about names.
    Names(Vec<Answer>),
    /// What the sender sees of the next suspects.
    Looks(Vec<Look>),
    /// The sender's answers to one round of questions about chunk groups.
    Groups(Vec<[u8; 32]>),
    /// Of the suspects that were looked at last: whether what the sender had, and loses, is kept beside them.
    Kept(Vec<bool>),
    /// The last word, of who was asked: its part is done, and another verification may begin.
    End,
}

/// Why there is no verification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// There is one already.
    Busy,
    /// Not everything of the sender's is on the other side, or the other way round.
    NotLevel,
}

/// What one side sees of a name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Look {
    Is(Sight),
    /// It has no such name.
    Absent,
    NotHeld,
    Unreadable,
    Changing,
}

/// What lies under a name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Sight {
    /// Nobody has changed it since the verification began, and the peer has it.
    pub steady: bool,
    /// Bytes.
    pub size: u64,
    /// Nanoseconds since 1970.
    pub mtime: i64,
    /// Digest of the attributes, without the size.
    pub attrs: u64,
    /// [`root`] of the content.
    pub content: [u8; 32],
}

/// How a file differs, as one side sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// Its content does, in these groups; perhaps its attributes, too.
    Content(ChunkSet),
    Attributes,
    OnlyHere,
    OnlyThere,
    /// It is being changed: nothing can be said.
    Changing,
    NotHeldHere,
    NotHeldThere,
    UnreadableHere,
    UnreadableThere,
}

impl Word {
    /// Checks what decoding could not.
    pub fn check(&self) -> Result<(), &'static str> {
        let small = |len: usize, most: usize| (1..=most).contains(&len);
        let fits = match self {
            Word::Begin { .. } | Word::Refused(_) | Word::End => true,
            Word::Names(answers) => return survey::check(answers),
            Word::Looks(looks) => {
                let sane = |look: &Look| !matches!(look, Look::Is(sight) if sight.size > FILE_BYTES);
                small(looks.len(), VERIFY_LOOKS) && looks.iter().all(sane)
            }
            Word::Groups(digests) => small(digests.len(), SURVEY_QUESTIONS),
            Word::Kept(kept) => small(kept.len(), VERIFY_LOOKS),
        };
        if fits { Ok(()) } else { Err("a verification's round of nothing, or of too much") }
    }
}

/// The digest of a whole content of `size` bytes, of the SHA-256 of its chunk groups.
pub fn root(size: u64, groups: &[[u8; 32]]) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(size.to_le_bytes());
    groups.iter().for_each(|group| hasher.update(group));
    hasher.finalize().into()
}

/// How a file differs; `None`: it does not. Where content does, its groups are yet to be found.
pub fn compare(ours: &Look, theirs: &Look) -> Option<Difference> {
    match (ours, theirs) {
        (Look::Absent, Look::Absent) => None,
        (Look::Is(ours), Look::Is(theirs)) => {
            let content = ours.content != theirs.content;
            match content || ours.attrs != theirs.attrs {
                false => None,
                true if !ours.steady || !theirs.steady => Some(Difference::Changing),
                true if content => Some(Difference::Content(ChunkSet::new())),
                true => Some(Difference::Attributes),
            }
        }
        (Look::Changing, _) | (_, Look::Changing) => Some(Difference::Changing),
        (Look::Unreadable, _) => Some(Difference::UnreadableHere),
        (_, Look::Unreadable) => Some(Difference::UnreadableThere),
        (Look::NotHeld, _) => Some(Difference::NotHeldHere),
        (_, Look::NotHeld) => Some(Difference::NotHeldThere),
        (Look::Is(sight), Look::Absent) if sight.steady => Some(Difference::OnlyHere),
        (Look::Absent, Look::Is(sight)) if sight.steady => Some(Difference::OnlyThere),
        (Look::Is(_), Look::Absent) | (Look::Absent, Look::Is(_)) => Some(Difference::Changing),
    }
}

/// Whether ours keeps the name, or its attributes: the one modified later, on a tie that of the greater replica.
pub fn ours_stays(ours: (&Sight, ReplicaId), theirs: (&Sight, ReplicaId)) -> bool {
    (ours.0.mtime, ours.1) > (theirs.0.mtime, theirs.1)
}

/// Groups of a file of that many bytes.
pub fn groups(size: u64) -> u64 {
    size.div_ceil(GROUP_BYTES)
}

/// One side's part in finding the groups that differ, of several files at once.
pub struct Descent {
    /// Digests of our groups.
    own: Vec<Vec<[u8; 32]>>,
    /// What comes next is last.
    open: Vec<(usize, Range<u64>)>,
    round: Vec<(usize, Range<u64>)>,
    found: Vec<ChunkSet>,
}

impl Descent {
    /// Of each file the digests of our groups, and how many groups the peer's has.
    pub fn new(files: Vec<(Vec<[u8; 32]>, u64)>) -> Descent {
        let (mut own, mut open, mut found) = (Vec::new(), Vec::new(), Vec::new());
        for (n, (ours, theirs)) in files.into_iter().enumerate() {
            let len = ours.len() as u64;
            let (both, most) = (len.min(theirs), len.max(theirs));
            if both > 0 {
                open.push((n, 0..both));
            }
            let mut beyond = ChunkSet::new();
            if both < most {
                beyond.insert(both..most);
            }
            found.push(beyond);
            own.push(ours);
        }
        Descent { own, open, round: Vec::new(), found }
    }

    /// The answers to the next round of questions; `None` where all is known.
    pub fn answers(&mut self) -> Option<Vec<[u8; 32]>> {
        self.round = self.open.split_off(self.open.len().saturating_sub(SURVEY_QUESTIONS));
        let answers: Vec<_> = self.round.iter().map(|(file, range)| self.digest(*file, range)).collect();
        (!answers.is_empty()).then_some(answers)
    }

    /// The peer's answers to the round of questions that was answered last.
    ///
    /// # Errors
    /// What no peer would say.
    pub fn compare(&mut self, theirs: &[[u8; 32]]) -> Result<(), &'static str> {
        let round = std::mem::take(&mut self.round);
        if theirs.len() != round.len() {
            return Err("a verification's answers to other questions than were asked");
        }
        for ((file, range), theirs) in round.into_iter().zip(theirs) {
            if self.digest(file, &range) == *theirs {
                continue;
            }
            let found = &mut self.found[file];
            let len = range.end - range.start;
            if len == 1 || found.len() >= VERIFY_GROUPS {
                found.insert(range);
                continue;
            }
            let part = len.div_ceil(FAN);
            let parts = (0..len.div_ceil(part)).map(|n| range.start + n * part);
            self.open.extend(parts.map(|start| (file, start..(start + part).min(range.end))));
        }
        Ok(())
    }

    /// The groups of each file that differ, once there are no more questions.
    pub fn finish(self) -> Vec<ChunkSet> {
        self.found
    }

    fn digest(&self, file: usize, range: &Range<u64>) -> [u8; 32] {
        let mut hasher = Sha256::new();
        self.own[file][range.start as usize..range.end as usize]
            .iter()
            .for_each(|group| hasher.update(group));
        hasher.finalize().into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Contents, one letter for each group.
    fn descent(ours: &[&[u8]], theirs: &[&[u8]]) -> Descent {
        let files = ours.iter().zip(theirs);
        Descent::new(files.map(|(a, b)| (a.iter().map(|n| [*n; 32]).collect(), b.len() as u64)).collect())
    }

    /// What both find, and in how many rounds.
    fn meet(ours: &[&[u8]], theirs: &[&[u8]]) -> (Vec<Vec<Range<u64>>>, usize) {
        let (mut a, mut b) = (descent(ours, theirs), descent(theirs, ours));
        let mut rounds = 0;
        while let Some(from_a) = a.answers() {
            let from_b = b.answers().expect("both have the same questions");
            assert_eq!(Word::Groups(from_a.clone()).check(), Ok(()));
            a.compare(&from_b).unwrap();
            b.compare(&from_a).unwrap();
            rounds += 1;
        }
        assert_eq!(b.answers(), None);
        let found = a.finish();
        assert_eq!(found, b.finish());
        (found.iter().map(|set| set.iter().collect()).collect(), rounds)
    }

    #[test]
    fn one_group_among_many_is_found_in_few_rounds() {
        let ours = vec![1; 4_000];
        let mut theirs = ours.clone();
        theirs[1_234] = 2;
        let (found, rounds) = meet(&[&ours, &ours], &[&theirs, &ours]);
        assert_eq!(
            (&found[0][..], found[1].len(), rounds <= 5),
            (std::slice::from_ref(&(1_234..1_235)), 0, true)
        );
    }

    #[test]
    fn what_only_one_has_differs() {
        assert_eq!(
            meet(&[b"ab", b"", b"abcd"], &[b"abc", b"a", b""]).0,
            [2..3, 0..1, 0..4].map(|groups| [groups].to_vec())
        );
    }

    #[test]
    fn where_all_differs_it_is_not_asked_for_ever() {
        let (ours, theirs) = (vec![1; 300_000], vec![2; 300_000]);
        let (found, rounds) = meet(&[&ours], &[&theirs]);
        assert_eq!(found.concat(), std::slice::from_ref(&(0..300_000)));
        assert!(rounds < 40, "{rounds} rounds");
    }

    #[test]
    fn answers_to_other_questions_are_refused() {
        let mut a = descent(&[b"ab"], &[b"ac"]);
        a.answers();
        assert!(a.compare(&[]).is_err());
        assert!(Word::Groups(vec![]).check().is_err());
        assert!(Word::Looks(vec![Look::Absent; VERIFY_LOOKS + 1]).check().is_err());
    }

    fn sight(content: u8, attrs: u64, steady: bool) -> Look {
        Look::Is(Sight { steady, size: 5, mtime: 7, attrs, content: [content; 32] })
    }

    #[test]
    fn both_sides_see_the_same_from_their_own_point_of_view() {
        let looks = [
            sight(1, 1, true),
            sight(1, 2, true),
            sight(2, 1, true),
            sight(2, 1, false),
            Look::Absent,
            Look::NotHeld,
            Look::Unreadable,
            Look::Changing,
        ];
        let mirrored = |difference| match difference {
            Difference::OnlyHere => Difference::OnlyThere,
            Difference::OnlyThere => Difference::OnlyHere,
            Difference::NotHeldHere => Difference::NotHeldThere,
            Difference::NotHeldThere => Difference::NotHeldHere,
            Difference::UnreadableHere => Difference::UnreadableThere,
            Difference::UnreadableThere => Difference::UnreadableHere,
            same => same,
        };
        for (n, ours) in looks.iter().enumerate() {
            for (m, theirs) in looks.iter().enumerate().filter(|(m, _)| *m != n) {
                assert_eq!(compare(ours, theirs).map(mirrored), compare(theirs, ours), "{n} {m}");
            }
        }
        assert_eq!(compare(&looks[0], &looks[1]), Some(Difference::Attributes));
        assert_eq!(compare(&looks[0], &looks[2]), Some(Difference::Content(ChunkSet::new())));
        assert_eq!(compare(&looks[0], &looks[3]), Some(Difference::Changing));
        assert_eq!(compare(&looks[2], &looks[3]), None);
        assert_eq!(compare(&looks[0], &looks[4]), Some(Difference::OnlyHere));
    }

    proptest::proptest! {
        #[test]
        fn exactly_the_groups_that_differ_are_found(
            ours in proptest::collection::vec(0u8..3, 0..200),
            changes in proptest::collection::vec((0usize..200, 0u8..3), 0..20),
            len in 0usize..200,
        ) {
            let mut theirs = ours.clone();
            theirs.resize(len, 9);
            changes.iter().filter(|c| c.0 < len).for_each(|(at, what)| theirs[*at] = *what);
            let (found, _) = meet(&[&ours], &[&theirs]);
            let found: Vec<u64> = found[0].iter().cloned().flatten().collect();
            let differ = (0..ours.len().max(len)).filter(|n| ours.get(*n) != theirs.get(*n)).map(|n| n as u64);
            proptest::prop_assert_eq!(found, differ.collect::<Vec<_>>());
        }
    }
}
