//! WebSocket handshakes: how browsers, which cannot set headers, say the token and the port (SPEC §5.5). A client of
//! HTTP/2 shakes hands by an extended CONNECT (RFC 8441), the application always by an HTTP/1.1 upgrade. Pure.

pub(crate) mod accept;

use http::header::{
    CONNECTION, HeaderMap, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    SEC_WEBSOCKET_PROTOCOL, SEC_WEBSOCKET_VERSION, UPGRADE,
};
use http::request::Parts;
use http::{Method, StatusCode, Version};
use hyper::ext::Protocol;
use tokio_tungstenite::tungstenite::handshake::client::generate_key;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;

const MARKER: &str = "lambda-microvms";
const TOKEN_PREFIX: &str = "lambda-microvms.authentication.";
const PORT_PREFIX: &str = "lambda-microvms.port.";
/// Asks for the bytes of a TCP connection, in binary messages; AWS has nothing of the kind.
pub(crate) const TCP: &str = "lambda-microvms.tcp";
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");
/// The only version of the protocol (RFC 6455).
const VERSION: HeaderValue = HeaderValue::from_static("13");

/// How a client shakes hands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// HTTP/1.1.
    Upgrade,
    /// HTTP/2.
    ExtendedConnect,
}

/// A client's WebSocket handshake, and what it offers as subprotocols.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Offer {
    form: Form,
    /// What the answer must show to have been understood; of the client, or made for one of HTTP/2.
    key: Option<HeaderValue>,
    tcp: bool,
    marker: bool,
    token: Option<String>,
    port: Option<String>,
    /// The application's own subprotocols.
    rest: Vec<String>,
}

impl Offer {
    /// The offer of a handshake; `None` if the request is something else.
    pub(crate) fn of(head: &Parts) -> Option<Self> {
        if head.method == Method::CONNECT {
            let websocket = head.extensions.get::<Protocol>()?.as_str() == "websocket";
            return websocket.then(|| Self::read(Form::ExtendedConnect, &head.headers));
        }
        let upgrades = has_token(&head.headers, CONNECTION, "upgrade");
        let websocket = has_token(&head.headers, UPGRADE, "websocket");
        let handshake =
            head.method == Method::GET && head.version == Version::HTTP_11 && upgrades && websocket;
        handshake.then(|| Self::read(Form::Upgrade, &head.headers))
    }

    fn read(form: Form, headers: &HeaderMap) -> Self {
        let key = match form {
            Form::Upgrade => headers.get(SEC_WEBSOCKET_KEY).cloned(),
            Form::ExtendedConnect => HeaderValue::from_str(&generate_key()).ok(),
        };
        let mut offer =
            Self { form, key, tcp: false, marker: false, token: None, port: None, rest: Vec::new() };
        for name in list(headers, SEC_WEBSOCKET_PROTOCOL) {
            if name == MARKER {
                offer.marker = true;
            } else if name == TCP {
                offer.tcp = true;
            } else if let Some(token) = name.strip_prefix(TOKEN_PREFIX) {
                offer.token = Some(token.to_owned());
            } else if let Some(port) = name.strip_prefix(PORT_PREFIX) {
                offer.port = Some(port.to_owned());
            } else {
                offer.rest.push(name.to_owned());
            }
        }
        offer
    }

    /// The token, which counts only beside the marker.
    pub(crate) fn token(&self) -> Option<&str> {
        self.token.as_deref().filter(|_| self.marker)
    }

    /// The port asked for, as text.
    pub(crate) fn port(&self) -> Option<&str> {
        self.port.as_deref()
    }

    /// Whether it is for a TCP connection, which the proxy answers itself.
    pub(crate) fn is_for_tcp(&self) -> bool {
        self.tcp
    }

