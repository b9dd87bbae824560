//! Where a request goes, decided from its head alone. The order of the checks is part of the contract:
//! nothing about a MicroVM shows before the token for it is seen to be good.

use std::ops::RangeInclusive;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use auth::keyring::TokenKeyring;
use auth::token::{Ports, Scope};
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, Response, Version};
use http_body_util::Full;
use ids::MicrovmId;

use crate::error::Refusal;
use crate::server::Peer;
use crate::tunnel::Carrier;
use crate::upstream::Protocol;
use crate::websocket::Offer;
use crate::{Backend, EndpointHosts, Site, Target, headers, host, session, websocket};

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
    /// Whose request it is.
    pub(crate) peer: &'a Peer,
}

/// What lets a request in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum By {
    /// A token, as the service has it.
    Token,
    /// The cookie of a login.
    Cookie,
    /// Nothing: the ports are public.
    Nobody,
}

/// What a request may reach.
#[derive(Debug)]
struct Grant {
    by: By,
    ports: Ports,
}

impl Grant {
    /// The port of a request that names none. Browsers cannot, and are led to one that they may reach.
    fn default_port(&self) -> u16 {
        match &self.ports {
            Ports::Ranges(ranges) if self.by != By::Token && !self.ports.allows(headers::DEFAULT_PORT) => {
                let lowest = ranges.iter().map(RangeInclusive::start).min();
                lowest.copied().unwrap_or(headers::DEFAULT_PORT)
            }
            _ => headers::DEFAULT_PORT,
        }
    }

    fn check(&self, port: u16) -> Result<(), Refusal> {
        match self.by {
            _ if self.ports.allows(port) => Ok(()),
            // Which ports are public is to be found out, and nothing of the others.
            By::Nobody => Err(Refusal::Unauthorized),
            By::Token | By::Cookie => Err(Refusal::PortDenied),
        }
    }
}

