//! One request, from its arrival to the response's head.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::{Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::client::legacy;
use hyper_util::rt::TokioIo;
use ids::{EndpointId, MicrovmId};
use uuid::Uuid;

use crate::activity::OpenRequest;
use crate::error::Refusal;
use crate::route::{Route, Router};
use crate::server::Proxy;
use crate::upstream::{ConnectError, Protocol};
use crate::websocket::Offer;
use crate::{Life, WakeError, headers, limits};

/// A response's body: the proxy's own or the application's.
pub(crate) type ResponseBody = Either<Full<Bytes>, AppBody>;

/// Answers one request. Never fails: what goes wrong becomes one of the answers of SPEC §5.4.
pub(crate) async fn answer(
    proxy: &Proxy,
    tls_endpoint: Option<EndpointId>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    let id = request_id();
    let mut response = match forward(proxy, tls_endpoint, request, &id).await {
        Ok(response) => response,
        Err(refusal) => {
            tracing::debug!(request = ?id, "refused: {refusal}");
            refusal.response().map(Either::Left)
        }
    };
    response.headers_mut().insert(headers::REQUEST_ID, id);
    response
}

async fn forward(
    proxy: &Proxy,
    tls_endpoint: Option<EndpointId>,
    request: Request<Incoming>,
    id: &HeaderValue,
) -> Result<Response<ResponseBody>, Refusal> {
    let came = Instant::now();
    let (mut head, body) = request.into_parts();
    let router =
        Router { backend: &*proxy.backend, hosts: &proxy.hosts, tokens: &proxy.tokens, tls_endpoint };
    let route = router.route(&head)?;
    headers::strip_request(&mut head.headers);
    if let Some(offer) = &route.websocket {
        offer.restore_request(&mut head.headers);
    }
    headers::join_cookies(&mut head.headers);
    head.headers.insert(headers::REQUEST_ID, id.clone());
    let client_side = head.extensions.remove::<OnUpgrade>();
    let (life, open) = admit(proxy, route.microvm, headers::trace_parent(&head.headers)).await?;
    let request = Request::from_parts(readdress(head, &route)?, body);
    let response = life.upstream.send(route.port, route.protocol, request).await.map_err(|e| refusal(&e))?;
    life.answered(came);
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(finish(response, open, life).map(Either::Right));
    }
    match (route.websocket, client_side) {
        (Some(offer), Some(client)) => Ok(tunnel(response, &offer, client, (open, life)).map(Either::Left)),
        // The application switches protocols though nobody asked.
        _ => Err(Refusal::App),
    }
}

/// Wakes the MicroVM and counts the request in.
async fn admit(
    proxy: &Proxy,
    microvm: MicrovmId,
    trace_parent: Option<&str>,
) -> Result<(Arc<Life>, OpenRequest), Refusal> {
    for _ in 0..limits::WAKE_ATTEMPTS {
        let waking = tokio::time::timeout(limits::WAKE_DEADLINE, proxy.backend.wake(microvm, trace_parent));
        let life = waking.await.map_err(|_| Refusal::WakeTimeout)??;
        // Closed meanwhile: it is being suspended again, so it has to be woken again.
        if let Some(open) = life.activity.begin() {
            return Ok((life, open));
        }
    }
    Err(WakeError::Failed.into())
}

/// The request's head as the application is to see it: the same authority, its own HTTP version.
fn readdress(mut head: http::request::Parts, route: &Route) -> Result<http::request::Parts, Refusal> {
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str());
    head.uri = Uri::builder()
        .scheme("http")
        .authority(route.authority.clone())
        .path_and_query(path)
        .build()
        .map_err(|_| Refusal::BadHost)?;
    match route.protocol {
        Protocol::Http1 => {
            head.version = Version::HTTP_11;
            let host = HeaderValue::from_str(route.authority.as_str()).map_err(|_| Refusal::BadHost)?;
            head.headers.insert(HOST, host);
        }
        Protocol::Http2 => {
            head.version = Version::HTTP_2;
            head.headers.remove(HOST);
        }
    }
    Ok(head)
}

fn finish(response: Response<Incoming>, open: OpenRequest, life: Arc<Life>) -> Response<AppBody> {
    let (mut head, body) = response.into_parts();
    headers::strip_hop_by_hop(&mut head.headers);
    // The application's version says nothing about this connection's.
    head.version = Version::HTTP_11;
    Response::from_parts(head, AppBody { body, _open: open, _life: life })
}

/// Joins the two sides of a WebSocket once the client has the answer to its handshake.
fn tunnel(
    mut response: Response<Incoming>,
    offer: &Offer,
    client: OnUpgrade,
    held: (OpenRequest, Arc<Life>),
) -> Response<Full<Bytes>> {
    let app = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        if let Err(error) = join(client, app).await {
            tracing::debug!("WebSocket ended: {error}");
        }
        drop(held);
    });
    let (mut head, _) = response.into_parts();
    headers::strip_hop_by_hop(&mut head.headers);
    offer.restore_response(&mut head.headers);
    Response::from_parts(head, Full::default())
}

async fn join(client: OnUpgrade, app: OnUpgrade) -> io::Result<()> {
    let (client, app) = tokio::try_join!(client, app).map_err(io::Error::other)?;
    tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(app)).await?;
    Ok(())
}

/// What a failure to speak to the application means to the client.
fn refusal(error: &legacy::Error) -> Refusal {
    match connect_error(error) {
        Some(ConnectError(io)) if io.kind() == io::ErrorKind::ConnectionRefused => Refusal::AppConnect,
        Some(_) => Refusal::MicrovmConnect,
        // Connected, but not to something that speaks the protocol to the end.
        None => Refusal::App,
    }
}

fn connect_error(error: &legacy::Error) -> Option<&ConnectError> {
    let mut cause = error.source();
    while let Some(error) = cause {
        if let Some(connect) = error.downcast_ref() {
            return Some(connect);
        }
        cause = error.source();
    }
    None
}

fn request_id() -> HeaderValue {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text: &str = Uuid::new_v4().hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-"))
}

/// The application's body. It keeps the request counted and its life's connections open.
pub(crate) struct AppBody {
    body: Incoming,
    _open: OpenRequest,
    _life: Arc<Life>,
}

impl Body for AppBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
