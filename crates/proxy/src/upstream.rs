//! What is sent to the application of one life: over connections that are kept, HTTP/1.1 or HTTP/2, in the clear or over TLS.
//!
//! Which of the two a port speaks, its first answer in a life tells ([`crate::contact`]).

use std::collections::{BTreeMap, HashMap};
use std::error::Error as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::UPGRADE;
use http::uri::Scheme;
use http::{HeaderMap, Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::{self, Client};
use hyper_util::rt::{TokioExecutor, TokioTimer};

use crate::allowance::{Account, Allowance};
use crate::app_tls::Alpn;
use crate::contact::{Transport, means_tls};
use crate::error::Refusal;
use crate::http1::{Body, Connections};
use crate::replay::{Recording, RequestBody};
use crate::wire::{ConnectError, Counted, PortConnector};
use crate::{Activity, Connector, limits};

/// What the application is spoken to with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Protocol {
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

type Pool = Client<PortConnector, RequestBody>;
type Outcome = Result<Response<Body>, SendError>;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SendError {
    /// There was no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// On a connection of ours.
    #[error("the application broke off: {0}")]
    Http(#[from] hyper::Error),
    /// In a pool, where it may mean either.
    #[error(transparent)]
    Pool(#[from] legacy::Error),
    /// What drives the connection is gone; the server is stopping.
    #[error("the connection's task has ended")]
    Stopped,
}

impl SendError {
    /// Why no connection was made, if that is it.
    pub(crate) fn connect(&self) -> Option<&ConnectError> {
        match self {
            Self::Connect(error) => Some(error),
            Self::Pool(error) => {
                let mut cause = error.source();
                while let Some(error) = cause {
                    if let Some(connect) = error.downcast_ref() {
                        return Some(connect);
                    }
                    cause = error.source();
                }
                None
            }
            Self::Http(_) | Self::Stopped => None,
        }
    }

    /// What it means to the client.
    pub(crate) fn refusal(&self) -> Refusal {
        // Connected, but not to something that speaks the protocol to the end.
        self.connect().map_or(Refusal::App, ConnectError::refusal)
    }
}

/// How a port is spoken to.
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

/// What is known and kept of one port in one life.
#[derive(Default)]
struct Port {
    transport: Option<Transport>,
    /// Connections in the clear, which nearly all are.
    http1: Option<Arc<Connections>>,
    /// Whatever else. One for each, because a pool tells connections apart by the authority alone, and that has to stay
    /// the endpoint's.
    pools: HashMap<Speech, Pool>,
}

/// The way to the application of one life.
pub(crate) struct Upstream {
    connector: Arc<dyn Connector>,
    activity: Arc<Activity>,
    account: Arc<Account>,
    /// There are few.
    ports: Mutex<BTreeMap<u16, Port>>,
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
        let known = self.ports().get(&port).and_then(|port| port.transport);
        match known {
            Some(transport) => self.exchange(port, transport, protocol, request.map(RequestBody::Once)).await,
            // Once in a life: no other request is to have room for it.
            None => Box::pin(self.first_contact(port, protocol, request)).await,
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
            self.speaks(port, Transport::Tls);
            if let Some(body) = recording.again() {
                return self.exchange(port, Transport::Tls, protocol, request(body)).await;
            }
        } else if outcome.is_ok() {
            self.speaks(port, Transport::Plain);
        }
        recording.forget();
        outcome
    }

    async fn speaks_tls(&self, port: u16, host: Option<&str>) -> bool {
        let connector = self.connector(port, Some(Alpn::Any));
        let connecting = connector.open(host.unwrap_or_default());
        let shaken = tokio::time::timeout(limits::TLS_PROBE_TIMEOUT, connecting).await;
        matches!(shaken, Ok(Ok(_)))
    }

    fn speaks(&self, port: u16, transport: Transport) {
        self.ports().entry(port).or_default().transport = Some(transport);
    }

    async fn exchange(
        &self,
        port: u16,
        transport: Transport,
        protocol: Protocol,
        mut request: Request<RequestBody>,
    ) -> Outcome {
        let speech = Speech::of(transport, protocol, request.headers());
        if speech == Speech::Plain(Protocol::Http1) {
            return self.http1(port).send(request).await;
        }
        if transport == Transport::Tls {
            let mut uri = request.uri().clone().into_parts();
            uri.scheme = Some(Scheme::HTTPS);
            // With another scheme it is as good as it was.
            *request.uri_mut() = Uri::from_parts(uri).unwrap_or_default();
        }
        Ok(self.pool(port, speech).request(request).await?.map(Body::from))
    }

    /// A panic while the lock was held cannot leave the map half changed.
    fn ports(&self) -> MutexGuard<'_, BTreeMap<u16, Port>> {
        self.ports.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn http1(&self, port: u16) -> Arc<Connections> {
        let mut ports = self.ports();
        let connections = &mut ports.entry(port).or_default().http1;
        Arc::clone(connections.get_or_insert_with(|| Connections::by(self.connector(port, None))))
    }

    fn pool(&self, port: u16, speech: Speech) -> Pool {
        let mut ports = self.ports();
        let pools = &mut ports.entry(port).or_default().pools;
        pools.entry(speech).or_insert_with(|| self.new_pool(port, speech)).clone()
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
