//! What waits to be sent in one session, in four classes.
//!
//! Invariants: a more urgent class is emptied first, and where frames go in parts it waits for no more than one; order is kept within
//! a class; the memory is bounded, for a peer that talks but does not read ends the session; nothing outlives its session.

use super::compression::Compressor;
use super::frame;
use super::stage::Stop;
use crate::model::codec;
use crate::model::limits::{FRAME_BYTES, OUTBOX_BYTES, QUEUE_BYTES};
use crate::model::message::Message;
use parking_lot::Mutex;
use std::collections::VecDeque;
use tokio::sync::Notify;

/// Frames are gathered into one write up to this many bytes; what is urgent waits no longer than
/// such a write takes.
pub const BATCH_BYTES: usize = 32 << 10;

/// What is less urgent than a word goes in parts of so many bytes.
const PART_BYTES: usize = 16 << 10;

/// Who overtakes whom; the lesser goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Small words that somebody waits for.
    Word,
    /// Announcements, and thanks.
    News,
    /// Deliveries that somebody waits for, which may be many and large: news are small, and don't wait for them.
    Soon,
    /// Deliveries that nobody waits for.
    Bulk,
}

impl Class {
    pub fn of(message: &Message) -> Class {
        match message {
            word if word.is_urgent() => Class::Word,
            Message::Announce(_) | Message::Thanks { .. } => Class::News,
            _ => Class::Bulk,
        }
    }
}

pub struct Outbox {
    state: Mutex<State>,
    /// Whether the peer takes frames in parts.
    parts: bool,
    /// Where the peer takes what is compressed.
    compressor: Option<Compressor>,
    /// Ends the session that this outbox belongs to.
    pub stop: Stop,
    filled: Notify,
    drained: Notify,
}

#[derive(Default)]
struct State {
    classes: [Queue; 4],
    /// The answer to the peer's last heartbeat: one at most, however many it sends.
    pong: Option<u64>,
    /// The session is over; nothing goes in or out.
    closed: bool,
    /// Nothing more goes in, what is in goes out.
    finishing: bool,
}

#[derive(Default)]
struct Queue {
    frames: VecDeque<Frame>,
    bytes: usize,
}

/// A message as it will be sent.
struct Frame {
    body: Vec<u8>,
    compressed: bool,
    /// Bytes that have gone, in parts.
    sent: usize,
}

impl Outbox {
    pub fn new(stop: Stop, parts: bool, compressor: Option<Compressor>) -> Outbox {
        Outbox {
            state: Mutex::default(),
            parts,
            compressor,
            stop,
            filled: Notify::new(),
            drained: Notify::new(),
        }
    }

    /// Queues a message. Ends the session if the message is too large for a frame or the peer has
    /// left too much untaken.
    pub fn push(&self, class: Class, message: &Message) {
        if let Some(frame) = self.frame(class, message) {
            self.insert(&mut self.state.lock(), class, frame);
        }
    }

    /// Queues a message once there is room in its class; returns at once when the session is over.
    pub async fn push_when_room(&self, class: Class, message: &Message) {
        let Some(frame) = self.frame(class, message) else { return };
        loop {
            let drained = self.drained.notified();
            tokio::pin!(drained);
            // Registered before the look, so that room made in between is not missed.
            drained.as_mut().enable();
            {
                let mut state = self.state.lock();
                if state.closed || state.finishing || state.classes[class as usize].bytes <= QUEUE_BYTES {
                    return self.insert(&mut state, class, frame);
                }
            }
            drained.await;
        }
    }

    /// Queues the answer to a heartbeat.
    pub fn pong(&self, nonce: u64) {
        self.state.lock().pong = Some(nonce);
        self.filled.notify_one();
    }

    /// Words are sent as they are: somebody waits for them.
    fn frame(&self, class: Class, message: &Message) -> Option<Frame> {
        let body = codec::encode(message);
        if body.len() > FRAME_BYTES {
            tracing::error!(bytes = body.len(), "a message is too large for a frame; this is a bug");
            self.stop.now("a message for the peer was too large");
            return None;
        }
        let compressor = self.compressor.as_ref().filter(|_| class != Class::Word);
        Some(match compressor.and_then(|compressor| compressor.compress(&body)) {
            Some(body) => Frame { body, compressed: true, sent: 0 },
            None => Frame { body, compressed: false, sent: 0 },
        })
    }

