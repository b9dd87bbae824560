//! Connections to the application of one life: pooled, counted, HTTP/1.1 or HTTP/2, in the clear or over TLS.
//!
//! Which of the two a port speaks, its first answer in a life tells ([`crate::contact`]).

use std::collections::HashMap;
use std::error::Error as _;
use std::future::Future;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use http::header::UPGRADE;
use http::uri::Scheme;
use http::{HeaderMap, Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::client::TlsStream;
use tower_service::Service;

use crate::allowance::{Account, Allowance, Pace};
use crate::app_tls::{self, Alpn};
use crate::contact::{Transport, means_tls};
use crate::error::Refusal;
use crate::replay::{Recording, RequestBody};
use crate::{Activity, BoxedIo, Connector, limits};

/// What the application is spoken to with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

type Pool = Client<PortConnector, RequestBody>;
type Outcome = Result<Response<Incoming>, Error>;

/// How the connections of one pool are spoken to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Speech {
    Plain(Protocol),
    Tls(Alpn),
}

impl Speech {
    fn of(transport: Transport, protocol: Protocol, headers: &HeaderMap) -> Self {
        match (transport, protocol) {
            (Transport::Plain, protocol) => Self::Plain(protocol),
            (Transport::Tls, Protocol::Http2) => Self::Tls(Alpn::Http2),
            // A WebSocket's handshake.
            (Transport::Tls, Protocol::Http1) if headers.contains_key(UPGRADE) => Self::Tls(Alpn::Http1),
            (Transport::Tls, Protocol::Http1) => Self::Tls(Alpn::Any),
        }
    }
}

/// What is known and kept of the ports of one life.
#[derive(Default)]
struct Ports {
    transports: HashMap<u16, Transport>,
    pools: HashMap<(u16, Speech), Pool>,
}

/// The pools of one life. One per port, because a pool tells connections apart by the authority alone,
/// and that has to stay the endpoint's.
pub(crate) struct Upstream {
    connector: Arc<dyn Connector>,
    activity: Arc<Activity>,
    account: Arc<Account>,
    ports: Mutex<Ports>,
}

impl Upstream {
    pub(crate) fn new(connector: Arc<dyn Connector>, activity: Arc<Activity>) -> Self {
        Self { connector, activity, account: Arc::default(), ports: Mutex::default() }
    }

    /// The same, carrying no more than `allowance`.
    pub(crate) fn within(self, allowance: Allowance) -> Self {
        Self { account: Arc::new(Account::of(allowance)), ..self }
    }

    /// What is left of the allowance.
    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    /// A connection of its own to a port.
    pub(crate) async fn connect(&self, port: u16) -> Result<Counted, ConnectError> {
        self.connector(port, None).connect().await
    }

    pub(crate) async fn send(&self, port: u16, protocol: Protocol, request: Request<Incoming>) -> Outcome {
        let known = self.ports().transports.get(&port).copied();
        match known {
            Some(transport) => self.exchange(port, transport, protocol, request.map(RequestBody::Once)).await,
            None => self.first_contact(port, protocol, request).await,
        }
    }

    /// Sends in the clear. Where that is not understood and a handshake of TLS is, the application has not seen the
    /// request, which is sent again, if what has been sent of its body is kept.
    async fn first_contact(&self, port: u16, protocol: Protocol, request: Request<Incoming>) -> Outcome {
        let (head, body) = request.into_parts();
        let (recording, body) = Recording::begin(body, limits::MAX_REPLAY);
        let request = |body| Request::from_parts(head.clone(), body);
        let outcome = self.exchange(port, Transport::Plain, protocol, request(body)).await;
        if means_tls(&outcome) && self.speaks_tls(port, head.uri.host()).await {
            self.ports().transports.insert(port, Transport::Tls);
            if let Some(body) = recording.again() {
                return self.exchange(port, Transport::Tls, protocol, request(body)).await;
            }
        } else if outcome.is_ok() {
            self.ports().transports.insert(port, Transport::Plain);
        }
        recording.forget();
        outcome
    }

