//! What to do with a peer's cut: the verdict over each of its registers.
//!
//! A pure function of both sides' facts. Two rules make it converge without further messages:
//! - of two concurrent versions exactly one side gives way, and it takes the other's version as it
//!   is: so the same file at the same version has the same bytes everywhere;
//! - an unlink against anything concurrent is answered by a new event of the side that still has the
//!   file.
//!
//! Precondition: nothing here that the cut speaks of is fresh (the caller takes a cut of it first).
//!
//! Why exactly one gives way: both compare (stamp, replica), stamps never go back between two
//! acknowledgements, and each side compares its latest version with what it hears. If both gave way,
//! each would have seen a greater key than its own last one; if neither, a lesser one.
//!
//! Why files that belong together win or lose together: what one side cuts together bears one stamp, and where a cut
//! of the peer's meets several of our versions, these are one group from then on and bear the latest stamp among them
//! ([`contested`]). So whatever else either side's group contains, each file of it is compared by the same two
//! keys. A stamp is raised to what its own side has and no higher, and is told: the argument above holds. Who has that
//! version takes its later stamp.
//!
//! Where this host only receives none of that is needed: the peer never hears of our versions, so ours always gives way, and
//! every register of every cut of the peer is taken, known, or asked for anew, whole.

use super::chunk::{self, ChunkSet};
use super::cut::{BodyCut, Cut, FileCut, Place};
use super::direction::Direction;
use super::file::File;
use super::ids::{FileId, ReplicaId};
use super::limits::CHUNK;
use super::name::Name;
use super::sabotage::{Bug, planted};
use super::share::Share;
use super::version::Order;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub file: FileId,
    pub place: PlaceVerdict,
    pub body: BodyVerdict,
}

#[derive(Clone, Debug, PartialEq)]
pub enum PlaceVerdict {
    /// The cut says nothing of it, or something that waits for more.
    Nothing,
    /// Known here already.
    Have,
    Take,
    /// Ours stays; the peer will give way.
    Keep,
    /// They unlinked what was edited here since: it stays, and they are told.
    Revive,
    /// The name is taken by a file of ours that loses it.
    TakeFrom(FileId),
}

#[derive(Clone, Debug, PartialEq)]
pub enum BodyVerdict {
    Nothing,
    Have,
    /// These chunks are the peer's from now on.
    Take(ChunkSet),
    /// As `Take`, but our own version loses; where it has content of its own, it is copied first.
    Yield {
        changed: ChunkSet,
        copy: bool,
    },
    /// Ours stays, on top of theirs; these chunks, of which we were not certain, become as theirs.
    Agree(ChunkSet),
    Keep,
    /// The file goes with its name, and has content of its own, which is copied first.
    Leave,
    /// The peer changed what was unlinked or renamed here, which this cut says nothing of: it is to tell all of the file anew.
    Ask,
}

impl BodyVerdict {
    /// The chunks whose content comes from the peer.
    pub fn takes(&self) -> Option<&ChunkSet> {
        match self {
            BodyVerdict::Take(chunks) | BodyVerdict::Agree(chunks) => Some(chunks),
            BodyVerdict::Yield { changed, .. } => Some(changed),
            BodyVerdict::Nothing | BodyVerdict::Have | BodyVerdict::Keep => None,
            BodyVerdict::Leave | BodyVerdict::Ask => None,
        }
    }
}

/// What to judge by, beside the versions.
#[derive(Clone, Copy)]
pub struct Sides {
    pub peer: ReplicaId,
    /// Ours.
    pub direction: Direction,
}

impl Sides {
    /// Whether of two versions, which bear these stamps, the peer's stays.
    fn prefer_theirs(self, share: &Share, theirs: i64, ours: i64) -> bool {
        self.direction.receives() || (theirs, self.peer) > (ours, share.header().replica)
    }
}

