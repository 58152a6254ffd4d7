//! What two directories have in common, found by comparing digests from the top down.
//!
//! Names are spread over a tree by their hashes. Both sides ask the same questions: of a node, how many names lie under it and
//! the digest of all that is known of them; of a leaf, every name. Each answers for itself, both hear both answers,
//! and so both know which questions come next and what is equal.
//!
//! Invariants:
//! - both sides have the same questions at all times, and find the same names equal;
//! - a round has at most [`SURVEY_QUESTIONS`] questions, and a leaf at most [`SURVEY_LEAF`] names.

use super::ids::FileId;
use super::limits::{SURVEY_LEAF, SURVEY_QUESTIONS};
use super::name::Name;
use bincode::{Decode, Encode};
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

/// Bits of a name's hash by which a node's children differ, ...
const BITS: u32 = 4;
/// ... and how often that can be done: beyond, two names have the same hash.
const DEPTH: u32 = u64::BITS / BITS;

/// What one side knows of a name.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    pub name: Name,
    /// Digest of what must be the same for the two to be equal; `None` where it can't be told now.
    pub what: Option<[u8; 32]>,
    /// Digest of what may differ.
    pub attrs: u64,
    /// The file's stamp, nanoseconds since 1970.
    pub stamp: i64,
}

/// An answer to one question.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub enum Answer {
    Node { names: u64, digest: [u8; 32] },
    Leaf(Vec<Entry>),
}

/// All names whose hashes begin with these `bits`, which are the topmost `depth * BITS` of `at`.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Question {
    at: u64,
    depth: u32,
    leaf: bool,
}

/// A name that both sides have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    pub file: FileId,
    pub name: Name,
    /// The peer's [`Entry::stamp`], ours where everything is equal.
    pub stamp: i64,
    /// Whether [`Entry::attrs`] are equal, too.
    pub same_attrs: bool,
}

/// What a survey has found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Names that are equal, in order.
    pub equal: Vec<Met>,
    /// Names that both sides have for different things.
    pub contested: Vec<Met>,
    /// Names that only one side has, where these were asked for.
    pub alone: Vec<Name>,
}

/// One side's part in a survey.
pub struct Survey {
    /// By hash of the name, then by name.
    own: Vec<(u64, FileId, Entry)>,
    /// Keeps what is not known here from being taken for equal to anything.
    salt: u128,
    open: VecDeque<Question>,
    /// The questions of this round.
    round: Vec<Question>,
    /// Names that only one side has are found as well; both sides say the same.
    all: bool,
    found: Found,
}

impl Survey {
    /// `salt` is this side's alone.
    pub fn new(salt: u128, files: Vec<(FileId, Entry)>) -> Survey {
        let mut own: Vec<(u64, FileId, Entry)> =
            files.into_iter().map(|(file, entry)| (hash(&entry.name), file, entry)).collect();
        own.sort_by(|a, b| (a.0, &a.2.name).cmp(&(b.0, &b.2.name)));
        let open = VecDeque::from([Question { at: 0, depth: 0, leaf: false }]);
        Survey { own, salt, open, round: Vec::new(), all: false, found: Found::default() }
    }

    /// The same, which finds what only one side has, too. Both sides must begin so.
    pub fn of_all(salt: u128, files: Vec<(FileId, Entry)>) -> Survey {
        Survey { all: true, ..Survey::new(salt, files) }
    }

    /// The answers to the next round of questions; `None` where all is known.
    pub fn answers(&mut self) -> Option<Vec<Answer>> {
        let take = self.open.len().min(SURVEY_QUESTIONS);
        self.round = self.open.drain(..take).collect();
        let answer = |question: &Question| match question.leaf {
            true => Answer::Leaf(self.own[self.under(question)].iter().map(|own| own.2.clone()).collect()),
            false => self.node(question),
        };
        let answers: Vec<Answer> = self.round.iter().map(answer).collect();
        (!answers.is_empty()).then_some(answers)
    }

