//! What the proxy adds to a request on a kept-alive connection: the same client against the same application over
//! loopback, with the proxy (TLS, token, accounting) between them and without it.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::bed::{Certificate, Endpoint};
use crate::Failure;
use crate::client::{Connection, Trust};
use crate::stats::Samples;

/// Both ways take turns this often, so that a change of the machine's load meets both.
const ROUNDS: usize = 20;
/// Requests of one way and turn.
const REQUESTS: usize = 200;
/// Not counted, at the start of each turn: caches and branch predictors settle.
const WARM_UP: usize = 20;

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
    let (endpoint, dir, stop) = (Endpoint::random(), tempfile::tempdir()?, CancellationToken::new());
    let certificate = Certificate::make(dir.path())?;
    let server = worker(2)?;
    let address = server.block_on(endpoint.serve(&certificate, target, stop.clone()))?;
    let trust = Trust::bundle(&certificate.chain)?;
    let client = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let latencies = client.block_on(alternate(endpoint, &trust, address, target));
    stop.cancel();
    server.shutdown_background();
    application.shutdown_background();
    latencies
}

fn worker(threads: usize) -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build()
}

async fn alternate(
    endpoint: Endpoint,
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