    /// Makes stripped request headers a handshake again, with the application's subprotocols alone.
    pub(crate) fn restore_request(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, WEBSOCKET);
        if self.form == Form::ExtendedConnect {
            headers.insert(SEC_WEBSOCKET_VERSION, VERSION);
            headers.extend(self.key.clone().map(|key| (SEC_WEBSOCKET_KEY, key)));
        }
        headers.remove(SEC_WEBSOCKET_PROTOCOL);
        if self.rest.is_empty() {
            return;
        }
        if let Ok(rest) = HeaderValue::from_str(&self.rest.join(", ")) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, rest);
        }
    }

    /// Whether the client may have the application's answer. One of HTTP/1.1 sees itself whether its handshake was
    /// understood; to one of HTTP/2 every success means that it was.
    pub(crate) fn allows<B>(&self, response: &http::Response<B>) -> bool {
        if self.form == Form::Upgrade {
            return true;
        }
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return !response.status().is_success();
        }
        let accepted = response.headers().get(SEC_WEBSOCKET_ACCEPT).map(HeaderValue::as_bytes);
        let expected = self.key.as_ref().map(|key| derive_accept_key(key.as_bytes()));
        accepted == expected.as_deref().map(str::as_bytes)
    }

    /// Makes a stripped response's head the answer to the handshake. Clients refuse one that selects none of
    /// what they offered, so where the application selects nothing the marker is selected.
    pub(crate) fn restore_response(&self, head: &mut http::response::Parts) {
        let headers = &mut head.headers;
        match self.form {
            Form::Upgrade => {
                headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
                headers.insert(UPGRADE, WEBSOCKET);
            }
            Form::ExtendedConnect => {
                head.status = StatusCode::OK;
                headers.remove(SEC_WEBSOCKET_ACCEPT);
            }
        }
        if self.marker && !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(MARKER));
        }
    }
}

fn list(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|item| !item.is_empty())
}

fn has_token(headers: &HeaderMap, name: HeaderName, token: &str) -> bool {
    list(headers, name).any(|item| item.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(protocols: &'static str) -> Offer {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocols));
        Offer::read(Form::Upgrade, &headers)
    }

    #[test]
    fn ours_are_read_in_any_order_and_the_rest_passes() {
        let offer = offered(
            "chat, lambda-microvms.port.9000,lambda-microvms.authentication.a.b, lambda-microvms, v2",
        );
        assert_eq!((offer.token(), offer.port()), (Some("a.b"), Some("9000")));
        let mut headers = HeaderMap::new();
        offer.restore_request(&mut headers);
        assert_eq!(headers[SEC_WEBSOCKET_PROTOCOL], "chat, v2");
    }

    #[test]
    fn a_token_without_the_marker_does_not_count() {
        assert_eq!(offered("lambda-microvms.authentication.a.b").token(), None);
    }

    #[test]
    fn the_marker_is_selected_if_the_application_selects_nothing() {
        let (mut head, ()) = http::Response::new(()).into_parts();
        offered("lambda-microvms").restore_response(&mut head);
        assert_eq!(head.headers[SEC_WEBSOCKET_PROTOCOL], "lambda-microvms");
        offered("chat").restore_response(&mut head);
        head.headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat"));
        offered("lambda-microvms, chat").restore_response(&mut head);
        assert_eq!(head.headers[SEC_WEBSOCKET_PROTOCOL], "chat");
    }

    #[test]
    fn a_handshake_of_http2_has_a_key_toward_the_application_alone() {
        let offer = Offer::read(Form::ExtendedConnect, &HeaderMap::new());
        let mut request = HeaderMap::new();
        offer.restore_request(&mut request);
        assert_eq!((&request[UPGRADE], &request[SEC_WEBSOCKET_VERSION]), (&WEBSOCKET, &VERSION));
        let accept = derive_accept_key(request[SEC_WEBSOCKET_KEY].as_bytes());
        let answer = |status: u16, accept: &str| {
            let response = http::Response::builder().status(status);
            response.header(SEC_WEBSOCKET_ACCEPT, accept).body(()).unwrap()
        };
        assert!(offer.allows(&answer(101, &accept)) && offer.allows(&answer(404, "")));
        assert!(!offer.allows(&answer(101, "other")) && !offer.allows(&answer(200, &accept)));
        let (mut head, ()) = answer(101, &accept).into_parts();
        offer.restore_response(&mut head);
        assert_eq!((head.status, head.headers.is_empty()), (StatusCode::OK, true));
    }

    #[test]
    fn a_handshake_for_tcp_or_a_shell_is_accepted_here() {
        let mut offer = offered("lambda-microvms.tcp, lambda-microvms");
        assert!(offer.is_for_tcp());
        assert!(offer.accept(Some(TCP)).is_none(), "it has no key");
        // The example of RFC 6455 §1.3.
        offer.key = Some(HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ=="));
        let answer = offer.accept(Some(TCP)).unwrap();
        assert_eq!(answer.headers()[SEC_WEBSOCKET_ACCEPT], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(
            (answer.status().as_u16(), &answer.headers()[SEC_WEBSOCKET_PROTOCOL]),
            (101, &HeaderValue::from_static(TCP))
        );
        let answer = offer.accept_for_shell().unwrap();
        assert_eq!(answer.headers()[SEC_WEBSOCKET_PROTOCOL], MARKER);
        offer.marker = false;
        let answer = offer.accept_for_shell().unwrap();
        assert!(!answer.headers().contains_key(SEC_WEBSOCKET_PROTOCOL));
    }
}
