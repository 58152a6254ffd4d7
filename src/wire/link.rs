//! The link: what the engine sees of the network.
//!
//! The link keeps one session with the peer whenever the peer can be reached, and tells the engine in
//! [`Event`]s: strictly `Up`, then that session's messages, then `Down`, then perhaps `Up` again.
//!
//! Invariants: a message that the engine sends goes to the session whose `Up` it took last, or
//! nowhere; what was queued for a session goes with it; nothing the engine does here waits for the
//! network but [`Link::send_bulk`], [`Link::send_urgent`] and [`Link::close`].

use super::accept;
use super::context::{Admit, Context, FLUSH, Session, Shared, Signal};
use super::dial::{self, Whereabouts};
use super::discovery::Discovery;
use super::error::{Error, Result};
use super::key::Key;
use super::log::Complaints;
use super::outbox::{Class, Outbox};
use super::peer::Peer;
use super::stage::Stage;
use super::terms::Terms;
use super::tls::Tls;
use crate::model::ids::ReplicaId;
use crate::model::limits::EVENTS;
use crate::model::message::Message;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

pub struct Config {
    pub key: Key,
    /// This replica, and the number of this start of its daemon.
    pub replica: ReplicaId,
    pub boot: u64,
    /// What the engine of this side can do, by name.
    pub features: Vec<String>,
    /// Whether this side compresses, and takes what is compressed.
    pub compress: bool,
    /// As [`Link::set_bwlimit`].
    pub bwlimit: Option<u64>,
    /// Where to listen; `None`: only dial.
    pub listen: Option<SocketAddr>,
    /// As [`Peer`] reads it; found anew at each dial.
    pub peer: String,
    pub admit: Admit,
}

#[derive(Debug)]
pub enum Event {
    Up(Session),
    Message(Message),
    Down { reason: String },
}

/// Numbers for status.
#[derive(Clone, Debug, Default)]
pub struct Counters {
    /// TCP payload of all connections since the start, handshakes included.
    pub sent_bytes: u64,
    pub received_bytes: u64,
    /// What would have been sent or received beside, had nothing been compressed.
    pub saved_bytes: u64,
    /// Bytes a second that this side sends at most.
    pub bwlimit: Option<u64>,
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

impl Link {
    /// Binds the listener, then listens and dials on the current runtime until closed; where the peer is `auto`, it also
    /// announces this host on the local network and looks for the other one.
    ///
    /// # Errors
    /// [`Error::Listen`], [`Error::PeerAddress`], [`Error::Search`].
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
        let discovery = match peer.is_auto() {
            true => Some(Discovery::start(&config.key, listen, peer.port())?),
            false => None,
        };
        let cancel = CancellationToken::new();
        let shared = Arc::new(Shared {
            stage: Stage::new(),
            traffic: Arc::default(),
            tasks: TaskTracker::new(),
            shut: cancel.child_token(),
            cancel,
            outbox: Mutex::default(),
            rtt: Mutex::default(),
            limit: watch::Sender::new(config.bwlimit.filter(|rate| *rate > 0)),
            last_error: Mutex::default(),
        });
        let (sender, events) = mpsc::channel(EVENTS);
        let context = Arc::new(Context {
            tls,
            replica: config.replica,
            boot: config.boot,
            features: config.features,
            terms: Terms { compress: config.compress, parts: true },
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
        let peer = match discovery {
            None => Whereabouts::Named(peer),
            Some((discovery, seen)) => {
                // Not cut off when the link closes, but told, for it has a word to say.
                shared.tasks.spawn(discovery.run(shared.shut.clone()));
                Whereabouts::Seen(seen)
            }
        };
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

    /// Like [`Link::send_bulk`], for a delivery that somebody waits for: it goes before other deliveries.
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

    /// From now on this side sends so many bytes a second at most, TLS not counted; `None` and 0: as many as go. Words never
    /// wait for it.
    pub fn set_bwlimit(&self, rate: Option<u64>) {
        self.shared.limit.send_replace(rate.filter(|rate| *rate > 0));
    }

    pub fn counters(&self) -> Counters {
        let address = self.shared.stage.up();
        let rtt = *self.shared.rtt.lock();
        Counters {
            sent_bytes: self.shared.traffic.sent.load(Relaxed),
            received_bytes: self.shared.traffic.received.load(Relaxed),
            saved_bytes: self.shared.traffic.saved.load(Relaxed),
            bwlimit: *self.shared.limit.borrow(),
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
