//! Accepting connections, within limits, until told to stop.

use std::convert::Infallible;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service as HyperService;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use crate::body::BodyError;

/// Most connections at once; more wait in the kernel's queue.
pub const MAX_CONNECTIONS: usize = 4096;
/// How long a client may take to send a request's head.
pub const HEADER_TIMEOUT: Duration = Duration::from_secs(30);
/// How long requests under way may take once we stop.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Rest after a failed accept, so that a lack of descriptors is not a busy loop.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves until `stop` is ready, then lets requests under way finish, for [`DRAIN_TIMEOUT`] at most. `service` answers what
/// comes from an address.
pub async fn serve<S, B>(listener: TcpListener, service: impl Fn(IpAddr) -> S, stop: impl Future<Output = ()>)
where
    S: HyperService<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    serve_within(MAX_CONNECTIONS, listener, service, stop).await;
}

/// The same with so many connections at once.
pub(crate) async fn serve_within<S, B>(
    connections: usize,
    listener: TcpListener,
    service: impl Fn(IpAddr) -> S,
    stop: impl Future<Output = ()>,
) where
    S: HyperService<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    let slots = Arc::new(Semaphore::new(connections));
    let graceful = GracefulShutdown::new();
    let end = CancellationToken::new();
    let _ends_here = end.clone().drop_guard();
    tokio::pin!(stop);
    loop {
        let (stream, peer, slot) = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = accept(&listener, &slots) => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "accepting a connection failed; trying again");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                    continue;
                }
            },
        };
        start(stream, slot, service(peer.ip()), &graceful, end.clone());
    }
    drop(listener);
    if tokio::time::timeout(DRAIN_TIMEOUT, graceful.shutdown()).await.is_err() {
        tracing::info!("stopped with requests still under way");
    }
}

async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> io::Result<(TcpStream, SocketAddr, OwnedSemaphorePermit)> {
    let slot = Arc::clone(slots).acquire_owned().await.map_err(io::Error::other)?;
    let (stream, peer) = listener.accept().await?;
    stream.set_nodelay(true)?;
    Ok((stream, peer, slot))
}

fn start<S, B>(
    stream: TcpStream,
    slot: OwnedSemaphorePermit,
    service: S,
    graceful: &GracefulShutdown,
    end: CancellationToken,
) where
    S: HyperService<Request<Incoming>, Response = Response<B>, Error = Infallible> + Send + 'static,
    S::Future: Send,
    B: http_body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BodyError>,
{
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Some(Err(error)) = end.run_until_cancelled(connection).await {
            tracing::debug!(%error, "connection ended");
        }
        drop(slot);
    });
}
