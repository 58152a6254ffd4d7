//! What is left of a crossing if nothing is done but what must be: a change is on the disk of A before B is told of it, and on that
//! of B before it is shown there. No program is listened to, nothing is encrypted, and no daemon has to be woken on A: who
//! writes does it all.

use super::latency::{Kind, SIZE, seen};
use crate::ground::Ground;
use crate::link::Link;
use crate::rig::noise;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const ROOM: u64 = 1 << 30;
const FRAME: usize = 9 + SIZE;

pub struct Floor {
    a: Ground,
    b: Ground,
    log: Log,
    to: Option<TcpStream>,
    there: Option<JoinHandle<()>>,
    changes: u64,
}

impl Floor {
    /// Over loopback, or from one end of a link to the other.
    pub fn start(link: Option<&Link>) -> Floor {
        let [a, b] = [(); 2].map(|()| Ground::new(ROOM));
        let listen = |at: Ipv4Addr| TcpListener::bind((at, 0)).expect("a port");
        let listener =
            link.map_or_else(|| listen(Ipv4Addr::LOCALHOST), |link| link.b.within(|| listen(link.b.address)));
        let at = listener.local_addr().expect("its address");
        let connect = || TcpStream::connect(at).expect("connected");
        let to = link.map_or_else(connect, |link| link.a.within(connect));
        to.set_nodelay(true).expect("sent at once");
        let (from, _) = listener.accept().expect("connected");
        let (log, theirs, dir) = (Log::new(&a), Log::new(&b), b.dir.clone());
        let there = std::thread::spawn(move || receive(from, theirs, dir));
        Floor { a, b, log, to: Some(to), there: Some(there), changes: 0 }
    }

    /// As a user of syncfs sees it: from before `close` on A until it is read on B.
    pub fn crossing(&mut self, kind: Kind) -> Duration {
        self.changes += 1;
        let (bytes, name) = (noise(self.changes, SIZE), name(kind, self.changes));
        let file = File::options().write(true).create(true).truncate(false).open(self.a.dir.join(&name));
        let file = file.expect("open");
        file.write_all_at(&bytes, 0).expect("written");
        let begun = Instant::now();
        drop(file);
        let frame = [&[u8::from(kind == Kind::New)][..], &self.changes.to_le_bytes(), &bytes].concat();
        self.log.append(&frame);
        self.to.as_mut().expect("connected").write_all(&frame).expect("sent");
        let path = self.b.dir.join(&name);
        seen(begun, || std::fs::read(&path).is_ok_and(|found| found == bytes))
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        self.to = None;
        self.there.take().map(JoinHandle::join);
    }
}

fn name(kind: Kind, change: u64) -> String {
    match kind {
        Kind::New => format!("new {change}"),
        Kind::Edit => "edited".into(),
    }
}

/// What B does, until A is gone.
fn receive(mut from: TcpStream, mut log: Log, dir: PathBuf) {
    let mut frame = [0; FRAME];
    while from.read_exact(&mut frame).is_ok() {
        log.append(&frame);
        let kind = if frame[0] == 1 { Kind::New } else { Kind::Edit };
        let name = name(kind, u64::from_le_bytes(frame[1..9].try_into().expect("eight")));
        let (half, path) = (dir.join("half"), dir.join(name));
        let at = if kind == Kind::New { &half } else { &path };
        let file = File::options().write(true).create(true).truncate(false).open(at).expect("open");
        file.write_all_at(&frame[9..], 0).expect("written");
        if kind == Kind::New {
            std::fs::rename(&half, &path).expect("shown");
        }
    }
}

/// Written over zeros, so that a sync makes no new size durable.
struct Log {
    file: File,
    end: u64,
}

impl Log {
    fn new(ground: &Ground) -> Log {
        let file = File::create_new(ground.path().join("log")).expect("a log");
        file.write_all_at(&vec![0; 64 << 20], 0).expect("zeros");
        file.sync_all().expect("synced");
        Log { file, end: 0 }
    }

    fn append(&mut self, bytes: &[u8]) {
        self.file.write_all_at(bytes, self.end).expect("written");
        self.file.sync_data().expect("synced");
        self.end += bytes.len() as u64;
    }
}