    /// The peer's answers to the round of questions that was answered last.
    ///
    /// # Errors
    /// What no peer would say.
    pub fn compare(&mut self, theirs: Vec<Answer>) -> Result<(), &'static str> {
        let round = std::mem::take(&mut self.round);
        if theirs.len() != round.len() {
            return Err("a survey's answers to other questions than were asked");
        }
        for (question, theirs) in round.into_iter().zip(theirs) {
            match (question.leaf, theirs) {
                (false, Answer::Node { names, digest }) => self.compare_node(question, names, digest),
                (true, Answer::Leaf(entries)) => self.compare_leaf(question, entries)?,
                _ => return Err("a survey's answer to another question"),
            }
        }
        Ok(())
    }

    /// What was found, once there are no more questions.
    pub fn finish(self) -> Found {
        let Found { mut equal, mut contested, mut alone } = self.found;
        equal.sort_by(|a, b| a.name.cmp(&b.name));
        contested.sort_by(|a, b| a.name.cmp(&b.name));
        alone.sort_unstable();
        Found { equal, contested, alone }
    }

    fn compare_node(&mut self, question: Question, names: u64, digest: [u8; 32]) {
        let under = self.under(&question);
        let ours = under.len() as u64;
        let enough = if self.all { names.max(ours) } else { names.min(ours) };
        if enough == 0 {
            return;
        }
        if self.node(&question) == (Answer::Node { names, digest }) {
            let equal = self.own[under].iter().map(|(_, file, entry)| met(*file, entry, entry));
            self.found.equal.extend(equal);
        } else if names.max(ours) <= SURVEY_LEAF as u64 || question.depth == DEPTH {
            self.open.push_back(Question { leaf: true, ..question });
        } else {
            let shift = u64::BITS - (question.depth + 1) * BITS;
            let child =
                |n: u64| Question { at: question.at | n << shift, depth: question.depth + 1, leaf: false };
            self.open.extend((0..1 << BITS).map(child));
        }
    }

    fn compare_leaf(&mut self, question: Question, theirs: Vec<Entry>) -> Result<(), &'static str> {
        if theirs.len() > SURVEY_LEAF {
            return Err("a survey's answer with too many names");
        }
        let theirs: BTreeMap<&Name, &Entry> = theirs.iter().map(|entry| (&entry.name, entry)).collect();
        let own = &self.own[self.under(&question)];
        if self.all {
            let names: BTreeSet<&Name> = own.iter().map(|own| &own.2.name).collect();
            let theirs: BTreeSet<&Name> = theirs.keys().copied().collect();
            self.found.alone.extend(names.symmetric_difference(&theirs).map(|name| (*name).clone()));
        }
        for (_, file, ours) in own {
            let Some(theirs) = theirs.get(&ours.name) else { continue };
            match ours.what.is_some() && ours.what == theirs.what {
                true => self.found.equal.push(met(*file, ours, theirs)),
                false => self.found.contested.push(met(*file, ours, theirs)),
            }
        }
        Ok(())
    }

    /// Where in `own` the names lie that a question is about.
    fn under(&self, question: &Question) -> Range<usize> {
        let width = u64::BITS - question.depth * BITS;
        let last = question.at | 1u64.checked_shl(width).map_or(u64::MAX, |n| n - 1);
        let from = self.own.partition_point(|own| own.0 < question.at);
        from..from + self.own[from..].partition_point(|own| own.0 <= last)
    }

    fn node(&self, question: &Question) -> Answer {
        let under = &self.own[self.under(question)];
        let mut hasher = Sha256::new();
        for (_, _, entry) in under {
            let name = entry.name.as_bytes();
            hasher.update((name.len() as u64).to_le_bytes());
            hasher.update(name);
            match entry.what {
                Some(what) => hasher.update(what),
                None => hasher.update(self.salt.to_le_bytes()),
            }
            hasher.update(entry.attrs.to_le_bytes());
        }
        Answer::Node { names: under.len() as u64, digest: hasher.finalize().into() }
    }
}

fn met(file: FileId, ours: &Entry, theirs: &Entry) -> Met {
    Met { file, name: ours.name.clone(), stamp: theirs.stamp, same_attrs: ours.attrs == theirs.attrs }
}

fn hash(name: &Name) -> u64 {
    let digest = Sha256::digest(name.as_bytes());
    u64::from_le_bytes(digest[..8].try_into().expect("a digest has 32 bytes"))
}

