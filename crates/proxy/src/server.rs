//! Accepting clients: TCP, TLS, and HTTP in the version that ALPN settled on.

use std::convert::Infallible;
use std::fmt;
use std::sync::Arc;

use auth::keyring::{LastOpened, TokenKeyring};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::{GracefulShutdown, Watcher};
use rustls::ServerConfig;
use rustls::server::ResolvesServerCert;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use crate::clients::Clients;
use crate::connection::Connection;
use crate::route::Router;
use crate::shell::Sessions;
use crate::{Backend, EndpointHosts, Site, forward, limits};

pub(crate) const H2: &[u8] = b"h2";
pub(crate) const HTTP1: &[u8] = b"http/1.1";
/// The protocol of an ACME authority that looks who serves a name (RFC 8737): the handshake is all of it.
pub const ACME_TLS: &[u8] = b"acme-tls/1";

/// The data plane of one node.
pub struct Proxy {
    pub(crate) backend: Arc<dyn Backend>,
    pub(crate) hosts: EndpointHosts,
    pub(crate) tokens: TokenKeyring,
    pub(crate) sessions: Sessions,
}

/// What is known of the client of one connection.
#[derive(Default)]
pub(crate) struct Peer {
    /// The site that TLS was opened for, if it named one.
    pub(crate) site: Option<Site>,
    /// What it has shown before.
    pub(crate) token: LastOpened,
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl Proxy {
    /// A proxy for the endpoints of `hosts`, for bearers of tokens under `tokens`.
    #[must_use]
    pub fn new(
        backend: Arc<dyn Backend>,
        hosts: EndpointHosts,
        tokens: impl Into<TokenKeyring>,
    ) -> Arc<Self> {
        Arc::new(Self { backend, hosts, tokens: tokens.into(), sessions: Sessions::default() })
    }

    /// For the requests of one connection.
    pub(crate) fn router<'a>(&'a self, peer: &'a Peer) -> Router<'a> {
        Router { backend: &*self.backend, hosts: &self.hosts, tokens: &self.tokens, peer }
    }

    /// Serves clients of `listener` until `stop`, then lets requests in flight finish for a while.
    pub async fn serve(
        self: Arc<Self>,
        listener: TcpListener,
        tls: Arc<ServerConfig>,
        stop: CancellationToken,
    ) {
        let graceful = GracefulShutdown::new();
        let tls = TlsAcceptor::from(tls);
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.accept(&listener, &tls, &graceful) => {}
        }
        drop(listener);
        let drained = async { tokio::join!(graceful.shutdown(), self.sessions.end()) };
        if timeout(limits::DRAIN_TIMEOUT, drained).await.is_err() {
            tracing::info!("requests still in flight were cut at the drain deadline");
        }
    }

    async fn accept(
        self: &Arc<Self>,
        listener: &TcpListener,
        tls: &TlsAcceptor,
        graceful: &GracefulShutdown,
    ) {
        let slots = Arc::new(Semaphore::new(limits::MAX_CONNECTIONS));
        let clients = Clients::each_with(limits::MAX_CONNECTIONS_PER_CLIENT);
        while let Ok(slot) = Arc::clone(&slots).acquire_owned().await {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(
                        "cannot accept an endpoint connection: {error}; check the open-files limit"
                    );
                    tokio::time::sleep(limits::ACCEPT_BACKOFF).await;
                    continue;
                }
            };
            let Some(place) = clients.admit(peer.ip()) else {
                tracing::debug!(%peer, "a client has as many connections as it may; another is closed");
                continue;
            };
            if let Err(error) = stream.set_nodelay(true) {
                tracing::debug!("cannot set TCP_NODELAY: {error}");
            }
            let connection = Connection::new(stream, slot, place);
            tokio::spawn(Arc::clone(self).client(connection, tls.clone(), graceful.watcher()));
        }
    }

    async fn client(self: Arc<Self>, connection: Connection, tls: TlsAcceptor, watcher: Watcher) {
        match timeout(limits::HANDSHAKE_TIMEOUT, tls.accept(connection)).await {
            Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(ACME_TLS) => {
                tracing::debug!("an ACME authority has looked");
            }
            Ok(Ok(stream)) => self.http(stream, watcher).await,
            Ok(Err(error)) => tracing::debug!("TLS handshake failed: {error}"),
            Err(_) => tracing::debug!("TLS handshake not finished in time"),
        }
    }

    async fn http(self: Arc<Self>, stream: TlsStream<Connection>, watcher: Watcher) {
        let session = stream.get_ref().1;
        let mut peer = Peer::default();
        peer.site = session.server_name().and_then(|name| self.router(&peer).site(name));
        let peer = Arc::new(peer);
        let builder = http_builder(session.alpn_protocol() == Some(H2));
        let service = service_fn(move |request| {
            let (proxy, peer) = (Arc::clone(&self), Arc::clone(&peer));
            // HTTP/2 moves an answer that is being made from hand to hand, and an idle connection has room for one.
            Box::pin(async move { Ok::<_, Infallible>(forward::answer(&proxy, &peer, request).await) })
        });
        let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
        if let Err(error) = watcher.watch(connection.into_owned()).await {
            tracing::debug!("endpoint connection ended: {error}");
        }
    }
}

/// ALPN has settled the version, so the server need not wait for bytes to guess it from.
fn http_builder(h2: bool) -> auto::Builder<TokioExecutor> {
    let builder = auto::Builder::new(TokioExecutor::new());
    let mut builder = if h2 { builder.http2_only() } else { builder.http1_only() };
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_TIMEOUT)
        .max_headers(limits::MAX_HEADERS)
        .max_buf_size(limits::MAX_HEADER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(limits::MAX_HEADER_BYTES).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits::MAX_STREAMS)
        .max_pending_accept_reset_streams(limits::MAX_PENDING_RESETS)
        .max_local_error_reset_streams(limits::MAX_ERROR_RESETS)
        // As large as the path's bandwidth and delay: an upload is as fast as over HTTP/1.1.
        .adaptive_window(true)
        .keep_alive_interval(limits::PING_INTERVAL)
        // WebSockets over HTTP/2.
        .enable_connect_protocol();
    builder
}

/// TLS as the endpoints speak it, with the certificate that `certificates` finds.
///
/// # Errors
/// If the cryptography built in supports no current TLS version.
pub fn tls_config(certificates: Arc<dyn ResolvesServerCert>) -> Result<Arc<ServerConfig>, rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_cert_resolver(certificates);
    config.alpn_protocols = [H2, HTTP1, ACME_TLS].map(<[u8]>::to_vec).into();
    Ok(Arc::new(config))
}
