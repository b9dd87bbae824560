//! Bytes on their way to and from the application of one life: counted as activity, within its allowance, over TLS where the
//! port speaks it.

use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use http::Uri;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::allowance::{Account, Pace};
use crate::app_tls::{self, Alpn};
use crate::error::Refusal;
use crate::{Activity, BoxedIo, Connector, limits};

/// The connector's own failure, told apart from those of the protocol spoken afterwards.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect into the guest: {0}")]
pub(crate) struct ConnectError(pub(crate) io::Error);

impl ConnectError {
    /// What it means to the client; why a MicroVM itself was not reached, its operator reads in the log.
    pub(crate) fn refusal(&self) -> Refusal {
        if self.0.kind() == io::ErrorKind::ConnectionRefused {
            return Refusal::AppConnect;
        }
        tracing::warn!("{self}");
        Refusal::MicrovmConnect
    }
}

/// Connects to one port whatever the URI says.
#[derive(Clone)]
pub(crate) struct PortConnector {
    pub(crate) connector: Arc<dyn Connector>,
    pub(crate) activity: Arc<Activity>,
    pub(crate) account: Arc<Account>,
    pub(crate) port: u16,
    pub(crate) tls: Option<Alpn>,
}

impl PortConnector {
    /// For HTTP.
    pub(crate) async fn open(&self, host: &str) -> Result<Wire, ConnectError> {
        let io = self.connect().await?;
        let Some(alpn) = self.tls else { return Ok(Wire::Plain(io)) };
        let shaking = tokio::time::timeout(limits::CONNECT_TIMEOUT, app_tls::connect(io, host, alpn));
        let io = shaking.await.map_err(io::Error::from).flatten().map_err(ConnectError)?;
        Ok(Wire::Tls(Box::new(io)))
    }

    /// In the clear, whatever is spoken then.
    pub(crate) async fn connect(&self) -> Result<Counted, ConnectError> {
        let io = tokio::time::timeout(limits::CONNECT_TIMEOUT, self.connector.connect(self.port)).await;
        let io = io.map_err(io::Error::from).flatten().map_err(ConnectError)?;
        Ok(Counted { io, activity: Arc::clone(&self.activity), pace: self.account.pace() })
    }
}

impl Service<Uri> for PortConnector {
    type Response = TokioIo<Wire>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.open(uri.host().unwrap_or_default()).await.map(TokioIo::new) })
    }
}

/// A connection whose bytes, both ways, count as activity and are spent of what the MicroVM may have.
pub(crate) struct Counted {
    io: BoxedIo,
    activity: Arc<Activity>,
    pace: Option<Pace>,
}

impl Counted {
    fn poll_allowed(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        self.pace.as_mut().map_or(Poll::Ready(()), |pace| pace.poll_ready(cx))
    }

    fn count(&self, bytes: usize) {
        if bytes > 0 {
            self.activity.touch();
            if let Some(pace) = &self.pace {
                pace.spend(bytes);
            }
        }
    }

    fn count_written(&self, done: &Poll<io::Result<usize>>) {
        if let Poll::Ready(Ok(written)) = done {
            self.count(*written);
        }
    }
}

/// A connection that HTTP is spoken over.
pub(crate) enum Wire {
    Plain(Counted),
    Tls(Box<TlsStream<Counted>>),
}

impl Connection for Wire {
    fn connected(&self) -> Connected {
        match self {
            Self::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(b"h2") => {
                Connected::new().negotiated_h2()
            }
            _ => Connected::new(),
        }
    }
}

impl AsyncRead for Wire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_read(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Wire {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write(cx, buf),
            Self::Tls(io) => Pin::new(io).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_write_vectored(cx, bufs),
            Self::Tls(io) => Pin::new(io).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(io) => io.is_write_vectored(),
            Self::Tls(io) => io.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_flush(cx),
            Self::Tls(io) => Pin::new(io).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(io) => Pin::new(io).poll_shutdown(cx),
            Self::Tls(io) => Pin::new(io).poll_shutdown(cx),
        }
    }
}

impl AsyncRead for Counted {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        ready!(self.poll_allowed(cx));
        let before = buf.filled().len();
        let done = Pin::new(&mut self.io).poll_read(cx, buf);
        self.count(buf.filled().len() - before);
        done
    }
}

impl AsyncWrite for Counted {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        ready!(self.poll_allowed(cx));
        let done = Pin::new(&mut self.io).poll_write(cx, buf);
        self.count_written(&done);
        done
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        ready!(self.poll_allowed(cx));
        let done = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        self.count_written(&done);
        done
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
