//! What the link's tasks share: who we are, the stage, the way to the engine, and what went wrong last.

use super::error::Error;
use super::log::Complaints;
use super::outbox::Outbox;
use super::socket::Traffic;
use super::stage::Stage;
use super::terms::Terms;
use super::tls::Tls;
use crate::model::ids::ReplicaId;
use crate::model::message::{Hello, Message};
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Time for a connection to prove itself and greet.
pub const GREETING: Duration = Duration::from_secs(10);
/// Time to send what is queued when the link closes.
pub const FLUSH: Duration = Duration::from_secs(1);

/// Says whether a replica may come in; the error is told to both sides' users.
pub type Admit = Arc<dyn Fn(&Hello) -> std::result::Result<(), String> + Send + Sync>;

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

/// What the link's tasks, the handle and the events share.
pub struct Shared {
    pub stage: Arc<Stage>,
    pub traffic: Arc<Traffic>,
    pub tasks: TaskTracker,
    /// Stops everything.
    pub cancel: CancellationToken,
    /// Stops listening, dialling and greeting.
    pub shut: CancellationToken,
    /// Of the session whose `Up` the engine took last, until it takes its `Down`.
    pub outbox: Mutex<Option<Arc<Outbox>>>,
    pub rtt: Mutex<Option<Duration>>,
    /// Bytes a second that this side sends at most.
    pub limit: watch::Sender<Option<u64>>,
    pub last_error: Mutex<Option<String>>,
}

/// What the tasks need beside.
pub struct Context {
    pub tls: Tls,
    pub replica: ReplicaId,
    pub boot: u64,
    pub features: Vec<String>,
    /// What this side can do on the wire; named beside `features`.
    pub terms: Terms,
    pub admit: Admit,
    pub stage: Arc<Stage>,
    pub traffic: Arc<Traffic>,
    pub shared: Arc<Shared>,
    pub complaints: Complaints,
    pub events: mpsc::Sender<Signal>,
    /// Held from `Up` to `Down`, so that sessions never overlap in the engine's eyes.
    pub turn: tokio::sync::Mutex<()>,
}

/// An event on its way; `Up` brings the session's outbox along.
pub enum Signal {
    Up(Session, Arc<Outbox>),
    Message(Message),
    Down { reason: String },
}

impl From<Message> for Signal {
    fn from(message: Message) -> Signal {
        Signal::Message(message)
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
