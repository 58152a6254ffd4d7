//! The promises of the network's door, over real sockets on 127.0.0.1.

use super::compression::{Compressor, Decompressor};
use super::context::{Admit, Session};
use super::frame::{FrameReader, put, put_compressed, put_part};
use super::greeting::Word;
use super::key::Key;
use super::link::{Config, Event, Events, Link};
use super::session::parse;
use super::system::clock_ms;
use super::tls::Tls;
use crate::model::codec;
use crate::model::cut::{Cut, FileCut, Piece};
use crate::model::ids::LogPosition;
use crate::model::ids::{FileId, ReplicaId, WriterId};
use crate::model::limits::{FRAME_BYTES, HELLO_BYTES, STRANGERS};
use crate::model::message::{Hello, Message};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, split};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

const KEY: [u8; 32] = [7; 32];
const MARK: &str = "a-feature-nobody-may-see";
/// A port where nobody listens.
const NOWHERE: &str = "127.0.0.1:1";

pub fn announce(seq: u64) -> Message {
    let file = FileCut { file: FileId { writer: WriterId(1), counter: seq }, place: None, body: None };
    Message::Announce(Cut { seq, writer: WriterId(1), after: vec![], files: vec![file] })
}

pub fn deliver(request: u64, bytes: usize) -> Message {
    let pieces = vec![Piece { first: 0, bytes: noise(request, bytes) }];
    Message::Deliver { request, pieces, sha256: [0; 32] }
}

/// Bytes that don't compress.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// A delivery of so many bytes that compress.
pub fn text(bytes: usize) -> Message {
    let lines = (0..).flat_map(|n: u32| format!("this is line {n}\n").into_bytes());
    let pieces = vec![Piece { first: 0, bytes: lines.take(bytes).collect() }];
    Message::Deliver { request: 1, pieces, sha256: [0; 32] }
}

fn word(request: u64) -> Message {
    Message::Flush { request }
}

struct Host {
    link: Link,
    events: Events,
}

fn config(id: u128, key: [u8; 32], listen: SocketAddr, peer: String, admit: Admit) -> Config {
    Config {
        key: Key::from_bytes(key),
        replica: ReplicaId(id),
        boot: 1,
        features: vec![MARK.into()],
        compress: true,
        bwlimit: None,
        listen: Some(listen),
        peer,
        admit,
    }
}

async fn started(config: Config) -> Host {
    let (link, events) = Link::start(config).await.unwrap();
    Host { link, events }
}

async fn host_with(id: u128, key: [u8; 32], listen: SocketAddr, peer: String, admit: Admit) -> Host {
    started(config(id, key, listen, peer, admit)).await
}

async fn host(id: u128, listen: SocketAddr, peer: impl ToString) -> Host {
    host_with(id, KEY, listen, peer.to_string(), Arc::new(|_| Ok(()))).await
}

pub fn any() -> SocketAddr {
    ([127, 0, 0, 1], 0).into()
}

/// An address that nobody else uses, known before anybody listens on it: a loopback host of its own.
fn free() -> SocketAddr {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let host = (u64::from(std::process::id()) << 10).wrapping_add(NEXT.fetch_add(1, SeqCst));
    let [_, _, _, _, _, a, b, c] = host.to_be_bytes();
    ([127, a | 128, b, c], 7377).into()
}

pub async fn soon<T>(what: impl Future<Output = T>) -> T {
    timeout(Duration::from_secs(30), what).await.expect("not in time")
}

