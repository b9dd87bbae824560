//! WebSockets that end at the proxy: the answer to their handshake, and their messages afterwards.

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use http::header::{CONNECTION, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_PROTOCOL, UPGRADE};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role, WebSocketConfig};

use super::{Form, MARKER, Offer, WEBSOCKET};
use crate::limits;

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

/// Tells the client why, if it is there to be told, and waits until it has closed too, so that nothing of what was sent is
/// lost. `unread`: whether there are bytes of the client's that nobody will read.
pub(crate) async fn close(mut socket: Socket, why: Option<CloseFrame>, unread: bool) {
    let farewell = async {
        match why {
            Some(frame) => {
                socket.close(Some(frame)).await?;
                while let Some(Ok(_)) = socket.next().await {}
            }
            // Answers the client's close, where that has not been done.
            None => drop(socket.flush().await),
        }
        let connection = socket.get_mut();
        connection.shutdown().await?;
        if unread {
            // Closed over bytes that came, the connection would be reset, and the client might not read why.
            tokio::io::copy(connection, &mut tokio::io::sink()).await?;
        }
        Ok::<_, tungstenite::Error>(())
    };
    match timeout(limits::CLOSE_TIMEOUT, farewell).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!("closing a WebSocket: {error}"),
        Err(_) => tracing::debug!("the client of a WebSocket did not close its connection in time"),
    }
}
