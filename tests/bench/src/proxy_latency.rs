//! What the proxy adds to a request on a kept-alive connection: the same client against the same application over
//! loopback, with the proxy (TLS, token, accounting) between them and without it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use auth::token::{Ports, Scope, TokenKey};
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ids::{EndpointId, MicrovmId};
use proxy::ca::LocalCa;
use proxy::{
    Activity, Backend, BoxedIo, Connector, EndpointHosts, Life, Proxy, Site, Target, WakeError, tls_config,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

use crate::Failure;
use crate::client::{Connection, Trust};
use crate::stats::Samples;

/// Both ways take turns this often, so that a change of the machine's load meets both.
const ROUNDS: usize = 20;
/// Requests of one way and turn.
const REQUESTS: usize = 200;
/// Not counted, at the start of each turn: caches and branch predictors settle.
const WARM_UP: usize = 20;
const PORT: u16 = 8080;
const TOKEN_LIFE: Duration = Duration::from_secs(3600);

/// Both ways' latencies.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    pub(crate) through: Samples,
    pub(crate) direct: Samples,
}

impl Latencies {
    /// The difference of the medians.
    pub(crate) fn added(&self) -> Option<Duration> {
        Some(self.through.median()?.saturating_sub(self.direct.median()?))
    }
}

/// Measures; runs the proxy and the application on threads of their own, as processes of their own would be.
pub(crate) fn measure() -> Result<Latencies, Failure> {
    let application = worker(1)?;
    let listener = application.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let target = listener.local_addr()?;
    application.spawn(serve(listener));
    let endpoint = Endpoint::new();
    let server = worker(2)?;
    let (address, trust, stop) = server.block_on(start_proxy(&endpoint, target))?;
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let latencies = client.block_on(alternate(&endpoint, &trust, address, target));
    stop.cancel();
    server.shutdown_background();
    application.shutdown_background();
    latencies
}

fn worker(threads: usize) -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

async fn alternate(
    endpoint: &Endpoint,
    trust: &Trust,
    proxy: SocketAddr,
    target: SocketAddr,
) -> Result<Latencies, Failure> {
    let token = endpoint.token();
    let mut through = Connection::open(trust, &endpoint.host(), proxy).await?;
    let mut direct = Connection::plain(target).await?;
    let mut latencies = Latencies::default();
    for _ in 0..ROUNDS {
        turn(&mut through, Some(&token), &mut latencies.through).await?;
        turn(&mut direct, None, &mut latencies.direct).await?;
    }
    Ok(latencies)
}

async fn turn(
    connection: &mut Connection,
    token: Option<&str>,
    samples: &mut Samples,
) -> Result<(), Failure> {
    for request in 0..WARM_UP + REQUESTS {
        let began = Instant::now();
        connection.get("/", token).await?;
        if request >= WARM_UP {
            samples.push(began.elapsed());
        }
    }
    Ok(())
}

/// The one endpoint there is.
struct Endpoint {
    id: EndpointId,
    microvm: MicrovmId,
    hosts: EndpointHosts,
    tokens: TokenKey,
}

impl Endpoint {
    fn new() -> Self {
        Self {
            id: EndpointId::random(),
            microvm: MicrovmId::random(),
            hosts: EndpointHosts::new("us-east-1", "localhost"),
            tokens: TokenKey::from_secret([7; 32]),
        }
    }

    fn host(&self) -> String {
        self.hosts.host(self.id)
    }

    fn token(&self) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let expires_at = (now + TOKEN_LIFE).as_secs();
        self.tokens.seal(&Scope { microvm: self.microvm, ports: Ports::All, expires_at })
    }
}

async fn start_proxy(
    endpoint: &Endpoint,
    target: SocketAddr,
) -> Result<(SocketAddr, Trust, CancellationToken), Failure> {
    let dir = tempfile::tempdir()?;
    let ca = LocalCa::open(dir.path())?;
    let bundle = dir.path().join("bundle.pem");
    std::fs::write(&bundle, ca.bundle_pem())?;
    let certificate = rustls::sign::SingleCertAndKey::from(ca.certificate(&[&endpoint.hosts.wildcard()])?);
    let connector: Arc<dyn Connector> = Arc::new(Loopback(target));
    let backend = OneLife {
        endpoint: endpoint.id,
        microvm: endpoint.microvm,
        life: Arc::new(Life::new(1, connector, Arc::new(Activity::new()))),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    let stop = CancellationToken::new();
    let proxy = Proxy::new(Arc::new(backend), endpoint.hosts.clone(), endpoint.tokens.clone());
    tokio::spawn(proxy.serve(listener, tls_config(Arc::new(certificate))?, stop.clone()));
    Ok((address, Trust::bundle(&bundle)?, stop))
}

struct OneLife {
    endpoint: EndpointId,
    microvm: MicrovmId,
    life: Arc<Life>,
}

#[async_trait]
impl Backend for OneLife {
    fn resolve(&self, site: &Site) -> Option<Target> {
        let target = || Target { microvm: self.microvm, http_ingress: true, public_ports: Arc::default() };
        (*site == Site::Endpoint(self.endpoint)).then(target)
    }

    fn is_domain(&self, _: &str) -> bool {
        false
    }

    async fn wake(&self, _: MicrovmId, _: Option<&str>) -> Result<Arc<Life>, WakeError> {
        Ok(Arc::clone(&self.life))
    }
}

struct Loopback(SocketAddr);

#[async_trait]
impl Connector for Loopback {
    async fn connect(&self, port: u16) -> io::Result<BoxedIo> {
        if port != PORT {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let stream = TcpStream::connect(self.0).await?;
        stream.set_nodelay(true)?;
        Ok(Box::new(stream))
    }
}

async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        // Without it the figure is the delayed acknowledgement's.
        if stream.set_nodelay(true).is_err() {
            continue;
        }
        let hello = service_fn(async |_| {
            Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(b"hello\n"))))
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), hello));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_are_measured_to_the_last_request() {
        let latencies = measure().unwrap();
        assert!(latencies.direct.min().unwrap() > Duration::ZERO);
        assert!(latencies.through.median().unwrap() > latencies.direct.min().unwrap());
    }
}
