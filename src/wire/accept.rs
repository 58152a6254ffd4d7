//! The listener: lets the peer in and keeps strangers from crowding it out.
//!
//! Invariants: at most [`STRANGERS`] connections have not yet proved that they hold the key; when
//! full, the oldest from the address with the most of them goes, so who knocks often shuts out only
//! itself; every connection proves itself and greets within [`GREETING`] or goes.

use super::connection;
use super::context::{Context, GREETING};
use super::error::{Error, Result};
use super::socket::Socket;
use super::tls;
use crate::model::limits::STRANGERS;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;
use tokio_util::sync::CancellationToken;

/// Accepts until the task is dropped.
pub async fn run(context: Arc<Context>, listener: TcpListener) {
    let strangers = Arc::new(Strangers::default());
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                // A listener for both families shows IPv4 peers in IPv6 clothes.
                let address = SocketAddr::new(address.ip().to_canonical(), address.port());
                let stranger = strangers.enter(address.ip());
                let context = context.clone();
                context.clone().spawn(async move {
                    if let Err(error) = serve(&context, stream, address, stranger).await {
                        context.complain_of_guest(&error, address);
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, or a connection that died in the queue: neither is for ever.
                tracing::debug!(%error, "accepting failed");
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn serve(
    context: &Arc<Context>,
    stream: TcpStream,
    address: SocketAddr,
    stranger: Stranger,
) -> Result<()> {
    let deadline = Instant::now() + GREETING;
    let socket = Socket::new(stream, context.traffic.clone());
    let handshake = async {
        let hello = LazyConfigAcceptor::new(Acceptor::default(), socket).await?;
        // From our flight to the dialler's answer: one round trip.
        let asked = Instant::now();
        let stream = hello.into_stream(context.tls.acceptor.clone()).await?;
        Ok((stream, asked.elapsed()))
    };
    let (stream, rtt) = tokio::select! {
        done = timeout_at(deadline, handshake) => match done {
            Ok(done) => done.map_err(|error| tls::explain(error, address))?,
            Err(_) => return Err(Error::Slow { address, seconds: GREETING.as_secs() }),
        },
        () = stranger.token.cancelled() => {
            tracing::debug!(%address, "too many strangers, the oldest goes");
            return Ok(());
        }
    };
    drop(stranger);
    connection::serve(context, stream.into(), address, false, rtt, deadline).await
}

/// Connections that have proved nothing yet.
#[derive(Default)]
struct Strangers(Mutex<Vec<Entry>>);

struct Entry {
    ip: IpAddr,
    token: CancellationToken,
    number: u64,
}

/// One such connection; counted until dropped.
struct Stranger {
    all: Arc<Strangers>,
    token: CancellationToken,
    number: u64,
}

impl Strangers {
    fn enter(self: &Arc<Strangers>, ip: IpAddr) -> Stranger {
        let mut entries = self.0.lock();
        if entries.len() >= STRANGERS {
            let mut counts: HashMap<IpAddr, usize> = HashMap::new();
            entries.iter().for_each(|e| *counts.entry(e.ip).or_default() += 1);
            let crowd = counts.into_iter().max_by_key(|(_, count)| *count).map(|(ip, _)| ip);
            if let Some(oldest) = entries.iter().position(|e| Some(e.ip) == crowd) {
                entries.remove(oldest).token.cancel();
            }
        }
        let number = entries.last().map_or(0, |e| e.number + 1);
        let token = CancellationToken::new();
        entries.push(Entry { ip, token: token.clone(), number });
        Stranger { all: self.clone(), token, number }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.all.0.lock().retain(|e| e.number != self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_crowd_from_one_address_shuts_out_only_itself() {
        let strangers = Arc::new(Strangers::default());
        let peer = strangers.enter([10, 0, 0, 2].into());
        let crowd: Vec<_> = (0..1000).map(|_| strangers.enter([10, 0, 0, 66].into())).collect();
        assert!(!peer.token.is_cancelled());
        assert_eq!(strangers.0.lock().len(), STRANGERS);
        assert_eq!(crowd.iter().filter(|s| !s.token.is_cancelled()).count(), STRANGERS - 1);
        assert!(crowd.last().is_some_and(|s| !s.token.is_cancelled()));
        drop((peer, crowd));
        assert!(strangers.0.lock().is_empty());
    }
}
