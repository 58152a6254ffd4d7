//! The stage: which one of several connections to the peer is the session.
//!
//! Both hosts dial, connections break on one side before the other notices, daemons restart: at
//! times there are two connections, and both hosts must keep the same one. So one of them chooses.
//!
//! - The *chooser* is the replica with the lesser id; the other one follows. Each says `Hello` on
//!   every connection. The chooser then picks a connection by taking its stage and sending `Welcome`
//!   with a fresh number; the follower, whatever it had, takes that one and answers with the same
//!   `Welcome`. Until then nothing is up on either side.
//! - The chooser has at most one connection on its stage, and replaces it only if it is over: it
//!   broke here, the peer's boot number is newer, or the follower's `Hello` names its number as
//!   *ended*. Otherwise a second connection is superfluous and is closed.
//! - A connection dialled by the lesser id, the chooser's own, is preferred: while the chooser's
//!   dial has reached the peer and is not finished, an incoming connection waits, but not for long.
//!
//! Why no race can kill both, or flap between them: only `Welcome` creates a session and only the
//! chooser says it first, under one lock, for one connection at a time. A follower gives up a session
//! for another only when told `Welcome` on the other, and the chooser says that only when the former
//! is over. Two dials that cross: the second one's `Hello` was said before the follower saw the
//! first one's number, so it can't name it as ended; it is superfluous. A follower that lost its
//! session dials and names the number: the chooser, which may not have noticed, replaces it at once.
//! A follower that was never told (the `Welcome` was lost with its connection): the chooser is not up
//! either, it waits for the answer, which fails with the connection or the greeting's time limit.
//!
//! Invariant: at most one [`Place`] is current, and a session that is replaced is told to end before
//! its successor comes up.

use super::error::{Error, Result};
use super::system::random_number;
use crate::model::ids::ReplicaId;
use crate::model::message::Hello;
use parking_lot::Mutex;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

/// How long an incoming connection waits for the chooser's own dial.
const PREFERENCE: Duration = Duration::from_secs(1);

/// Ends a session from elsewhere, with a reason; the first one counts.
#[derive(Clone, Default)]
pub struct Stop {
    token: CancellationToken,
    reason: Arc<Mutex<Option<String>>>,
}

impl Stop {
    pub fn now(&self, reason: &str) {
        self.reason.lock().get_or_insert_with(|| reason.to_owned());
        self.token.cancel();
    }

    /// Waits until somebody wants an end; tells why.
    pub async fn wanted(&self) -> Error {
        self.token.cancelled().await;
        Error::Ended(self.reason.lock().clone().unwrap_or_else(|| "ended".into()))
    }
}

pub struct Stage {
    state: Mutex<State>,
    changed: watch::Sender<()>,
}

#[derive(Default)]
struct State {
    current: Option<Current>,
    /// The number of the last session that ended here after it was up; 0: none.
    ended: u64,
    /// Our own dial has reached somebody and is not yet decided.
    dialling: bool,
}

struct Current {
    number: u64,
    peer: ReplicaId,
    boot: u64,
    up: Option<SocketAddr>,
    stop: Stop,
}

/// A connection's hold on the stage; given back on drop.
pub struct Place {
    stage: Arc<Stage>,
    pub number: u64,
    pub stop: Stop,
}

/// While it lives, incoming connections wait for our own dial.
pub struct Dialling(Arc<Stage>);

impl Stage {
    pub fn new() -> Arc<Stage> {
        Arc::new(Stage { state: Mutex::default(), changed: watch::Sender::new(()) })
    }

    /// What our `Hello` says: the session that last ended here.
    pub fn ended(&self) -> u64 {
        self.state.lock().ended
    }

    /// Where the peer of the session is, if one is up.
    pub fn up(&self) -> Option<SocketAddr> {
        self.state.lock().current.as_ref().and_then(|c| c.up)
    }

