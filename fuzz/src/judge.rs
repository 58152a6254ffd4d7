//! A share, local changes, and a peer that says whatever passes the checks: the verdicts over it, applied,
//! leave a share that is sound, that a checkpoint can write and read again, and that has what it took.
//!
//! What the engine does with a verdict, beside moving bytes, is written down here once more
//! ([`World::receive`]): records are all that a share ever sees of it.

use super::script::Script;
use std::fmt::Debug;
use std::sync::LazyLock;
use syncfs::model::chunk::{self, ChunkSet};
use syncfs::model::codec;
use syncfs::model::conflict::conflict_name;
use syncfs::model::cut::{Attrs, BodyCut, Changed, Cut, FileCut, Piece, Place};
use syncfs::model::direction::Direction;
use syncfs::model::file::File;
use syncfs::model::ids::{FileId, LogPosition, ReplicaId, WriterId};
use syncfs::model::judge::{BodyVerdict, PlaceVerdict, Sides, Verdict, judge};
use syncfs::model::limits::CHUNK;
use syncfs::model::message::{Ack, Message};
use syncfs::model::name::Name;
use syncfs::model::record::{CutMark, Kept, Record, Taken, TakenBody, TakenPlace};
use syncfs::model::share::{Header, Restoring, Share};
use syncfs::model::version::Version;
use syncfs::wire::session::parse;

const US: ReplicaId = ReplicaId(2);
const WRITERS: [WriterId; 3] = [WriterId(1), WriterId(2), WriterId(3)];
const NAMES: [&[u8]; 6] = [b"a", b"b", b"c", b"d.txt", b"e", b"a.sync-conflict-19700101-000000-00000000"];

/// Changes here and cuts of the peer, in turn.
pub fn run(input: &[u8]) {
    let mut script = Script::new(input);
    let peer = ReplicaId(1 + 2 * u128::from(script.below(2)));
    let mut world = World { share: Share::new(US, WRITERS[0]), peer };
    let at = LogPosition { writer: WriterId(1), seq: 0 };
    world.apply(Record::Met { peer, ours: at, theirs: at });
    while !script.is_over() {
        if script.coin() { world.work(&mut script) } else { world.hear(&mut script) }
    }
    world.survives_a_restart();
}

struct World {
    share: Share,
    peer: ReplicaId,
}

impl World {
    fn apply(&mut self, record: Record) {
        self.share.apply(&record);
        if let Err(fault) = self.share.check() {
            panic!("{fault}, after {record:?}");
        }
    }

    /// Something that programs, the peer's thanks or a restart do here.
    fn work(&mut self, script: &mut Script) {
        let mut files: Vec<FileId> =
            self.share.files().filter(|(_, f)| f.name.is_some()).map(|(id, _)| id).collect();
        files.sort_unstable();
        let pick = |script: &mut Script| match files.len() as u64 {
            0 => FileId { writer: WRITERS[0], counter: 0 },
            n => files[script.below(n) as usize],
        };
        let file = pick(script);
        let of = self.share.file(file).map(|f| f.into_owned()).unwrap_or_default();
        match script.below(13) {
            0 => {
                let (name, size) = (name(script), script.below(256) * 20);
                if self.share.named(&name).is_none() {
                    self.apply(Record::Created { file: self.share.next_file(), name, size, disk: 7 });
                }
            }
            1 => self.write(file, &of, script.below(256) * 20, script.below(256) * 9 + 1),
            2 => self.apply(Record::Resized { file, size: script.below(256) * 20 }),
            3 => self.apply(Record::Touched { file, attrs: script.coin() }),
            4 => {
                let (to, exchange) = (name(script), script.coin());
                let mut moves = vec![(file, Some(to.clone()))];
                if let Some(other) = self.share.named(&to).filter(|other| *other != file) {
                    moves.push((other, of.name.filter(|_| exchange)));
                }
                if self.share.file(file).is_some() {
                    self.apply(Record::Moved { moves });
                }
            }
            5 => self.apply(Record::Moved { moves: vec![(file, None)] }),
            6 => self.apply(Record::Bonded { files: vec![file, pick(script)] }),
            7 => self.cut(|_| true),
            8 => {
                let (place, body) = (script.number(10), script.number(10));
                let acks = self.share.unthanked().iter().map(|file| Ack { file, place, body }).collect();
                self.apply(Record::Thanked { acks });
            }
            9 => {
                let some: ChunkSet = of.missing.iter().skip(script.below(2) as usize).take(2).collect();
                self.apply(Record::Present { file, chunks: some });
                if self.share.file(file).is_some_and(|f| f.is_whole()) {
                    self.apply(Record::Published { file });
                }
            }
            10 => {
                let writer = WriterId(100 + self.share.header().past.len() as u64);
                self.apply(Record::Began { writer });
            }
            11 => self.apply(Record::Absent { file }),
            _ if of.is_untold() => self.apply(Record::Forgotten { file }),
            _ => self.apply(Record::Lies { file, disk: 9 }),
        }
    }

