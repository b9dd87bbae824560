//! One request, from its arrival to the response's head.

use std::io;
use std::mem;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http::header::{HOST, HeaderValue};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri, Version};
use http_body::{Body, Frame, SizeHint};
use http_body_util::{Either, Full};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use ids::MicrovmId;
use uuid::Uuid;

use crate::activity::OpenRequest;
use crate::error::Refusal;
use crate::route::{Kind, Route};
use crate::server::{Peer, Proxy};
use crate::upstream::{Protocol, SendError};
use crate::websocket::Offer;
use crate::{Life, WakeError, headers, http1, limits, login, session, shell, tunnel};

/// A response's body: the proxy's own or the application's.
pub(crate) type ResponseBody = Either<Full<Bytes>, AppBody>;

/// Answers one request. Never fails: what goes wrong becomes one of the answers of SPEC §5.4.
pub(crate) async fn answer(proxy: &Proxy, peer: &Peer, request: Request<Incoming>) -> Response<ResponseBody> {
    let id = request_id();
    let mut response = match forward(proxy, peer, request, &id).await {
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
    peer: &Peer,
    request: Request<Incoming>,
    id: &HeaderValue,
) -> Result<Response<ResponseBody>, Refusal> {
    let came = Instant::now();
    let (mut head, body) = request.into_parts();
    let router = proxy.router(peer);
    if login::is_asked(&head) {
        return login::answer(&router, &head).map(|it| it.map(Either::Left));
    }
    let Route { microvm, port, authority, kind } = router.route(&head)?;
    let client = head.extensions.remove::<OnUpgrade>();
    let held = admit(proxy, microvm, headers::trace_parent(&head.headers)).await?;
    let (protocol, websocket) = match kind {
        Kind::Request(protocol) => (protocol, None),
        Kind::WebSocket(offer) => (Protocol::Http1, Some(offer)),
        Kind::Tunnel(carrier) => {
            let client = client.ok_or(Refusal::Handshake)?;
            return tunnel::open(carrier, client, port, held, came).await.map(|it| it.map(Either::Left));
        }
        Kind::Shell(answer) => {
            let client = client.ok_or(Refusal::Handshake)?;
            shell::open(&proxy.sessions, client, held, came)?;
            return Ok(answer.map(Either::Left));
        }
    };
    headers::strip_request(&mut head.headers);
    if let Some(offer) = &websocket {
        head.method = Method::GET;
        offer.restore_request(&mut head.headers);
    }
    headers::join_cookies(&mut head.headers);
    session::strip(&mut head.headers);
    head.headers.insert(headers::REQUEST_ID, id.clone());
    let request = Request::from_parts(readdress(head, authority, protocol)?, body);
    let response =
        held.life.upstream.send(port, protocol, request).await.map_err(|e| SendError::refusal(&e))?;
    held.life.answered(came);
    answered(response, websocket.zip(client), held)
}

/// What the client gets of the application's answer.
fn answered(
    response: Response<http1::Body>,
    websocket: Option<(Offer, OnUpgrade)>,
    held: Held,
) -> Result<Response<ResponseBody>, Refusal> {
    let switches = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    match websocket {
        Some((offer, _)) if !offer.allows(&response) => Err(Refusal::App),
        Some((offer, client)) if switches => Ok(join(response, &offer, client, held).map(Either::Left)),
        // The application switches protocols though nobody asked.
        None if switches => Err(Refusal::App),
        _ => Ok(finish(response, held).map(Either::Right)),
    }
}

/// Wakes the MicroVM and counts the request in.
async fn admit(proxy: &Proxy, microvm: MicrovmId, trace_parent: Option<&str>) -> Result<Held, Refusal> {
    for _ in 0..limits::WAKE_ATTEMPTS {
        let waking = tokio::time::timeout(limits::WAKE_DEADLINE, proxy.backend.wake(microvm, trace_parent));
        let life = waking.await.map_err(|_| Refusal::WakeTimeout)??;
        // Closed meanwhile: it is being suspended again, so it has to be woken again.
        if let Some(open) = life.activity.begin() {
            if !life.allows_another() {
                return Err(Refusal::TooMany);
            }
            return Ok(Held { life, _open: open });
        }
    }
    Err(WakeError::Failed.into())
}

/// The request's head as the application is to see it: the same authority, its own HTTP version.
fn readdress(
    mut head: http::request::Parts,
    authority: Authority,
    protocol: Protocol,
) -> Result<http::request::Parts, Refusal> {
    let host = HeaderValue::from_str(authority.as_str()).map_err(|_| Refusal::BadHost)?;
    let mut uri = mem::take(&mut head.uri).into_parts();
    (uri.scheme, uri.authority) = (Some(Scheme::HTTP), Some(authority));
    uri.path_and_query.get_or_insert(PathAndQuery::from_static("/"));
    head.uri = Uri::from_parts(uri).map_err(|_| Refusal::BadHost)?;
    match protocol {
        Protocol::Http1 => {
            head.version = Version::HTTP_11;
            head.headers.insert(HOST, host);
        }
        Protocol::Http2 => {
            head.version = Version::HTTP_2;
            head.headers.remove(HOST);
        }
    }
    Ok(head)
}

fn finish(response: Response<http1::Body>, held: Held) -> Response<AppBody> {
    let (mut head, body) = response.into_parts();
    headers::strip_hop_by_hop(&mut head.headers);
    // The application's version says nothing about this connection's.
    head.version = Version::HTTP_11;
    Response::from_parts(head, AppBody { body, _held: held })
}

/// Joins the two sides of a WebSocket once the client has the answer to its handshake.
fn join(
    mut response: Response<http1::Body>,
    offer: &Offer,
    client: OnUpgrade,
    held: Held,
) -> Response<Full<Bytes>> {
    let app = hyper::upgrade::on(&mut response);
    tokio::spawn(async move {
        if let Err(error) = carry(client, app).await {
            tracing::debug!("WebSocket ended: {error}");
        }
        drop(held);
    });
    let (mut head, _) = response.into_parts();
    headers::strip_hop_by_hop(&mut head.headers);
    offer.restore_response(&mut head);
    Response::from_parts(head, Full::default())
}

async fn carry(client: OnUpgrade, app: OnUpgrade) -> io::Result<()> {
    let (client, app) = tokio::try_join!(client, app).map_err(io::Error::other)?;
    tokio::io::copy_bidirectional(&mut TokioIo::new(client), &mut TokioIo::new(app)).await?;
    Ok(())
}

fn request_id() -> HeaderValue {
    let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
    let text: &str = Uuid::new_v4().hyphenated().encode_lower(&mut text);
    HeaderValue::from_str(text).unwrap_or(HeaderValue::from_static("-"))
}

/// What a request that was let in holds until its end: it is counted, and its life's connections stay open.
pub(crate) struct Held {
    pub(crate) life: Arc<Life>,
    _open: OpenRequest,
}

/// The application's body.
pub(crate) struct AppBody {
    body: http1::Body,
    _held: Held,
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
