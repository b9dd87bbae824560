//! The metadata service: HTTP for the programs of this machine (SPEC §8). What it tells is asked of the host each time,
//! so that nothing of it stays here, least of all in a snapshot.

mod link;

use std::net::TcpListener as StdListener;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use agent_proto::Metadata;
use imds::{Answer, MAX_HEAD, Read, SEED_BYTES, Tokens, Verdict};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::sync::watch::error::RecvError;
use tokio::time::timeout;

use crate::error::{Error, trying};
use crate::sessions::Sessions;

pub(crate) use link::listen;

/// Connections at once; more wait to be taken up.
const MAX_CONNECTIONS: usize = 64;
/// For the next request of a connection, whole, and for its answer to be taken.
const PATIENCE: Duration = Duration::from_secs(10);
/// For a host that is away to come back.
const HOST_PATIENCE: Duration = Duration::from_secs(5);

/// The service, for as long as the machine lives.
#[derive(Clone)]
pub(crate) struct Service {
    sessions: Sessions,
    tokens: Arc<Mutex<Tokens>>,
}

impl Service {
    /// Answers in the background.
    pub(crate) fn start(listener: StdListener, sessions: Sessions) -> Result<Self, Error> {
        let listener = TcpListener::from_std(listener).map_err(trying("serving metadata"))?;
        let service = Self { sessions, tokens: Arc::default() };
        tokio::spawn(service.clone().accept(listener));
        Ok(service)
    }

    /// This machine is another one from now on.
    pub(crate) fn forget(&self) {
        self.tokens.lock().unwrap_or_else(PoisonError::into_inner).forget();
    }

    async fn accept(self, listener: TcpListener) {
        let seats = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            // The semaphore is never closed.
            let seat = Arc::clone(&seats).acquire_owned().await;
            // What fails here is one client's connection.
            let Ok((stream, _)) = listener.accept().await else { continue };
            let service = self.clone();
            tokio::spawn(async move {
                let _seat = seat;
                service.serve(stream).await;
            });
        }
    }

    /// Answers one request after another, until the client is done or too slow.
    async fn serve(&self, mut stream: TcpStream) {
        let mut received = Vec::new();
        loop {
            let request = timeout(PATIENCE, self.request(&mut stream, &mut received)).await;
            let Ok(Some((answer, keeps_open))) = request else { return };
            let answer = answer.render(keeps_open);
            let written = timeout(PATIENCE, stream.write_all(&answer)).await;
            if !keeps_open || !matches!(written, Ok(Ok(()))) {
                return;
            }
        }
    }

    /// Reads one request, and what it is to be answered; with whether another may follow.
    async fn request(&self, stream: &mut TcpStream, received: &mut Vec<u8>) -> Option<(Answer, bool)> {
        loop {
            match imds::read(received) {
                Read::Request(request, length) => {
                    let answer = self.answer(&request).await;
                    let keeps_open = request.keeps_open;
                    received.drain(..length);
                    return Some((answer, keeps_open));
                }
                Read::Malformed => return Some((Answer::refusal(), false)),
                Read::Unfinished => {
                    let mut chunk = [0; 1024];
                    let room = chunk.len().min(MAX_HEAD - received.len());
                    let count = stream.read(&mut chunk[..room]).await.ok().filter(|count| *count > 0)?;
                    received.extend_from_slice(&chunk[..count]);
                }
            }
        }
    }

    async fn answer(&self, request: &imds::Request<'_>) -> Answer {
        let Some(seed) = seed() else { return Answer::unavailable() };
        let verdict = {
            let mut tokens = self.tokens.lock().unwrap_or_else(PoisonError::into_inner);
            imds::decide(request, &mut tokens, Instant::now(), seed)
        };
        match verdict {
            Verdict::Answer(answer) => answer,
            Verdict::Document => match timeout(HOST_PATIENCE, self.metadata()).await {
                Ok(Ok(metadata)) => imds::document(request, metadata.as_ref()),
                Ok(Err(_)) | Err(_) => Answer::unavailable(),
            },
        }
    }

    /// What the host says; a session that ends meanwhile may be followed by another, of this life or the next.
    async fn metadata(&self) -> Result<Option<Metadata>, RecvError> {
        let mut sessions = self.sessions.clone();
        loop {
            let host = sessions.wait_for(Option::is_some).await?.clone();
            if let Some(host) = host {
                if let Ok(metadata) = host.describe().await {
                    return Ok(metadata);
                }
                host.ended().await;
            }
            sessions.changed().await?;
        }
    }
}

/// Random bytes of the kernel's.
fn seed() -> Option<[u8; SEED_BYTES]> {
    let mut seed = [0; SEED_BYTES];
    getrandom::fill(&mut seed).ok()?;
    Some(seed)
}
