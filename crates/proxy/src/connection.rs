//! A client's connection, with the places that it takes until it is closed: also once it carries a WebSocket or a tunnel
//! and HTTP is done with it.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;

use crate::clients::Place;

/// One TCP connection.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    _among_all: OwnedSemaphorePermit,
    _among_its_clients: Place,
}

impl Connection {
    pub(crate) fn new(stream: TcpStream, among_all: OwnedSemaphorePermit, among_its_clients: Place) -> Self {
        Self { stream, _among_all: among_all, _among_its_clients: among_its_clients }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use hyper::service::service_fn;
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;
    use tokio::sync::{Semaphore, mpsc};

    use super::*;
    use crate::clients::Clients;

    /// As for a WebSocket: HTTP is over, and what was upgraded lives on.
    #[tokio::test]
    async fn an_upgraded_connection_keeps_its_places_until_it_is_closed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (stream, peer) = listener.accept().await.unwrap();
        let (all, clients) = (Arc::new(Semaphore::new(1)), Clients::each_with(1));
        let slot = Arc::clone(&all).acquire_owned().await.unwrap();
        let connection = Connection::new(stream, slot, clients.admit(peer.ip()).unwrap());

        let (upgraded, mut upgrades) = mpsc::unbounded_channel();
        let service = service_fn(move |mut request| {
            upgraded.send(hyper::upgrade::on(&mut request)).unwrap();
            let answer =
                http::Response::builder().status(101).header("upgrade", "x").header("connection", "upgrade");
            async move { answer.body(String::new()) }
        });
        client
            .write_all(b"GET / HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n")
            .await
            .unwrap();
        let http =
            hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(connection), service);
        http.with_upgrades().await.unwrap();
        let upgraded = upgrades.recv().await.unwrap().await.unwrap();
        assert!(clients.admit(peer.ip()).is_none() && all.available_permits() == 0);

        drop(upgraded);
        client.read_to_end(&mut Vec::new()).await.unwrap();
        assert!(clients.admit(peer.ip()).is_some() && all.available_permits() == 1);
    }
}
