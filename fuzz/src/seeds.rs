//! What a run begins with: a few inputs for every target, made from values as syncfs makes them.
//!
//! They lie in fuzz/seeds/TARGET/NAME, written by `cargo test --test seeds -- --ignored`. Beside them lie
//! inputs that once broke something, named `found-*`: nobody writes these anew.

use super::identity::with_checksum;
use syncfs::engine::metadata::Stored;
use syncfs::model::chunk::ChunkSet;
use syncfs::model::codec::encode;
use syncfs::model::cut::{Attrs, BodyCut, Changed, Cut, FileCut, Piece, Place};
use syncfs::model::delta::{Part, Recipe, Signature};
use syncfs::model::dirty::Dirty;
use syncfs::model::file::{File, Shaky};
use syncfs::model::first::FirstSync;
use syncfs::model::ids::{FileId, LogPosition, ReplicaId, WriterId};
use syncfs::model::limits::FRAME_BYTES;
use syncfs::model::message::{Ack, Begin, Hello, Message};
use syncfs::model::name::Name;
use syncfs::model::record::{Agreed, CutMark, Kept, Merge, Record, Taken, TakenBody, TakenPlace};
use syncfs::model::share::{Header, Share};
use syncfs::model::survey::{Answer, Entry};
use syncfs::model::verify;
use syncfs::model::version::Version;
use syncfs::wire::compression::Compressor;
use syncfs::wire::frame::{put, put_part};
use syncfs::wire::greeting::Word;

const A: WriterId = WriterId(0x0a0a_0a0a_0a0a_0a0a);
const B: WriterId = WriterId(0x0b0b_0b0b_0b0b_0b0b);

