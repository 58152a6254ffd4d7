//! One file's state in few bytes: what the table of files holds of a file that nobody is working on.
//!
//! Numbers take as many bytes as they need, and none where they are zero; what is nearly always the same as something else is
//! told by how it differs from it. The form is never stored nor sent, so it may change at any time. Invariants: equal files
//! have equal forms; unpacking gives exactly what was packed, whatever that was.

use super::chunk::ChunkSet;
use super::dirty::Dirty;
use super::file::File;
use super::ids::{FileId, WriterId};
use super::name::Name;
use super::version::Version;
use std::ops::Range;

/// A file and its id. The id, the name and the inode number come first, and are read in place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packed(Box<[u8]>);

// What is there, and how it is told.
const NAMED: u64 = 1;
const OWN_INO: u64 = 1 << 1;
const PARTIAL: u64 = 1 << 2;
const PINNED: u64 = 1 << 3;
const UNSETTLED: u64 = 1 << 4;
const HAS_MTIME: u64 = 1 << 5;
const HAS_RECORDED: u64 = 1 << 6;
/// The body's version is the place's, ...
const ONE_VERSION: u64 = 1 << 7;
/// ... and the base's is the body's.
const BASE_IS_BODY: u64 = 1 << 8;
const HAS_MISSING: u64 = 1 << 9;
const HAS_DIRTY: u64 = 1 << 10;
const HAS_BEFORE: u64 = 1 << 11;
const HAS_SCRAPS: u64 = 1 << 12;
const HAS_LEFT: u64 = 1 << 13;
const HAS_BOND: u64 = 1 << 14;

impl Packed {
    pub fn new(id: FileId, file: &File) -> Packed {
        let mut out = Out(Vec::with_capacity(160));
        out.raw(id.writer.0);
        out.number(id.counter);
        out.number(marks(id, file));
        if let Some(name) = &file.name {
            out.bytes(name.as_bytes());
        }
        if file.ino != id.usual_ino() {
            out.raw(file.ino);
        }
        out.numbers(&numbers(file));
        out.version(id, &file.place);
        if file.body != file.place {
            out.version(id, &file.body);
        }
        if file.base != file.body {
            out.version(id, &file.base);
        }
        for set in [&file.missing, &file.scraps].into_iter().filter(|set| !set.is_empty()) {
            out.list(set.iter(), |out, range| out.range(range));
        }
        for dirty in [&file.dirty, &file.before].into_iter().filter(|dirty| !dirty.is_empty()) {
            out.list(dirty.changed().into_iter(), |out, c| {
                out.range(c.start..c.end);
                out.number(c.seq);
            });
        }
        if !file.left.is_empty() {
            out.list(file.left.iter(), |out, name| out.bytes(name.as_bytes()));
        }
        Packed(out.0.as_slice().into())
    }

    pub fn id(&self) -> FileId {
        self.head().0
    }

    /// The name, where it has one.
    pub fn name(&self) -> Option<&[u8]> {
        let (_, marks, mut rest) = self.head();
        (marks & NAMED != 0).then(|| rest.bytes())
    }

    pub fn ino(&self) -> u64 {
        let (id, marks, mut rest) = self.head();
        if marks & NAMED != 0 {
            rest.bytes();
        }
        if marks & OWN_INO != 0 { rest.raw() } else { id.usual_ino() }
    }

    pub fn is_partial(&self) -> bool {
        self.head().1 & PARTIAL != 0
    }

    pub fn keeps_before(&self) -> bool {
        self.head().1 & HAS_BEFORE != 0
    }

