//! WebSockets that end at the proxy: the answer to their handshake, and their messages afterwards.

use bytes::Bytes;
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{Role, WebSocketConfig};

use super::{Form, MARKER, Offer, WEBSOCKET};

/// The messages of one client.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

impl Offer {
    /// The answer that accepts the handshake for a shell; clients refuse one that selects none of what they offered.
    pub(crate) fn accept_for_shell(&self) -> Option<Response<Full<Bytes>>> {
        self.accept(self.marker.then_some(MARKER))
    }

    /// The answer that accepts the handshake and selects `subprotocol`; `None` where it is no complete one.
    pub(crate) fn accept(&self, subprotocol: Option<&'static str>) -> Option<Response<Full<Bytes>>> {
        let mut response = Response::new(Full::default());
        let headers = response.headers_mut();
        headers.extend(subprotocol.map(|name| (SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(name))));
        if self.form == Form::Upgrade {
            let key = derive_accept_key(self.key.as_ref()?.as_bytes());
            headers.insert(SEC_WEBSOCKET_ACCEPT, HeaderValue::from_str(&key).ok()?);
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(UPGRADE, WEBSOCKET);
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
        }
        Some(response)
    }
}

/// The WebSocket of an accepted handshake, once the client has the answer. No message of the client's may be longer
/// than `max_message` bytes.
pub(crate) async fn socket(
    client: OnUpgrade,
    buffers: WebSocketConfig,
    max_message: usize,
) -> Result<Socket, hyper::Error> {
    let limits = buffers.max_message_size(Some(max_message)).max_frame_size(Some(max_message));
    let io = TokioIo::new(client.await?);
    Ok(WebSocketStream::from_raw_socket(io, Role::Server, Some(limits)).await)
}