/// Waits until something holds that no event tells.
async fn until(holds: impl Fn() -> bool) {
    soon(async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

impl Host {
    async fn next(&mut self) -> Event {
        soon(self.events.recv()).await.expect("the link is closed")
    }

    async fn up(&mut self) -> Session {
        match self.next().await {
            Event::Up(session) => session,
            other => panic!("{other:?} instead of Up"),
        }
    }

    async fn message(&mut self) -> Message {
        match self.next().await {
            Event::Message(message) => message,
            other => panic!("{other:?} instead of a message"),
        }
    }

    async fn down(&mut self) -> String {
        match self.next().await {
            Event::Down { reason } => reason,
            other => panic!("{other:?} instead of Down"),
        }
    }

    /// Closes the link; what events were left.
    async fn close(mut self) -> Vec<Event> {
        let mut rest = Vec::new();
        let drain = async {
            while let Some(event) = self.events.recv().await {
                rest.push(event);
            }
        };
        soon(async { tokio::join!(self.link.close(), drain) }).await;
        rest
    }

    fn last_error(&self) -> String {
        self.link.counters().last_error.unwrap_or_default()
    }

    async fn has_no_event(&mut self) -> bool {
        timeout(Duration::ZERO, self.events.recv()).await.is_err()
    }
}

/// Carries bytes between two hosts, counts and records them, and can stop or tear.
pub struct Relay {
    pub address: SocketAddr,
    callers: Arc<AtomicU64>,
    bytes: Arc<[AtomicU64; 2]>,
    pub seen: Arc<Mutex<Vec<u8>>>,
    torn: watch::Sender<u64>,
    open: watch::Sender<bool>,
}

pub async fn relay(to: SocketAddr) -> Relay {
    let listener = TcpListener::bind(any()).await.unwrap();
    let relay = Relay {
        address: listener.local_addr().unwrap(),
        callers: Arc::default(),
        bytes: Arc::default(),
        seen: Arc::default(),
        torn: watch::Sender::new(0),
        open: watch::Sender::new(true),
    };
    let (bytes, seen) = (relay.bytes.clone(), relay.seen.clone());
    let callers = relay.callers.clone();
    let (torn, mut open) = (relay.torn.subscribe(), relay.open.subscribe());
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            callers.fetch_add(1, SeqCst);
            if open.wait_for(|open| *open).await.is_err() {
                return;
            }
            let Ok(far) = TcpStream::connect(to).await else { continue };
            let (near, far) = (near.into_split(), far.into_split());
            for (way, (mut from, mut to)) in [(near.0, far.1), (far.0, near.1)].into_iter().enumerate() {
                let (bytes, seen) = (bytes.clone(), seen.clone());
                let (mut torn, mut open) = (torn.clone(), open.clone());
                torn.mark_unchanged();
                tokio::spawn(async move {
                    let carry = async {
                        let mut buffer = vec![0; 65536];
                        while let Ok(n @ 1..) = from.read(&mut buffer).await {
                            if open.wait_for(|open| *open).await.is_err() {
                                break;
                            }
                            bytes[way].fetch_add(n as u64, SeqCst);
                            seen.lock().extend(&buffer[..n]);
                            if to.write_all(&buffer[..n]).await.is_err() {
                                break;
                            }
                        }
                    };
                    tokio::select! { () = carry => (), _ = torn.changed() => () }
                });
            }
        }
    });
    relay
}

impl Relay {
    fn tear(&self) {
        self.torn.send_modify(|n| *n += 1);
    }
}

pub fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack.windows(needle.len()).any(|w| w == needle)
}

/// A peer that holds the key and does as the test says.
struct Puppet {
    reader: FrameReader<ReadHalf<TlsStream<TcpStream>>>,
    writer: WriteHalf<TlsStream<TcpStream>>,
}

impl Puppet {
    /// Dials and says hello; what the host's hello was.
    async fn hello(to: SocketAddr, id: u128, boot: u64, ended: u64) -> Puppet {
        Puppet::hello_with(to, id, boot, ended, vec![]).await
    }

    async fn hello_with(to: SocketAddr, id: u128, boot: u64, ended: u64, features: Vec<String>) -> Puppet {
        let tls = Tls::new(&Key::from_bytes(KEY)).unwrap();
        let stream = TcpStream::connect(to).await.unwrap();
        let stream = soon(TlsConnector::from(tls.dialer).connect(Tls::name(), stream)).await.unwrap();
        let (reader, writer) = split(stream);
        let mut puppet = Puppet { reader: FrameReader::new(reader), writer };
        let hello = Hello { replica: ReplicaId(id), boot, clock_ms: clock_ms() + 5_000, features };
        puppet.say(&Word::Hello { hello, ended }).await;
        assert!(matches!(puppet.hear().await, Word::Hello { .. }));
        puppet
    }