/// Judges `cut` of the peer against `share`.
pub fn judge(share: &Share, sides: Sides, cut: &Cut) -> Vec<Verdict> {
    let bodies: BTreeMap<FileId, &BodyCut> =
        cut.files.iter().filter_map(|f| Some((f.file, f.body.as_ref()?))).collect();
    // Files that leave their names make room for others. Where one turns out to stay, the file that wants
    // its name is judged again: it may have to stay, too, and so on.
    let place_of = |at: usize, leaving: &BTreeSet<FileId>| match &cut.files[at].place {
        Some(place) => judge_place(share, sides, &cut.files[at], place, (leaving, &bodies)),
        None => PlaceVerdict::Nothing,
    };
    let leaves = |verdict: &PlaceVerdict| matches!(verdict, PlaceVerdict::Take | PlaceVerdict::TakeFrom(_));
    let mut leaving: BTreeSet<FileId> =
        cut.files.iter().filter(|f| f.place.is_some()).map(|f| f.file).collect();
    let mut places: Vec<PlaceVerdict> = (0..cut.files.len()).map(|at| place_of(at, &leaving)).collect();
    let name_of = |(at, file): (usize, &FileCut)| Some((file.place.as_ref()?.name.clone()?, at));
    let wanted: BTreeMap<Name, usize> = cut.files.iter().enumerate().filter_map(name_of).collect();
    let mut staying: Vec<usize> = (0..places.len()).filter(|at| !leaves(&places[*at])).collect();
    while let Some(at) = staying.pop() {
        let id = cut.files[at].file;
        leaving.remove(&id);
        let Some(&next) = share.name(id).and_then(|name| wanted.get(&name)) else { continue };
        let verdict = place_of(next, &leaving);
        if leaves(&places[next]) && !leaves(&verdict) {
            staying.push(next);
        }
        places[next] = verdict;
    }
    let judge_file = |(file, place): (&FileCut, PlaceVerdict)| {
        let body = match &file.body {
            Some(_) if sides.direction.receives() && is_displaced(share, file, &place) => BodyVerdict::Ask,
            Some(body) => judge_body(share, sides, cut, file.file, body, &place),
            None if leaves_content(share, file, &place) => BodyVerdict::Leave,
            None => BodyVerdict::Nothing,
        };
        Verdict { file: file.file, place, body }
    };
    cut.files.iter().zip(places).map(judge_file).collect()
}

/// Judges a cut that was heard before a crash. The peer may have taken since what was told from here, and that may have
/// gone with the power: a cut that does not know of it makes nothing certain, what the peer has now is asked first.
pub fn judge_again(share: &Share, sides: Sides, cut: &Cut) -> Vec<Verdict> {
    let is_behind = |file: &FileCut| {
        let ours = share.file(file.file).filter(|f| f.unsettled);
        let knows = |f: &File, body: &BodyCut| body.version.includes(&f.body);
        ours.zip(file.body.as_ref()).is_some_and(|(f, body)| !knows(&f, body))
    };
    let mut verdicts = judge(share, sides, cut);
    for (verdict, _) in verdicts.iter_mut().zip(&cut.files).filter(|(_, file)| is_behind(file)) {
        verdict.body = BodyVerdict::Nothing;
    }
    verdicts
}

/// The files of `cut` of which our settled version and the peer's will stand against each other.
pub fn contested(share: &Share, cut: &Cut) -> Vec<FileId> {
    let stands = |cut: &&FileCut| {
        let ours = share.file(cut.file).filter(|f| f.name.is_some() && f.body_tag != 0 && !f.unsettled);
        ours.zip(cut.body.as_ref()).is_some_and(|(f, body)| match f.body.order(&body.version) {
            Order::Concurrent => true,
            Order::Before => f.body_is_fresh(),
            Order::Equal | Order::After => false,
        })
    };
    cut.files.iter().filter(stands).map(|cut| cut.file).collect()
}

/// Whether the peer has changed a file that has another name here, or none, by our own doing, and does not say which it has.
fn is_displaced(share: &Share, cut: &FileCut, place: &PlaceVerdict) -> bool {
    let Some((ours, body)) = share.file(cut.file).zip(cut.body.as_ref()) else { return false };
    *place == PlaceVerdict::Nothing && ours.place_tag != 0 && !ours.body.includes(&body.version)
}

/// Whether content of our own goes with a file that is taken to be unlinked.
fn leaves_content(share: &Share, cut: &FileCut, place: &PlaceVerdict) -> bool {
    let unlinked = cut.place.as_ref().filter(|theirs| *place == PlaceVerdict::Take && theirs.name.is_none());
    let ours = share.file(cut.file).filter(|f| f.name.is_some());
    unlinked.zip(ours).is_some_and(|(theirs, f)| {
        !theirs.seen.includes(&f.body) && (f.is_edited() || !theirs.seen.includes(&f.base))
    })
}