    pub fn unpack(&self) -> File {
        let (id, marks, mut rest) = self.head();
        let has = |mark: u64| marks & mark != 0;
        let name = has(NAMED).then(|| rest.name());
        let ino = if has(OWN_INO) { rest.raw() } else { id.usual_ino() };
        let n = rest.numbers();
        let stamp = differs(0, n[13]).cast_signed();
        let time = |from: i64, by: u64| differs(from.cast_unsigned(), by).cast_signed();
        let modified = time(stamp, n[15]);
        let place = rest.version(id);
        let body = if has(ONE_VERSION) { place.clone() } else { rest.version(id) };
        let base = if has(BASE_IS_BODY) { body.clone() } else { rest.version(id) };
        let mut set = |mark: u64| match has(mark) {
            true => rest.list(|rest| rest.range()).collect(),
            false => ChunkSet::new(),
        };
        let (missing, scraps) = (set(HAS_MISSING), set(HAS_SCRAPS));
        let mut dirty = |mark: u64| {
            let mut dirty = Dirty::default();
            if has(mark) {
                rest.list(|rest| (rest.range(), rest.number()))
                    .for_each(|(range, tag)| dirty.mark(range, tag));
            }
            dirty
        };
        let (dirty, before) = (dirty(HAS_DIRTY), dirty(HAS_BEFORE));
        File {
            name,
            place,
            place_cut: n[0],
            place_tag: n[1],
            left: if has(HAS_LEFT) { rest.list(|rest| rest.name()).collect() } else { Vec::new() },
            body,
            base,
            base_size: differs(n[5], n[6]),
            body_cut: differs(n[0], n[2]),
            body_tag: n[3],
            body_acked: n[4],
            stamp,
            size: n[5],
            size_tag: n[7],
            attrs_tag: n[8],
            dirty,
            missing,
            partial: has(PARTIAL),
            scraps,
            shed: n[9],
            owed: n[10],
            unsettled: has(UNSETTLED),
            pinned: has(PINNED),
            before,
            bond: has(HAS_BOND).then_some(n[12]),
            ino,
            disk: n[11],
            mtime: has(HAS_MTIME).then(|| time(stamp, n[14])),
            recorded: has(HAS_RECORDED).then(|| (modified, time(modified, n[16]))),
        }
    }

    fn head(&self) -> (FileId, u64, In<'_>) {
        let mut rest = In(&self.0);
        let id = FileId { writer: WriterId(rest.raw()), counter: rest.number() };
        let marks = rest.number();
        (id, marks, rest)
    }
}

fn marks(id: FileId, file: &File) -> u64 {
    let marks = [
        (NAMED, file.name.is_some()),
        (OWN_INO, file.ino != id.usual_ino()),
        (PARTIAL, file.partial),
        (PINNED, file.pinned),
        (UNSETTLED, file.unsettled),
        (HAS_MTIME, file.mtime.is_some()),
        (HAS_RECORDED, file.recorded.is_some()),
        (ONE_VERSION, file.body == file.place),
        (BASE_IS_BODY, file.base == file.body),
        (HAS_MISSING, !file.missing.is_empty()),
        (HAS_DIRTY, !file.dirty.is_empty()),
        (HAS_BEFORE, !file.before.is_empty()),
        (HAS_SCRAPS, !file.scraps.is_empty()),
        (HAS_LEFT, !file.left.is_empty()),
        (HAS_BOND, file.bond.is_some()),
    ];
    marks.into_iter().filter(|(_, is)| *is).map(|(mark, _)| mark).sum()
}

const NUMBERS: usize = 17;

/// A version of no writer, or of the one that made the file; else one more than there are writers.
const NOBODYS: u64 = 0;
const ITS_MAKERS: u64 = 1;

fn numbers(file: &File) -> [u64; NUMBERS] {
    let time = |from: i64, to: i64| by(from.cast_unsigned(), to.cast_unsigned());
    let (modified, changed) = file.recorded.unwrap_or((file.stamp, file.stamp));
    [
        file.place_cut,
        file.place_tag,
        by(file.place_cut, file.body_cut),
        file.body_tag,
        file.body_acked,
        file.size,
        by(file.size, file.base_size),
        file.size_tag,
        file.attrs_tag,
        file.shed,
        file.owed,
        file.disk,
        file.bond.unwrap_or(0),
        time(0, file.stamp),
        time(file.stamp, file.mtime.unwrap_or(file.stamp)),
        time(file.stamp, modified),
        time(modified, changed),
    ]
}

