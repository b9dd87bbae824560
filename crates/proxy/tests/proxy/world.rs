//! A proxy on loopback, a backend with one MicroVM, and an application whose manners a test chooses.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicU16, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use auth::token::{Ports, Scope, TokenKey};
use bytes::Bytes;
use futures::{FutureExt, SinkExt, StreamExt};
use http::header::SEC_WEBSOCKET_ACCEPT;
use http::{Method, Request, Response, request};
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use ids::{EndpointId, MicrovmId};
use rekindle_proxy::ca::LocalCa;
use rekindle_proxy::{
    Activity, Allowance, Backend, BoxedIo, Connector, EndpointHosts, Farewell, Life, Proxy, Shell,
    ShellInput, ShellOutput, Site, Target, WakeError, tls_config,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::sync::watch;
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;
use tokio_util::sync::{CancellationToken, DropGuard};

pub(crate) type Body = BoxBody<Bytes, Infallible>;

/// How the application behaves.
#[derive(Debug, Clone, Copy)]
pub(crate) enum App {
    /// Answers with the head and body that it got.
    Echo,
    /// Sends the request's body back as it comes.
    Mirror,
    /// Sends the messages of WebSockets back.
    Messages,
    /// Nothing listens.
    Refuses,
    /// The guest is not to be reached, and a shell never starts.
    Unreachable,
    /// Accepts and closes.
    HangsUp,
    /// Answers one request on each connection, and closes it without having said so.
    Once,
    /// Echoes, but over TLS alone.
    Tls {
        /// Whether it knows HTTP/2 there.
        h2: bool,
        /// Whether it tells a client that speaks plain HTTP so, and does not just break off.
        explains: bool,
    },
    /// Answers calls of gRPC.
    Grpc,
    /// Speaks no HTTP: sends back what comes as it comes, and says so when it has ended.
    Tcp,
}

struct AppConnector {
    app: App,
    connections: AtomicUsize,
    shells: AtomicUsize,
    requests: Arc<AtomicUsize>,
    port: AtomicU16,
    open: watch::Sender<usize>,
    /// Calls of gRPC that wait.
    calls: watch::Sender<usize>,
}

#[async_trait]
impl Connector for AppConnector {
    async fn connect(&self, port: u16) -> io::Result<BoxedIo> {
        self.port.store(port, Ordering::SeqCst);
        self.connections.fetch_add(1, Ordering::SeqCst);
        let (ours, theirs) = tokio::io::duplex(64 * 1024);
        match self.app {
            App::Refuses => return Err(io::ErrorKind::ConnectionRefused.into()),
            App::Unreachable => return Err(io::ErrorKind::NotConnected.into()),
            App::HangsUp => drop(theirs),
            App::Once => drop(tokio::spawn(answer_once(theirs))),
            App::Tls { h2, explains } => {
                let tls = self.tls(h2);
                tokio::spawn(serve_tls(theirs, tls, explains));
            }
            App::Tcp => {
                let (mut read, mut write) = tokio::io::split(theirs);
                tokio::spawn(async move {
                    // A client that is gone is no failure of the application.
                    let _ = tokio::io::copy(&mut read, &mut write).await;
                    let _ = write.write_all(b"ended").await;
                    let _ = write.shutdown().await;
                });
            }
            App::Grpc => {
                let calls = self.calls.clone();
                let service = service_fn(move |request| crate::grpc::answer(calls.clone(), request));
                let server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
                // However it ends.
                tokio::spawn(server.serve_connection(TokioIo::new(theirs), service).map(drop));
            }
            App::Echo | App::Mirror | App::Messages => {
                let (app, open, requests) = (self.app, self.open.clone(), Arc::clone(&self.requests));
                open.send_modify(|count| *count += 1);
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        requests.fetch_add(1, Ordering::SeqCst);
                        answer(app, request)
                    });
                    let server = auto::Builder::new(TokioExecutor::new());
                    let _ = server.serve_connection_with_upgrades(TokioIo::new(theirs), service).await;
                    open.send_modify(|count| *count -= 1);
                });
            }
        }
        Ok(Box::new(ours))
    }

    /// Shows what is typed, or the size that the window gets; exits on `exit`, breaks on `break`.
    async fn shell(&self) -> io::Result<Shell> {
        if matches!(self.app, App::Refuses) {
            return Err(io::Error::other("the image has neither bash nor sh"));
        }
        self.shells.fetch_add(1, Ordering::SeqCst);
        if matches!(self.app, App::Unreachable) {
            return std::future::pending().await;
        }
        let (input, typed) = futures::channel::mpsc::channel::<ShellInput>(0);
        let output = typed.map(|input| match input {
            ShellInput::Keys(keys) if keys == "exit" => Ok(ShellOutput::Exited),
            ShellInput::Keys(keys) if keys == "break" => Err(io::ErrorKind::ConnectionReset.into()),
            ShellInput::Keys(keys) => Ok(ShellOutput::Bytes(keys)),
            ShellInput::Resize { cols, rows } => Ok(ShellOutput::Bytes(format!("{cols}x{rows}").into())),
        });
        Ok(Shell { input: Box::pin(input.sink_map_err(io::Error::other)), output: output.boxed() })
    }
}

