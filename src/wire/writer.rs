//! The writing half of a session: what waits in the outbox goes out, no faster than the limit.
//!
//! Invariants: words count towards the limit and never wait for it; of what waits, the more urgent class goes first,
//! as always; another limit counts from the moment on at which it is set.

use super::error::Error;
use super::outbox::{BATCH_BYTES, Class, Outbox};
use crate::model::bucket::Bucket;
use std::future::pending;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

/// Bytes a second that this host sends at most; `None`: as many as go.
pub type Limit = watch::Receiver<Option<u64>>;

/// Writes until the outbox is closed; why that failed.
pub async fn write<W: AsyncWrite + Unpin>(writer: &mut W, outbox: &Outbox, limit: Limit) -> Error {
    match pour(writer, outbox, limit).await {
        Err(error) => Error::Broken(error),
        // The last word is said; the peer closes in answer, and reading sees it.
        Ok(()) => pending().await,
    }
}

async fn pour<W: AsyncWrite + Unpin>(writer: &mut W, outbox: &Outbox, mut limit: Limit) -> io::Result<()> {
    let begin = Instant::now();
    let bucket = |rate: Option<u64>| rate.map(|rate| Bucket::new(rate, begin.elapsed()));
    let mut paced = bucket(*limit.borrow_and_update());
    let mut batch = Vec::new();
    loop {
        let wait = paced.map_or(Duration::ZERO, |bucket| bucket.wait(begin.elapsed()));
        let upto = if wait.is_zero() { Class::Bulk } else { Class::Word };
        let most = paced.map_or(BATCH_BYTES, |bucket| bucket.moment().min(BATCH_BYTES));
        let more = tokio::select! {
            biased;
            Ok(()) = limit.changed() => {
                paced = bucket(*limit.borrow_and_update());
                continue;
            }
            more = outbox.take(upto, most, &mut batch) => more,
            () = sleep(wait), if !wait.is_zero() => continue,
        };
        if !more {
            return writer.shutdown().await;
        }
        writer.write_all(&batch).await?;
        // What waits in the outbox can be overtaken; what waits in the buffers of TLS can't.
        writer.flush().await?;
        if let Some(bucket) = &mut paced {
            bucket.sent(begin.elapsed(), batch.len());
        }
        batch.clear();
        batch.shrink_to(1 << 20);
    }
}

#[cfg(test)]
mod tests {
    use super::super::frame::FrameReader;
    use super::super::session::parse;
    use super::super::stage::Stop;
    use super::super::tests::{announce, deliver};
    use super::*;
    use crate::model::limits::FRAME_BYTES;
    use crate::model::message::Message;
    use std::sync::Arc;
    use tokio::io::{DuplexStream, duplex};

    fn writing(rate: Option<u64>) -> (Arc<Outbox>, watch::Sender<Option<u64>>, FrameReader<DuplexStream>) {
        let (mut near, far) = duplex(1 << 24);
        let outbox = Arc::new(Outbox::new(Stop::default(), false, None));
        let (sender, limit) = watch::channel(rate);
        let writing = outbox.clone();
        tokio::spawn(async move { write(&mut near, &writing, limit).await });
        (outbox, sender, FrameReader::new(far))
    }

    async fn next(reader: &mut FrameReader<DuplexStream>) -> Message {
        parse(&reader.next(FRAME_BYTES).await.unwrap()).unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn a_limit_is_kept_within_a_tenth() {
        let (outbox, _limit, mut reader) = writing(Some(1_000_000));
        let begin = Instant::now();
        for n in 0..50 {
            outbox.push_when_room(Class::Bulk, &deliver(n, 100_000)).await;
        }
        for n in 0..50 {
            assert_eq!(next(&mut reader).await, deliver(n, 100_000));
        }
        let seconds = begin.elapsed().as_secs_f64();
        assert!((4.5..5.5).contains(&seconds), "{seconds}");
    }

    #[tokio::test(start_paused = true)]
    async fn words_do_not_wait_for_the_limit_and_announcements_not_for_deliveries() {
        let (outbox, _limit, mut reader) = writing(Some(100_000));
        for n in 0..10 {
            outbox.push(Class::Bulk, &deliver(n, 100_000));
        }
        assert_eq!(next(&mut reader).await, deliver(0, 100_000));
        let begin = Instant::now();
        outbox.push(Class::News, &announce(1));
        outbox.push(Class::Word, &Message::Dropped { seq: 2 });
        assert_eq!(next(&mut reader).await, Message::Dropped { seq: 2 });
        assert!(begin.elapsed() < Duration::from_millis(10), "{:?}", begin.elapsed());
        assert_eq!(next(&mut reader).await, announce(1));
        assert!(begin.elapsed() < Duration::from_millis(1200), "{:?}", begin.elapsed());
        assert_eq!(next(&mut reader).await, deliver(1, 100_000));
    }

    #[tokio::test(start_paused = true)]
    async fn another_limit_counts_at_once() {
        let (outbox, limit, mut reader) = writing(Some(1));
        outbox.push(Class::Bulk, &deliver(0, 1000));
        outbox.push(Class::Bulk, &deliver(1, 1_000_000));
        assert_eq!(next(&mut reader).await, deliver(0, 1000));
        let begin = Instant::now();
        limit.send_replace(Some(1_000_000));
        assert_eq!(next(&mut reader).await, deliver(1, 1_000_000));
        outbox.push(Class::Bulk, &deliver(2, 1000));
        limit.send_replace(None);
        assert_eq!(next(&mut reader).await, deliver(2, 1000));
        assert!(begin.elapsed() < Duration::from_millis(100), "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_queued_at_the_end_goes_out_at_the_limit() {
        let (outbox, _limit, mut reader) = writing(Some(1_000_000));
        outbox.push(Class::Bulk, &deliver(0, 500_000));
        outbox.push(Class::Bulk, &deliver(1, 500_000));
        outbox.finish();
        assert_eq!(next(&mut reader).await, deliver(0, 500_000));
        assert_eq!(next(&mut reader).await, deliver(1, 500_000));
        assert!(matches!(reader.next(FRAME_BYTES).await, Err(Error::Closed)));
    }
}
