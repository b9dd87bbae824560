//! WebSockets: how many messages come back in a second, and what one costs that is silent.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::{SinkExt, StreamExt};
use proxy::BoxedIo;
use rustls::pki_types::ServerName;
use tokio::net::TcpSocket;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;
use tokio_tungstenite::tungstenite::{Bytes, Message};
use tokio_tungstenite::{WebSocketStream, client_async_with_config};

use super::bed::Endpoint;
use crate::Failure;
use crate::client::Trust;

/// Bytes of a message.
const MESSAGE: usize = 128;
const BUFFER: usize = 1024;
/// A client is an address, and has so many connections at most (`proxy::limits::MAX_CONNECTIONS_PER_CLIENT` is more).
const PER_ADDRESS: usize = 2500;

/// Where WebSockets are opened.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    pub(crate) address: SocketAddr,
    /// Nothing where it speaks no TLS.
    pub(crate) trust: Option<Trust>,
}

type Socket = WebSocketStream<BoxedIo>;

impl Server {
    async fn open(&self, from: [u8; 4]) -> Result<Socket, Failure> {
        let tcp = TcpSocket::new_v4()?;
        tcp.bind((from, 0).into())?;
        let tcp = tcp.connect(self.address).await?;
        tcp.set_nodelay(true)?;
        let host = self.endpoint.host();
        let mut request = format!("ws://{host}/").into_client_request()?;
        request.headers_mut().insert("x-aws-proxy-auth", self.endpoint.token().parse()?);
        let io: BoxedIo = match &self.trust {
            None => Box::new(tcp),
            Some(trust) => Box::new(trust.connect(ServerName::try_from(host)?, tcp).await?),
        };
        let config = WebSocketConfig::default().read_buffer_size(BUFFER).write_buffer_size(0);
        Ok(client_async_with_config(request, io, Some(config)).await?.0)
    }
}

/// One message there and back.
async fn echo(socket: &mut Socket, message: &Bytes) -> Result<(), Failure> {
    socket.send(Message::Binary(message.clone())).await?;
    match socket.next().await.transpose()? {
        Some(Message::Binary(bytes)) if bytes == *message => Ok(()),
        other => Err(format!("a message came back as {other:?}").into()),
    }
}

/// Messages that came back in a second, over so many sockets with one message under way on each.
pub(crate) async fn echoes(server: &Server, sockets: usize, duration: Duration) -> Result<f64, Failure> {
    let mut open = Vec::new();
    for _ in 0..sockets {
        open.push(server.open([127, 0, 0, 1]).await?);
    }
    let began = Instant::now();
    let message = Bytes::from(vec![7; MESSAGE]);
    let counts = open.into_iter().map(|mut socket| {
        let message = message.clone();
        async move {
            let mut count = 0_u32;
            while began.elapsed() < duration {
                echo(&mut socket, &message).await?;
                count += 1;
            }
            Ok::<_, Failure>(count)
        }
    });
    let counts = futures::future::try_join_all(counts).await?;
    Ok(f64::from(counts.iter().sum::<u32>()) / began.elapsed().as_secs_f64())
}

/// So many open sockets, over each of which one message has come and gone; closed when dropped.
pub(crate) struct Idle(#[expect(dead_code, reason = "held open")] Vec<Socket>);

/// Opens them, from as many addresses of loopback as it takes.
pub(crate) async fn idle(server: &Server, sockets: usize) -> Result<Idle, Failure> {
    let message = Bytes::from(vec![7; MESSAGE]);
    let mut open = Vec::with_capacity(sockets);
    for number in 0..sockets {
        let address = u8::try_from(number / PER_ADDRESS + 1)?;
        let mut socket = server.open([127, 0, 0, address]).await?;
        echo(&mut socket, &message).await?;
        open.push(socket);
    }
    Ok(Idle(open))
}
