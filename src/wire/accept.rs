//! The listener: lets the peer in and keeps strangers from crowding it out.
//!
//! Invariant: every connection proves itself and greets within [`GREETING`] or goes; until it has, it is one of the
//! [`Strangers`], who are few.

use super::connection;
use super::context::{Context, GREETING};
use super::error::{Error, Result};
use super::socket::Socket;
use super::strangers::{Stranger, Strangers};
use super::tls;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, sleep, timeout_at};
use tokio_rustls::LazyConfigAcceptor;
use tokio_rustls::rustls::server::Acceptor;

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
        () = stranger.has_to_go() => {
            tracing::debug!(%address, "too many strangers, the oldest goes");
            return Ok(());
        }
    };
    drop(stranger);
    connection::serve(context, stream.into(), address, false, rtt, deadline).await
}
