//! TCP connections to a port of the MicroVM: the bytes of a CONNECT, or of a WebSocket's binary messages.
//!
//! The connection is there before the client is told so. An end of either direction passes on. In a WebSocket the client
//! ends its direction with an empty message, and the application's end is the close; the client's close ends both.

use std::io;
use std::time::Instant;

use bytes::Bytes;
use futures::stream::{SplitSink, SplitStream};
use futures::{SinkExt, StreamExt};
use http::Response;
use http_body_util::Full;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf, copy_bidirectional};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, WebSocketConfig};
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::error::Refusal;
use crate::forward::Held;
use crate::limits;
use crate::websocket::accept::{Socket, close, socket};
use crate::wire::Counted;

/// What carries the bytes.
#[derive(Debug)]
pub(crate) enum Carrier {
    /// What follows a CONNECT.
    Connect,
    /// The messages of a WebSocket, whose handshake is answered with this.
    WebSocket(Response<Full<Bytes>>),
}

/// Connects to a port of the application; the answer that says so to the client.
pub(crate) async fn open(
    carrier: Carrier,
    client: OnUpgrade,
    port: u16,
    held: Held,
    came: Instant,
) -> Result<Response<Full<Bytes>>, Refusal> {
    let app = held.life.upstream.connect(port).await.map_err(|error| error.refusal())?;
    held.life.answered(came);
    match carrier {
        Carrier::Connect => {
            tokio::spawn(async move {
                if let Err(error) = carry(client, app).await {
                    tracing::debug!("tunnel broke off: {error}");
                }
                drop(held);
            });
            Ok(Response::new(Full::default()))
        }
        Carrier::WebSocket(answer) => {
            tokio::spawn(async move {
                match socket(client, WebSocketConfig::default(), limits::MAX_TUNNEL_MESSAGE).await {
                    Ok(socket) => exchange(socket, app).await,
                    Err(error) => tracing::debug!("no WebSocket after its handshake: {error}"),
                }
                drop(held);
            });
            Ok(answer)
        }
    }
}

async fn carry(client: OnUpgrade, mut app: Counted) -> io::Result<()> {
    let mut client = TokioIo::new(client.await.map_err(io::Error::other)?);
    copy_bidirectional(&mut client, &mut app).await?;
    Ok(())
}

/// Why a WebSocket is closed before either side has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    /// Text, which is not the bytes of a connection.
    Text,
    /// A longer message than there may be.
    TooLong,
    /// The connection to the application broke off.
    App,
    /// The client's connection did: nobody is left to be told.
    Client,
}

impl Fault {
    fn close(self) -> Option<CloseFrame> {
        let (code, reason) = match self {
            Self::Text => (CloseCode::Unsupported, "send binary messages"),
            Self::TooLong => (CloseCode::Size, "send shorter messages"),
            Self::App => (CloseCode::Error, "the connection to the application broke off"),
            Self::Client => return None,
        };
        Some(CloseFrame { code, reason: reason.into() })
    }
}

async fn exchange(socket: Socket, app: Counted) {
    let (mut to_client, mut from_client) = socket.split();
    let (mut from_app, mut to_app) = tokio::io::split(app);
    let ended = {
        let mut up = std::pin::pin!(up(&mut from_client, &mut to_app));
        let down = std::pin::pin!(down(&mut from_app, &mut to_client));
        tokio::select! {
            ended = &mut up => ended,
            ended = down => match ended {
                // The client has everything. What it sends until it answers the close still is the application's.
                Ok(()) => timeout(limits::CLOSE_TIMEOUT, up).await.unwrap_or(Ok(())),
                fault => fault,
            },
        }
    };
    tracing::debug!(?ended, "WebSocket tunnel ended");
    let fault = ended.err();
    if let Ok(socket) = to_client.reunite(from_client) {
        close(socket, fault.and_then(Fault::close), fault == Some(Fault::TooLong)).await;
    }
}

/// The client's bytes, up to its close.
async fn up(client: &mut SplitStream<Socket>, app: &mut WriteHalf<Counted>) -> Result<(), Fault> {
    let broken = |_: io::Error| Fault::App;
    while let Some(message) = client.next().await {
        match message {
            Ok(Message::Binary(bytes)) if bytes.is_empty() => app.shutdown().await.map_err(broken)?,
            Ok(Message::Binary(bytes)) => app.write_all(&bytes).await.map_err(broken)?,
            Ok(Message::Text(_)) => return Err(Fault::Text),
            Ok(Message::Close(_)) => break,
            // Pings are answered by the library.
            Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_)) => {}
            Err(Error::Capacity(_)) => return Err(Fault::TooLong),
            Err(_) => return Err(Fault::Client),
        }
    }
    // Already shut where the client has ended before it closed.
    let _ = app.shutdown().await;
    Ok(())
}

/// The application's bytes, up to its end, which is a close.
async fn down(app: &mut ReadHalf<Counted>, client: &mut SplitSink<Socket, Message>) -> Result<(), Fault> {
    let mut buffer = vec![0; limits::TUNNEL_READ];
    loop {
        let read = app.read(&mut buffer).await.map_err(|_| Fault::App)?;
        let message = match &buffer[..read] {
            [] => Message::Close(Some(CloseFrame { code: CloseCode::Normal, reason: "".into() })),
            bytes => Message::Binary(Bytes::copy_from_slice(bytes)),
        };
        client.send(message).await.map_err(|_| Fault::Client)?;
        if read == 0 {
            return Ok(());
        }
    }
}
