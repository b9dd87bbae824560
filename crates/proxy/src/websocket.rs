//! WebSocket handshakes: how browsers, which cannot set headers, say the token and the port (SPEC §5.5). Pure.

use http::header::{CONNECTION, HeaderMap, HeaderValue, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::request::Parts;
use http::{Method, Version};

const MARKER: &str = "lambda-microvms";
const TOKEN_PREFIX: &str = "lambda-microvms.authentication.";
const PORT_PREFIX: &str = "lambda-microvms.port.";
const WEBSOCKET: HeaderValue = HeaderValue::from_static("websocket");

/// What a client offers as subprotocols in a WebSocket handshake.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Offer {
    marker: bool,
    token: Option<String>,
    port: Option<String>,
    /// The application's own subprotocols.
    rest: Vec<String>,
}

impl Offer {
    /// The offer of a handshake; `None` if the request is something else.
    pub(crate) fn of(head: &Parts) -> Option<Self> {
        let upgrades = has_token(&head.headers, CONNECTION, "upgrade");
        let websocket = has_token(&head.headers, UPGRADE, "websocket");
        let handshake =
            head.method == Method::GET && head.version == Version::HTTP_11 && upgrades && websocket;
        handshake.then(|| Self::read(&head.headers))
    }

    fn read(headers: &HeaderMap) -> Self {
        let mut offer = Self::default();
        for name in list(headers, SEC_WEBSOCKET_PROTOCOL) {
            if name == MARKER {
                offer.marker = true;
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

    /// Makes stripped request headers a handshake again, with the application's subprotocols alone.
    pub(crate) fn restore_request(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, WEBSOCKET);
        headers.remove(SEC_WEBSOCKET_PROTOCOL);
        if self.rest.is_empty() {
            return;
        }
        if let Ok(rest) = HeaderValue::from_str(&self.rest.join(", ")) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, rest);
        }
    }

    /// Makes stripped response headers the answer to the handshake. Clients refuse one that selects none of
    /// what they offered, so where the application selects nothing the marker is selected.
    pub(crate) fn restore_response(&self, headers: &mut HeaderMap) {
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, WEBSOCKET);
        if self.marker && !headers.contains_key(SEC_WEBSOCKET_PROTOCOL) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(MARKER));
        }
    }
}

fn list(headers: &HeaderMap, name: http::HeaderName) -> impl Iterator<Item = &str> {
    let values = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).map(str::trim).filter(|item| !item.is_empty())
}

fn has_token(headers: &HeaderMap, name: http::HeaderName, token: &str) -> bool {
    list(headers, name).any(|item| item.eq_ignore_ascii_case(token))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offered(protocols: &'static str) -> Offer {
        let mut headers = HeaderMap::new();
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocols));
        Offer::read(&headers)
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
        let mut headers = HeaderMap::new();
        offered("lambda-microvms").restore_response(&mut headers);
        assert_eq!(headers[SEC_WEBSOCKET_PROTOCOL], "lambda-microvms");
        offered("chat").restore_response(&mut headers);
        headers.insert(SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static("chat"));
        offered("lambda-microvms, chat").restore_response(&mut headers);
        assert_eq!(headers[SEC_WEBSOCKET_PROTOCOL], "chat");
    }
}
