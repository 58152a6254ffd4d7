//! A connection that has proved itself: greeted, and then a session in the engine's eyes.
//!
//! Invariants: the engine hears `Up`, that session's messages and `Down`, and of the next session only
//! then; one that ended before its turn came is never heard of.

use super::compression::{Compressor, Decompressor};
use super::context::{Context, FLUSH, GREETING, Session, Signal};
use super::error::{Error, Result};
use super::frame::FrameReader;
use super::greeting::greet;
use super::outbox::Outbox;
use super::session;
use super::socket::Socket;
use super::stage::Place;
use super::terms::Terms;
use super::tls;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_rustls::TlsStream;

/// Time to tell the peer that a session is over.
const PARTING: Duration = Duration::from_millis(100);

/// Greets on a connection that has proved itself, and starts the session.
pub async fn serve(
    context: &Arc<Context>,
    stream: TlsStream<Socket>,
    address: SocketAddr,
    dialled: bool,
    rtt: Duration,
    deadline: Instant,
) -> Result<()> {
    let (reader, mut writer) = tokio::io::split(stream);
    let mut reader = FrameReader::new(reader);
    let greeting = greet(context, &mut reader, &mut writer, address, dialled, rtt);
    let greeted = match timeout_at(deadline, greeting).await {
        Err(_) => return Err(Error::Slow { address, seconds: GREETING.as_secs() }),
        // A wrong key of ours is told to us only now: the dialler is judged last.
        Ok(Err(Error::Broken(error))) => return Err(tls::explain(error, address)),
        Ok(greeted) => greeted?,
    };
    let terms = context.terms.both(Terms::of(&greeted.hello.features));
    if terms.compress {
        reader.decompress_with(Decompressor::new(context.traffic.clone())?);
    }
    if terms.parts {
        reader.take_parts();
    }
    let compressor = terms.compress.then(|| Compressor::new(context.traffic.clone()));
    let outbox = Arc::new(Outbox::new(greeted.place.stop.clone(), terms.parts, compressor));
    let session = Session { peer: greeted.hello, address, clock_skew_ms: greeted.clock_skew_ms, dialled };
    context.shared.tasks.spawn(live(context.clone(), session, greeted.place, outbox, reader, writer));
    Ok(())
}

/// A session's life in the engine's eyes: `Up`, messages, `Down`.
async fn live<R, W>(
    context: Arc<Context>,
    session: Session,
    place: Place,
    outbox: Arc<Outbox>,
    mut reader: FrameReader<R>,
    mut writer: W,
) where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let up = async {
        let turn = context.turn.lock().await;
        let signal = Signal::Up(session.clone(), outbox.clone());
        context.events.send(signal).await.ok().map(|()| turn)
    };
    let turn = tokio::select! {
        turn = up => turn,
        _ = place.stop.wanted() => None,
        () = context.shared.cancel.cancelled() => None,
    };
    // Without a turn it was over before the engine heard of it: not a word.
    let Some(_turn) = turn else { return };
    tracing::info!(address = %session.address, peer = %session.peer.replica.short(), "connected");
    *context.shared.last_error.lock() = None;
    *context.shared.rtt.lock() = None;

    let limit = context.shared.limit.subscribe();
    let measured = |rtt| *context.shared.rtt.lock() = Some(rtt);
    let end = tokio::select! {
        end = session::run(&mut reader, &mut writer, &outbox, limit, &context.events, measured) => end,
        () = context.shared.cancel.cancelled() => closed(),
    };
    outbox.close();
    let reason = end.to_string();
    tracing::info!(address = %session.address, "disconnected: {reason}");
    *context.shared.last_error.lock() = Some(reason.clone());
    // From here on another connection may be greeted; its `Up` still waits for our turn's end.
    drop(place);
    let farewell = async {
        let _ = timeout(PARTING, writer.shutdown()).await;
    };
    let too_late = async {
        context.shared.cancel.cancelled().await;
        sleep(FLUSH).await;
    };
    tokio::select! {
        _ = async { tokio::join!(farewell, context.events.send(Signal::Down { reason })) } => (),
        () = too_late => (),
    }
}

fn closed() -> Error {
    Error::Ended("the link was closed".into())
}