    fn insert(&self, state: &mut State, class: Class, frame: Frame) {
        if state.closed || state.finishing {
            return;
        }
        let bytes = frame.body.len();
        if state.classes.iter().map(|q| q.bytes).sum::<usize>() + bytes > OUTBOX_BYTES {
            return self.stop.now("the peer does not take what it is sent");
        }
        let queue = &mut state.classes[class as usize];
        queue.bytes += bytes;
        queue.frames.push_back(frame);
        self.filled.notify_one();
    }

    /// Waits for frames of class `upto`, or more urgent ones, and puts a batch of about `most` bytes of them into `out`; `false`
    /// when there will be none of any class. Nothing is lost if the wait is given up.
    pub async fn take(&self, upto: Class, most: usize, out: &mut Vec<u8>) -> bool {
        loop {
            {
                let mut state = self.state.lock();
                let part = if self.parts { most.min(PART_BYTES) } else { FRAME_BYTES };
                while out.len() < most && state.put_next(upto, part, out) {}
                if !out.is_empty() {
                    self.drained.notify_waiters();
                    return true;
                }
                if state.closed || (state.finishing && state.is_empty()) {
                    return false;
                }
            }
            self.filled.notified().await;
        }
    }

    #[cfg(test)]
    pub fn is_empty(&self) -> bool {
        self.state.lock().is_empty()
    }

    /// Lets out what is in and takes nothing more.
    pub fn finish(&self) {
        self.state.lock().finishing = true;
        self.filled.notify_one();
        self.drained.notify_waiters();
    }

    /// Drops what is in and takes nothing more.
    pub fn close(&self) {
        *self.state.lock() = State { closed: true, ..State::default() };
        self.filled.notify_one();
        self.drained.notify_waiters();
    }
}

impl State {
    fn is_empty(&self) -> bool {
        self.pong.is_none() && self.classes.iter().all(|q| q.frames.is_empty())
    }