/// As [`judge_place`], where ours gives way.
fn judge_place_received(
    share: &Share,
    cut: &FileCut,
    place: &Place,
    leaving: &BTreeSet<FileId>,
) -> PlaceVerdict {
    let ours = share.file(cut.file);
    let ours = ours.as_deref();
    let order = ours.map_or(Order::Before, |f| f.place.order(&place.version));
    let Some(name) = &place.name else {
        return match (ours, order) {
            (None, _) | (_, Order::Equal | Order::After) => PlaceVerdict::Have,
            _ => PlaceVerdict::Take,
        };
    };
    let known = |f: &File| cut.body.as_ref().is_none_or(|body| f.body.includes(&body.version));
    match order {
        Order::Equal => return PlaceVerdict::Have,
        // Renamed or unlinked here since, and not changed over there.
        Order::After if ours.is_some_and(known) => return PlaceVerdict::Have,
        _ => {}
    }
    if ours.is_none_or(|f| f.name.is_none()) && cut.body.is_none() {
        return PlaceVerdict::Nothing;
    }
    let holder = share.named(name).filter(|id| *id != cut.file && !leaving.contains(id));
    holder.map_or(PlaceVerdict::Take, PlaceVerdict::TakeFrom)
}

fn judge_place(
    share: &Share,
    sides: Sides,
    cut: &FileCut,
    place: &Place,
    (leaving, bodies): (&BTreeSet<FileId>, &BTreeMap<FileId, &BodyCut>),
) -> PlaceVerdict {
    if sides.direction.receives() {
        return judge_place_received(share, cut, place, leaving);
    }
    let peer = sides.peer;
    let ours = share.file(cut.file);
    let ours = ours.as_deref();
    let order = ours.map_or(Order::Before, |f| f.place.order(&place.version));
    let Some(name) = &place.name else {
        return match (ours, order) {
            (None, _) | (_, Order::Equal | Order::After) => PlaceVerdict::Have,
            (Some(f), Order::Before) if f.name.is_some() && planted(Bug::ReviveUnlinked) => {
                PlaceVerdict::Revive
            }
            (Some(_), Order::Before) if planted(Bug::UnlinkOverEdit) => PlaceVerdict::Take,
            (Some(f), Order::Before) if f.name.is_none() || place.seen.includes(&f.body) => {
                PlaceVerdict::Take
            }
            (Some(f), Order::Concurrent) if f.name.is_none() => PlaceVerdict::Take,
            _ => PlaceVerdict::Revive,
        };
    };
    // A file of ours that we have yet to make: nobody can know it, and its number is wanted here.
    if cut.file.writer == share.writer() && cut.file.counter >= share.next_file().counter {
        return PlaceVerdict::Nothing;
    }
    let gone = ours.is_none_or(|f| f.name.is_none());
    match order {
        Order::Equal | Order::After => return PlaceVerdict::Have,
        // We unlinked it and they did not know: they will tell us anew if they want it to stay.
        Order::Concurrent if gone => return PlaceVerdict::Keep,
        Order::Concurrent if share.header().replica > peer => return PlaceVerdict::Keep,
        _ => {}
    }
    if gone && cut.body.is_none() {
        return PlaceVerdict::Nothing;
    }
    let holder = share.named(name).filter(|id| *id != cut.file && !leaving.contains(id));
    let Some(holder) = holder else { return PlaceVerdict::Take };
    let stamp = prevailing_stamp(ours, cut.body.as_ref());
    let holder_stamp = prevailing_stamp(share.file(holder).as_deref(), bodies.get(&holder).copied());
    if (stamp, peer) > (holder_stamp, share.header().replica) {
        PlaceVerdict::TakeFrom(holder)
    } else {
        PlaceVerdict::Keep
    }
}

/// The stamp of the body that both will have once they know each other's: a name is disputed with that, for the peer,
/// which holds the name, will compare with the same.
fn prevailing_stamp(ours: Option<&File>, theirs: Option<&BodyCut>) -> i64 {
    match (ours.filter(|f| f.name.is_some()), theirs) {
        (Some(f), Some(body)) => match f.body.order(&body.version) {
            Order::Before | Order::Equal => body.stamp,
            Order::After => f.stamp,
            Order::Concurrent => f.stamp.max(body.stamp),
        },
        (ours, theirs) => theirs.map(|b| b.stamp).or(ours.map(|f| f.stamp)).unwrap_or(0),
    }
}

