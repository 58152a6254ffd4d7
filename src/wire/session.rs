//! A session: messages both ways over one greeted connection, until it ends.
//!
//! Three loops of one task: reading, writing, the heart. The first that fails ends all, and its
//! error is the reason that the engine is told.
//!
//! The heart pings when nothing was heard for [`QUIET`], once right after the start and then every
//! [`MEASURE`] to know the round trip; nothing heard for [`DEAD`] ends the session. An engine that is
//! slow to take messages stops the reading, not the heart: pings go on, so the peer knows us alive,
//! and the time we did not listen is not held against it.
//!
//! Invariants: what arrives is decoded and checked before the engine sees it; heartbeats never reach
//! the engine; nothing is delivered after the end.

use super::error::{Error, Result};
use super::frame::FrameReader;
use super::outbox::{Class, Outbox};
use super::writer::{Limit, write};
use crate::model::codec;
use crate::model::limits::FRAME_BYTES;
use crate::model::message::Message;
use parking_lot::Mutex;
use std::convert::Infallible;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

pub const QUIET: Duration = Duration::from_secs(5);
pub const DEAD: Duration = Duration::from_secs(15);
pub const MEASURE: Duration = Duration::from_secs(30);

/// Runs a session to its end; tells why it ended. Messages go to `engine`, which may be
/// slow; `measured` is told round trips. What is sent keeps to `limit`.
pub async fn run<R, W, E>(
    reader: &mut FrameReader<R>,
    writer: &mut W,
    outbox: &Outbox,
    limit: Limit,
    engine: &mpsc::Sender<E>,
    measured: impl Fn(Duration),
) -> Error
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
    E: From<Message>,
{
    let heart = Heart::new();
    let end = tokio::select! {
        end = outbox.stop.wanted() => end,
        Err(end) = read(reader, outbox, &heart, engine, measured) => end,
        end = write(writer, outbox, limit) => end,
        end = beat(outbox, &heart) => end,
    };
    outbox.close();
    end
}

async fn read<R: AsyncRead + Unpin, E: From<Message>>(
    reader: &mut FrameReader<R>,
    outbox: &Outbox,
    heart: &Heart,
    engine: &mpsc::Sender<E>,
    measured: impl Fn(Duration),
) -> Result<Infallible> {
    loop {
        let Some(body) = reader.take(FRAME_BYTES)? else {
            reader.fill().await?;
            heart.heard();
            continue;
        };
        match parse(&body)? {
            Message::Ping { nonce } => outbox.pong(nonce),
            Message::Pong { nonce } => heart.answered(nonce).into_iter().for_each(&measured),
            message => {
                heart.listen(false);
                engine
                    .send(message.into())
                    .await
                    .map_err(|_| Error::Ended("nobody takes messages".into()))?;
                heart.listen(true);
            }
        }
    }
}

/// One message, understood and checked.
pub fn parse(body: &[u8]) -> Result<Message> {
    let message: Message = codec::decode(body)?;
    message.check().map_err(Error::Senseless)?;
    Ok(message)
}

async fn beat(outbox: &Outbox, heart: &Heart) -> Error {
    loop {
        match heart.beat(Instant::now()) {
            Beat::Ping(nonce) => outbox.push(Class::Word, &Message::Ping { nonce }),
            Beat::Wait(until) => sleep_until(until).await,
            Beat::Dead => return Error::Silent(DEAD.as_secs()),
        }
    }
}

/// When something was last heard, and when to ask.
struct Heart(Mutex<Pulse>);

struct Pulse {
    heard: Instant,
    listening: bool,
    /// The number of the last ping, when it was sent, and whether its answer is still awaited.
    nonce: u64,
    pinged: Option<Instant>,
    awaited: bool,
}

enum Beat {
    Ping(u64),
    Wait(Instant),
    Dead,
}

impl Heart {
    fn new() -> Heart {
        let heard = Instant::now();
        Heart(Mutex::new(Pulse { heard, listening: true, nonce: 0, pinged: None, awaited: false }))
    }

    fn heard(&self) {
        self.0.lock().heard = Instant::now();
    }

    /// Whether we read; time in which we did not is no silence of the peer's.
    fn listen(&self, listening: bool) {
        let mut pulse = self.0.lock();
        pulse.listening = listening;
        if listening {
            pulse.heard = Instant::now();
        }
    }

    /// The round trip, if this is the answer that is awaited.
    fn answered(&self, nonce: u64) -> Option<Duration> {
        let mut pulse = self.0.lock();
        let hit = pulse.awaited && pulse.nonce == nonce;
        pulse.awaited &= !hit;
        pulse.pinged.filter(|_| hit).map(|at| at.elapsed())
    }