    /// Puts what goes next into `out`, of a large frame a part; `false` where there is nothing of these classes.
    fn put_next(&mut self, upto: Class, part: usize, out: &mut Vec<u8>) -> bool {
        if let Some(nonce) = self.pong.take() {
            frame::put(out, &codec::encode(&Message::Pong { nonce }));
            return true;
        }
        let Some(class) = (0..=upto as usize).find(|class| !self.classes[*class].frames.is_empty()) else {
            return false;
        };
        let queue = &mut self.classes[class];
        let Frame { body, compressed, sent } = queue.frames.front_mut().expect("it is not empty");
        let left = &body[*sent..];
        let whole = *sent == 0 && (left.len() <= part || class == Class::Word as usize);
        let bytes = if whole { left.len() } else { left.len().min(part) };
        let more = bytes < left.len();
        match (whole, *compressed) {
            (true, false) => frame::put(out, left),
            (true, true) => frame::put_compressed(out, left),
            // Words have no lane.
            (false, compressed) => frame::put_part(out, class - 1, more, compressed, &left[..bytes]),
        }
        *sent += bytes;
        queue.bytes -= bytes;
        if !more {
            queue.frames.pop_front();
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::super::compression::Decompressor;
    use super::super::frame::FrameReader;
    use super::super::session::parse;
    use super::super::tests::{announce, deliver, text};
    use super::*;
    use std::sync::Arc;

    async fn drain(outbox: &Outbox) -> Vec<Message> {
        let (mut bytes, mut messages) = (Vec::new(), Vec::new());
        while !outbox.is_empty() {
            let mut batch = Vec::new();
            assert!(outbox.take(Class::Bulk, BATCH_BYTES, &mut batch).await);
            bytes.extend(batch);
        }
        let mut reader = FrameReader::new(&bytes[..]);
        while let Ok(body) = reader.next(FRAME_BYTES).await {
            messages.push(parse(&body).unwrap());
        }
        messages
    }

    #[tokio::test]
    async fn words_overtake_news_and_those_what_is_waited_for_and_that_overtakes_bulk_each_in_order() {
        let outbox = Outbox::new(Stop::default(), false, None);
        outbox.push(Class::Bulk, &deliver(1, 200_000));
        outbox.push(Class::Bulk, &deliver(2, 10));
        outbox.push(Class::News, &announce(3));
        outbox.push(Class::Soon, &deliver(4, 10));
        outbox.push(Class::News, &announce(5));
        outbox.push(Class::Word, &Message::Dropped { seq: 6 });
        outbox.push(Class::Word, &Message::Dropped { seq: 7 });
        let expected = [
            Message::Dropped { seq: 6 },
            Message::Dropped { seq: 7 },
            announce(3),
            announce(5),
            deliver(4, 10),
            deliver(1, 200_000),
            deliver(2, 10),
        ];
        assert_eq!(drain(&outbox).await, expected);
    }

    #[tokio::test]
    async fn what_is_urgent_waits_for_one_part_and_not_for_all_of_a_large_frame() {
        let compressor = Compressor::new(Arc::default());
        let outbox = Outbox::new(Stop::default(), true, Some(compressor));
        let batch = async || {
            let mut batch = Vec::new();
            assert!(outbox.take(Class::Bulk, 1000, &mut batch).await);
            batch
        };
        outbox.push(Class::Bulk, &deliver(1, 100_000));
        outbox.push(Class::Bulk, &text(400_000));
        let mut bytes = batch().await;
        outbox.push(Class::Soon, &deliver(2, 100_000));
        outbox.push(Class::News, &announce(3));
        bytes.extend(batch().await);
        outbox.push(Class::Word, &Message::Dropped { seq: 4 });
        while !outbox.is_empty() {
            bytes.extend(batch().await);
        }
        let mut reader = FrameReader::new(&bytes[..]);
        reader.decompress_with(Decompressor::new(Arc::default()).unwrap());
        reader.take_parts();
        let expected = [
            announce(3),
            Message::Dropped { seq: 4 },
            deliver(2, 100_000),
            deliver(1, 100_000),
            text(400_000),
        ];
        for message in expected {
            assert_eq!(parse(&reader.next(FRAME_BYTES).await.unwrap()).unwrap(), message);
        }
        assert_eq!(outbox.state.lock().classes.each_ref().map(|queue| queue.bytes), [0; 4]);
    }

    #[tokio::test]
    async fn deliveries_and_announcements_are_compressed_where_the_peer_takes_that_and_words_never() {
        for (compressor, classes) in [
            (Some(Compressor::new(Arc::default())), vec![Class::News, Class::Soon, Class::Bulk]),
            (None, vec![]),
        ] {
            let outbox = Outbox::new(Stop::default(), true, compressor);
            for class in [Class::Word, Class::News, Class::Soon, Class::Bulk] {
                outbox.push(class, &text(100_000));
                let small = outbox.state.lock().classes[class as usize].bytes < 50_000;
                assert_eq!(small, classes.contains(&class), "{class:?}");
            }
        }
    }

    #[tokio::test]
    async fn bulk_waits_for_room_and_neither_words_nor_other_classes_wait_with_it() {
        let outbox = Arc::new(Outbox::new(Stop::default(), false, None));
        while outbox.state.lock().classes[Class::Bulk as usize].bytes <= QUEUE_BYTES {
            outbox.push_when_room(Class::Bulk, &deliver(1, 500_000)).await;
        }
        let waiting = tokio::spawn({
            let outbox = outbox.clone();
            async move { outbox.push_when_room(Class::Bulk, &deliver(2, 10)).await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        outbox.push_when_room(Class::News, &announce(3)).await;
        let first = drain(&outbox).await;
        assert_eq!(first.first(), Some(&announce(3)));
        waiting.await.unwrap();
        assert_eq!(drain(&outbox).await, [deliver(2, 10)]);
    }

    #[tokio::test]
    async fn who_waits_is_released_when_the_session_ends() {
        let outbox = Outbox::new(Stop::default(), false, None);
        while outbox.state.lock().classes[Class::Bulk as usize].bytes <= QUEUE_BYTES {
            outbox.push(Class::Bulk, &deliver(1, 500_000));
        }
        let message = deliver(2, 10);
        let ((), ()) = tokio::join!(outbox.push_when_room(Class::Bulk, &message), async { outbox.close() });
        assert!(outbox.is_empty() && !outbox.take(Class::Bulk, BATCH_BYTES, &mut Vec::new()).await);
    }

    #[tokio::test]
    async fn a_message_too_large_for_a_frame_ends_the_session_unsent() {
        let outbox = Outbox::new(Stop::default(), false, None);
        outbox.push(Class::Bulk, &deliver(1, FRAME_BYTES));
        assert!(outbox.stop.wanted().await.to_string().contains("too large") && outbox.is_empty());
    }

    #[tokio::test]
    async fn a_peer_that_never_reads_ends_the_session_and_fills_nothing() {
        let outbox = Outbox::new(Stop::default(), false, None);
        for n in 0..1_000_000 {
            outbox.pong(n);
        }
        assert_eq!(drain(&outbox).await, [Message::Pong { nonce: 999_999 }]);
        for n in 0..200 {
            outbox.push(Class::Word, &deliver(n, 500_000));
        }
        assert!(outbox.stop.wanted().await.to_string().contains("does not take"));
        assert!(outbox.state.lock().classes[0].bytes <= OUTBOX_BYTES);
    }
}
