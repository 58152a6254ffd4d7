//! The dialler: finds the peer again whenever no connection is on the stage.
//!
//! Invariants: it does not dial while a session is up or about to be; retries back off with full
//! jitter from [`FIRST`] to [`LAST`], so two hosts that retry do not stay in step; the peer's name is
//! resolved anew each time, for hosts move.

use super::connection;
use super::context::{Context, GREETING};
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

/// Dials until the task is dropped.
pub async fn run(context: Arc<Context>, peer: Peer) {
    let mut delay = FIRST;
    loop {
        if let Err(error) = attempt(&context, &peer).await {
            context.complain(&error);
        }
        let began = Instant::now();
        context.stage.vacant().await;
        if began.elapsed() >= GOOD {
            delay = FIRST;
        }
        sleep(jitter(delay)).await;
        delay = LAST.min(delay * 2);
        // The other side may have been quicker.
        context.stage.vacant().await;
    }
}

/// A random time up to `most`.
fn jitter(most: Duration) -> Duration {
    most.mul_f64(random_number() as f64 / u64::MAX as f64)
}

/// One dial; when it returns without an error, the session was up and runs on its own.
async fn attempt(context: &Arc<Context>, peer: &Peer) -> Result<()> {
    let mut failure = None;
    for address in peer.resolve().await? {
        let began = Instant::now();
        match connect(address).await {
            Ok(stream) => return greet(context, stream, address, began.elapsed()).await,
            Err(error) => failure = Some(error),
        }
    }
    Err(failure.expect("a host has an address"))
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