/// By how much `to` differs from `from`, up or down: small where the two are near.
fn by(from: u64, to: u64) -> u64 {
    let by = to.wrapping_sub(from).cast_signed();
    ((by << 1) ^ (by >> 63)).cast_unsigned()
}

/// What differs so much from `from`.
fn differs(from: u64, by: u64) -> u64 {
    from.wrapping_add((by >> 1) ^ (by & 1).wrapping_neg())
}

struct Out(Vec<u8>);

impl Out {
    fn raw(&mut self, number: u64) {
        self.0.extend(number.to_le_bytes());
    }

    /// Seven bits a byte, the lowest first; the last byte has its top bit clear.
    fn number(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.0.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.0.push(number as u8);
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.number(bytes.len() as u64);
        self.0.extend(bytes);
    }

    /// Which of them are not zero, then these.
    fn numbers(&mut self, numbers: &[u64; NUMBERS]) {
        let there = numbers.iter().enumerate().filter(|(_, n)| **n != 0);
        self.number(there.clone().map(|(at, _)| 1 << at).sum());
        there.for_each(|(_, n)| self.number(*n));
    }

    fn range(&mut self, range: Range<u64>) {
        self.number(range.start);
        self.number(range.end - range.start);
    }

    /// Most versions are of the one writer that made the file.
    fn version(&mut self, id: FileId, version: &Version) {
        match version.entries() {
            [] => self.number(NOBODYS),
            [(writer, seq)] if *writer == id.writer => {
                self.number(ITS_MAKERS);
                self.number(*seq);
            }
            entries => {
                self.number(entries.len() as u64 + 1);
                for &(writer, seq) in entries {
                    self.raw(writer.0);
                    self.number(seq);
                }
            }
        }
    }

    fn list<T>(&mut self, items: impl Iterator<Item = T>, mut item: impl FnMut(&mut Out, T)) {
        let items: Vec<T> = items.collect();
        self.number(items.len() as u64);
        items.into_iter().for_each(|one| item(self, one));
    }
}

/// What is left to be read. It was written by [`Out`], in this process.
struct In<'a>(&'a [u8]);

