//! The link: what the engine sees of the network.
//!
//! The link keeps one session with the peer whenever the peer can be reached, and tells the engine in
//! [`Event`]s: strictly `Up`, then that session's messages, then `Down`, then perhaps `Up` again.
//!
//! Invariants: a message that the engine sends goes to the session whose `Up` it took last, or
//! nowhere; what was queued for a session goes with it; nothing the engine does here waits for the
//! network but [`Link::send_bulk`], [`Link::send_urgent`] and [`Link::close`].

use super::accept;
use super::dial::{self, Peer};
use super::error::{Error, Result};
use super::frame::FrameReader;
use super::greeting::greet;
use super::key::Key;
use super::log::Complaints;
use super::outbox::{Class, Outbox};
use super::session;
use super::socket::{Socket, Traffic};
use super::stage::{Place, Stage};
use super::tls::{self, Tls};
use crate::model::ids::ReplicaId;
use crate::model::limits::EVENTS;
use crate::model::message::{Hello, Message};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsStream;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

/// Where syncfs listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 7377;
/// Time for a connection to prove itself and greet.
pub(super) const GREETING: Duration = Duration::from_secs(10);
/// Time to tell the peer that a session is over.
const PARTING: Duration = Duration::from_millis(100);
/// Time to send what is queued when the link closes.
const FLUSH: Duration = Duration::from_secs(1);

/// Says whether a replica may come in; the error is told to both sides' users.
pub type Admit = Arc<dyn Fn(&Hello) -> std::result::Result<(), String> + Send + Sync>;

pub struct Config {
    pub key: Key,
    /// This replica, and the number of this start of its daemon.
    pub replica: ReplicaId,
    pub boot: u64,
    /// What this side can do, by name.
    pub features: Vec<String>,
    /// Where to listen; `None`: only dial.
    pub listen: Option<SocketAddr>,
    /// `HOST`, `HOST:PORT` or `[IPV6]:PORT`; resolved anew at each dial.
    pub peer: String,
    pub admit: Admit,
}

#[derive(Debug)]
pub enum Event {
    Up(Session),
    Message(Message),
    Down { reason: String },
}

/// Who is there.
#[derive(Clone, Debug)]
pub struct Session {
    pub peer: Hello,
    pub address: SocketAddr,
    /// The peer's clock minus ours, milliseconds; right to about half a round trip.
    pub clock_skew_ms: i64,
    /// Whether it was we who dialled.
    pub dialled: bool,
}

/// Numbers for status.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// TCP payload of all connections since the start, handshakes included.
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// The last round trip measured in the session that is up.
    pub rtt: Option<Duration>,
    /// Where the peer is, while a session is up.
    pub address: Option<SocketAddr>,
    pub connected: bool,
    /// Why the last attempt failed or the last session ended; `None` while a session is up.
    pub last_error: Option<String>,
}

/// A handle on the link; clones are the same link. Dropping the last one stops it.
#[derive(Clone)]
pub struct Link {
    shared: Arc<Shared>,
    listen: Option<SocketAddr>,
    _guard: Arc<DropGuard>,
}

/// The link's events, in order.
pub struct Events {
    events: mpsc::Receiver<Signal>,
    shared: Arc<Shared>,
}

/// What the link's tasks, the handle and the events share.
struct Shared {
    stage: Arc<Stage>,
    traffic: Arc<Traffic>,
    tasks: TaskTracker,
    /// Stops everything.
    cancel: CancellationToken,
    /// Stops listening, dialling and greeting.
    shut: CancellationToken,
    /// Of the session whose `Up` the engine took last, until it takes its `Down`.
    outbox: Mutex<Option<Arc<Outbox>>>,
    rtt: Mutex<Option<Duration>>,
    last_error: Mutex<Option<String>>,
}

/// What the tasks need beside.
pub(super) struct Context {
    pub tls: Tls,
    pub replica: ReplicaId,
    pub boot: u64,
    pub features: Vec<String>,
    pub admit: Admit,
    pub stage: Arc<Stage>,
    pub traffic: Arc<Traffic>,
    shared: Arc<Shared>,
    complaints: Complaints,
    events: mpsc::Sender<Signal>,
    /// Held from `Up` to `Down`, so that sessions never overlap in the engine's eyes.
    turn: tokio::sync::Mutex<()>,
}

/// An event on its way; `Up` brings the session's outbox along.
enum Signal {
    Up(Session, Arc<Outbox>),
    Message(Message),
    Down { reason: String },
}

impl From<Message> for Signal {
    fn from(message: Message) -> Signal {
        Signal::Message(message)
    }
}