fn judge_body(
    share: &Share,
    sides: Sides,
    cut: &Cut,
    id: FileId,
    body: &BodyCut,
    place: &PlaceVerdict,
) -> BodyVerdict {
    let comes = matches!(place, PlaceVerdict::Take | PlaceVerdict::TakeFrom(_));
    let none = File::default();
    let ours = share.file(id).filter(|f| f.name.is_some());
    let ours = match ours.as_deref() {
        Some(f) => f,
        None if comes => &none,
        // Unlinked here, and as it was then over there.
        None if sides.direction.receives() && knows(share, id, body) => return BodyVerdict::Have,
        None => return BodyVerdict::Nothing,
    };
    let mut verdict = match ours.unsettled {
        true => judge_unsettled(share, ours, body),
        false => judge_settled(share, sides, cut, ours, body),
    };
    // What the peer lacks itself it can't give: what we hold of it stays.
    let mut stays = body.lacks.clone();
    stays.subtract(&ours.missing);
    stays.remove(chunk::count(ours.size)..u64::MAX);
    // Unless it was changed here, and what it was before is kept.
    let told = share.ours_in(&body.version);
    ours.before.since(told).for_each(|range| stays.remove(range));
    if let BodyVerdict::Take(chunks)
    | BodyVerdict::Agree(chunks)
    | BodyVerdict::Yield { changed: chunks, .. } = &mut verdict
    {
        chunks.subtract(&stays);
    }
    verdict
}

fn knows(share: &Share, id: FileId, body: &BodyCut) -> bool {
    share.file(id).is_some_and(|f| f.body.includes(&body.version))
}

fn judge_settled(share: &Share, sides: Sides, cut: &Cut, ours: &File, body: &BodyCut) -> BodyVerdict {
    // Told anew, perhaps with content that we knew of and still lack.
    let brought: ChunkSet = body.pieces.iter().flat_map(|p| ours.missing.within(&p.chunks())).collect();
    match ours.body.order(&body.version) {
        Order::Equal if !brought.is_empty() || ours.stamp < body.stamp => BodyVerdict::Take(brought),
        Order::Equal | Order::After => BodyVerdict::Have,
        Order::Before => {
            let mut changed = body.delta(cut.writer, &ours.body);
            changed.extend(&brought);
            BodyVerdict::Take(changed)
        }
        Order::Concurrent if sides.prefer_theirs(share, body.stamp, ours.stamp) => {
            let mut changed = body.delta(cut.writer, &ours.body);
            ours.dirty.since(0).for_each(|range| changed.insert(range));
            if ours.shed > 0 {
                changed.insert((ours.size / CHUNK).min(ours.shed)..ours.shed);
            }
            changed.remove(chunk::count(body.attrs.size)..u64::MAX);
            // What was told here, and went from the peer's disk with the power, is nowhere else.
            let copy = ours.is_edited() || !body.version.includes(&ours.base);
            BodyVerdict::Yield { changed, copy }
        }
        Order::Concurrent => BodyVerdict::Keep,
    }
}

/// Ours may be older than it claims to be: the peer's counts, but for what we know to have changed
/// since. Where neither has all of it, what is here is all there is.
fn judge_unsettled(share: &Share, ours: &File, body: &BodyCut) -> BodyVerdict {
    let theirs = chunk::count(body.attrs.size);
    if share.ours_in(&body.version) < ours.body_acked {
        // Older than what the peer has acknowledged since: what it has now is yet to come.
        return BodyVerdict::Nothing;
    }
    let (order, nothing) = (ours.body.order(&body.version), ours.holds_nothing());
    let mut chunks = ChunkSet::of(0..theirs);
    if order == Order::After && !nothing {
        let told = share.ours_in(&body.version);
        if ours.size_is_ours(told, body.attrs.size) {
            chunks.remove(chunk::count(ours.size)..u64::MAX);
        }
        ours.dirty.since(told).for_each(|range| chunks.remove(range));
    }
    let nowhere = |range: Range<u64>| range.end > chunk::count(ours.size) || ours.missing.overlaps(&range);
    if chunks.iter().flat_map(|range| body.lacks.within(&range)).any(nowhere) {
        return BodyVerdict::Keep;
    }
    match order {
        Order::Equal | Order::Before => BodyVerdict::Take(chunks),
        _ if nothing => BodyVerdict::Take(chunks),
        Order::After => BodyVerdict::Agree(chunks),
        Order::Concurrent => BodyVerdict::Yield { changed: chunks, copy: ours.is_edited() },
    }
}