/// Checks what decoding could not.
pub fn check(answers: &[Answer]) -> Result<(), &'static str> {
    let small = |answer: &Answer| !matches!(answer, Answer::Leaf(entries) if entries.len() > SURVEY_LEAF);
    match answers.len() <= SURVEY_QUESTIONS && !answers.is_empty() && answers.iter().all(small) {
        true => Ok(()),
        false => Err("a survey's round of nothing, or of too much"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::codec;
    use super::super::ids::WriterId;
    use super::*;

    /// What one side has: names, each with what it is, which is not known where that is 0.
    type Side = BTreeMap<u32, u8>;

    fn survey(salt: u128, side: &Side) -> Survey {
        let entry = |(n, (name, what)): (usize, (&u32, &u8))| {
            let name = Name::new(format!("file {name}").as_bytes()).unwrap();
            let what = (*what != 0).then_some([*what; 32]);
            (FileId { writer: WriterId(1), counter: n as u64 }, Entry { name, what, attrs: 7, stamp: 5 })
        };
        Survey::new(salt, side.iter().enumerate().map(entry).collect())
    }

    /// Both sides' findings, the rounds, and the bytes that one of them sent.
    fn meet(a: &Side, b: &Side) -> (Found, Found, usize, usize) {
        meet_as(survey(1, a), survey(2, b))
    }

    fn meet_as(mut a: Survey, mut b: Survey) -> (Found, Found, usize, usize) {
        let (mut rounds, mut bytes) = (0, 0);
        while let Some(from_a) = a.answers() {
            let from_b = b.answers().expect("both have the same questions");
            assert_eq!((check(&from_a), check(&from_b)), (Ok(()), Ok(())));
            bytes += codec::encode(&from_a).len();
            a.compare(from_b).unwrap();
            b.compare(from_a).unwrap();
            rounds += 1;
        }
        assert_eq!(b.answers(), None);
        (a.finish(), b.finish(), rounds, bytes)
    }

    #[test]
    fn equal_directories_of_any_size_cost_one_round() {
        let side: Side = (0..5_000).map(|n| (n, 1)).collect();
        let (found, _, rounds, bytes) = meet(&side, &side);
        assert_eq!((found.equal.len(), found.contested.len(), rounds), (5_000, 0, 1));
        assert!(bytes < 64, "{bytes} bytes");
    }

    #[test]
    fn few_differences_among_many_names_cost_little() {
        let a: Side = (0..5_000).map(|n| (n, 1)).collect();
        let mut b = a.clone();
        (0..10).for_each(|n| _ = b.insert(n * 499, 2));
        let (found, _, rounds, bytes) = meet(&a, &b);
        assert_eq!((found.equal.len(), found.contested.len()), (4_990, 10));
        assert!(rounds <= 5 && bytes < 25_000, "{rounds} rounds, {bytes} bytes");
    }

    #[test]
    fn what_is_not_known_is_equal_to_nothing() {
        let side: Side = (0..100).map(|n| (n, 0)).collect();
        let (found, _, _, _) = meet(&side, &side);
        assert_eq!((found.equal.len(), found.contested.len()), (0, 100));
    }

    #[test]
    fn answers_to_other_questions_are_refused() {
        let mut a = survey(1, &Side::from([(1, 1)]));
        a.answers();
        assert!(a.compare(vec![]).is_err());
        a = survey(1, &Side::from([(1, 1)]));
        a.answers();
        assert!(a.compare(vec![Answer::Leaf(vec![])]).is_err());
    }

    proptest::proptest! {
        #[test]
        fn both_find_what_there_is(
            common in proptest::collection::btree_map(0u32..3_000, 0u8..3, 0..400),
            changed in proptest::collection::btree_map(0u32..3_000, 0u8..3, 0..60),
            gone in proptest::collection::btree_set(0u32..3_000, 0..60),
        ) {
            let mut other = common.clone();
            other.extend(&changed);
            gone.iter().for_each(|n| _ = other.remove(n));
            let (a, b, _, _) = meet(&common, &other);
            let names = |met: &[Met]| met.iter().map(|m| m.name.to_string()).collect::<BTreeSet<_>>();
            proptest::prop_assert_eq!(names(&a.equal), names(&b.equal));
            proptest::prop_assert_eq!(names(&a.contested), names(&b.contested));
            let is_equal = |(name, what): &(&u32, &u8)| **what != 0 && other.get(*name) == Some(*what);
            let wanted: BTreeSet<String> = common.iter().filter(is_equal).map(|(n, _)| format!("file {n}")).collect();
            proptest::prop_assert_eq!(names(&a.equal), wanted);
            let all = |salt, side| Survey { all: true, ..survey(salt, side) };
            let (whole, same, _, _) = meet_as(all(1, &common), all(2, &other));
            proptest::prop_assert_eq!(names(&whole.equal), names(&a.equal));
            proptest::prop_assert_eq!(names(&whole.contested), names(&a.contested));
            let keys = |side: &Side| side.keys().copied().collect::<BTreeSet<u32>>();
            let (ours, theirs) = (keys(&common), keys(&other));
            let alone = ours.symmetric_difference(&theirs).map(|n| format!("file {n}"));
            proptest::prop_assert_eq!(whole.alone.iter().map(Name::to_string).collect::<BTreeSet<_>>(), alone.collect());
            proptest::prop_assert_eq!(same.alone, whole.alone);
            proptest::prop_assert_eq!(
                a.equal.len() + a.contested.len(),
                common.keys().filter(|n| other.contains_key(n)).count()
            );
        }
    }
}
