//! The dialler: finds the peer again whenever no connection is on the stage.
//!
//! Invariants: it does not dial while a session is up or about to be; retries back off with full
//! jitter from [`FIRST`] to [`LAST`], so two hosts that retry do not stay in step; where the peer is, is found out anew each
//! time, for hosts move, and a peer that is seen on the local network is dialled at once.

use super::connection;
use super::context::{Context, GREETING};
use super::discovery::Seen;
use super::error::{Error, Result};
use super::peer::{Peer, connect};
use super::socket::Socket;
use super::system::random_number;
use super::tls::{self, Tls};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::TlsConnector;

pub const FIRST: Duration = Duration::from_millis(100);
pub const LAST: Duration = Duration::from_secs(5);
/// A session that lasted this long was a good one: the next retry is quick again.
const GOOD: Duration = Duration::from_secs(10);

/// How the peer is found.
pub enum Whereabouts {
    Named(Peer),
    Seen(Seen),
}

impl Whereabouts {
    /// Where it may be now, at least one address; waits a bounded time.
    async fn addresses(&mut self) -> Result<Vec<SocketAddr>> {
        match self {
            Whereabouts::Named(peer) => peer.resolve().await,
            Whereabouts::Seen(seen) => seen.addresses().await,
        }
    }

    /// Waits until it is time to dial again; whether it is because the peer may be elsewhere now.
    async fn pause(&mut self, delay: Duration) -> bool {
        match self {
            Whereabouts::Named(_) => {
                sleep(delay).await;
                false
            }
            Whereabouts::Seen(seen) => seen.changes(delay).await,
        }
    }

    /// Nobody was reached there.
    fn doubt(&self) {
        if let Whereabouts::Seen(seen) = self {
            seen.doubt();
        }
    }
}

/// Dials until the task is dropped.
pub async fn run(context: Arc<Context>, mut peer: Whereabouts) {
    let mut delay = FIRST;
    loop {
        if let Err(error) = attempt(&context, &mut peer).await {
            context.complain(&error);
        }
        let began = Instant::now();
        context.stage.vacant().await;
        if began.elapsed() >= GOOD {
            delay = FIRST;
        }
        delay = match peer.pause(jitter(delay)).await {
            true => {
                sleep(jitter(FIRST)).await;
                FIRST
            }
            false => LAST.min(delay * 2),
        };
        // The other side may have been quicker.
        context.stage.vacant().await;
    }
}

/// A random time up to `most`.
fn jitter(most: Duration) -> Duration {
    most.mul_f64(random_number() as f64 / u64::MAX as f64)
}

/// Dials where the peer may be, one address after the other; when it returns without an error, the session was up and runs on
/// its own.
async fn attempt(context: &Arc<Context>, peer: &mut Whereabouts) -> Result<()> {
    let mut failure = None;
    for address in peer.addresses().await? {
        // The other side may have been quicker.
        if context.stage.up().is_some() {
            return Ok(());
        }
        let began = Instant::now();
        let tried = match connect(address).await {
            Ok(stream) => greet(context, stream, address, began.elapsed()).await,
            Err(error) => Err(error),
        };
        match tried {
            // Who answers tells more than an address where nobody is.
            Err(error @ Error::Connect { .. }) => failure = failure.or(Some(error)),
            Ok(()) | Err(Error::Superfluous { .. }) => return tried,
            // Somebody else: the peer may be at the next address.
            Err(error) => failure = Some(error),
        }
    }
    let failure = failure.expect("there is an address");
    if matches!(failure, Error::Connect { .. }) {
        peer.doubt();
    }
    Err(failure)
}

async fn greet(context: &Arc<Context>, stream: TcpStream, address: SocketAddr, rtt: Duration) -> Result<()> {
    let deadline = Instant::now() + GREETING;
    let _dialling = context.stage.dialling();
    let socket = Socket::new(stream, context.traffic.clone());
    let handshake = TlsConnector::from(context.tls.dialer.clone()).connect(Tls::name(), socket);
    let stream = timeout_at(deadline, handshake)
        .await
        .map_err(|_| Error::Slow { address, seconds: GREETING.as_secs() })?
        .map_err(|error| tls::explain(error, address))?;
    connection::serve(context, stream.into(), address, true, rtt, deadline).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_its_bound() {
        assert!((0..1000).all(|_| jitter(LAST) <= LAST));
    }
}