impl<'a> In<'a> {
    fn take(&mut self, len: usize) -> &'a [u8] {
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes
    }

    fn raw(&mut self) -> u64 {
        u64::from_le_bytes(self.take(8).try_into().expect("eight bytes"))
    }

    fn number(&mut self) -> u64 {
        let (mut number, mut shift) = (0, 0);
        loop {
            let byte = self.take(1)[0];
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return number;
            }
            shift += 7;
        }
    }

    fn bytes(&mut self) -> &'a [u8] {
        let len = self.number() as usize;
        self.take(len)
    }

    fn name(&mut self) -> Name {
        Name::new(self.bytes()).expect("a name was packed")
    }

    fn numbers(&mut self) -> [u64; NUMBERS] {
        let there = self.number();
        std::array::from_fn(|at| if there >> at & 1 == 1 { self.number() } else { 0 })
    }

    fn range(&mut self) -> Range<u64> {
        let start = self.number();
        start..start + self.number()
    }

    fn version(&mut self, id: FileId) -> Version {
        match self.number() {
            NOBODYS => Version::default(),
            ITS_MAKERS => Version::of([(id.writer, self.number())].into()),
            more => Version::of((1..more).map(|_| (WriterId(self.raw()), self.number())).collect()),
        }
    }

    fn list<T>(&mut self, mut item: impl FnMut(&mut In<'a>) -> T) -> impl Iterator<Item = T> {
        let len = self.number();
        (0..len).map(move |_| item(self))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![Just(0), 1u64..300, any::<u64>()]
    }

    fn time() -> impl Strategy<Value = i64> {
        prop_oneof![Just(0), 1_700_000_000_000_000_000..1_700_000_001_000_000_000i64, any::<i64>()]
    }

    fn set() -> impl Strategy<Value = ChunkSet> {
        let range = (0u64..1 << 40, 1u64..5_000).prop_map(|(start, len)| start..start + len);
        prop::collection::vec(range, 0..4).prop_map(|ranges| ranges.into_iter().collect())
    }

    fn dirty() -> impl Strategy<Value = Dirty> {
        prop::collection::vec((0u64..1 << 40, 1u64..5_000, 1u64..9), 0..4).prop_map(|ranges| {
            let mut dirty = Dirty::default();
            ranges.into_iter().for_each(|(start, len, tag)| dirty.mark(start..start + len, tag));
            dirty
        })
    }

    fn version() -> impl Strategy<Value = Version> {
        prop::collection::btree_map((1u64..4).prop_map(WriterId), number().prop_map(|n| n.max(1)), 0..4)
            .prop_map(|entries| Version::of(entries.into_iter().collect()))
    }

    fn name() -> impl Strategy<Value = Name> {
        prop::collection::vec(b'a'..=b'z', 1..255).prop_map(|bytes| Name::new(&bytes).unwrap())
    }

    prop_compose! {
        fn file()(
            id in ((1u64..4).prop_map(WriterId), number()),
            name in prop::option::of(name()),
            left in prop::collection::vec(name(), 0..3),
            versions in (version(), prop::option::of(version()), prop::option::of(version())),
            n in prop::array::uniform12(number()),
            sets in (dirty(), set(), set(), dirty()),
            flags in any::<(bool, bool, bool, bool)>(),
            bond in prop::option::of(number()),
            times in (time(), prop::option::of(time()), prop::option::of((time(), time()))),
        ) -> (FileId, File) {
            let id = FileId { writer: id.0, counter: id.1 };
            let body = versions.1.unwrap_or(versions.0.clone());
            (id, File {
                name,
                left,
                base: versions.2.unwrap_or(body.clone()),
                place: versions.0,
                body,
                place_cut: n[0],
                place_tag: n[1],
                base_size: n[2],
                body_cut: n[3],
                body_tag: n[4],
                body_acked: n[5],
                size: n[6],
                size_tag: n[7],
                attrs_tag: n[8],
                shed: n[9],
                owed: n[10],
                disk: n[11],
                dirty: sets.0,
                missing: sets.1,
                scraps: sets.2,
                before: sets.3,
                partial: flags.0,
                unsettled: flags.1,
                pinned: flags.2,
                ino: if flags.3 { id.usual_ino() } else { n[0] },
                bond,
                stamp: times.0,
                mtime: times.1,
                recorded: times.2,
            })
        }
    }

    proptest! {
        #[test]
        fn what_was_packed_is_unpacked((id, file) in file()) {
            let packed = Packed::new(id, &file);
            prop_assert_eq!((packed.id(), packed.ino()), (id, file.ino));
            prop_assert_eq!(packed.name(), file.name.as_ref().map(Name::as_bytes));
            prop_assert_eq!((packed.is_partial(), packed.keeps_before()), (file.partial, !file.before.is_empty()));
            prop_assert_eq!(packed.unpack(), file.clone());
            prop_assert_eq!(Packed::new(id, &packed.unpack()), packed);
        }
    }

    #[test]
    fn a_file_that_both_sides_have_takes_few_bytes() {
        let writer = WriterId(0x1234_5678_9abc_def0);
        let id = FileId { writer, counter: 1_000_000 };
        let (version, stamp) = (Version::default().with(writer, 200_000), 1_760_000_000_123_456_789);
        let file = File {
            name: Some(Name::new(b"IMG_0123456.jpg").unwrap()),
            place: version.clone(),
            body: version.clone(),
            base: version,
            place_cut: 200_000,
            body_cut: 200_000,
            body_acked: 200_000,
            size: 3_456_789,
            base_size: 3_456_789,
            stamp,
            ino: id.usual_ino(),
            disk: 12_345_678,
            mtime: Some(stamp),
            recorded: Some((stamp, stamp + 1_234_567)),
            ..File::default()
        };
        let packed = Packed::new(id, &file);
        assert!(packed.0.len() <= 72, "{} bytes", packed.0.len());
    }
}