impl Link {
    /// Binds the listener, then listens and dials on the current runtime until closed.
    ///
    /// # Errors
    /// [`Error::Listen`], [`Error::PeerAddress`].
    pub async fn start(config: Config) -> Result<(Link, Events)> {
        let peer: Peer = config.peer.parse()?;
        let tls = Tls::new(&config.key).map_err(|e| Error::Broken(std::io::Error::other(e)))?;
        let listener = match config.listen {
            None => None,
            Some(address) => {
                let bound = TcpListener::bind(address).await;
                Some(bound.map_err(|source| Error::Listen { address, source })?)
            }
        };
        let listen = listener.as_ref().and_then(|l| l.local_addr().ok());
        let cancel = CancellationToken::new();
        let shared = Arc::new(Shared {
            stage: Stage::new(),
            traffic: Arc::default(),
            tasks: TaskTracker::new(),
            shut: cancel.child_token(),
            cancel,
            outbox: Mutex::default(),
            rtt: Mutex::default(),
            last_error: Mutex::default(),
        });
        let (sender, events) = mpsc::channel(EVENTS);
        let context = Arc::new(Context {
            tls,
            replica: config.replica,
            boot: config.boot,
            features: config.features,
            admit: config.admit,
            stage: shared.stage.clone(),
            traffic: shared.traffic.clone(),
            shared: shared.clone(),
            complaints: Complaints::default(),
            events: sender,
            turn: tokio::sync::Mutex::default(),
        });
        if let Some(listener) = listener {
            context.spawn(accept::run(context.clone(), listener));
        }
        context.spawn(dial::run(context.clone(), peer));
        let guard = Arc::new(shared.cancel.clone().drop_guard());
        Ok((Link { shared: shared.clone(), listen, _guard: guard }, Events { events, shared }))
    }

    /// Queues a message for the peer: words first, then announcements, then deliveries, each in
    /// order. Never waits. Dropped when no session is up.
    pub fn send(&self, message: Message) {
        if let Some(outbox) = self.outbox() {
            outbox.push(Class::of(&message), &message);
        }
    }

    /// Like [`Link::send`], but waits while more than
    /// [`QUEUE_BYTES`](crate::model::limits::QUEUE_BYTES) of the message's class are queued.
    pub async fn send_bulk(&self, message: Message) {
        if let Some(outbox) = self.outbox() {
            outbox.push_when_room(Class::of(&message), &message).await;
        }
    }

    /// Like [`Link::send_bulk`], for a delivery that a reader waits for: it goes with the
    /// announcements, before other deliveries.
    pub async fn send_urgent(&self, message: Message) {
        if let Some(outbox) = self.outbox() {
            outbox.push_when_room(Class::Soon, &message).await;
        }
    }

    /// Ends the session; the link then finds the peer anew.
    pub fn drop_session(&self, reason: &str) {
        if let Some(outbox) = self.outbox() {
            outbox.stop.now(reason);
        }
    }

    pub fn counters(&self) -> Counters {
        let address = self.shared.stage.up();
        let rtt = *self.shared.rtt.lock();
        Counters {
            sent_bytes: self.shared.traffic.sent.load(Relaxed),
            received_bytes: self.shared.traffic.received.load(Relaxed),
            rtt: rtt.filter(|_| address.is_some()),
            address,
            connected: address.is_some(),
            last_error: self.shared.last_error.lock().clone(),
        }
    }

    /// Where the link listens, with the port that the system chose for port 0.
    pub fn listen_addr(&self) -> Option<SocketAddr> {
        self.listen
    }

    /// Sends what is queued, for a second at most, tells the peer and stops all tasks. The engine
    /// should go on taking events meanwhile; the last one is `Down` if a session was up.
    pub async fn close(&self) {
        let deadline = Instant::now() + FLUSH;
        self.shared.tasks.close();
        self.shared.shut.cancel();
        if let Some(outbox) = self.outbox() {
            outbox.finish();
            let _ = timeout_at(deadline, self.shared.stage.vacant()).await;
        }
        self.shared.cancel.cancel();
        let _ = timeout(FLUSH, self.shared.tasks.wait()).await;
    }

    fn outbox(&self) -> Option<Arc<Outbox>> {
        self.shared.outbox.lock().clone()
    }
}

impl Events {
    /// The next event; `None` once the link is closed. Nothing is lost if the wait is given up.
    pub async fn recv(&mut self) -> Option<Event> {
        let signal = self.events.recv().await?;
        Some(match signal {
            Signal::Up(session, outbox) => {
                *self.shared.outbox.lock() = Some(outbox);
                Event::Up(session)
            }
            Signal::Message(message) => Event::Message(message),
            Signal::Down { reason } => {
                *self.shared.outbox.lock() = None;
                Event::Down { reason }
            }
        })
    }
}

