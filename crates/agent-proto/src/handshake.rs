//! How a life of the channel starts.
//!
//! The stream outlives the sessions on it: a snapshot keeps what was in flight, and a host that died leaves half
//! a frame behind. So the host sends [`MAGIC`] and a nonce; the guest, which discards everything else, answers
//! [`MAGIC_ACK`] and that nonce; and the host says [`GO`]. A guest that was slow to answer finds another preamble
//! where it expects [`GO`], and answers that one instead.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// What the host sends first.
const MAGIC: [u8; 16] = *b"\xF5rekindle>guest\n";
/// What the guest answers.
const MAGIC_ACK: [u8; 16] = *b"\xF6rekindle<guest\n";
/// Ends the handshake; multiplexed bytes follow.
const GO: u8 = 0x06;
const NONCE_BYTES: usize = 16;

/// The host repeats its preamble, with a new nonce, when no answer came for so long.
pub const RESEND_AFTER: Duration = Duration::from_secs(1);

/// Why a session could not be started.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The transport failed or was closed.
    #[error("waiting for the other side of the agent channel: {0}")]
    Io(#[from] io::Error),
    /// The host has no randomness for a nonce.
    #[error("drawing a nonce for the agent channel: {0}")]
    Nonce(getrandom::Error),
}

/// Host side: returns once the guest has answered; bound it with a timeout.
pub(crate) async fn greet<T>(io: &mut T) -> Result<(), HandshakeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    loop {
        let mut nonce = [0; NONCE_BYTES];
        getrandom::fill(&mut nonce).map_err(HandshakeError::Nonce)?;
        send(io, &MAGIC, &nonce).await?;
        let answer = [MAGIC_ACK, nonce].concat();
        if let Ok(found) = tokio::time::timeout(RESEND_AFTER, scan(io, &answer)).await {
            found?;
            io.write_all(&[GO]).await?;
            io.flush().await?;
            return Ok(());
        }
    }
}

/// Guest side: discards bytes until a host greets, and answers it.
pub(crate) async fn answer<T>(io: &mut T) -> Result<(), HandshakeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut scanned = 0;
    loop {
        scan(io, &MAGIC[scanned..]).await?;
        let mut nonce = [0; NONCE_BYTES];
        io.read_exact(&mut nonce).await?;
        send(io, &MAGIC_ACK, &nonce).await?;
        match io.read_u8().await? {
            GO => return Ok(()),
            first => scanned = usize::from(first == MAGIC[0]),
        }
    }
}

async fn send<T>(io: &mut T, magic: &[u8], nonce: &[u8]) -> io::Result<()>
where
    T: AsyncWrite + Unpin,
{
    io.write_all(&[magic, nonce].concat()).await?;
    io.flush().await
}

/// Reads until `pattern` has just been read, and not one byte more.
async fn scan<T: AsyncRead + Unpin>(io: &mut T, pattern: &[u8]) -> io::Result<()> {
    let mut matched = Vec::with_capacity(pattern.len());
    let mut chunk = [0; 64];
    while matched.len() < pattern.len() {
        let wanted = (pattern.len() - matched.len()).min(chunk.len());
        let count = io.read(&mut chunk[..wanted]).await?;
        if count == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        matched.extend_from_slice(&chunk[..count]);
        let start = (0..=matched.len()).find(|&at| pattern.starts_with(&matched[at..]));
        matched.drain(..start.unwrap_or(matched.len()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::duplex;

    async fn meet(before_host: &[u8], before_guest: &[u8]) {
        let (mut host, mut guest) = duplex(1 << 16);
        host.write_all(before_guest).await.unwrap();
        guest.write_all(before_host).await.unwrap();
        let (greeted, answered) = tokio::join!(greet(&mut host), answer(&mut guest));
        greeted.unwrap();
        answered.unwrap();
        host.write_all(b"after").await.unwrap();
        let mut rest = [0; 5];
        guest.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"after");
    }

    #[tokio::test(start_paused = true)]
    async fn sides_meet_over_a_clean_stream() {
        meet(b"", b"").await;
    }

    #[tokio::test(start_paused = true)]
    async fn sides_meet_over_stale_preambles() {
        let stale = [&MAGIC[..], &[7; 16], &MAGIC, &[8; 16], &MAGIC[..9]].concat();
        meet(&[&MAGIC_ACK[..], &[7; 16], &MAGIC_ACK[..3]].concat(), &stale).await;
    }

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_wakes_late_answers_the_last_preamble() {
        let (mut host, mut guest) = duplex(1 << 16);
        let late = async {
            tokio::time::sleep(RESEND_AFTER * 7 / 2).await;
            answer(&mut guest).await
        };
        let (greeted, answered) = tokio::join!(greet(&mut host), late);
        greeted.unwrap();
        answered.unwrap();
    }

    #[tokio::test]
    async fn a_closed_stream_is_an_error() {
        let (mut host, guest) = duplex(64);
        drop(guest);
        assert!(greet(&mut host).await.is_err());
    }

    proptest! {
        #[test]
        fn any_stale_bytes_are_survived(
            host in proptest::collection::vec(any::<u8>(), 0..200),
            guest in proptest::collection::vec(any::<u8>(), 0..200),
        ) {
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
                .block_on(meet(&host, &guest));
        }
    }
}