    fn beat(&self, now: Instant) -> Beat {
        let mut pulse = self.0.lock();
        let ping = match pulse.pinged {
            None => now,
            Some(pinged) => (pulse.heard.max(pinged) + QUIET).min(pinged + MEASURE),
        };
        let dead = if pulse.listening { pulse.heard + DEAD } else { now + DEAD };
        if dead <= now {
            Beat::Dead
        } else if ping <= now {
            pulse.nonce = pulse.nonce.wrapping_add(1);
            (pulse.pinged, pulse.awaited) = (Some(now), true);
            Beat::Ping(pulse.nonce)
        } else {
            Beat::Wait(ping.min(dead))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::put;
    use super::super::stage::Stop;
    use super::*;
    use std::sync::Arc;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex, split};
    use tokio::sync::watch;
    use tokio::task::JoinHandle;

    /// Why it ended, and the round trips it measured.
    type Ended = (Error, Vec<Duration>);

    /// A session on one end of a pipe, whose other end the test holds.
    fn session(events: usize) -> (DuplexStream, mpsc::Receiver<Message>, Arc<Outbox>, JoinHandle<Ended>) {
        let (near, far) = duplex(1 << 20);
        let (sender, receiver) = mpsc::channel(events);
        let outbox = Arc::new(Outbox::new(Stop::default(), false, None));
        let run = tokio::spawn({
            let outbox = outbox.clone();
            async move {
                let (reader, mut writer) = split(near);
                let rtts = Mutex::new(Vec::new());
                let measured = |rtt| rtts.lock().push(rtt);
                let mut reader = FrameReader::new(reader);
                let end =
                    run(&mut reader, &mut writer, &outbox, watch::channel(None).1, &sender, measured).await;
                (end, rtts.into_inner())
            }
        });
        (far, receiver, outbox, run)
    }

    fn frame(message: &Message) -> Vec<u8> {
        let mut bytes = Vec::new();
        put(&mut bytes, &codec::encode(message));
        bytes
    }

    #[tokio::test(start_paused = true)]
    async fn a_silent_peer_is_asked_and_then_given_up() {
        let (far, _events, _outbox, run) = session(1);
        let start = Instant::now();
        let mut reader = FrameReader::new(far);
        let mut asked = Vec::new();
        while let Ok(body) = reader.next(FRAME_BYTES).await {
            assert!(matches!(parse(&body), Ok(Message::Ping { .. })));
            asked.push(start.elapsed().as_secs());
        }
        assert_eq!(asked, [0, 5, 10]);
        assert_eq!(start.elapsed().as_secs(), 15);
        assert!(matches!(run.await.unwrap().0, Error::Silent(15)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ping_is_answered_and_an_answer_measured() {
        let (far, _events, outbox, run) = session(1);
        let (reader, mut writer) = split(far);
        let mut reader = FrameReader::new(reader);
        let Message::Ping { nonce } = parse(&reader.next(FRAME_BYTES).await.unwrap()).unwrap() else {
            panic!("no ping at the start");
        };
        tokio::time::advance(Duration::from_millis(40)).await;
        for nonce in [nonce, nonce, nonce + 1] {
            writer.write_all(&frame(&Message::Pong { nonce })).await.unwrap();
        }
        writer.write_all(&frame(&Message::Ping { nonce: 77 })).await.unwrap();
        let answer = parse(&reader.next(FRAME_BYTES).await.unwrap()).unwrap();
        assert_eq!(answer, Message::Pong { nonce: 77 });
        outbox.stop.now("enough");
        assert_eq!(run.await.unwrap().1, [Duration::from_millis(40)]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_slow_engine_keeps_the_session() {
        let (far, mut events, _outbox, run) = session(1);
        let (reader, mut writer) = split(far);
        for seq in 0..3 {
            writer.write_all(&frame(&Message::Dropped { seq })).await.unwrap();
        }
        // Nobody takes events for two minutes, and still the peer hears from us.
        let mut reader = FrameReader::new(reader);
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(120) {
            assert!(matches!(parse(&reader.next(FRAME_BYTES).await.unwrap()), Ok(Message::Ping { .. })));
        }
        assert!(!run.is_finished());
        for seq in 0..3 {
            assert_eq!(events.recv().await, Some(Message::Dropped { seq }));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_busy_link_is_measured_every_half_minute() {
        let (far, mut events, _outbox, _run) = session(8);
        let (reader, mut writer) = split(far);
        let mut reader = FrameReader::new(reader);
        let start = Instant::now();
        let talk = async {
            loop {
                writer.write_all(&frame(&Message::Dropped { seq: 1 })).await.unwrap();
                events.recv().await.unwrap();
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        };
        let listen = async {
            for at in [0, 30, 60] {
                reader.next(FRAME_BYTES).await.unwrap();
                assert_eq!(start.elapsed().as_secs(), at);
            }
        };
        tokio::select! { () = talk => (), () = listen => () }
    }
}
