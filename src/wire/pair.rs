//! Pairing: a host that shows a short code hands its key on to the host where that code is typed.
//!
//! Who takes dials and says the first message of SPAKE2, who shows answers with the second. Out of code and messages both
//! make a secret, which is the same only if the code is. It stands in for the share's key in an ordinary
//! [`tls`] session, in which each side proves to the other that it has it; then the key goes over, and one byte comes back.
//!
//! Invariants: what crosses the network before that proof tells nothing by which a code could be searched for; who does not
//! know the code gets one guess for each answer, and [`PAIR_TRIES`] answers in all, counted before they are given (the
//! acceptor's side of TLS shows first whether its secret is the same); no side believes a length that the other says, for all
//! sizes are fixed; every wait is bounded but that for the first guest, which the caller can give up.

use super::code::Code;
use super::context::GREETING;
use super::error::{Error, Result};
use super::key::{KEY_BYTES, Key};
use super::peer::{self, Peer};
use super::strangers::{Stranger, Strangers};
use super::tls::{self, Tls};
use crate::model::limits::PAIR_TRIES;
use spake2::{Ed25519Group, Identity, Password, Spake2};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};
use zeroize::Zeroizing;

/// What a side says before its message of SPAKE2, so that a stranger is told apart at once.
const OPENING: &[u8; 16] = b"syncfs pair v1\r\n";
/// A side's letter and a point of the curve.
const MESSAGE_BYTES: usize = 33;
/// Who is who, to SPAKE2: a message can't be reflected to its sender.
const TAKES: &[u8] = b"syncfs pair: takes the key";
const SHOWS: &[u8] = b"syncfs pair: shows the code";
/// What the secret becomes.
const LABEL: &[u8] = b"syncfs pair v1";
/// The key is on the taker's disk; it could not be put there.
const KEPT: u8 = 1;
const NOT_KEPT: u8 = 0;
/// How long the other side may take to put the key on its disk.
const KEEPING: Duration = Duration::from_secs(30);

type Message = [u8; MESSAGE_BYTES];

/// A code that is shown, and the port where it can be used.
pub struct Shown {
    listener: TcpListener,
    code: Code,
    tries_left: u32,
    strangers: Arc<Strangers>,
    callers: JoinSet<Option<Guest>>,
}

/// Somebody who has said a message of SPAKE2 and was not answered yet.
pub struct Guest {
    stream: TcpStream,
    pub address: SocketAddr,
    answer: Vec<u8>,
    secret: Key,
    _stranger: Stranger,
}

/// The other side, which knows the code.
pub struct Partner {
    stream: TlsStream<TcpStream>,
    pub address: SocketAddr,
}

impl Shown {
    /// Listens; port 0 is one that the system chooses.
    ///
    /// # Errors
    /// [`Error::Listen`].
    pub async fn open(listen: SocketAddr, code: Code) -> Result<Shown> {
        let listener = TcpListener::bind(listen).await;
        let listener = listener.map_err(|source| Error::Listen { address: listen, source })?;
        Ok(Shown {
            listener,
            code,
            tries_left: PAIR_TRIES,
            strangers: Arc::default(),
            callers: JoinSet::new(),
        })
    }

    pub fn port(&self) -> u16 {
        self.listener.local_addr().map_or(0, |address| address.port())
    }

    pub fn tries_left(&self) -> u32 {
        self.tries_left
    }

    /// Waits for somebody who wants to try. Nothing is lost if the wait is given up.
    pub async fn guest(&mut self) -> Guest {
        loop {
            tokio::select! {
                accepted = self.listener.accept() => match accepted {
                    Ok((stream, address)) => {
                        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                        let stranger = self.strangers.enter(address.ip());
                        let code = self.code.clone();
                        self.callers.spawn(timeout_or_none(receive(stream, address, stranger, code)));
                    }
                    Err(error) => {
                        tracing::debug!(%error, "accepting failed");
                        sleep(Duration::from_millis(100)).await;
                    }
                },
                Some(caller) = self.callers.join_next() => {
                    if let Ok(Some(guest)) = caller {
                        return guest;
                    }
                }
            }
        }
    }

    /// Lets `guest` have one of the tries: answers it, and finds out whether it knows the code.
    ///
    /// # Errors
    /// [`Error::Guessed`], and what else may become of a connection; the try is gone.
    pub async fn prove(&mut self, guest: Guest) -> Result<Partner> {
        let Guest { mut stream, address, answer, secret, .. } = guest;
        self.tries_left = self.tries_left.checked_sub(1).ok_or(Error::Guessed { address })?;
        let tls = settings(&secret)?;
        let proof = async {
            stream.write_all(OPENING).await?;
            stream.write_all(&answer).await?;
            TlsAcceptor::from(tls.acceptor).accept(stream).await
        };
        let stream = within(GREETING, address, proof).await.map_err(|error| match error {
            Error::WrongKey { address } => Error::Guessed { address },
            error => error,
        })?;
        Ok(Partner { stream: stream.into(), address })
    }
}