    /// Waits until no connection is on the stage.
    pub async fn vacant(&self) {
        let mut changed = self.changed.subscribe();
        while self.state.lock().current.is_some() {
            // The sender lives in `self`: this can't fail.
            let _ = changed.changed().await;
        }
    }

    pub fn dialling(self: &Arc<Stage>) -> Dialling {
        self.state.lock().dialling = true;
        Dialling(self.clone())
    }

    /// The chooser's part: takes the stage for a connection, or finds that it is not needed. May
    /// wait for another connection's outcome; the caller bounds that.
    ///
    /// # Errors
    /// [`Error::Superfluous`], [`Error::NotAdmitted`].
    pub async fn choose(
        self: &Arc<Stage>,
        hello: &Hello,
        ended: u64,
        dialled: bool,
        address: SocketAddr,
    ) -> Result<Place> {
        let mut changed = self.changed.subscribe();
        let patience = Instant::now() + PREFERENCE;
        loop {
            {
                let mut state = self.state.lock();
                let free = match &state.current {
                    None => dialled || !state.dialling || Instant::now() >= patience,
                    Some(current) => {
                        current.same_peer(hello, address)?;
                        if hello.boot > current.boot {
                            true
                        } else if hello.boot < current.boot {
                            return Err(Error::Superfluous { address });
                        } else if current.up.is_none() {
                            false
                        } else if current.number == ended {
                            true
                        } else {
                            return Err(Error::Superfluous { address });
                        }
                    }
                };
                if free {
                    return Ok(self.take(&mut state, random_number().max(1), hello));
                }
            }
            // Woken by a change or, while our own dial is waited for, by the end of patience.
            let patience = if Instant::now() < patience { patience } else { Instant::now() + PREFERENCE };
            let _ = timeout_at(patience, changed.changed()).await;
        }
    }

    /// The follower's part: takes the stage for the connection that the chooser welcomed.
    ///
    /// # Errors
    /// [`Error::Superfluous`] for a welcome that an earlier life of the peer left behind;
    /// [`Error::NotAdmitted`].
    pub fn follow(self: &Arc<Stage>, hello: &Hello, number: u64, address: SocketAddr) -> Result<Place> {
        let mut state = self.state.lock();
        if let Some(current) = &state.current {
            current.same_peer(hello, address)?;
            if hello.boot < current.boot {
                return Err(Error::Superfluous { address });
            }
        }
        Ok(self.take(&mut state, number, hello))
    }

    fn take(self: &Arc<Stage>, state: &mut State, number: u64, hello: &Hello) -> Place {
        let stop = Stop::default();
        let current = Current { number, peer: hello.replica, boot: hello.boot, up: None, stop: stop.clone() };
        if let Some(former) = state.current.replace(current) {
            let restarted = former.boot < hello.boot;
            former.stop.now(if restarted { "the peer restarted" } else { "the peer connected anew" });
        }
        self.changed.send_replace(());
        Place { stage: self.clone(), number, stop }
    }
}

impl Current {
    fn same_peer(&self, hello: &Hello, address: SocketAddr) -> Result<()> {
        if self.peer == hello.replica {
            return Ok(());
        }
        let reason = format!("replica {} is connected, and a share has two replicas", self.peer.short());
        Err(Error::NotAdmitted { address, reason })
    }
}

impl Place {
    /// Both sides said `Welcome`: the session is up.
    pub fn up(&self, address: SocketAddr) {
        let mut state = self.stage.state.lock();
        if let Some(current) = state.current.as_mut().filter(|c| c.number == self.number) {
            current.up = Some(address);
        }
        self.stage.changed.send_replace(());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.stage.state.lock();
        if let Some(current) = state.current.take_if(|c| c.number == self.number)
            && current.up.is_some()
        {
            state.ended = current.number;
        }
        self.stage.changed.send_replace(());
    }
}

impl Drop for Dialling {
    fn drop(&mut self) {
        self.0.state.lock().dialling = false;
        self.0.changed.send_replace(());
    }
}
