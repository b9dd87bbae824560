//! Connections to the application of one life: pooled, counted, HTTP/1.1 or HTTP/2 in the clear.

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use http::{Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::client::legacy::{Client, Error};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tower_service::Service;

use crate::allowance::{Account, Pace};
use crate::error::Refusal;
use crate::{Activity, BoxedIo, Connector, limits};

/// What the application is spoken to with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

type Pool = Client<PortConnector, Incoming>;

/// The pools of one life. One per port, because a pool tells connections apart by the authority alone,
/// and that has to stay the endpoint's.
pub(crate) struct Upstream {
    connector: Arc<dyn Connector>,
    activity: Arc<Activity>,
    account: Arc<Account>,
    pools: Mutex<HashMap<(u16, Protocol), Pool>>,
}

impl Upstream {
    pub(crate) fn new(connector: Arc<dyn Connector>, activity: Arc<Activity>, account: Arc<Account>) -> Self {
        Self { connector, activity, account, pools: Mutex::default() }
    }

    /// A connection of its own to a port.
    pub(crate) async fn connect(&self, port: u16) -> Result<Counted, ConnectError> {
        self.connector(port).connect().await
    }

    pub(crate) async fn send(
        &self,
        port: u16,
        protocol: Protocol,
        request: Request<Incoming>,
    ) -> Result<Response<Incoming>, Error> {
        self.pool(port, protocol).request(request).await
    }

    fn pool(&self, port: u16, protocol: Protocol) -> Pool {
        // A panic while the lock was held cannot leave the map half changed.
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        pools.entry((port, protocol)).or_insert_with(|| self.new_pool(port, protocol)).clone()
    }

    fn new_pool(&self, port: u16, protocol: Protocol) -> Pool {
        Client::builder(TokioExecutor::new())
            .timer(TokioTimer::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(limits::POOL_IDLE_TIMEOUT)
            .pool_max_idle_per_host(limits::POOL_MAX_IDLE)
            .http2_only(protocol == Protocol::Http2)
            .http2_adaptive_window(true)
            .build(self.connector(port))
    }

    fn connector(&self, port: u16) -> PortConnector {
        let (connector, activity) = (Arc::clone(&self.connector), Arc::clone(&self.activity));
        PortConnector { connector, activity, account: Arc::clone(&self.account), port }
    }
}

/// The connector's own failure, told apart from those of the protocol spoken afterwards.
#[derive(Debug, thiserror::Error)]
#[error("cannot connect into the guest: {0}")]
pub(crate) struct ConnectError(pub(crate) io::Error);

impl ConnectError {
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
}

impl PortConnector {
    async fn connect(self) -> Result<Counted, ConnectError> {
        let Self { connector, activity, account, port } = self;
        let io = tokio::time::timeout(limits::CONNECT_TIMEOUT, connector.connect(port)).await;
        let io = io.map_err(io::Error::from).flatten().map_err(ConnectError)?;
        Ok(Counted { io, activity, pace: account.pace() })
    }
}

impl Service<Uri> for PortConnector {
    type Response = TokioIo<Counted>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let connector = self.clone();
        Box::pin(async move { connector.connect().await.map(TokioIo::new) })
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
}

impl Connection for Counted {
    fn connected(&self) -> Connected {
        Connected::new()
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
        if let Poll::Ready(Ok(written)) = done {
            self.count(written);
        }
        done
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}
