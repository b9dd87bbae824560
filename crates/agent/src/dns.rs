//! The guest's resolver: passes raw queries to the host, over UDP and TCP.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use agent_proto::MAX_DNS_MESSAGE;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::error::{Error, trying};
use crate::network::{METADATA_LINK, RESOLVER};
use crate::sessions::Sessions;

/// The last is where containers within the container, which have a loopback of their own, find one (SPEC §7).
const ADDRESSES: [Ipv4Addr; 3] = [RESOLVER, Ipv4Addr::new(127, 0, 0, 2), METADATA_LINK];
const PORT: u16 = 53;
const HEADER: usize = 12;
/// In the header's third byte.
const IS_RESPONSE: u8 = 0x80;
/// In its fourth.
const RECURSION_AVAILABLE: u8 = 0x80;
const SERVER_FAILURE: u8 = 2;

/// Listens on all addresses and answers in the background.
pub(crate) async fn serve(sessions: &Sessions) -> Result<(), Error> {
    for address in ADDRESSES {
        let attempt = || format!("listening for DNS on {address}");
        let udp = UdpSocket::bind((address, PORT)).await.map_err(trying(attempt()))?;
        let tcp = TcpListener::bind((address, PORT)).await.map_err(trying(attempt()))?;
        tokio::spawn(serve_udp(Arc::new(udp), sessions.clone()));
        tokio::spawn(serve_tcp(tcp, sessions.clone()));
    }
    Ok(())
}

/// The host's answer, or that there is none; nothing where no host listens, so that the client asks again.
async fn resolve(sessions: &Sessions, query: Vec<u8>) -> Option<Vec<u8>> {
    let host = sessions.borrow().clone()?;
    match host.resolve(query.clone()).await.ok()? {
        Some(answer) => Some(answer),
        None => failure(query),
    }
}

/// SERVFAIL, which a client need not wait for.
fn failure(mut query: Vec<u8>) -> Option<Vec<u8>> {
    if query.len() < HEADER {
        return None;
    }
    query[2] |= IS_RESPONSE;
    query[3] = RECURSION_AVAILABLE | SERVER_FAILURE;
    Some(query)
}

async fn serve_udp(socket: Arc<UdpSocket>, sessions: Sessions) {
    let mut buffer = vec![0; MAX_DNS_MESSAGE];
    loop {
        // An error here is a client's unreachable port, told late.
        let Ok((count, client)) = socket.recv_from(&mut buffer).await else { continue };
        let query = buffer[..count].to_vec();
        tokio::spawn(answer_datagram(Arc::clone(&socket), sessions.clone(), query, client));
    }
}

async fn answer_datagram(socket: Arc<UdpSocket>, sessions: Sessions, query: Vec<u8>, client: SocketAddr) {
    if let Some(answer) = resolve(&sessions, query).await {
        // A client that is gone asks again.
        let _ = socket.send_to(&answer, client).await;
    }
}

async fn serve_tcp(listener: TcpListener, sessions: Sessions) {
    while let Ok((stream, _)) = listener.accept().await {
        let sessions = sessions.clone();
        tokio::spawn(async move {
            // A broken connection has nobody to tell.
            let _ = answer_connection(stream, &sessions).await;
        });
    }
}

async fn answer_connection(mut stream: TcpStream, sessions: &Sessions) -> std::io::Result<()> {
    loop {
        let mut query = vec![0; usize::from(stream.read_u16().await?)];
        stream.read_exact(&mut query).await?;
        let answer = resolve(sessions, query).await.unwrap_or_default();
        let Ok(length @ 1..) = u16::try_from(answer.len()) else { return Ok(()) };
        stream.write_u16(length).await?;
        stream.write_all(&answer).await?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_repeats_the_question() {
        let query = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01";
        let answer = failure(query.to_vec()).unwrap();
        assert_eq!(answer[..4], [0x12, 0x34, 0x81, 0x82]);
        assert_eq!(answer[4..], query[4..]);
        assert_eq!(failure(vec![0; 11]), None);
    }
}