impl Router<'_> {
    pub(crate) fn route(&self, head: &Parts) -> Result<Route, Refusal> {
        let (authority, site) = self.addressed(head)?;
        let websocket = Offer::of(head);
        let (target, grant) = self.grant(head, &authority, site.as_ref(), websocket.as_ref())?;
        let microvm = target.microvm;
        if grant.ports == Ports::Shell {
            return Ok(Route { microvm, port: SHELL_PORT, authority, kind: shell(websocket)? });
        }
        if !target.http_ingress {
            return Err(Refusal::Unauthorized);
        }
        let port = port(head, websocket.as_ref(), grant.default_port()).ok_or(Refusal::BadPort)?;
        grant.check(port)?;
        let kind = kind(head, websocket)?;
        if grant.by == By::Nobody && matches!(kind, Kind::Tunnel(_)) {
            return Err(Refusal::Unauthorized);
        }
        Ok(Route { microvm, port, authority, kind })
    }

    /// How long the token of a login is good for, which must open a port of the MicroVM that the request is for.
    pub(crate) fn login(&self, head: &Parts, token: &str) -> Result<Duration, Refusal> {
        let (authority, site) = self.addressed(head)?;
        let target = site.and_then(|site| self.backend.resolve(&site));
        let scope = self.open(token).filter(|scope| scope.ports != Ports::Shell);
        let (target, scope) = target.zip(scope).ok_or(Refusal::Unauthorized)?;
        let fits = target.microvm == scope.microvm && target.http_ingress;
        if !fits || !session::comes_from_here(head, &authority) {
            return Err(Refusal::Unauthorized);
        }
        Ok(Duration::from_secs(scope.expires_at.saturating_sub(now())))
    }

    /// The authority that a request is for, and the site that this names.
    pub(crate) fn addressed(&self, head: &Parts) -> Result<(Authority, Option<Site>), Refusal> {
        if !headers::is_framed(&head.headers) {
            return Err(Refusal::Framing);
        }
        let authority = authority(head).ok_or(Refusal::BadHost)?;
        // To a client that connects through it, the MicroVM is the local host too.
        let local =
            is_connect(head) && LOCAL_HOSTS.iter().any(|host| authority.host().eq_ignore_ascii_case(host));
        let site = if local { self.peer.site.clone() } else { self.site(authority.as_str()) };
        // Browsers share one HTTP/2 connection between hosts of one certificate; 421 makes them open another.
        if self.peer.site.as_ref().is_some_and(|named| site.as_ref().is_some_and(|asked| asked != named)) {
            return Err(Refusal::Misdirected);
        }
        Ok((authority, site))
    }

    /// The site that `authority` (a host, perhaps with `:port`) names.
    pub(crate) fn site(&self, authority: &str) -> Option<Site> {
        if let Some(endpoint) = self.hosts.endpoint(authority) {
            return Some(Site::Endpoint(endpoint));
        }
        let name = host::host(authority)?.to_ascii_lowercase();
        self.backend.is_domain(&name).then_some(Site::Domain(name))
    }

    /// What the site leads to, and what of it the request may reach. One answer for what does not exist and for what may
    /// not be reached.
    fn grant(
        &self,
        head: &Parts,
        authority: &Authority,
        site: Option<&Site>,
        offer: Option<&Offer>,
    ) -> Result<(Target, Grant), Refusal> {
        let target = site.and_then(|site| self.backend.resolve(site));
        let shown = match head.headers.get(headers::PROXY_AUTH) {
            Some(value) => Some(value.to_str().map_err(|_| Refusal::Unauthorized)?),
            None => offer.and_then(Offer::token),
        };
        let of_target = |scope: &Scope| target.as_ref().is_some_and(|target| target.microvm == scope.microvm);
        let token = shown.map(|token| self.open(token).filter(of_target).ok_or(Refusal::Unauthorized));
        if let Some(scope) = token.transpose()? {
            let grant = Grant { by: By::Token, ports: scope.ports };
            return target.map(|target| (target, grant)).ok_or(Refusal::Unauthorized);
        }
        let cookie = session::token(head, authority).and_then(|token| self.open(token)).filter(of_target);
        let grant = match cookie {
            Some(scope) if scope.ports != Ports::Shell => Some(Grant { by: By::Cookie, ports: scope.ports }),
            _ => target.as_ref().and_then(public),
        };
        target.zip(grant).ok_or(Refusal::Unauthorized)
    }

    fn open(&self, token: &str) -> Option<Scope> {
        self.tokens.open_again(&self.peer.token, token, now()).ok()
    }
}

/// What anybody may reach.
fn public(target: &Target) -> Option<Grant> {
    let ports: Vec<_> = target.public_ports.iter().map(|port| *port..=*port).collect();
    (!ports.is_empty()).then_some(Grant { by: By::Nobody, ports: Ports::Ranges(ports) })
}

/// Seconds in Unix time. By a clock before 1970 no token has expired, and the system's is set before it serves.
fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
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
fn port(head: &Parts, offer: Option<&Offer>, default: u16) -> Option<u16> {
    if head.headers.contains_key(headers::PROXY_PORT) {
        return headers::port(&head.headers, default);
    }
    if is_connect(head) {
        return headers::parse_port(head.uri.port()?.as_str().as_bytes());
    }
    match offer.and_then(Offer::port) {
        Some(port) => headers::parse_port(port.as_bytes()),
        None => Some(default),
    }
}

/// gRPC has no other form than HTTP/2; everything else is HTTP/1.1 unless the client asks.
fn protocol(head: &Parts) -> Protocol {
    let grpc = |value: &http::HeaderValue| value.as_bytes().starts_with(b"application/grpc");
    let is_grpc = head.version == Version::HTTP_2 && head.headers.get(CONTENT_TYPE).is_some_and(grpc);
    if is_grpc || headers::forces_h2(&head.headers) { Protocol::Http2 } else { Protocol::Http1 }
}