    /// A program writes: into chunks that are held, and beside ones that are not.
    fn write(&mut self, file: FileId, of: &File, at: u64, len: u64) {
        let size = of.size.max(at + len);
        let (mut changed, mut scraps) = (ChunkSet::new(), ChunkSet::new());
        for n in chunk::touched(at, len) {
            if of.missing.contains(n) {
                scraps.insert(at.max(n * CHUNK)..(at + len).min((n + 1) * CHUNK));
            } else {
                changed.insert(n..n + 1);
            }
        }
        if !scraps.is_empty() {
            self.apply(Record::Scrapped { file, bytes: scraps, size });
        }
        self.apply(Record::Wrote { file, chunks: changed, size });
    }

    /// Takes a cut of all that is fresh and `concerned`.
    fn cut(&mut self, concerned: impl Fn(FileId) -> bool) {
        let mark = |file: FileId| {
            let f = self.share.file(file)?;
            let (place, body) = (f.place_is_fresh(), f.body_is_fresh());
            Some(CutMark { file, place, body, stamp: f.next_stamp(5), mtime: 5 })
        };
        let marks: Vec<CutMark> =
            self.share.fresh().iter().filter(|id| concerned(*id)).filter_map(mark).collect();
        if !marks.is_empty() {
            self.apply(Record::Cut { seq: self.share.header().head + 1, marks });
        }
    }

    /// The peer announces something.
    fn hear(&mut self, script: &mut Script) {
        let delivered = script.coin();
        let message = Message::Announce(cut(script));
        let Ok(Message::Announce(cut)) = parse(&codec::encode(&message)) else { return };
        let taken = self.receive(&cut, delivered);
        let again = self.judge(&cut);
        for (first, second) in taken.iter().zip(&again) {
            let took_place = matches!(first.place, PlaceVerdict::Take | PlaceVerdict::TakeFrom(_));
            let has_place = second.place == PlaceVerdict::Have;
            assert!(has_place || !took_place, "{first:?} was applied, and now {second:?}: {cut:?}");

            let took_body = matches!(first.body, BodyVerdict::Take(_) | BodyVerdict::Yield { .. });
            let has_body = match &second.body {
                // Content that is missing here may come twice.
                BodyVerdict::Take(chunks) => {
                    let held = self.share.file(second.file);
                    let missing = |range| held.as_ref().is_some_and(|f| f.missing.gaps(&range).is_empty());
                    chunks.iter().all(missing)
                }
                verdict => *verdict == BodyVerdict::Have,
            };
            assert!(has_body || !took_body, "{first:?} was applied, and now {second:?}: {cut:?}");
        }
    }

