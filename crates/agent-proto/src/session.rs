//! The task that drives one yamux connection; both sides stand on it.

use std::task::{Context, Poll, ready};

use futures::future::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, ConnectionError, Mode};

/// Streams open at once in one session, both directions together.
const MAX_STREAMS: usize = 1024;
/// Streams opened by the peer and not yet taken up; more are reset.
const INBOUND_BACKLOG: usize = 256;
const OPEN_BACKLOG: usize = 64;

/// One multiplexed stream; `shutdown` closes only its writing half.
pub type Stream = Compat<yamux::Stream>;

/// The session is over: the peer closed it, broke the protocol, or the transport failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session with the other side of the agent channel has ended; establish a new one")]
pub struct SessionEnded;

type Open = oneshot::Sender<Stream>;

/// Handle on a running session; the session ends when the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    open: mpsc::Sender<Open>,
}

impl Session {
    /// Starts multiplexing; the receiver yields the streams that the peer opens and ends with the session.
    pub(crate) fn start<T>(io: T, mode: Mode) -> (Self, mpsc::Receiver<Stream>)
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let mut config = Config::default();
        config.set_max_num_streams(MAX_STREAMS);
        // Yamux wants at least its default window for each stream that may be open.
        config.set_max_connection_receive_window(None);
        let (open, opening) = mpsc::channel(OPEN_BACKLOG);
        let (inbound, accepted) = mpsc::channel(INBOUND_BACKLOG);
        let connection = Connection::new(io.compat(), config, mode);
        let driver = Driver { connection, opening, waiting: None, inbound };
        tokio::spawn(driver.run());
        (Self { open }, accepted)
    }

    pub(crate) async fn open(&self) -> Result<Stream, SessionEnded> {
        let (reply, stream) = oneshot::channel();
        self.open.send(reply).await.map_err(|_| SessionEnded)?;
        stream.await.map_err(|_| SessionEnded)
    }

    pub(crate) async fn ended(&self) {
        self.open.closed().await;
    }
}

struct Driver<T> {
    connection: Connection<Compat<T>>,
    opening: mpsc::Receiver<Open>,
    waiting: Option<Open>,
    inbound: mpsc::Sender<Stream>,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    async fn run(mut self) {
        if poll_fn(|cx| self.poll(cx)).await.is_ok() {
            // A failure to say goodbye changes nothing: the session is over either way.
            let _ = poll_fn(|cx| self.connection.poll_close(cx)).await;
        }
    }

    /// Ready once every handle is gone, or with the error that ended the session.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        loop {
            if self.waiting.is_none() {
                match self.opening.poll_recv(cx) {
                    Poll::Ready(None) => return Poll::Ready(Ok(())),
                    Poll::Ready(some) => self.waiting = some,
                    Poll::Pending => {}
                }
            }
            if self.poll_open(cx)? {
                continue;
            }
            match ready!(self.connection.poll_next_inbound(cx)) {
                // A peer that opens faster than its streams are taken up has them reset.
                Some(stream) => drop(self.inbound.try_send(stream?.compat())),
                None => return Poll::Ready(Err(ConnectionError::Closed)),
            }
        }
    }

    /// Opens the stream that is waited for; whether there was one to open.
    fn poll_open(&mut self, cx: &mut Context<'_>) -> Result<bool, ConnectionError> {
        let Some(waiting) = self.waiting.take() else {
            return Ok(false);
        };
        match self.connection.poll_new_outbound(cx) {
            Poll::Ready(stream) => {
                drop(waiting.send(stream?.compat()));
                Ok(true)
            }
            Poll::Pending => {
                self.waiting = Some(waiting);
                Ok(false)
            }
        }
    }
}
