//! The dialler: finds the peer again whenever no connection is on the stage.
//!
//! Invariants: it does not dial while a session is up or about to be; retries back off with full
//! jitter from [`FIRST`] to [`LAST`], so two hosts that retry do not stay in step; the peer's name is
//! resolved anew each time, for hosts move.

use super::connection;
use super::context::{Context, GREETING};
use super::error::{Error, Result};
use super::socket::Socket;
use super::system::random_number;
use super::tls::{self, Tls};
use std::net::{Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsConnector;

/// Where syncfs listens unless told otherwise.
pub const DEFAULT_PORT: u16 = 7377;
pub const FIRST: Duration = Duration::from_millis(100);
pub const LAST: Duration = Duration::from_secs(5);
/// A session that lasted this long was a good one: the next retry is quick again.
const GOOD: Duration = Duration::from_secs(10);
/// For one of the peer's addresses, where it has several.
const CONNECT: Duration = Duration::from_secs(3);

/// Where to dial.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    host: String,
    port: u16,
}

impl std::str::FromStr for Peer {
    type Err = Error;

    /// `HOST`, `HOST:PORT`, `[IPV6]`, `[IPV6]:PORT` or a bare IPv6 address.
    fn from_str(text: &str) -> Result<Peer> {
        let bad = || Error::PeerAddress { text: text.into() };
        let (host, port) = if let Some(rest) = text.strip_prefix('[') {
            let (host, rest) = rest.split_once(']').ok_or_else(bad)?;
            (host, if rest.is_empty() { None } else { Some(rest.strip_prefix(':').ok_or_else(bad)?) })
        } else if text.parse::<Ipv6Addr>().is_ok() {
            (text, None)
        } else {
            match text.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (text, None),
            }
        };
        let port = port.map_or(Ok(DEFAULT_PORT), |p| p.parse().map_err(|_| bad()))?;
        let known = |c: char| !c.is_whitespace() && !c.is_control() && c != '/';
        if host.is_empty() || port == 0 || !host.chars().all(known) {
            return Err(bad());
        }
        Ok(Peer { host: host.into(), port })
    }
}

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
    let resolve = |source| Error::Resolve { peer: peer.host.clone(), source };
    let addresses = timeout(GREETING, lookup_host((peer.host.as_str(), peer.port)))
        .await
        .map_err(|_| resolve(std::io::ErrorKind::TimedOut.into()))?
        .map_err(resolve)?;
    let mut failure = resolve(std::io::ErrorKind::NotFound.into());
    for address in addresses {
        let began = Instant::now();
        let connected = timeout(CONNECT, TcpStream::connect(address));
        let connected = connected.await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()));
        match connected {
            Ok(stream) => return greet(context, stream, address, began.elapsed()).await,
            Err(source) => failure = Error::Connect { address, source },
        }
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
    fn a_peer_is_a_host_with_or_without_a_port() {
        let good = [
            ("hostb", "hostb", 7377),
            ("hostb:1", "hostb", 1),
            ("10.0.0.2:80", "10.0.0.2", 80),
            ("[fe80::1]", "fe80::1", 7377),
            ("[fe80::1]:9", "fe80::1", 9),
            ("::1", "::1", 7377),
        ];
        for (text, host, port) in good {
            assert_eq!(text.parse::<Peer>().unwrap(), Peer { host: host.into(), port }, "{text}");
        }
        for text in ["", ":1", "a:", "a:0", "a:70000", "[::1", "[::1]9", "a b", "a:b:c", "[]:1"] {
            assert!(text.parse::<Peer>().is_err(), "{text}");
        }
    }

    #[test]
    fn jitter_stays_within_its_bound() {
        assert!((0..1000).all(|_| jitter(LAST) <= LAST));
    }
}
