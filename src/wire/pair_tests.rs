//! The promises of pairing, over real sockets on 127.0.0.1.

use super::code::Code;
use super::error::{Error, Result};
use super::key::Key;
use super::pair::{Partner, Shown, dial};
use super::peer::Peer;
use super::tests::{any, contains, relay, soon};
use crate::model::limits::PAIR_TRIES;
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const KEY: [u8; 32] = *b"the key that nobody else may see";

fn code(text: &str) -> Code {
    text.parse().unwrap()
}

async fn shown() -> (Shown, SocketAddr) {
    let shown = Shown::open(any(), code("1234-5678")).await.unwrap();
    let port = shown.port();
    (shown, ([127, 0, 0, 1], port).into())
}

async fn dials(to: SocketAddr, typed: &str) -> Result<Partner> {
    dial(&to.to_string().parse::<Peer>().unwrap(), &code(typed)).await
}

/// One try with that code; what it comes to on both sides.
async fn tried(shown: &mut Shown, to: SocketAddr, typed: &str) -> (Result<Partner>, Result<Partner>) {
    let shows = async {
        let guest = shown.guest().await;
        shown.prove(guest).await
    };
    soon(async { tokio::join!(shows, dials(to, typed)) }).await
}

async fn paired(shown: &mut Shown, to: SocketAddr) -> (Partner, Partner) {
    let (shows, takes) = tried(shown, to, "1234 5678").await;
    (shows.unwrap(), takes.unwrap())
}

#[tokio::test]
async fn with_the_right_code_the_key_goes_over_and_nothing_else_is_seen() {
    let (mut shown, to) = shown().await;
    let relay = relay(to).await;
    let (shows, mut takes) = paired(&mut shown, relay.address).await;
    let key = Key::from_bytes(KEY);
    let taking = async {
        let key = takes.take().await.unwrap();
        takes.thank(true).await;
        key
    };
    let (gave, took) = soon(async { tokio::join!(shows.give(&key), taking) }).await;
    gave.unwrap();
    assert_eq!(took.bytes(), &KEY);
    let seen = relay.seen.lock();
    assert!(seen.len() > 98, "both messages were carried");
    for secret in [&KEY[..], b"12345678", b"1234-5678"] {
        assert!(!contains(&seen, secret));
    }
}

#[tokio::test]
async fn a_wrong_code_costs_a_try_and_gets_nothing() {
    let (mut shown, to) = shown().await;
    let (shows, takes) = tried(&mut shown, to, "1234-5679").await;
    assert!(matches!(shows, Err(Error::Guessed { .. })), "{:?}", shows.err());
    assert!(matches!(takes, Err(Error::WrongCode { .. })), "{:?}", takes.err());
    assert_eq!(shown.tries_left(), PAIR_TRIES - 1);
    paired(&mut shown, to).await;
}

#[tokio::test]
async fn after_the_last_try_the_right_code_is_worth_nothing() {
    let (mut shown, to) = shown().await;
    for _ in 0..PAIR_TRIES {
        let (shows, _) = tried(&mut shown, to, "0000-0000").await;
        assert!(shows.is_err());
    }
    let (shows, takes) = tried(&mut shown, to, "1234-5678").await;
    assert!(matches!(shows, Err(Error::Guessed { .. })) && matches!(takes, Err(Error::NotPairing { .. })));
}

#[tokio::test]
async fn who_leaves_after_the_answer_has_had_a_try() {
    let (mut shown, to) = shown().await;
    let guess = async {
        let mut guesser = TcpStream::connect(to).await.unwrap();
        guesser.write_all(b"syncfs pair v1\r\n").await.unwrap();
        // The base point of the curve, which is as good as any.
        guesser.write_all(&[&[b'A', 0x58][..], &[0x66; 31]].concat()).await.unwrap();
        let mut answer = [0; 49];
        guesser.read_exact(&mut answer).await.unwrap();
    };
    let shows = async {
        let guest = shown.guest().await;
        shown.prove(guest).await
    };
    let (shows, ()) = soon(async { tokio::join!(shows, guess) }).await;
    assert!(shows.is_err());
    assert_eq!(shown.tries_left(), PAIR_TRIES - 1);
}

#[tokio::test]
async fn strangers_cost_no_try_and_hold_nobody_up() {
    let (mut shown, to) = shown().await;
    let mut strangers = Vec::new();
    // No point of the curve.
    let no_point = [&b"syncfs pair v1\r\nA"[..], &[2; 32]].concat();
    let own_letter = [&b"syncfs pair v1\r\nB\x58"[..], &[0x66; 31]].concat();
    let another = [&b"syncfs pair v2\r\nA\x58"[..], &[0x66; 31]].concat();
    for garbage in
        [b"GET / HTTP/1.1\r\n\r\n", &b"\x16\x03\x01\xff\xff"[..], &no_point, &own_letter, &another, b""]
    {
        for _ in 0..15 {
            let mut stranger = TcpStream::connect(to).await.unwrap();
            stranger.write_all(garbage).await.unwrap();
            strangers.push(stranger);
        }
    }
    paired(&mut shown, to).await;
    assert_eq!(shown.tries_left(), PAIR_TRIES - 1);
}

#[tokio::test]
async fn a_man_in_the_middle_is_nobody_to_both() {
    let (mut shown, to) = shown().await;
    let mut his = Shown::open(any(), code("8765-4321")).await.unwrap();
    let at: SocketAddr = ([127, 0, 0, 1], his.port()).into();
    let shows = async {
        let guest = shown.guest().await;
        shown.prove(guest).await
    };
    let poses = async {
        let guest = his.guest().await;
        his.prove(guest).await
    };
    let all = async { tokio::join!(dials(at, "1234-5678"), poses, dials(to, "8765-4321"), shows) };
    let (takes, poses, dialled, shows) = soon(all).await;
    assert!(takes.is_err() && poses.is_err() && dialled.is_err() && shows.is_err());
}

#[tokio::test]
async fn who_gives_knows_whether_the_key_has_arrived() {
    let key = Key::from_bytes(KEY);
    for kept in [Some(false), None] {
        let (mut shown, to) = shown().await;
        let (shows, mut takes) = paired(&mut shown, to).await;
        let taking = async {
            takes.take().await.unwrap();
            if let Some(kept) = kept {
                takes.thank(kept).await;
            }
        };
        let (gave, ()) = soon(async { tokio::join!(shows.give(&key), taking) }).await;
        match (kept, gave) {
            (Some(_), Err(Error::NotKept { .. })) | (None, Err(Error::Unconfirmed { .. })) => {}
            (_, other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test]
async fn who_takes_gets_a_whole_key_or_an_error() {
    let (mut shown, to) = shown().await;
    let (shows, mut takes) = paired(&mut shown, to).await;
    drop(shows);
    assert!(soon(takes.take()).await.is_err());
}

#[tokio::test]
async fn what_shows_no_code_is_told_apart() {
    let listener = TcpListener::bind(any()).await.unwrap();
    let to = listener.local_addr().unwrap();
    for says in [&b"\x15\x03\x03\x00\x02\x02\x28"[..], b"HTTP/1.1 400 Bad Request\r\n\r\n", &[0x41; 200]] {
        let other = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(says).await.unwrap();
            stream.shutdown().await.unwrap();
            let _ = stream.read_to_end(&mut Vec::new()).await;
        };
        let (dialled, ()) = soon(async { tokio::join!(dials(to, "1234-5678"), other) }).await;
        assert!(matches!(dialled, Err(Error::NotPairing { .. })), "{:?}", dialled.err());
    }
}