    /// A follower's greeting; the session's number.
    async fn follow(&mut self) -> u64 {
        let Word::Welcome { number } = self.hear().await else { panic!("not welcome") };
        self.say(&Word::Welcome { number }).await;
        number
    }

    /// A chooser's greeting.
    async fn choose(&mut self, number: u64) {
        self.say(&Word::Welcome { number }).await;
        assert!(matches!(self.hear().await, Word::Welcome { number: n } if n == number));
    }

    async fn greet(&mut self, follows: bool, number: u64) {
        if follows {
            self.follow().await;
        } else {
            self.choose(number).await;
        }
    }

    async fn say(&mut self, word: &Word) {
        self.frame(&codec::encode(word)).await;
    }

    async fn frame(&mut self, body: &[u8]) {
        let mut bytes = Vec::new();
        put(&mut bytes, body);
        self.raw(&bytes).await;
    }

    async fn raw(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.unwrap();
        self.writer.flush().await.unwrap();
    }

    async fn hear(&mut self) -> Word {
        codec::decode(&soon(self.reader.next(HELLO_BYTES)).await.unwrap()).unwrap()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_that_dial_at_once_keep_exactly_one_session() {
    for round in 0..100 {
        let (at_a, at_b) = (free(), free());
        let (to_a, to_b) = (relay(at_a).await, relay(at_b).await);
        // In even rounds both have dialled before either is answered; in odd ones it is a race.
        let crossed = round % 2 == 0;
        to_a.open.send_replace(!crossed);
        to_b.open.send_replace(!crossed);
        let (mut a, mut b) = tokio::join!(host(1, at_a, to_b.address), host(2, at_b, to_a.address));
        if crossed {
            until(|| [&to_a, &to_b].iter().all(|r| r.callers.load(SeqCst) == 1)).await;
            to_a.open.send_replace(true);
            to_b.open.send_replace(true);
        }
        let (up_a, up_b) = (a.up().await, b.up().await);
        assert_ne!(up_a.dialled, up_b.dialled, "round {round}: not the same connection");
        assert_eq!((up_a.peer.replica, up_b.peer.replica), (ReplicaId(2), ReplicaId(1)));
        assert!(up_a.clock_skew_ms.abs() < 1000 && up_b.clock_skew_ms.abs() < 1000);
        assert!(up_a.dialled || !crossed, "round {round}: the lesser id's connection lives");
        for n in 0..5 {
            a.link.send(word(n));
            b.link.send(announce(n + 1));
            assert_eq!(a.message().await, announce(n + 1), "round {round}");
            assert_eq!(b.message().await, word(n), "round {round}");
        }
        let (rest_a, rest_b) = tokio::join!(a.close(), b.close());
        for rest in [rest_a, rest_b] {
            assert!(matches!(&rest[..], [Event::Down { .. }]), "round {round}: {rest:?}");
        }
    }
}

#[tokio::test]
async fn a_wrong_key_is_refused_on_both_sides_and_learns_nothing() {
    let (at_a, at_b) = (free(), free());
    let (to_a, to_b) = (relay(at_a).await, relay(at_b).await);
    let admit: Admit = Arc::new(|_| panic!("nobody without the key is asked in"));
    let mut a = host_with(1, KEY, at_a, to_b.address.to_string(), admit.clone()).await;
    // This one only accepts: what it says, the alert told it.
    let mut b = host_with(2, [8; 32], at_b, NOWHERE.into(), admit).await;
    for host in [&a, &b] {
        until(|| host.last_error().contains("does not hold this share's key: copy the key file")).await;
    }
    assert!(a.has_no_event().await && b.has_no_event().await);
    for relay in [&to_a, &to_b] {
        assert!(!contains(&relay.seen.lock(), MARK.as_bytes()));
    }
}

#[tokio::test]
async fn nothing_of_a_session_is_readable_on_the_wire_and_every_byte_is_counted() {
    let at_b = free();
    let relay = relay(at_b).await;
    let mut b = host(2, at_b, NOWHERE).await;
    let mut a = host(1, free(), relay.address).await;
    let (up, _) = (a.up().await, b.up().await);
    assert_eq!(up.peer.features, [MARK, "zstd", "parts"]);
    for n in 1..20 {
        a.link.send(deliver(n, 50_000));
        b.link.send(word(n));
        assert_eq!(b.message().await, deliver(n, 50_000));
        assert_eq!(a.message().await, word(n));
    }
    assert!(!contains(&relay.seen.lock(), MARK.as_bytes()));
    assert!(!contains(&relay.seen.lock(), &noise(7, 32)));
    // The heartbeat's answer may still be under way.
    until(|| a.link.counters().rtt.is_some() && b.link.counters().rtt.is_some()).await;
    until(|| {
        let (a, b) = (a.link.counters(), b.link.counters());
        let [there, back] = &*relay.bytes;
        (a.sent_bytes, b.sent_bytes) == (there.load(SeqCst), back.load(SeqCst))
            && (a.received_bytes, b.received_bytes) == (b.sent_bytes, a.sent_bytes)
    })
    .await;
    assert!(a.link.counters().connected && a.link.counters().address == Some(relay.address));
}

#[tokio::test]
async fn text_is_compressed_where_both_sides_take_that() {
    for (ours, theirs) in [(true, true), (true, false), (false, true)] {
        let at_b = free();
        let config = |id, listen, peer: String, compress| Config {
            compress,
            ..config(id, KEY, listen, peer, Arc::new(|_| Ok(())))
        };
        let mut b = started(config(2, at_b, NOWHERE.into(), theirs)).await;
        let mut a = started(config(1, free(), at_b.to_string(), ours)).await;
        a.up().await;
        b.up().await;
        let text = text(200_000);
        a.link.send(text.clone());
        assert_eq!(b.message().await, text);
        let (sent, received) = (a.link.counters(), b.link.counters());
        if ours && theirs {
            assert!(received.received_bytes < 100_000, "{received:?}");
            assert!(sent.saved_bytes > 100_000 && sent.saved_bytes == received.saved_bytes, "{sent:?}");
        } else {
            assert!(received.received_bytes > 200_000, "{received:?}");
            assert_eq!((sent.saved_bytes, received.saved_bytes), (0, 0));
        }
    }
}

#[tokio::test]
async fn a_compressed_frame_that_was_not_agreed_on_or_holds_too_much_ends_the_session() {
    let mut a = host(1, any(), NOWHERE).await;
    let bomb = zstd::bulk::compress(&vec![0; FRAME_BYTES + 1], 1).unwrap();
    let cases = [
        (vec![], "unknown flags 0x01"),
        (vec!["zstd".into()], "a frame of 8388609 bytes, more than is allowed"),
    ];
    for (boot, (features, reason)) in cases.into_iter().enumerate() {
        let mut puppet = Puppet::hello_with(a.link.listen_addr().unwrap(), 2, boot as u64, 0, features).await;
        puppet.follow().await;
        a.up().await;
        let mut bytes = Vec::new();
        put_compressed(&mut bytes, &bomb);
        puppet.raw(&bytes).await;
        let told = a.down().await;
        assert!(told.contains(reason), "{told:?} for {reason:?}");
    }
}

#[tokio::test]
async fn noise_and_idle_crowds_do_not_keep_the_peer_out() {
    let mut a = host(1, any(), NOWHERE).await;
    let at_a = a.link.listen_addr().unwrap();
    let noise: Vec<u8> = (0..100_000u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    for bytes in [&noise[..], &[0xff; 100_000], &[22, 3, 1, 0xff, 0xff, 1, 0xff, 0xff, 0xff]] {
        let mut stream = TcpStream::connect(at_a).await.unwrap();
        let _ = stream.write_all(bytes).await;
        let _ = stream.shutdown().await;
        let _ = soon(stream.read_to_end(&mut Vec::new())).await;
    }
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(TcpStream::connect(at_a).await.unwrap());
    }
    let mut b = host(2, any(), at_a).await;
    b.up().await;
    a.up().await;
    b.link.send(word(1));
    assert_eq!(a.message().await, word(1));
    let mut gone = 0;
    for stream in &mut idle {
        gone += usize::from(timeout(Duration::ZERO, stream.read_u8()).await.is_ok());
    }
    assert!((200 - STRANGERS..200).contains(&gone), "{gone} of the idle were dropped");
}

#[tokio::test]
async fn what_a_peer_may_not_send_ends_the_session_with_a_reason() {
    let mut a = host(1, any(), NOWHERE).await;
    let at_a = a.link.listen_addr().unwrap();
    let framed = |body: &[u8]| {
        let mut bytes = Vec::new();
        put(&mut bytes, body);
        bytes
    };
    let mut trailing = codec::encode(&word(1));
    trailing.push(0);
    let nothing = Message::Retrieve {
        request: 1,
        file: FileId { writer: WriterId(1), counter: 1 },
        version: Default::default(),
        start: 5,
        end: 5,
        urgent: false,
        digest: None,
    };
    let cases = [
        ((FRAME_BYTES as u32 + 1).to_le_bytes().to_vec(), "more than is allowed"),
        ((0x40u32 << 24 | 5).to_le_bytes().to_vec(), "unknown flags 0x40"),
        (framed(&trailing), "1 bytes left over"),
        (framed(&[]), "can't be understood"),
        (framed(&[0xff; 100]), "can't be understood"),
        (framed(&codec::encode(&nothing)), "makes no sense"),
    ];
    for (boot, (bytes, reason)) in cases.into_iter().enumerate() {
        let mut puppet = Puppet::hello(at_a, 2, boot as u64, 0).await;
        puppet.follow().await;
        let up = a.up().await;
        assert!((up.clock_skew_ms - 5_000).abs() < 1000, "{}", up.clock_skew_ms);
        puppet.frame(&codec::encode(&word(9))).await;
        puppet.raw(&bytes).await;
        assert_eq!(a.message().await, word(9));
        let told = a.down().await;
        assert!(told.contains(reason), "{told:?} for {reason:?}");
    }
}

#[tokio::test]
async fn a_restarted_peer_replaces_its_half_open_session_at_once() {
    // Once the host chooses, once it follows.
    for id in [9, 1] {
        let mut a = host(5, any(), NOWHERE).await;
        let at_a = a.link.listen_addr().unwrap();
        let mut first = Puppet::hello(at_a, id, 1, 0).await;
        first.greet(id > 5, 11).await;
        a.up().await;
        let mut second = Puppet::hello(at_a, id, 2, 0).await;
        second.greet(id > 5, 12).await;
        assert_eq!(a.down().await, "the peer restarted");
        assert_eq!(a.up().await.peer.boot, 2);
        second.frame(&codec::encode(&word(1))).await;
        assert_eq!(a.message().await, word(1));
        // An echo of the former life changes nothing.
        let mut echo = Puppet::hello(at_a, id, 1, 0).await;
        if id < 5 {
            echo.say(&Word::Welcome { number: 11 }).await;
        }
        assert!(matches!(echo.hear().await, Word::Superfluous));
        second.frame(&codec::encode(&word(2))).await;
        assert_eq!(a.message().await, word(2));
    }
}

#[tokio::test]
async fn a_second_connection_lives_only_if_the_peer_says_that_the_first_is_over() {
    let mut a = host(1, any(), NOWHERE).await;
    let at_a = a.link.listen_addr().unwrap();
    let mut first = Puppet::hello(at_a, 2, 1, 0).await;
    let number = first.follow().await;
    a.up().await;
    let mut crossed = Puppet::hello(at_a, 2, 1, 0).await;
    assert!(matches!(crossed.hear().await, Word::Superfluous));
    let mut other = Puppet::hello(at_a, 3, 1, 0).await;
    assert!(matches!(other.hear().await, Word::Refuse { reason } if reason.contains("two replicas")));
    first.frame(&codec::encode(&word(1))).await;
    assert_eq!(a.message().await, word(1));

    let mut again = Puppet::hello(at_a, 2, 1, number).await;
    again.follow().await;
    assert_eq!(a.down().await, "the peer connected anew");
    a.up().await;
    again.frame(&codec::encode(&word(2))).await;
    assert_eq!(a.message().await, word(2));
}

#[tokio::test]
async fn a_torn_connection_is_down_and_then_up_and_nothing_old_comes_along() {
    let at_b = free();
    let relay = relay(at_b).await;
    let mut b = host(2, at_b, NOWHERE).await;
    let mut a = host(1, free(), relay.address).await;
    a.link.send(word(0));
    for round in 1..5 {
        a.up().await;
        b.up().await;
        a.link.send(word(round));
        assert_eq!(b.message().await, word(round));
        // What is under way when the line goes is gone, and never in the next session.
        relay.open.send_replace(false);
        a.link.send(word(1000));
        relay.tear();
        relay.open.send_replace(true);
        a.down().await;
        a.link.send(word(2000));
        b.down().await;
    }
}

/// A host that answers words and counts what happens, in order.
async fn echo(mut host: Host, settled: Arc<AtomicU64>, ups: Arc<AtomicU64>) {
    let mut is_up = false;
    while let Some(event) = host.events.recv().await {
        match event {
            Event::Up(_) => {
                assert!(!std::mem::replace(&mut is_up, true));
                let n = ups.fetch_add(1, SeqCst) + 1;
                host.link.send(word(n));
            }
            Event::Message(message) => {
                assert!(is_up);
                match message {
                    Message::Flush { request } => host.link.send(Message::Flushed { request }),
                    Message::Flushed { request } => settled.store(request, SeqCst),
                    other => panic!("{other:?}"),
                }
            }
            Event::Down { .. } => assert!(std::mem::replace(&mut is_up, false)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_every_tear_both_find_each_other_once() {
    let pair = async || {
        let (at_a, at_b) = (free(), free());
        let (to_a, to_b) = (relay(at_a).await, relay(at_b).await);
        let mut counts = Vec::new();
        for host in [host(1, at_a, to_b.address).await, host(2, at_b, to_a.address).await] {
            let count: [Arc<AtomicU64>; 2] = Default::default();
            let [settled, ups] = count.clone();
            tokio::spawn(echo(host, settled, ups));
            counts.push(count);
        }
        for round in 1..6 {
            until(|| counts.iter().all(|[settled, _]| settled.load(SeqCst) >= round)).await;
            let seen: Vec<u64> = counts.iter().map(|[_, ups]| ups.load(SeqCst)).collect();
            assert_eq!(seen, [round, round], "flapping");
            to_a.tear();
            to_b.tear();
        }
    };
    tokio::join!(pair(), pair(), pair(), pair(), pair(), pair());
}

#[tokio::test]
async fn a_word_overtakes_bulk_that_waits() {
    let at_b = free();
    let relay = relay(at_b).await;
    let mut b = host(2, at_b, NOWHERE).await;
    let mut a = host(1, free(), relay.address).await;
    a.up().await;
    b.up().await;
    relay.open.send_replace(false);
    for n in 0..20 {
        a.link.send(deliver(n, 1_000_000));
    }
    // What the network takes at once can't be overtaken; the rest can.
    tokio::task::yield_now().await;
    a.link.send(announce(1));
    a.link.send(word(1));
    relay.open.send_replace(true);
    let mut order = Vec::new();
    while order.len() < 22 {
        order.push(b.message().await);
    }
    let place = |message: &Message| order.iter().position(|m| m == message).unwrap();
    assert!(place(&word(1)) < place(&announce(1)) && place(&announce(1)) < 15, "{}", place(&announce(1)));
    order.retain(|m| matches!(m, Message::Deliver { .. }));
    assert_eq!(order, (0..20).map(|n| deliver(n, 1_000_000)).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_small_announcement_costs_26_bytes_more_than_itself() {
    let at_b = free();
    let mut b = host(2, at_b, NOWHERE).await;
    let mut a = host(1, any(), at_b).await;
    a.up().await;
    b.up().await;
    until(|| a.link.counters().rtt.is_some() && b.link.counters().rtt.is_some()).await;
    let before = a.link.counters().sent_bytes;
    a.link.send(announce(1));
    assert_eq!(b.message().await, announce(1));
    // Four of the frame, 22 of one TLS record.
    let cost = a.link.counters().sent_bytes - before;
    assert_eq!(cost, codec::encode(&announce(1)).len() as u64 + 26);
}

#[tokio::test]
async fn talking_to_itself_is_refused_with_advice() {
    let at = free();
    let mut a = host(1, at, at).await;
    until(|| a.last_error().contains("name the other host with --peer")).await;
    assert!(a.has_no_event().await);
}

#[tokio::test]
async fn who_is_not_admitted_is_told_why_on_either_side() {
    for (near, far) in [(1, 2), (2, 1)] {
        let at_a = free();
        let admit: Admit = Arc::new(|hello| Err(format!("not\npaired with {}", hello.replica.short())));
        let mut a = host_with(near, KEY, at_a, NOWHERE.into(), admit).await;
        let mut b = host(far, free(), at_a).await;
        until(|| b.last_error().contains("refuses us: notpaired with")).await;
        until(|| a.last_error().contains("can't be let in: not\npaired")).await;
        assert!(a.has_no_event().await && b.has_no_event().await);
    }
}

#[tokio::test]
async fn a_dropped_session_is_found_anew() {
    let at_b = free();
    let mut b = host(2, at_b, NOWHERE).await;
    let mut a = host(1, any(), at_b).await;
    a.up().await;
    b.up().await;
    b.link.drop_session("the peer lies");
    assert_eq!(b.down().await, "the peer lies");
    assert_eq!(a.down().await, "the peer closed the connection");
    a.up().await;
    b.up().await;
}

#[tokio::test]
async fn closing_sends_what_is_queued() {
    let at_b = free();
    let mut b = host(2, at_b, NOWHERE).await;
    let mut a = host(1, any(), at_b).await;
    a.up().await;
    b.up().await;
    (0..1000).for_each(|n| a.link.send(word(n)));
    let (rest, ()) = tokio::join!(a.close(), async {
        for n in 0..1000 {
            assert_eq!(b.message().await, word(n));
        }
        assert_eq!(b.down().await, "the peer closed the connection");
    });
    assert!(matches!(&rest[..], [Event::Down { .. }]), "{rest:?}");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let taken = std::net::TcpListener::bind(any()).unwrap();
    let listen = taken.local_addr().unwrap();
    let config = config(1, KEY, listen, NOWHERE.into(), Arc::new(|_| Ok(())));
    let error = Link::start(config).await.err().unwrap().to_string();
    assert!(error.contains(&listen.to_string()) && error.contains("--listen"), "{error}");
}

#[tokio::test]
async fn mutated_frames_never_panic() {
    let seed = super::system::random_number() | 1;
    println!("seed {seed}");
    let mut state = seed;
    let mut random = move |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    let since = Some(LogPosition { writer: WriterId(3), seq: 4 });
    let good = [announce(1), deliver(2, 3000), word(3), Message::Sync { since }];
    let small = Compressor::new(Arc::default()).compress(&codec::encode(&text(5000))).unwrap();
    let greeting = Word::Hello {
        hello: Hello { replica: ReplicaId(1), boot: 1, clock_ms: 1, features: vec![MARK.into()] },
        ended: 3,
    };
    for _ in 0..20_000 {
        let mut bytes = Vec::new();
        for message in &good {
            put(&mut bytes, &codec::encode(message));
        }
        put(&mut bytes, &codec::encode(&greeting));
        put_compressed(&mut bytes, &small);
        put_part(&mut bytes, 1, true, true, &small[..100]);
        put_part(&mut bytes, 1, false, true, &small[100..]);
        for _ in 0..1 + random(8) {
            let at = random(bytes.len());
            match random(4) {
                0 => bytes[at] = random(256) as u8,
                1 => bytes.truncate(at.max(1)),
                2 => bytes.insert(at, 0xff),
                _ => bytes[at] ^= 1 << random(8),
            }
        }
        let mut reader = FrameReader::new(&bytes[..]);
        reader.decompress_with(Decompressor::new(Arc::default()).unwrap());
        reader.take_parts();
        while let Ok(body) = reader.next(FRAME_BYTES).await {
            let _ = parse(&body);
            let _ = codec::decode::<Word>(&body);
        }
    }
}
