//! The greeting: what two replicas say on a fresh connection before it is a session.
//!
//! `Hello` both ways; then the chooser's `Welcome` and the follower's (see [`stage`](super::stage)).
//! Either side may say `Refuse` or `Superfluous` instead and close.
//!
//! Invariants: frames are limited to [`HELLO_BYTES`]; a refusal is told to the other side and its
//! text is cleaned before it is shown; who holds the stage after an error gives it back.

use super::context::Context;
use super::error::{Error, Result};
use super::frame::{FrameReader, put};
use super::stage::Place;
use super::system::clock_ms;
use crate::model::codec;
use crate::model::limits::{FEATURE_BYTES, FEATURES, HELLO_BYTES};
use crate::model::message::Hello;
use bincode::{Decode, Encode};
use std::net::SocketAddr;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Characters of a refusal that are sent or shown.
const REASON_CHARS: usize = 300;
/// How long we wait for the other side to have read our last word.
const PARTING: Duration = Duration::from_secs(1);

/// A frame of the greeting.
#[derive(Debug, PartialEq, Encode, Decode)]
pub enum Word {
    Hello {
        hello: Hello,
        /// The number of the sender's last session with anybody that is over; 0: none.
        ended: u64,
    },
    Welcome {
        number: u64,
    },
    /// The sender won't talk to this replica.
    Refuse {
        reason: String,
    },
    /// The sender has another connection to this replica.
    Superfluous,
}

/// What a greeting came to.
pub struct Greeted {
    pub hello: Hello,
    pub place: Place,
    pub clock_skew_ms: i64,
}

/// Greets the peer; `rtt` is what the handshake measured. The caller bounds the time.
///
/// # Errors
/// Every reason why this connection does not become the session.
pub async fn greet<R, W>(
    context: &Context,
    reader: &mut FrameReader<R>,
    writer: &mut W,
    address: SocketAddr,
    dialled: bool,
    rtt: Duration,
) -> Result<Greeted>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let result = exchange(context, reader, writer, address, dialled, rtt).await;
    let word = match &result {
        Err(Error::NotAdmitted { reason, .. }) => Word::Refuse { reason: clean(reason) },
        Err(Error::Myself { .. }) => Word::Refuse { reason: "that is this replica itself".into() },
        Err(Error::Superfluous { .. }) => Word::Superfluous,
        _ => return result,
    };
    // Closing with bytes unread would reset the connection and could take our word with it.
    let parting = async {
        say(writer, &word).await?;
        writer.shutdown().await?;
        while reader.fill().await.is_ok() {
            while reader.take(HELLO_BYTES)?.is_some() {}
        }
        Ok::<_, Error>(())
    };
    let _ = timeout(PARTING, parting).await;
    result
}

async fn exchange<R, W>(
    context: &Context,
    reader: &mut FrameReader<R>,
    writer: &mut W,
    address: SocketAddr,
    dialled: bool,
    rtt: Duration,
) -> Result<Greeted>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let ours = Hello {
        replica: context.replica,
        boot: context.boot,
        clock_ms: clock_ms(),
        features: context.features.iter().cloned().chain(context.terms.names()).collect(),
    };
    say(writer, &Word::Hello { hello: ours, ended: context.stage.ended() }).await?;
    let (hello, ended) = match hear(reader, address).await? {
        Word::Hello { hello, ended } => (hello, ended),
        _ => return Err(Error::Senseless("a greeting without a hello")),
    };
    let half = i64::try_from(rtt.as_millis() / 2).unwrap_or(0);
    let clock_skew_ms = hello.clock_ms.saturating_add(half).saturating_sub(clock_ms());

    if hello.replica == context.replica {
        return Err(Error::Myself { address });
    }
    (context.admit)(&hello).map_err(|reason| Error::NotAdmitted { address, reason })?;

    let place = if context.replica < hello.replica {
        let place = context.stage.choose(&hello, ended, dialled, address).await?;
        say(writer, &Word::Welcome { number: place.number }).await?;
        let answer = tokio::select! {
            answer = hear(reader, address) => answer?,
            why = place.stop.wanted() => return Err(why),
        };
        match answer {
            Word::Welcome { number } if number == place.number => place,
            _ => return Err(Error::Senseless("a welcome that is not ours")),
        }
    } else {
        let Word::Welcome { number } = hear(reader, address).await? else {
            return Err(Error::Senseless("a greeting without a welcome"));
        };
        let place = context.stage.follow(&hello, number, address)?;
        say(writer, &Word::Welcome { number }).await?;
        place
    };
    place.up(address);
    Ok(Greeted { hello, place, clock_skew_ms })
}

async fn say<W: AsyncWrite + Unpin>(writer: &mut W, word: &Word) -> Result<()> {
    let mut frame = Vec::new();
    put(&mut frame, &codec::encode(word));
    writer.write_all(&frame).await?;
    Ok(writer.flush().await?)
}

/// The next word of the other side at `address`, understood and checked; a word that ends the greeting is
/// an error.
///
/// # Errors
/// [`Error::Refused`], [`Error::Superfluous`], [`Error::Senseless`], and those of frames and decoding.
pub async fn hear<R: AsyncRead + Unpin>(reader: &mut FrameReader<R>, address: SocketAddr) -> Result<Word> {
    match codec::decode(&reader.next(HELLO_BYTES).await?)? {
        Word::Refuse { reason } => Err(Error::Refused { address, reason: clean(&reason) }),
        Word::Superfluous => Err(Error::Superfluous { address }),
        Word::Hello { hello, .. }
            if hello.features.len() > FEATURES || hello.features.iter().any(|f| f.len() > FEATURE_BYTES) =>
        {
            Err(Error::Senseless("a hello with too many features"))
        }
        word => Ok(word),
    }
}

/// Text from elsewhere, fit for one line of a log.
fn clean(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(REASON_CHARS).collect()
}