#[cfg(test)]
mod tests {
    use super::super::ids::{Seq, WriterId};
    use super::super::record::{CutMark, Record};
    use super::super::version::Version;
    use super::*;

    const US: ReplicaId = ReplicaId(3);
    const PEER: Sides = Sides { peer: ReplicaId(2), direction: Direction::Both };
    const WRITER: WriterId = WriterId(1);

    fn id(counter: u64) -> FileId {
        FileId { writer: WRITER, counter }
    }

    fn name(n: u64) -> Name {
        Name::new(n.to_string().as_bytes()).unwrap()
    }

    /// A share of files 1 to `files`, named by their numbers, all of it told.
    fn share(files: u64) -> Share {
        let mut share = Share::new(US, WRITER);
        for n in 1..=files {
            share.apply(&Record::Created { file: id(n), name: name(n), size: 0, disk: n });
        }
        let mark = |n| CutMark { file: id(n), place: true, body: true, stamp: 5, mtime: 5 };
        share.apply(&Record::Cut { seq: 1, marks: (1..=files).map(mark).collect() });
        share
    }

    fn moved(file: FileId, to: Name, seq: Seq) -> FileCut {
        let version = Version::default().with(WRITER, 1).with(WriterId(2), seq);
        let place = Place { name: Some(to), version, seen: Version::default(), told: seq };
        FileCut { file, place: Some(place), body: None }
    }

    fn cut(files: Vec<FileCut>) -> Cut {
        Cut { seq: 1, writer: WriterId(2), after: Vec::new(), files }
    }

    /// The last one wants a name that a file outside the cut keeps: so it stays, and all before it.
    #[test]
    fn a_chain_of_as_many_renames_as_a_cut_holds_is_judged_at_once() {
        let files = super::super::limits::CUT_FILES as u64;
        let mut share = share(files + 1);
        let chain = cut((1..=files).map(|n| moved(id(n), name(n + 1), 1)).collect());
        assert_eq!(chain.check(), Ok(()));
        assert!(judge(&share, PEER, &chain).iter().all(|v| v.place == PlaceVerdict::Keep));
        // With that one out of the way all move.
        share.apply(&Record::Moved { moves: vec![(id(files + 1), None)] });
        assert!(judge(&share, PEER, &chain).iter().all(|v| v.place == PlaceVerdict::Take));
    }

    /// The peer told of the first version before it heard of the second, and may have that by now.
    #[test]
    fn a_cut_from_before_a_crash_makes_nothing_certain_that_was_told_since() {
        use super::super::cut::Attrs;
        let mut share = share(1);
        let cut_of = |version: Version| {
            let attrs = Attrs { size: 0, mode: 0o644, uid: 0, gid: 0, mtime: 5, xattrs: Vec::new() };
            let body = BodyCut {
                version,
                base: Version::default(),
                attrs,
                stamp: 5,
                changed: Vec::new(),
                lacks: ChunkSet::new(),
                pieces: Vec::new(),
                sha256: [0; 32],
                told: 0,
            };
            cut(vec![FileCut { file: id(1), place: None, body: Some(body) }])
        };
        let first = cut_of(share.file(id(1)).unwrap().body.clone());
        share.apply(&Record::Touched { file: id(1), attrs: true });
        let marks = vec![CutMark { file: id(1), place: false, body: true, stamp: 6, mtime: 6 }];
        share.apply(&Record::Cut { seq: 2, marks });
        let second = cut_of(share.file(id(1)).unwrap().body.clone());
        share.apply(&Record::Unsettled { file: id(1), size: 0, disk: 1, shaky: Default::default() });
        assert_eq!(judge_again(&share, PEER, &first)[0].body, BodyVerdict::Nothing);
        assert_eq!(judge(&share, PEER, &first)[0].body, BodyVerdict::Agree(ChunkSet::new()));
        assert_eq!(judge_again(&share, PEER, &second)[0].body, BodyVerdict::Take(ChunkSet::new()));
    }

    #[test]
    fn a_file_that_this_replica_has_yet_to_make_is_not_taken_from_a_peer() {
        let share = share(3);
        let early = cut(vec![moved(id(4), name(9), 1)]);
        assert_eq!(judge(&share, PEER, &early)[0].place, PlaceVerdict::Nothing);
    }
}