    /// The verdicts over a cut, nothing that it speaks of being fresh.
    fn judge(&mut self, cut: &Cut) -> Vec<Verdict> {
        let holders = cut.names().filter_map(|name| self.share.named(name));
        let concerned: Vec<FileId> = cut.files.iter().map(|f| f.file).chain(holders).collect();
        self.cut(|id| concerned.contains(&id));
        let verdicts = judge(&self.share, Sides { peer: self.peer, direction: Direction::Both }, cut);
        assert!(verdicts.iter().map(|v| v.file).eq(cut.files.iter().map(|f| f.file)));
        verdicts
    }

    /// Applies a cut, its content `delivered` or still to come; gives back the verdicts over it.
    fn receive(&mut self, cut: &Cut, delivered: bool) -> Vec<Verdict> {
        let verdicts = self.judge(cut);
        for verdict in &verdicts {
            if let PlaceVerdict::TakeFrom(ours) = verdict.place
                && let Some(name) = self.share.file(ours).and_then(|f| f.name.clone())
            {
                let aside = self.conflict_name(&name, ours, cut, &[]);
                self.apply(Record::Moved { moves: vec![(ours, Some(aside))] });
            }
        }
        let (mut files, mut revived, mut copies) = (Vec::new(), Vec::new(), Vec::<Kept>::new());
        for (file, verdict) in cut.files.iter().zip(&verdicts) {
            let ours = self.share.file(file.file).filter(|f| f.name.is_some()).map(|f| f.into_owned());
            if let (BodyVerdict::Yield { copy: true, .. }, Some(f)) = (&verdict.body, &ours) {
                let name = self.conflict_name(f.name.as_ref().expect("just seen"), file.file, cut, &copies);
                let next = self.share.next_file();
                let copy = FileId { counter: next.counter + copies.len() as u64, ..next };
                copies.push(Kept { file: copy, name, size: f.size, disk: 8 });
            }
            let body = taken_body(file, &verdict.body, ours.as_ref(), delivered);
            let place = file.place.as_ref().and_then(|place| match verdict.place {
                PlaceVerdict::Take | PlaceVerdict::TakeFrom(_) => {
                    Some(TakenPlace { name: place.name.clone(), version: place.version.clone() })
                }
                PlaceVerdict::Revive => {
                    revived.push(file.file);
                    let f = ours.as_ref()?;
                    Some(TakenPlace { name: f.name.clone(), version: f.place.join(&place.version) })
                }
                _ => None,
            });
            if place.is_some() || body.is_some() {
                files.push(Taken { file: file.file, place, body });
            }
        }
        let from = LogPosition { writer: cut.writer, seq: cut.seq };
        self.apply(same(&Record::Took { from, files, copies, revived }));
        verdicts
    }

    fn conflict_name(&self, name: &Name, file: FileId, cut: &Cut, copies: &[Kept]) -> Name {
        let stamp = self.share.file(file).map_or(0, |f| f.stamp);
        conflict_name(name, stamp, US, |n| {
            let mut taken = cut.names().chain(copies.iter().map(|copy| &copy.name));
            self.share.named(n).is_some() || taken.any(|other| other == n)
        })
    }

    /// What a checkpoint writes of the share is read back as it was.
    fn survives_a_restart(&self) {
        let header: Header = same(self.share.header());
        let mut share = Restoring::new(header);
        self.share.files().for_each(|(id, file)| share.file(id, same(&*file)));
        let share = share.finish();
        if let Err(fault) = share.check() {
            panic!("{fault}, after a restart");
        }
    }
}

/// `value` as it is read again after it was written to the disk: no different.
fn same<T: bincode::Encode + bincode::Decode<()> + PartialEq + Debug>(value: &T) -> T {
    let again = codec::decode_own::<T>(&codec::encode(value));
    let again = again.unwrap_or_else(|e| panic!("{value:?} can't be read again: {e}"));
    assert_eq!(&again, value);
    again
}