impl AppConnector {
    /// With a certificate that nobody has signed, for nobody.
    fn tls(&self, h2: bool) -> TlsAcceptor {
        let key = rcgen::generate_simple_self_signed(vec!["nobody".into()]).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let private = PrivateKeyDer::Pkcs8(key.signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![key.cert.der().clone()], private)
            .unwrap();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if h2 {
            config.alpn_protocols.insert(0, b"h2".to_vec());
        }
        TlsAcceptor::from(Arc::new(config))
    }
}

async fn serve_tls(mut client: DuplexStream, tls: TlsAcceptor, explains: bool) {
    const HANDSHAKE: u8 = 22;
    const EXPLANATION: &[u8] =
        b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 5\r\n\r\nHTTPS";
    let Ok(first) = client.read_u8().await else { return };
    if explains && first != HANDSHAKE {
        return client.write_all(EXPLANATION).await.unwrap();
    }
    let (read, write) = tokio::io::split(client);
    let client = tokio::io::join(std::io::Cursor::new([first]).chain(read), write);
    if let Ok(client) = tls.accept(client).await {
        let service = service_fn(|request| answer(App::Echo, request));
        let server = auto::Builder::new(TokioExecutor::new());
        let _ = server.serve_connection_with_upgrades(TokioIo::new(client), service).await;
    }
}