/// A seed: its target, its name and its bytes.
pub type Seed = (&'static str, String, Vec<u8>);

/// All seeds that can be made.
pub fn all() -> Vec<Seed> {
    let mut seeds = Vec::new();
    let mut add =
        |target: &'static str, name: &str, bytes: Vec<u8>| seeds.push((target, name.to_owned(), bytes));
    let mut stream = vec![1, 0, 3, 0, 5, 90];
    for (name, message) in messages() {
        let body = encode(&message);
        put(&mut stream, &body);
        add("messages", name, body);
    }
    add("frames", "messages", stream);
    add("frames", "too-long", [&[0, 0, 0][..], &5000u32.to_le_bytes()].concat());
    add("frames", "parts", parts());
    add("frames", "flagged", [&[1, 0, 0][..], &(1u32 << 24 | 3).to_le_bytes()].concat());
    for (name, body) in compressed() {
        add("compressed", name, body);
    }
    let mut stream = Vec::new();
    for (name, word) in words() {
        let mut frame = Vec::new();
        put(&mut frame, &encode(&word));
        stream.extend_from_slice(&frame);
        add("greeting", name, frame);
    }
    add("greeting", "all", stream);
    for (name, record) in records() {
        add("record", name, encode(&record));
    }
    add("rows", "header", [&[0][..], &encode(&stored())].concat());
    for (name, file) in files() {
        add("rows", name, [&[1][..], &encode(&file)].concat());
    }
    for (name, lines) in CONTROL {
        add("control", name, lines.as_bytes().to_vec());
    }
    for (name, whose, words) in WORDS {
        add("mount", name, [&[whose][..], words.replace(' ', "\0").as_bytes()].concat());
    }
    for (name, bytes) in identities() {
        add("identity", name, bytes);
    }
    for (name, text) in NAMES {
        add("names", name, [&[0, 0, 0x9d, 0xf8, 0x29, 0x6a, 0x35, 0x18, 3], text.as_bytes()].concat());
    }
    add("key", "whole", vec![0x5a; 32]);
    add("key", "short", vec![0x5a; 31]);
    for (name, script) in JOURNALS {
        add("journal", name, script.to_vec());
    }
    for n in 0..4 {
        add("judge", &format!("dice-{n}"), dice(n, 600));
    }
    seeds
}

/// `length` bytes that look like nothing.
fn dice(seed: u64, length: usize) -> Vec<u8> {
    let mut dice = syncfs::store::torn::Dice(seed);
    (0..length).map(|_| dice.roll(256) as u8).collect()
}

/// Two frames in parts, one of them compressed, and a whole one between them.
fn parts() -> Vec<u8> {
    let [_, (_, small), ..] = compressed();
    let mut stream = vec![1, 1, 2, 7, 90];
    let half = small.len() / 2;
    put_part(&mut stream, 2, true, true, &small[..half]);
    put_part(&mut stream, 1, true, false, b"one ");
    put(&mut stream, b"two");
    put_part(&mut stream, 1, false, false, b"and all of it");
    put_part(&mut stream, 2, false, true, &small[half..]);
    stream
}

/// Bodies of compressed frames.
fn compressed() -> [(&'static str, Vec<u8>); 4] {
    let compress = |body: &[u8]| Compressor::new(Default::default()).compress(body).expect("it shrinks");
    let text: Vec<u8> = (0..500).flat_map(|n: u32| format!("this is line {n}\n").into_bytes()).collect();
    let whole = compress(&text);
    let half = whole[..whole.len() / 2].to_vec();
    [("text", text), ("compressed", whole), ("cut-off", half), ("bomb", compress(&[0; FRAME_BYTES + 1]))]
}

fn name(text: &str) -> Name {
    Name::new(text.as_bytes()).expect("a name")
}

fn id(counter: u64) -> FileId {
    FileId { writer: A, counter }
}

fn version(a: u64, b: u64) -> Version {
    let one = |v: Version, writer, n| if n == 0 { v } else { v.with(writer, n) };
    one(one(Version::default(), A, a), B, b)
}

fn edit() -> BodyCut {
    BodyCut {
        version: version(4, 2),
        base: version(3, 2),
        attrs: Attrs {
            size: 2_500,
            mode: 0o644,
            uid: 1000,
            gid: 1000,
            mtime: 1_700_000_000_123_456_789,
            xattrs: vec![(b"user.mime".to_vec(), b"text/plain".to_vec())],
        },
        stamp: 1_700_000_000_123_456_789,
        changed: vec![Changed { start: 0, end: 1, seq: 3 }, Changed { start: 2, end: 3, seq: 4 }],
        lacks: ChunkSet::of(1..2),
        pieces: vec![Piece { first: 2, bytes: vec![7; 500] }],
        sha256: [9; 32],
        told: 4,
    }
}

fn whole_cut() -> Cut {
    let place = |text: Option<&str>| Place {
        name: text.map(name),
        version: version(4, 0),
        seen: version(3, 2),
        told: 4,
    };
    let files = vec![
        FileCut { file: id(1), place: None, body: Some(edit()) },
        FileCut { file: id(2), place: Some(place(Some("notes.txt"))), body: None },
        FileCut { file: id(3), place: Some(place(None)), body: None },
    ];
    Cut { seq: 4, writer: A, after: vec![2], files }
}

fn messages() -> Vec<(&'static str, Message)> {
    let acks = vec![Ack { file: id(1), place: 3, body: 4 }];
    let pieces = vec![Piece { first: 500, bytes: vec![1; 1_500] }, Piece { first: 502, bytes: vec![2; 10] }];
    let (file, version) = (id(1), version(4, 2));
    let signature = Signature::of(&[5; 2_500]);
    let parts = vec![Part::Bytes(vec![6; 700]), Part::Copy { from: 1_000, len: 800 }];
    let recipes = vec![Recipe { first: 500, parts }];
    vec![
        ("sync", Message::Sync { since: Some(LogPosition { writer: B, seq: 7 }) }),
        ("sync-first", Message::Sync { since: None }),
        ("announce", Message::Announce(whole_cut())),
        ("dropped", Message::Dropped { seq: 4 }),
        ("thanks", Message::Thanks { cuts: vec![4, 5], acks }),
        (
            "retrieve",
            Message::Retrieve {
                request: 3,
                file,
                version: version.clone(),
                start: 500,
                end: 1000,
                urgent: true,
                digest: Some([8; 32]),
            },
        ),
        ("same", Message::Same { request: 3 }),
        ("deliver", Message::Deliver { request: 3, pieces, sha256: [9; 32] }),
        ("superseded", Message::Superseded { request: 3 }),
        ("tell", Message::Tell { file }),
        ("unknown", Message::Unknown { file }),
        ("flush", Message::Flush { request: 1 }),
        ("flushed", Message::Flushed { request: 1 }),
        ("ping", Message::Ping { nonce: 1 }),
        ("pong", Message::Pong { nonce: 1 }),
        ("begin", Message::Begin(begin())),
        ("survey", Message::Survey { nonce: 3, answers: answers() }),
        ("alike", Message::Alike { file, basis: id(2) }),
        (
            "compare",
            Message::Compare {
                request: 3,
                file,
                version: version.clone(),
                start: 4000,
                end: 8000,
                urgent: false,
                digest: [8; 32],
            },
        ),
        ("differs", Message::Differs { request: 3 }),
        ("signature", Message::Signature { number: 4, signature }),
        (
            "match",
            Message::Match { request: 5, file, version, start: 500, end: 1000, urgent: false, basis: 4 },
        ),
        ("recipes", Message::Recipes { request: 5, end: 502, recipes, sha256: [9; 32] }),
        ("verify", Message::Verify { nonce: 7, word: verify::Word::Begin { repair: true, owner: true } }),
        ("verify-refused", Message::Verify { nonce: 7, word: verify::Word::Refused(verify::Refusal::Busy) }),
        ("verify-names", Message::Verify { nonce: 7, word: verify::Word::Names(answers()) }),
        ("verify-looks", Message::Verify { nonce: 7, word: verify::Word::Looks(looks()) }),
        ("verify-groups", Message::Verify { nonce: 7, word: verify::Word::Groups(vec![[1; 32], [2; 32]]) }),
        ("verify-kept", Message::Verify { nonce: 7, word: verify::Word::Kept(vec![true, false]) }),
        ("verify-end", Message::Verify { nonce: 7, word: verify::Word::End }),
    ]
}

fn looks() -> Vec<verify::Look> {
    use verify::Look;
    let sight = verify::Sight { steady: true, size: 1_500, mtime: 1_700_000_000, attrs: 9, content: [7; 32] };
    vec![Look::Is(sight), Look::Absent, Look::NotHeld, Look::Unreadable, Look::Changing]
}

fn words() -> Vec<(&'static str, Word)> {
    let features = vec!["one".to_owned(), "two".to_owned()];
    let hello = Hello { replica: ReplicaId(5 << 100), boot: 3, clock_ms: 1_700_000_000_000, features };
    vec![
        ("hello", Word::Hello { hello, ended: 8 }),
        ("welcome", Word::Welcome { number: 9 }),
        ("refuse", Word::Refuse { reason: "this share belongs together with another\n replica".into() }),
        ("superfluous", Word::Superfluous),
    ]
}

fn records() -> Vec<(&'static str, Record)> {
    let (file, chunks, from) = (id(1), ChunkSet::of(0..3), LogPosition { writer: B, seq: 6 });
    let body = TakenBody {
        version: version(4, 6),
        stamp: 1,
        mtime: 1,
        size: 2_500,
        changed: chunks.clone(),
        missing: ChunkSet::of(1..2),
        owed: 6,
        yielded: true,
        agreed: Some(Agreed { seq: 4, size: 2_000 }),
        partial: true,
        disk: 131,
    };
    let place = Some(TakenPlace { name: Some(name("new")), version: version(1, 6) });
    let copies = vec![Kept { file: id(9), name: name("copy"), size: 1_001, disk: 132 }];
    let taken = vec![Taken { file, place, body: Some(body) }, Taken { file: id(2), place: None, body: None }];
    let acks = vec![Ack { file, place: 0, body: 4 }];
    vec![
        ("began", Record::Began { writer: A }),
        ("parted", Record::Parted { seq: 6 }),
        ("known", Record::Known { files: vec![id(1), id(2)] }),
        ("merged", Record::Merged { files: vec![Merge { file: id(1), into: id(3), attrs: true }] }),
        ("stamped", Record::Stamped { file, stamp: 5 }),
        ("met", Record::Met { peer: ReplicaId(5), ours: from, theirs: from }),
        ("heard", Record::Heard { since: from }),
        ("created", Record::Created { file, name: name("new"), size: 1_001, disk: 131 }),
        ("moved", Record::Moved { moves: vec![(file, Some(name("new"))), (id(2), None)] }),
        ("wrote", Record::Wrote { file, chunks: chunks.clone(), size: 2_500 }),
        ("scrapped", Record::Scrapped { file, bytes: ChunkSet::of(1_200..1_300), size: 2_500 }),
        ("resized", Record::Resized { file, size: 10 }),
        ("touched", Record::Touched { file, attrs: true }),
        ("bonded", Record::Bonded { files: vec![file, id(2)] }),
        (
            "cut",
            Record::Cut {
                seq: 4,
                marks: vec![CutMark { file, place: true, body: true, stamp: 1, mtime: 1 }],
            },
        ),
        ("thanked", Record::Thanked { acks }),
        ("took", Record::Took { from, files: taken, copies, revived: vec![id(2)] }),
        ("present", Record::Present { file, chunks }),
        ("redo", Record::Redo { cut: Box::new(whole_cut()), staged: vec![(file, ChunkSet::of(0..2))] }),
        ("forgotten", Record::Forgotten { file }),
        ("absent", Record::Absent { file }),
        ("published", Record::Published { file }),
        (
            "unsettled",
            Record::Unsettled {
                file,
                size: 10,
                disk: 131,
                shaky: Shaky { chunks: ChunkSet::of(1..2), attrs: true },
            },
        ),
        ("synced", Record::Synced { file, upto: 12 }),
        ("adopted", Record::Adopted { file, size: 10, apart: true }),
        ("durable", Record::Durable { cuts: vec![4, 5] }),
        ("lies", Record::Lies { file, disk: 131 }),
    ]
}

fn stored() -> Stored {
    let header = Header {
        peer: Some(ReplicaId(6)),
        followed: Some(LogPosition { writer: B, seq: 6 }),
        past: vec![WriterId(1), WriterId(2)],
        ..Share::new(ReplicaId(5), A).header().clone()
    };
    Stored { header, clean: true, machine_boot: "5c1f2a0e-0000-4000-8000-000000000000".into() }
}

fn files() -> Vec<(&'static str, File)> {
    let mut dirty = Dirty::default();
    dirty.mark(0..2, 4);
    dirty.mark(2..3, 5);
    let edited = File {
        name: Some(name("notes.txt")),
        place: version(1, 0),
        place_cut: 1,
        left: vec![name("draft.txt")],
        body: version(4, 2),
        base: version(3, 2),
        body_cut: 4,
        body_tag: 5,
        stamp: 1_700_000_000_123_456_789,
        size: 2_500,
        dirty,
        shed: 4,
        bond: Some(1),
        disk: 131,
        recorded: Some((1, 2)),
        ..File::default()
    };
    let (missing, scraps) = (ChunkSet::of(1..3), ChunkSet::of(1_200..1_300));
    let partial = File { missing, scraps, partial: true, owed: 6, name: Some(name("far")), ..edited.clone() };
    vec![("new", File::default()), ("edited", edited), ("partial", partial)]
}

fn identities() -> Vec<(&'static str, Vec<u8>)> {
    let body = b"syncfs replica 1\nid 0123456789abcdef0123456789abcdef\nboots 7\n";
    let newer = b"syncfs replica 2\nid 1\n";
    let copy = |kind: u8, bytes: &[u8]| [&[kind, bytes.len() as u8][..], bytes].concat();
    vec![
        ("none", vec![0, 0]),
        ("whole", [copy(2, body), copy(2, body)].concat()),
        ("first-damaged", [copy(1, b"x"), copy(2, body)].concat()),
        ("second-missing", [copy(1, &with_checksum(body)), vec![0]].concat()),
        ("newer", [copy(2, newer), copy(2, body)].concat()),
    ]
}

const CONTROL: [(&str, &str); 4] = [
    (
        "requests",
        "GET /status HTTP/1.1\r\nHost: localhost\r\n\r\nPOST /flush?timeout_ms=5000 HTTP/1.1\r\nHost: localhost\r\n\r\nGET /verify/7 HTTP/1.1\r\nHost: localhost\r\nAccept: */*\r\n\r\n",
    ),
    ("odd", "POST /pin?name=a+b%ff%2F&x=&x&=%zz HTTP/1.0\r\n\r\n"),
    (
        "body",
        "POST /resolve?name=f&keep=this HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nabcdeGET / HTTP/1.1\r\n\r\n",
    ),
    ("chunked", "POST /free HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"),
];

/// For each: 1 where mount(8) speaks, 0 where a user does; words with a space between.
const WORDS: [(&str, u8, &str); 8] = [
    ("fstab", 1, "hostb /mnt/shared -o rw,noatime,_netdev,key_file=/k"),
    ("flags", 1, "-sfnv -oro -t fuse.syncfs -- hostb:99 -dir"),
    ("namespace", 1, "a b -N 5"),
    (
        "long",
        0,
        "mount /d --peer hostb --listen 127.0.0.1:1 --store /s --read-timeout 5 --new-peer --foreground",
    ),
    ("short", 0, "mount -o peer=[::1]:7377,listen=[::]:1,allow_other,x-gvfs-show,ro -- -dir"),
    ("flush", 0, "flush /d --timeout 0.5"),
    ("status", 0, "status --json"),
    ("keygen", 0, "keygen --key-file /k"),
];

const NAMES: [(&str, &str); 5] = [
    ("plain", "notes.txt"),
    ("hidden", ".profile"),
    ("state", ".syncfs"),
    ("conflict", "notes.sync-conflict-20260101-120000-0badcafe-2.txt"),
    ("partial", "0a0a0a0a0a0a0a0a-1f"),
];

/// First number, segments less one, then for each how many records and their bytes; then damage.
const JOURNALS: [(&str, &[u8]); 5] = [
    ("whole", &[0, 1, 2, 3, b'o', b'n', b'e', 0, 1, 2, b'o', b'k']),
    ("torn", &[0, 0, 2, 3, b'o', b'n', b'e', 5, b'a', b'b', b'c', b'd', b'e', 0, 30, 0]),
    ("flipped", &[0, 1, 1, 3, b'o', b'n', b'e', 1, 2, b'o', b'k', 0, 17, 1, 3]),
    ("newer", &[0, 0, 1, 1, b'x', 0, 0, 5, 3, b'1', b'.', b'v']),
    ("alien", &[0, 0, 1, 1, b'x', 0, 0, 6, 2, 2, b'o', b'k']),
];

fn begin() -> Begin {
    let head = LogPosition { writer: B, seq: 9 };
    Begin { anew: true, met: false, first: FirstSync::MirrorPeer, owner: true, nonce: 3, head }
}

fn answers() -> Vec<Answer> {
    let entry = |what| Entry { name: name("a"), what, attrs: 7, stamp: 5 };
    vec![
        Answer::Node { names: 2, digest: [4; 32] },
        Answer::Leaf(vec![entry(Some([1; 32])), entry(None)]),
        Answer::Leaf(Vec::new()),
    ]
}
