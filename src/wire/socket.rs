//! TCP as syncfs wants it: no delays, dead ends found, every byte counted.

use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, BufReader, ReadBuf};
use tokio::net::TcpStream;

/// Heartbeats find a dead peer long before the kernel does. The kernel's own limit is generous
/// because it also counts the time a living but busy peer keeps its window closed.
const USER_TIMEOUT: Duration = Duration::from_secs(60);
/// What the kernel may hold that has not left yet: past it, urgent words would wait behind bulk that
/// we can no longer call back.
const UNSENT_BYTES: u32 = 32 << 10;
/// What is taken from the kernel at once: TLS asks for a record at a time, and for less.
const READ_BYTES: usize = 128 << 10;
const KEEPALIVE: Duration = Duration::from_secs(15);
const KEEPALIVE_EVERY: Duration = Duration::from_secs(5);

/// TCP payload of all connections since the start, handshakes included; bytes.
#[derive(Default)]
pub struct Traffic {
    pub sent: AtomicU64,
    pub received: AtomicU64,
    /// What would have been sent or received beside, had nothing been compressed.
    pub saved: AtomicU64,
}

/// A TCP stream that adds to the [`Traffic`] what passes.
pub struct Socket {
    stream: BufReader<TcpStream>,
    traffic: Arc<Traffic>,
}

impl Socket {
    /// Sets what the stream needs. That it can't be set is no reason not to talk.
    pub fn new(stream: TcpStream, traffic: Arc<Traffic>) -> Socket {
        let socket = SockRef::from(&stream);
        let keepalive = TcpKeepalive::new().with_time(KEEPALIVE).with_interval(KEEPALIVE_EVERY);
        let set = socket
            .set_tcp_nodelay(true)
            .and_then(|()| socket.set_tcp_keepalive(&keepalive))
            .and_then(|()| socket.set_tcp_user_timeout(Some(USER_TIMEOUT)))
            .and_then(|()| socket.set_tcp_notsent_lowat(UNSENT_BYTES));
        if let Err(error) = set {
            tracing::debug!(%error, "a socket option could not be set");
        }
        Socket { stream: BufReader::with_capacity(READ_BYTES, stream), traffic }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(context, buffer))?;
        self.traffic.received.fetch_add((buffer.filled().len() - before) as u64, Relaxed);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write(context, bytes))?;
        self.traffic.sent.fetch_add(written as u64, Relaxed);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(context, bytes))?;
        self.traffic.sent.fetch_add(written as u64, Relaxed);
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
