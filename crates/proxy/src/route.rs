//! Where a request goes, decided from its head alone. The order of the checks is part of the contract:
//! nothing about a MicroVM shows before the token for it is seen to be good.

use std::time::{SystemTime, UNIX_EPOCH};

use auth::keyring::TokenKeyring;
use http::header::{CONTENT_TYPE, HOST};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, Version};
use ids::{EndpointId, MicrovmId};

use crate::error::Refusal;
use crate::upstream::Protocol;
use crate::websocket::Offer;
use crate::{Backend, EndpointHosts, headers};

/// Where one request goes.
#[derive(Debug)]
pub(crate) struct Route {
    pub(crate) microvm: MicrovmId,
    pub(crate) port: u16,
    pub(crate) protocol: Protocol,
    pub(crate) authority: Authority,
    /// Present if the request is a WebSocket handshake.
    pub(crate) websocket: Option<Offer>,
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
        let authority = authority(head).ok_or(Refusal::BadHost)?;
        let endpoint = self.hosts.endpoint(authority.as_str());
        // Browsers share one HTTP/2 connection between hosts of one certificate; 421 makes them open another.
        if self.tls_endpoint.is_some_and(|named| endpoint.is_some_and(|asked| asked != named)) {
            return Err(Refusal::Misdirected);
        }
        let microvm = endpoint.and_then(|endpoint| self.backend.resolve(endpoint));
        let websocket = Offer::of(head);
        let scope = self.scope(&head.headers, websocket.as_ref()).ok_or(Refusal::Unauthorized)?;
        if microvm != Some(scope.microvm) {
            return Err(Refusal::Unauthorized);
        }
        if head.method == Method::CONNECT {
            return Err(Refusal::Connect);
        }
        let port = port(&head.headers, websocket.as_ref()).ok_or(Refusal::BadPort)?;
        if !scope.ports.allows(port) {
            return Err(Refusal::PortDenied);
        }
        // The WebSocket handshake is HTTP/1.1 by nature.
        let protocol = if websocket.is_some() { Protocol::Http1 } else { protocol(head) };
        Ok(Route { microvm: scope.microvm, port, protocol, authority, websocket })
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

/// The host that the request is for: HTTP/2's `:authority`, or the one `Host`.
fn authority(head: &Parts) -> Option<Authority> {
    let mut hosts = head.headers.get_all(HOST).iter();
    let host = hosts.next();
    if hosts.next().is_some() {
        return None;
    }
    let host = host.map(|value| Authority::try_from(value.as_bytes())).transpose().ok()?;
    match (head.uri.authority().cloned(), host) {
        (Some(authority), Some(host)) => (authority == host).then_some(authority),
        (authority, host) => authority.or(host),
    }
}

/// The header's port before the subprotocol's before the default.
fn port(headers: &HeaderMap, offer: Option<&Offer>) -> Option<u16> {
    match offer.and_then(Offer::port) {
        Some(port) if !headers.contains_key(headers::PROXY_PORT) => headers::parse_port(port.as_bytes()),
        _ => headers::port(headers),
    }
}

/// gRPC has no other form than HTTP/2; everything else is HTTP/1.1 unless the client asks.
fn protocol(head: &Parts) -> Protocol {
    let grpc = |value: &http::HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    let is_grpc = head.version == Version::HTTP_2 && head.headers.get(CONTENT_TYPE).is_some_and(grpc);
    if is_grpc || headers::forces_h2(&head.headers) { Protocol::Http2 } else { Protocol::Http1 }
}