async fn answer(
    app: App,
    request: Request<Incoming>,
) -> Result<Response<BoxBody<Bytes, hyper::Error>>, Infallible> {
    if request.headers().contains_key("upgrade") {
        return Ok(switch(app, request));
    }
    if matches!(app, App::Mirror) {
        return Ok(Response::new(request.into_body().boxed()));
    }
    let (head, body) = request.into_parts();
    let mut text = format!("{} {} {:?}\n", head.method, head.uri, head.version);
    for (name, value) in &head.headers {
        text += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    let body = body.collect().await.unwrap().to_bytes();
    text += std::str::from_utf8(&body).unwrap();
    Ok(Response::new(Full::from(text).map_err(|never| match never {}).boxed()))
}

async fn answer_once(client: DuplexStream) {
    let mut client = tokio::io::BufReader::new(client);
    let mut line = String::new();
    while client.read_line(&mut line).await.unwrap() > 2 {
        line.clear();
    }
    client.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nonce").await.unwrap();
}

/// Accepts a handshake, and sends back what comes after it.
fn switch(app: App, mut request: Request<Incoming>) -> Response<BoxBody<Bytes, hyper::Error>> {
    let upgrade = hyper::upgrade::on(&mut request);
    tokio::spawn(async move {
        let io = TokioIo::new(upgrade.await.unwrap());
        if matches!(app, App::Messages) {
            let (write, read) = WebSocketStream::from_raw_socket(io, Role::Server, None).await.split();
            // However it ends, its client notices.
            return drop(read.forward(write).await);
        }
        let (mut read, mut write) = tokio::io::split(io);
        tokio::io::copy(&mut read, &mut write).await.unwrap();
    });
    let seen = request.headers().get("sec-websocket-protocol").cloned();
    let key = request.headers().get("sec-websocket-key").map(|key| derive_accept_key(key.as_bytes()));
    let mut response = Response::new(Empty::new().map_err(|never| match never {}).boxed());
    *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
    response.headers_mut().insert("connection", "upgrade".parse().unwrap());
    response.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    response.headers_mut().extend(key.map(|key| (SEC_WEBSOCKET_ACCEPT, key.parse().unwrap())));
    response.headers_mut().extend(seen.map(|seen| (http::HeaderName::from_static("x-seen"), seen)));
    response
}

/// A name of the operator's own.
pub(crate) const DOMAIN: &str = "app.test";

struct OneVm {
    public_ports: Mutex<Vec<u16>>,
    endpoint: EndpointId,
    microvm: MicrovmId,
    connector: Arc<AppConnector>,
    life: Mutex<Arc<Life>>,
    fail: Mutex<Option<WakeError>>,
    wakes: watch::Sender<usize>,
    /// Held by a test that wants wakes to take their time.
    gate: Arc<tokio::sync::RwLock<()>>,
}

#[async_trait]
impl Backend for OneVm {
    fn resolve(&self, site: &Site) -> Option<Target> {
        let known = match site {
            Site::Endpoint(endpoint) => *endpoint == self.endpoint,
            Site::Domain(name) => self.is_domain(name),
        };
        let public_ports = self.public_ports.lock().unwrap().as_slice().into();
        known.then_some(Target { microvm: self.microvm, http_ingress: true, public_ports })
    }

    fn is_domain(&self, name: &str) -> bool {
        name == DOMAIN
    }

    async fn wake(&self, microvm: MicrovmId, _: Option<&str>) -> Result<Arc<Life>, WakeError> {
        assert_eq!(microvm, self.microvm);
        self.wakes.send_modify(|count| *count += 1);
        let _open = self.gate.read().await;
        if let Some(error) = *self.fail.lock().unwrap() {
            return Err(error);
        }
        let mut life = self.life.lock().unwrap();
        let current = Arc::clone(&life);
        if current.activity.begin().is_none() {
            // Its suspension is over by the time the next wake asks.
            *life = fresh_life(&self.connector, current.generation + 1);
        }
        Ok(current)
    }
}

fn fresh_life(connector: &Arc<AppConnector>, generation: u64) -> Arc<Life> {
    let connector: Arc<dyn Connector> = Arc::<AppConnector>::clone(connector);
    Arc::new(Life::new(generation, connector, Arc::new(Activity::new())))
}

pub(crate) struct World {
    pub(crate) hosts: EndpointHosts,
    backend: Arc<OneVm>,
    tokens: TokenKey,
    address: std::net::SocketAddr,
    roots: RootCertStore,
    stop: DropGuard,
}

impl World {
    pub(crate) async fn start(app: App) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let ca = LocalCa::open(dir.path()).unwrap();
        let hosts = EndpointHosts::new("us-east-1", "rekindle.test");
        let tokens = TokenKey::from_secret([7; 32]);
        let connector = Arc::new(AppConnector {
            app,
            connections: AtomicUsize::new(0),
            shells: AtomicUsize::new(0),
            requests: Arc::default(),
            port: AtomicU16::new(0),
            open: watch::Sender::new(0),
            calls: watch::Sender::new(0),
        });
        let backend = Arc::new(OneVm {
            public_ports: Mutex::default(),
            endpoint: EndpointId::random(),
            microvm: MicrovmId::random(),
            life: Mutex::new(fresh_life(&connector, 1)),
            connector,
            fail: Mutex::new(None),
            wakes: watch::Sender::new(0),
            gate: Arc::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let certificate = ca.certificate(&[&hosts.wildcard(), DOMAIN]).unwrap();
        let resolver = rustls::sign::SingleCertAndKey::from(certificate);
        let tls = tls_config(Arc::new(resolver)).unwrap();
        let stop = CancellationToken::new();
        let owner: Arc<dyn Backend> = Arc::<OneVm>::clone(&backend);
        let proxy = Proxy::new(owner, hosts.clone(), tokens.clone());
        tokio::spawn(proxy.serve(listener, tls, stop.clone()));
        let mut roots = RootCertStore::empty();
        // A second opening must be the same authority.
        let bundle = LocalCa::open(dir.path()).unwrap().bundle_pem().to_owned();
        roots.add(CertificateDer::from_pem_slice(bundle.as_bytes()).unwrap()).unwrap();
        Self { hosts, backend, tokens, address, roots, stop: stop.drop_guard() }
    }

    pub(crate) fn host(&self) -> String {
        self.hosts.host(self.backend.endpoint)
    }

    pub(crate) fn token(&self) -> String {
        self.token_for(self.backend.microvm)
    }

    /// Where the proxy listens.
    pub(crate) fn address(&self) -> std::net::SocketAddr {
        self.address
    }

    /// A token for ports 8000 to 8100.
    pub(crate) fn token_for(&self, microvm: MicrovmId) -> String {
        self.seal(microvm, Ports::Ranges(vec![8000..=8100]), 60)
    }

    /// A token for the shell, good for so many seconds.
    pub(crate) fn shell_token(&self, seconds: u64) -> String {
        self.seal(self.backend.microvm, Ports::Shell, seconds)
    }

    fn seal(&self, microvm: MicrovmId, ports: Ports, seconds: u64) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        self.tokens.seal(&Scope { microvm, ports, expires_at: now + seconds })
    }

    /// A token for these ports.
    pub(crate) fn token_for_ports(&self, ports: &[u16]) -> String {
        self.seal(self.backend.microvm, Ports::Ranges(ports.iter().map(|port| *port..=*port).collect()), 60)
    }

    /// These ports need no token.
    pub(crate) fn publish(&self, ports: &[u16]) {
        *self.backend.public_ports.lock().unwrap() = ports.to_vec();
    }

    /// A POST with a good token, good for both versions of HTTP.
    pub(crate) fn request(&self, path: &str) -> request::Builder {
        Request::post(format!("https://{}{path}", self.host())).header("x-aws-proxy-auth", self.token())
    }

    pub(crate) async fn connect(&self, h2: bool) -> Client {
        self.open(&self.host(), h2, true).await
    }

    /// A connection whose TLS names no endpoint.
    pub(crate) async fn connect_without_name(&self) -> Client {
        self.open(&self.host(), false, false).await
    }

    /// A connection whose TLS names that host.
    pub(crate) async fn connect_to(&self, name: &str, h2: bool) -> Client {
        self.open(name, h2, true).await
    }

    async fn open(&self, name: &str, h2: bool, sni: bool) -> Client {
        Client::over(self.tls(name, h2, sni).await, h2).await
    }

    /// A connection for HTTP/1.1, with nothing said on it yet.
    pub(crate) async fn connection(&self) -> TlsStream<TcpStream> {
        self.tls(&self.host(), false, true).await
    }

    /// A connection that a test speaks on by hand.
    pub(crate) async fn tls(&self, name: &str, h2: bool, sni: bool) -> TlsStream<TcpStream> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(self.roots.clone())
            .with_no_client_auth();
        config.enable_sni = sni;
        config.alpn_protocols = vec![if h2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        let tcp = TcpStream::connect(self.address).await.unwrap();
        let name = ServerName::try_from(name.to_owned()).unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, tcp).await.unwrap()
    }

    /// The server stops.
    pub(crate) fn stop(self) {
        drop(self.stop);
    }

    /// The owner ends the life's shells.
    pub(crate) fn end_shells(&self, why: Farewell) {
        self.backend.life.lock().unwrap().end_shells(why);
    }

    pub(crate) fn wakes(&self) -> usize {
        *self.backend.wakes.borrow()
    }

    pub(crate) async fn woken(&self) {
        self.backend.wakes.subscribe().wait_for(|count| *count > 0).await.unwrap();
    }

    pub(crate) fn fail_wakes(&self, error: Option<WakeError>) {
        *self.backend.fail.lock().unwrap() = error;
    }

    /// Wakes wait until what this returns is dropped.
    pub(crate) fn hold_wakes(&self) -> tokio::sync::OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.backend.gate).try_write_owned().unwrap()
    }

    pub(crate) fn activity(&self) -> Arc<Activity> {
        Arc::clone(&self.backend.life.lock().unwrap().activity)
    }

    /// The port that the application was last reached on.
    pub(crate) fn port(&self) -> u16 {
        self.backend.connector.port.load(Ordering::SeqCst)
    }

    /// How many requests an application in the clear has got.
    pub(crate) fn requests(&self) -> usize {
        self.backend.connector.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> usize {
        self.backend.connector.connections.load(Ordering::SeqCst)
    }

    /// How many shells were asked for.
    pub(crate) fn shells(&self) -> usize {
        self.backend.connector.shells.load(Ordering::SeqCst)
    }

    /// The MicroVM begins a life with no more of the endpoint than that.
    pub(crate) fn allow(&self, allowance: Allowance) {
        let connector: Arc<dyn Connector> = Arc::<AppConnector>::clone(&self.backend.connector);
        let life = Life::new(2, connector, Arc::new(Activity::new())).within(allowance);
        *self.backend.life.lock().unwrap() = Arc::new(life);
    }

    /// The owner lets go of the life.
    pub(crate) fn end_life(&self) {
        *self.backend.life.lock().unwrap() = fresh_life(&self.backend.connector, 2);
    }

    /// Every connection to the application is closed.
    pub(crate) async fn until_disconnected(&self) {
        let mut open = self.backend.connector.open.subscribe();
        tokio::time::timeout(Duration::from_secs(10), open.wait_for(|count| *count == 0))
            .await
            .unwrap()
            .unwrap();
    }

    /// Calls of gRPC that wait in the application.
    pub(crate) fn calls(&self) -> usize {
        *self.backend.connector.calls.borrow()
    }

    /// So many of them do.
    pub(crate) async fn until_called(&self, calls: usize) {
        let mut waiting = self.backend.connector.calls.subscribe();
        let waited = waiting.wait_for(|waiting| *waiting == calls);
        tokio::time::timeout(Duration::from_secs(10), waited).await.unwrap().unwrap();
    }

    /// No request is open.
    pub(crate) async fn until_idle(&self) {
        self.until_open(0).await;
    }

    /// So many requests are open, or fewer.
    pub(crate) async fn until_open(&self, count: usize) {
        let idle = async {
            while self.activity().open_requests() > count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), idle).await.unwrap();
    }
}