    async fn speaks_tls(&self, port: u16, host: Option<&str>) -> bool {
        let connecting = self.connector(port, Some(Alpn::Any)).open(host.unwrap_or_default());
        let shaken = tokio::time::timeout(limits::TLS_PROBE_TIMEOUT, connecting).await;
        matches!(shaken, Ok(Ok(_)))
    }

    async fn exchange(
        &self,
        port: u16,
        transport: Transport,
        protocol: Protocol,
        mut request: Request<RequestBody>,
    ) -> Outcome {
        if transport == Transport::Tls {
            let mut uri = request.uri().clone().into_parts();
            uri.scheme = Some(Scheme::HTTPS);
            // With another scheme it is as good as it was.
            *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        }
        let speech = Speech::of(transport, protocol, request.headers());
        self.pool(port, speech).request(request).await
    }

    /// A panic while the lock was held cannot leave the maps half changed.
    fn ports(&self) -> MutexGuard<'_, Ports> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pool(&self, port: u16, speech: Speech) -> Pool {
        self.ports().pools.entry((port, speech)).or_insert_with(|| self.new_pool(port, speech)).clone()
    }

    fn new_pool(&self, port: u16, speech: Speech) -> Pool {
        let (h2_only, tls) = match speech {
            Speech::Plain(protocol) => (protocol == Protocol::Http2, None),
            Speech::Tls(alpn) => (alpn == Alpn::Http2, Some(alpn)),
        };
        Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits::POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(limits::POOL_MAX_IDLE)
            .http2_only(h2_only)
            .http2_adaptive_window(true)
            .build(self.connector(port, tls))
    }

    fn connector(&self, port: u16, tls: Option<Alpn>) -> PortConnector {
        let (connector, activity) = (Arc::clone(&self.connector), Arc::clone(&self.activity));
        PortConnector { connector, activity, account: Arc::clone(&self.account), port, tls }
    }
}

/// The connector's own failure, told apart from those of the protocol spoken afterwards.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect into the guest: {0}")]
pub(crate) struct ConnectError(pub(crate) io::Error);

impl ConnectError {
    /// The one that an error of a pool comes from, if no connection was made.
    pub(crate) fn of(error: &Error) -> Option<&Self> {
        let mut cause = error.source();
        while let Some(error) = cause {
            if let Some(connect) = error.downcast_ref() {
                return Some(connect);
            }
            cause = error.source();
        }
        None
    }

    /// What it means to the client.
    pub(crate) fn refusal(&self) -> Refusal {
        match self.0.kind() {
            io::ErrorKind::ConnectionRefused => Refusal::AppConnect,
            _ => Refusal::MicrovmConnect,
        }
    }
}

/// Connects to one port whatever the URI says.
#[derive(Clone)]
struct PortConnector {
    connector: Arc<dyn Connector>,
    activity: Arc<Activity>,
    account: Arc<Account>,
    port: u16,
    tls: Option<Alpn>,
}

impl PortConnector {
    async fn open(self, host: &str) -> Result<Wire, ConnectError> {
        let tls = self.tls;
        let io = self.connect().await?;
        let Some(alpn) = tls else { return Ok(Wire::Plain(io)) };
        let shaking = tokio::time::timeout(limits::CONNECT_TIMEOUT, app_tls::connect(io, host, alpn));
        let io = shaking.await.map_err(io::Error::from).flatten().map_err(ConnectError)?;
        Ok(Wire::Tls(Box::new(io)))
    }

    async fn connect(self) -> Result<Counted, ConnectError> {
        let Self { connector, activity, account, port, .. } = self;
        let io = tokio::time::timeout(limits::CONNECT_TIMEOUT, connector.connect(port)).await;
        let io = io.map_err(io::Error::from).flatten().map_err(ConnectError)?;
        Ok(Counted { io, activity, pace: account.pace() })
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
enum Wire {
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