impl Context {
    /// Runs a task that listens, dials or greets until it is done or the link closes.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let shut = self.shared.shut.clone();
        self.shared.tasks.spawn(async move {
            tokio::select! {
                () = shut.cancelled() => (),
                () = task => (),
            }
        });
    }

    /// Greets on a connection that has proved itself, and starts the session.
    pub async fn serve(
        self: &Arc<Context>,
        stream: TlsStream<Socket>,
        address: SocketAddr,
        dialled: bool,
        rtt: Duration,
        deadline: Instant,
    ) -> Result<()> {
        let (reader, mut writer) = tokio::io::split(stream);
        let mut reader = FrameReader::new(reader);
        let greeting = greet(self, &mut reader, &mut writer, address, dialled, rtt);
        let greeted = match timeout_at(deadline, greeting).await {
            Err(_) => return Err(Error::Slow { address, seconds: GREETING.as_secs() }),
            // A wrong key of ours is told to us only now: the dialler is judged last.
            Ok(Err(Error::Broken(error))) => return Err(tls::explain(error, address)),
            Ok(greeted) => greeted?,
        };
        let session = Session { peer: greeted.hello, address, clock_skew_ms: greeted.clock_skew_ms, dialled };
        self.shared.tasks.spawn(self.clone().session(session, greeted.place, reader, writer));
        Ok(())
    }

    /// A session's life in the engine's eyes: `Up`, messages, `Down`.
    async fn session<R, W>(
        self: Arc<Context>,
        session: Session,
        place: Place,
        mut reader: FrameReader<R>,
        mut writer: W,
    ) where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        let outbox = Arc::new(Outbox::new(place.stop.clone()));
        let up = async {
            let turn = self.turn.lock().await;
            let signal = Signal::Up(session.clone(), outbox.clone());
            self.events.send(signal).await.ok().map(|()| turn)
        };
        let turn = tokio::select! {
            turn = up => turn,
            _ = place.stop.wanted() => None,
            () = self.shared.cancel.cancelled() => None,
        };
        // Without a turn it was over before the engine heard of it: not a word.
        let Some(_turn) = turn else { return };
        tracing::info!(address = %session.address, peer = %session.peer.replica.short(), "connected");
        *self.shared.last_error.lock() = None;
        *self.shared.rtt.lock() = None;

        let measured = |rtt| *self.shared.rtt.lock() = Some(rtt);
        let end = tokio::select! {
            end = session::run(&mut reader, &mut writer, &outbox, &self.events, measured) => end,
            () = self.shared.cancel.cancelled() => closed(),
        };
        outbox.close();
        let reason = end.to_string();
        tracing::info!(address = %session.address, "disconnected: {reason}");
        *self.shared.last_error.lock() = Some(reason.clone());
        // From here on another connection may be greeted; its `Up` still waits for our turn's end.
        drop(place);
        let farewell = async {
            let _ = timeout(PARTING, writer.shutdown()).await;
        };
        let too_late = async {
            self.shared.cancel.cancelled().await;
            sleep(FLUSH).await;
        };
        tokio::select! {
            _ = async { tokio::join!(farewell, self.events.send(Signal::Down { reason })) } => (),
            () = too_late => (),
        }
    }

    /// Remembers an error for status and logs it, once a minute for each distinct one.
    pub fn complain(&self, error: &Error) {
        self.note(error, error.to_string());
    }

    /// The same for a connection that came from `address`. Its port tells a user nothing, and what
    /// strangers do is not worth a line.
    pub fn complain_of_guest(&self, error: &Error, address: SocketAddr) {
        let text = error.to_string();
        match error {
            Error::NotSyncfs { .. } | Error::Closed | Error::Broken(_) | Error::Slow { .. } => {
                tracing::debug!(%address, "{text}");
            }
            _ => self.note(error, text.replace(&address.to_string(), &address.ip().to_string())),
        }
    }

    fn note(&self, error: &Error, text: String) {
        match error {
            Error::Superfluous { .. } | Error::Ended(_) => return tracing::debug!("{text}"),
            Error::WrongKey { .. }
            | Error::Myself { .. }
            | Error::NotAdmitted { .. }
            | Error::Refused { .. }
            | Error::NotSyncfs { .. } => {
                if self.complaints.due(&text) {
                    tracing::warn!("{text}");
                }
            }
            _ => {
                if self.complaints.due(&text) {
                    tracing::info!("{text}");
                }
            }
        }
        if self.stage.up().is_none() {
            *self.shared.last_error.lock() = Some(text);
        }
    }
}

fn closed() -> Error {
    Error::Ended("the link was closed".into())
}