pub(crate) enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

impl Client {
    async fn over(tls: TlsStream<TcpStream>, h2: bool) -> Self {
        let io = TokioIo::new(tls);
        if h2 {
            let (client, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            Self::Http2(client)
        } else {
            let (client, connection) = http1::handshake(io).await.unwrap();
            tokio::spawn(connection.with_upgrades());
            Self::Http1(client)
        }
    }

    /// The answer; over HTTP/1.1 the request is given its `Host`.
    pub(crate) async fn send(&mut self, mut request: Request<Body>) -> Response<Incoming> {
        match self {
            Self::Http1(client) => {
                if request.method() != Method::CONNECT
                    && let Some(host) = request.uri().authority().cloned()
                {
                    let host = host.as_str().parse().unwrap();
                    request.headers_mut().insert("host", host);
                    let path = request.uri().path_and_query().unwrap().as_str().parse().unwrap();
                    *request.uri_mut() = path;
                }
                client.ready().await.unwrap();
                client.send_request(request).await.unwrap()
            }
            Self::Http2(client) => {
                *request.version_mut() = http::Version::HTTP_2;
                client.send_request(request).await.unwrap()
            }
        }
    }
}

pub(crate) fn empty() -> Body {
    Empty::new().boxed()
}

pub(crate) fn text(text: &'static str) -> Body {
    Full::from(text).boxed()
}

/// A body that a test feeds piece by piece, and that ends when the sender is dropped.
pub(crate) fn channel() -> (UnboundedSender<Bytes>, Body) {
    let (feed, pieces) = unbounded_channel();
    (feed, Pieces(pieces).boxed())
}

struct Pieces(UnboundedReceiver<Bytes>);

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(cx).map(|piece| piece.map(|piece| Ok(Frame::data(piece))))
    }
}
