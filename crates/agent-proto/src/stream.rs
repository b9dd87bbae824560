//! One stream of a session.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// One multiplexed stream; `shutdown` closes only its writing half. It fails once the session has ended, whichever side
/// ended it: yamux wakes nobody who waits for a stream when its own side closes the connection.
#[derive(Debug)]
pub(crate) struct Stream {
    inner: Compat<yamux::Stream>,
    /// The session's end, for its reader and for its writer: they may be two tasks.
    reader: Ended,
    writer: Ended,
}

type Ended = Pin<Box<WaitForCancellationFutureOwned>>;

impl Stream {
    pub(crate) fn of(stream: yamux::Stream, session_ended: &CancellationToken) -> Self {
        let ended = || Box::pin(session_ended.clone().cancelled_owned());
        Self { inner: stream.compat(), reader: ended(), writer: ended() }
    }

    /// Whether it is closed in both directions.
    pub(crate) fn is_closed(&self) -> bool {
        self.inner.get_ref().is_closed()
    }
}

/// What is not done yet is never done once the session has ended.
fn unless<T>(ended: &mut Ended, done: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
    if done.is_pending() && ended.as_mut().poll(cx).is_ready() {
        return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
    }
    done
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_read(cx, buf);
        unless(&mut self.reader, done, cx)
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let done = Pin::new(&mut self.inner).poll_write(cx, buf);
        unless(&mut self.writer, done, cx)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_flush(cx);
        unless(&mut self.writer, done, cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let done = Pin::new(&mut self.inner).poll_shutdown(cx);
        unless(&mut self.writer, done, cx)
    }
}
