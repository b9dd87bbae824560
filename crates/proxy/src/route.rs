//! Where a request goes, decided from its head alone. The order of the checks is part of the contract:
//! nothing about a MicroVM shows before the token for it is seen to be good.

use std::time::{SystemTime, UNIX_EPOCH};

use auth::keyring::TokenKeyring;
use auth::token::Ports;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, Response, Version};
use http_body_util::Full;
use ids::{EndpointId, MicrovmId};

use crate::error::Refusal;
use crate::tunnel::Carrier;
use crate::upstream::Protocol;
use crate::websocket::Offer;
use crate::{Backend, EndpointHosts, headers, websocket};

/// What the target of a CONNECT may be called, besides by the endpoint's name.
const LOCAL_HOSTS: [&str; 2] = ["localhost", "127.0.0.1"];

/// The port that clients name for the shell.
const SHELL_PORT: u16 = 8022;

/// Where one request goes.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) microvm: MicrovmId,
    pub(crate) port: u16,
    pub(crate) authority: Authority,
    pub(crate) kind: Kind,
}

/// What becomes of a request.
#[derive(Debug)]
pub(crate) enum Kind {
    /// The application answers it.
    Request(Protocol),
    /// A WebSocket handshake, which the application answers.
    WebSocket(Offer),
    /// The proxy answers it, with a TCP connection to the port.
    Tunnel(Carrier),
    /// The proxy answers it so, with a shell.
    Shell(Response<Full<Bytes>>),
}

/// Everything that routing looks at besides the request.
pub(crate) struct Router<'a> {
    pub(crate) backend: &'a dyn Backend,
    pub(crate) hosts: &'a EndpointHosts,
    pub(crate) tokens: &'a TokenKeyring,
    /// The endpoint that the TLS connection was opened for, if it named one.
    pub(crate) tls_endpoint: Option<EndpointId>,
}

impl Router<'_> {
    pub(crate) fn route(&self, head: &Parts) -> Result<Route, Refusal> {
        if !headers::is_framed(&head.headers) {
            return Err(Refusal::Framing);
        }
        let authority = authority(head).ok_or(Refusal::BadHost)?;
        let endpoint = self.endpoint(head, &authority);
        // Browsers share one HTTP/2 connection between hosts of one certificate; 421 makes them open another.
        if self.tls_endpoint.is_some_and(|named| endpoint.is_some_and(|asked| asked != named)) {
            return Err(Refusal::Misdirected);
        }
        let target = endpoint.and_then(|endpoint| self.backend.resolve(endpoint));
        let websocket = Offer::of(head);
        let scope = self.scope(&head.headers, websocket.as_ref()).ok_or(Refusal::Unauthorized)?;
        let target = target.filter(|target| target.microvm == scope.microvm).ok_or(Refusal::Unauthorized)?;
        if scope.ports == Ports::Shell {
            return Ok(Route {
                microvm: scope.microvm,
                port: SHELL_PORT,
                authority,
                kind: shell(websocket)?,
            });
        }
        if !target.http_ingress {
            return Err(Refusal::Unauthorized);
        }
        let port = port(head, websocket.as_ref()).ok_or(Refusal::BadPort)?;
        if !scope.ports.allows(port) {
            return Err(Refusal::PortDenied);
        }
        Ok(Route { microvm: scope.microvm, port, authority, kind: kind(head, websocket)? })
    }

    /// The endpoint that a request is for. To a client that connects through it, the MicroVM is the local host too.
    fn endpoint(&self, head: &Parts, authority: &Authority) -> Option<EndpointId> {
        let local =
            is_connect(head) && LOCAL_HOSTS.iter().any(|host| authority.host().eq_ignore_ascii_case(host));
        if local { self.tls_endpoint } else { self.hosts.endpoint(authority.as_str()) }
    }

    fn scope(&self, headers: &HeaderMap, offer: Option<&Offer>) -> Option<auth::token::Scope> {
        let token = match headers.get(headers::PROXY_AUTH) {
            Some(value) => value.to_str().ok()?,
            None => offer?.token()?,
        };
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?.as_secs();
        self.tokens.open(token, now).ok()
    }
}

/// Whether it is a CONNECT to a host and a port, and not one that opens a WebSocket.
fn is_connect(head: &Parts) -> bool {
    head.method == Method::CONNECT && head.extensions.get::<hyper::ext::Protocol>().is_none()
}

/// Any path and port will do (SPEC §6).
fn shell(websocket: Option<Offer>) -> Result<Kind, Refusal> {
    let answer = websocket.ok_or(Refusal::NotAShell)?.accept_for_shell();
    answer.map(Kind::Shell).ok_or(Refusal::Handshake)
}

fn kind(head: &Parts, websocket: Option<Offer>) -> Result<Kind, Refusal> {
    match websocket {
        Some(offer) if offer.is_for_tcp() => {
            let answer = offer.accept(Some(websocket::TCP)).ok_or(Refusal::Handshake)?;
            Ok(Kind::Tunnel(Carrier::WebSocket(answer)))
        }
        Some(offer) => Ok(Kind::WebSocket(offer)),
        None if is_connect(head) && has_body(head) => Err(Refusal::ConnectBody),
        None if is_connect(head) => Ok(Kind::Tunnel(Carrier::Connect)),
        None if head.method == Method::CONNECT => Err(Refusal::Protocol),
        None => Ok(Kind::Request(protocol(head))),
    }
}

/// A body before the tunnel is there could be taken for bytes in it.
fn has_body(head: &Parts) -> bool {
    let length = head.headers.get(CONTENT_LENGTH);
    head.headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|length| length != "0")
}

/// The host that the request is for: HTTP/2's `:authority`, or the one `Host`; of a CONNECT its target, because some
/// clients send the proxy's name as `Host`.
fn authority(head: &Parts) -> Option<Authority> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return None;
    }
    if is_connect(head) {
        return head.uri.authority().cloned();
    }
    let host = host.map(|value| Authority::try_from(value.as_bytes())).transpose().ok()?;
    match (head.uri.authority().cloned(), host) {
        (Some(authority), Some(host)) => (authority == host).then_some(authority),
        (authority, host) => authority.or(host),
    }
}

/// The header's port before the subprotocol's or that of a CONNECT's target before the default.
fn port(head: &Parts, offer: Option<&Offer>) -> Option<u16> {
    if head.headers.contains_key(headers::PROXY_PORT) {
        return headers::port(&head.headers);
    }
    if is_connect(head) {
        return headers::parse_port(head.uri.port()?.as_str().as_bytes());
    }
    match offer.and_then(Offer::port) {
        Some(port) => headers::parse_port(port.as_bytes()),
        None => headers::port(&head.headers),
    }
}

/// gRPC has no other form than HTTP/2; everything else is HTTP/1.1 unless the client asks.
fn protocol(head: &Parts) -> Protocol {
    let grpc = |value: &http::HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    let is_grpc = head.version == Version::HTTP_2 && head.headers.get(CONTENT_TYPE).is_some_and(grpc);
    if is_grpc || headers::forces_h2(&head.headers) { Protocol::Http2 } else { Protocol::Http1 }
}