/// What becomes of the body, as the engine's applier puts it down.
fn taken_body(
    file: &FileCut,
    verdict: &BodyVerdict,
    ours: Option<&File>,
    delivered: bool,
) -> Option<TakenBody> {
    let changed = verdict.takes()?;
    let body = file.body.as_ref()?;
    let mut missing = changed.clone();
    body.pieces.iter().for_each(|p| missing.remove(p.chunks()));
    if delivered {
        missing = ChunkSet::new();
    }
    Some(TakenBody {
        version: body.version.clone(),
        stamp: body.stamp,
        mtime: 1,
        size: body.attrs.size,
        changed: changed.clone(),
        partial: ours.is_some_and(|f| f.partial) || !missing.is_empty(),
        missing,
        owed: body.told,
        yielded: matches!(verdict, BodyVerdict::Yield { .. }),
        // Nothing becomes uncertain here.
        agreed: None,
        disk: 3,
    })
}

fn cut(script: &mut Script) -> Cut {
    let writer = WRITERS[(1 + script.below(3) as usize) % 3];
    let seq = script.number(10);
    let file = |script: &mut Script| {
        let file = FileId { writer: WRITERS[script.below(3) as usize], counter: script.number(6) };
        let parts = script.below(3);
        let place = (parts != 1).then(|| place(script));
        let gone = place.as_ref().is_some_and(|p| p.name.is_none());
        FileCut { file, place, body: (parts != 2 && !gone).then(|| body(script)) }
    };
    let files = (0..=script.below(4)).map(|_| file(script)).collect();
    Cut { seq, writer, after: Vec::new(), files }
}

fn place(script: &mut Script) -> Place {
    let name = (script.below(4) != 0).then(|| name(script));
    Place { name, version: some_version(script), seen: version(script), told: script.number(10) }
}

fn body(script: &mut Script) -> BodyCut {
    let base = version(script);
    let size = script.number(5100);
    let end = chunk::count(size);
    let mut changed = Vec::new();
    let mut from = 0u64;
    for _ in 0..script.below(4) {
        let start = from.saturating_add(script.number(3));
        from = start.saturating_add(script.number(4).max(1));
        if from <= end {
            changed.push(Changed { start, end: from, seq: script.number(10).max(1) });
        }
    }
    let mut pieces = Vec::new();
    let mut first = 0;
    for _ in 0..script.below(3) {
        first += script.below(3);
        let next = first + script.below(3) + 1;
        if next <= end {
            let bytes = chunk::bytes(&(first..next), size);
            pieces.push(Piece { first, bytes: vec![0; (bytes.end - bytes.start) as usize] });
        }
        first = next;
    }
    let stamp = script.number(10) as i64;
    let attrs = Attrs { size, mode: 0o644, uid: 0, gid: 0, mtime: stamp, xattrs: Vec::new() };
    BodyCut {
        version: base.join(&some_version(script)),
        base,
        attrs,
        stamp,
        changed,
        lacks: ChunkSet::new(),
        pieces,
        sha256: [0; 32],
        told: script.number(10),
    }
}

fn name(script: &mut Script) -> Name {
    Name::new(NAMES[script.below(NAMES.len() as u64) as usize]).expect("a name")
}

/// A version, perhaps that of nothing.
fn version(script: &mut Script) -> Version {
    if script.coin() { some_version(script) } else { Version::default() }
}

/// A version of the known writers; at times one of as many writers as a version may have.
fn some_version(script: &mut Script) -> Version {
    static MANY: LazyLock<Version> =
        LazyLock::new(|| (1000..2024).fold(Version::default(), |v, n| v.with(WriterId(n), 1)));
    match script.below(256) {
        255 => MANY.clone(),
        entries => (0..=entries % 3).fold(Version::default(), |v, _| {
            let writer = WRITERS[script.below(3) as usize];
            v.with(writer, script.number(10).max(1))
        }),
    }
}