/// What `guest` says, if it is what somebody says who wants to pair.
async fn receive(
    mut stream: TcpStream,
    address: SocketAddr,
    stranger: Stranger,
    code: Code,
) -> Option<Guest> {
    let message = tokio::select! {
        message = hear(&mut stream) => message.ok()?,
        () = stranger.has_to_go() => return None,
    };
    let (takes, shows) = (Identity::new(TAKES), Identity::new(SHOWS));
    let (ours, answer) = Spake2::<Ed25519Group>::start_b(&Password::new(code.digits()), &takes, &shows);
    let secret = secret(ours, &message)?;
    Some(Guest { stream, address, answer, secret, _stranger: stranger })
}

async fn timeout_or_none<T>(what: impl Future<Output = Option<T>>) -> Option<T> {
    timeout(GREETING, what).await.ok().flatten()
}

/// Takes the key of whoever shows `code` at `peer`: dials, and proves that it knows the code.
///
/// # Errors
/// [`Error::Resolve`] and [`Error::Connect`] where nobody is there, [`Error::NotPairing`] where no code is shown,
/// [`Error::WrongCode`].
pub async fn dial(peer: &Peer, code: &Code) -> Result<Partner> {
    let mut failure = None;
    for address in peer.resolve().await? {
        match peer::connect(address).await {
            Ok(stream) => return prove_to(stream, address, code).await,
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.expect("a host has an address"))
}

async fn prove_to(mut stream: TcpStream, address: SocketAddr, code: &Code) -> Result<Partner> {
    let (takes, shows) = (Identity::new(TAKES), Identity::new(SHOWS));
    let (ours, message) = Spake2::<Ed25519Group>::start_a(&Password::new(code.digits()), &takes, &shows);
    let exchange = async {
        stream.write_all(OPENING).await?;
        stream.write_all(&message).await?;
        hear(&mut stream).await
    };
    let answer = within(GREETING, address, exchange).await.map_err(|error| match error {
        Error::Slow { .. } => error,
        // A share that is mounted there speaks TLS from the start.
        _ => Error::NotPairing { address },
    })?;
    let secret = secret(ours, &answer).ok_or(Error::NotPairing { address })?;
    let handshake = TlsConnector::from(settings(&secret)?.dialer).connect(Tls::name(), stream);
    let stream = within(GREETING, address, handshake).await.map_err(|error| match error {
        Error::WrongKey { address } => Error::WrongCode { address },
        error => error,
    })?;
    Ok(Partner { stream: stream.into(), address })
}

impl Partner {
    /// Hands the key on and hears whether it is on the other side's disk.
    ///
    /// # Errors
    /// [`Error::NotKept`] where it is not, [`Error::Unconfirmed`] where that is not known.
    pub async fn give(mut self, key: &Key) -> Result<()> {
        let address = self.address;
        let talk = async {
            self.stream.write_all(key.bytes()).await?;
            self.stream.flush().await?;
            self.stream.read_u8().await
        };
        match timeout(KEEPING, talk).await {
            Ok(Ok(KEPT)) => Ok(()),
            Ok(Ok(_)) => Err(Error::NotKept { address }),
            Ok(Err(_)) | Err(_) => Err(Error::Unconfirmed { address }),
        }
    }

    /// Takes the other side's key.
    ///
    /// # Errors
    /// What may become of a connection; [`Error::WrongCode`] where that side finds so.
    pub async fn take(&mut self) -> Result<Key> {
        let mut bytes = Zeroizing::new([0; KEY_BYTES]);
        let took = within(GREETING, self.address, self.stream.read_exact(&mut bytes[..])).await;
        took.map_err(|error| match error {
            Error::WrongKey { address } => Error::WrongCode { address },
            error => error,
        })?;
        Ok(Key::from_bytes(*bytes))
    }

    /// Says whether the key is on the disk. If that does not arrive, the other side tells its user what to do.
    pub async fn thank(mut self, kept: bool) {
        let parting = async {
            self.stream.write_u8(if kept { KEPT } else { NOT_KEPT }).await?;
            self.stream.shutdown().await?;
            // Until it is heard: a connection that is dropped may take the last word with it.
            self.stream.read_u8().await
        };
        let _ = timeout(GREETING, parting).await;
    }
}

/// The other side's message.
async fn hear(stream: &mut TcpStream) -> io::Result<Message> {
    let mut opening = [0; OPENING.len()];
    stream.read_exact(&mut opening).await?;
    if opening != *OPENING {
        return Err(io::ErrorKind::InvalidData.into());
    }
    let mut message = [0; MESSAGE_BYTES];
    stream.read_exact(&mut message).await?;
    Ok(message)
}

/// What both sides have in common, if it is a message of SPAKE2.
fn secret(ours: Spake2<Ed25519Group>, theirs: &Message) -> Option<Key> {
    let secret = Zeroizing::new(ours.finish(theirs).ok()?);
    Some(Key::from_bytes(<[u8; KEY_BYTES]>::try_from(&secret[..]).ok()?).derive(LABEL))
}

fn settings(secret: &Key) -> Result<Tls> {
    Tls::new(secret).map_err(|error| Error::Broken(io::Error::other(error)))
}

async fn within<T>(
    time: Duration,
    address: SocketAddr,
    what: impl Future<Output = io::Result<T>>,
) -> Result<T> {
    match timeout_at(Instant::now() + time, what).await {
        Ok(done) => done.map_err(|error| tls::explain(error, address)),
        Err(_) => Err(Error::Slow { address, seconds: time.as_secs() }),
    }
}
