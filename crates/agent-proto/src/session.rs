//! The task that drives one yamux connection; both sides stand on it.

use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::future::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{Compat, TokioAsyncReadCompatExt};
use tokio_util::sync::CancellationToken;
use yamux::{Config, Connection, ConnectionError, Mode};

use crate::stream::Stream;

/// Streams open at once in one session, both directions together.
const MAX_STREAMS: usize = 1024;
/// Streams opened by the peer and not yet taken up; more are reset.
const INBOUND_BACKLOG: usize = 256;
const ORDER_BACKLOG: usize = 64;

/// How long a session that ends may take to send what was written.
const CLOSE_WITHIN: Duration = Duration::from_secs(1);

/// The session is over: the peer closed it, broke the protocol, or the transport failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the session with the other side of the agent channel has ended; establish a new one")]
pub struct SessionEnded;

type Open = oneshot::Sender<Stream>;

/// What the driver is told to do.
enum Order {
    Open(Open),
    Close,
}

/// Handle on a running session; the session ends when the last one is dropped.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    orders: mpsc::Sender<Order>,
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
        let (orders, incoming) = mpsc::channel(ORDER_BACKLOG);
        let (inbound, accepted) = mpsc::channel(INBOUND_BACKLOG);
        let connection = Connection::new(io.compat(), config, mode);
        let ended = CancellationToken::new();
        let driver = Driver { connection, orders: incoming, waiting: None, inbound, ended };
        tokio::spawn(driver.run());
        (Self { orders }, accepted)
    }

    pub(crate) async fn open(&self) -> Result<Stream, SessionEnded> {
        let (reply, stream) = oneshot::channel();
        self.orders.send(Order::Open(reply)).await.map_err(|_| SessionEnded)?;
        stream.await.map_err(|_| SessionEnded)
    }

    /// Ends the session for every handle; returns when all that was written has left, or could not within
    /// [`CLOSE_WITHIN`], and the transport is no longer used.
    pub(crate) async fn close(&self) {
        // A driver that takes no orders has ended already.
        let _ = self.orders.send(Order::Close).await;
        self.ended().await;
    }

    pub(crate) async fn ended(&self) {
        self.orders.closed().await;
    }
}

struct Driver<T> {
    connection: Connection<Compat<T>>,
    orders: mpsc::Receiver<Order>,
    waiting: Option<Open>,
    inbound: mpsc::Sender<Stream>,
    /// Told to every stream.
    ended: CancellationToken,
}

impl<T: AsyncRead + AsyncWrite + Unpin> Driver<T> {
    async fn run(mut self) {
        // However it ends.
        let _ended = self.ended.clone().drop_guard();
        if poll_fn(|cx| self.poll(cx)).await.is_ok() {
            // A failure to say goodbye changes nothing: the session is over either way.
            let goodbye = poll_fn(|cx| self.connection.poll_close(cx));
            let _ = tokio::time::timeout(CLOSE_WITHIN, goodbye).await;
        }
    }

    /// Ready once every handle is gone or one says so, or with the error that ended the session.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), ConnectionError>> {
        loop {
            if self.waiting.is_none() {
                match self.orders.poll_recv(cx) {
                    Poll::Ready(None | Some(Order::Close)) => return Poll::Ready(Ok(())),
                    Poll::Ready(Some(Order::Open(reply))) => self.waiting = Some(reply),
                    Poll::Pending => {}
                }
            }
            if self.poll_open(cx)? {
                continue;
            }
            match ready!(self.connection.poll_next_inbound(cx)) {
                // A peer that opens faster than its streams are taken up has them reset.
                Some(stream) => drop(self.inbound.try_send(Stream::of(stream?, &self.ended))),
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
                drop(waiting.send(Stream::of(stream?, &self.ended)));
                Ok(true)
            }
            Poll::Pending => {
                self.waiting = Some(waiting);
                Ok(false)
            }
        }
    }
}
