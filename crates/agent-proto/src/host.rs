//! The host's side of a session.

use std::fmt;
use std::sync::Arc;

use futures::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Semaphore, mpsc};
use yamux::Mode;

use crate::Relay;
use crate::codec::{FrameError, read_frame, write_frame};
use crate::handshake::{self, HandshakeError};
use crate::messages::{DnsMessage, Event, GuestStream, MAX_DNS_MESSAGE, Metadata, Request, Response};
use crate::session::{Session, SessionEnded};
use crate::shell;
use crate::stream::Stream;

/// Events not yet taken by their receiver; a full queue holds the guest's writers back.
const EVENT_BACKLOG: usize = 256;
/// Questions of one guest answered at once; more wait.
const QUESTIONS_AT_ONCE: usize = 64;

/// Answers a raw DNS query with a raw DNS message, or nothing where it cannot be resolved.
pub type Resolver = Arc<dyn Fn(Vec<u8>) -> BoxFuture<'static, Option<Vec<u8>>> + Send + Sync>;

/// Tells a guest what it is, each time that it asks; nothing while it is nobody's.
pub type Describer = Arc<dyn Fn() -> Option<Metadata> + Send + Sync>;

/// What a guest's questions are answered by.
#[derive(Clone)]
pub struct Answers {
    /// DNS queries.
    pub resolver: Resolver,
    /// What the guest asks of itself.
    pub describer: Describer,
}

impl Answers {
    /// To a guest that asks nothing: no name can be resolved, and it is nobody's.
    #[must_use]
    pub fn none() -> Self {
        Self { resolver: Arc::new(|_| Box::pin(std::future::ready(None))), describer: Arc::new(|| None) }
    }
}

impl fmt::Debug for Answers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Answers").finish_non_exhaustive()
    }
}

/// Why a call to the guest failed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The session ended before or during the call.
    #[error("calling the guest agent: {0}")]
    Ended(#[from] SessionEnded),
    /// The stream of the call failed or carried nonsense.
    #[error("calling the guest agent: {0}")]
    Frame(#[from] FrameError),
    /// The guest closed the stream instead of answering.
    #[error("the guest agent closed the call without an answer")]
    NoAnswer,
    /// The guest would not do it.
    #[error("the guest agent refused: {0}")]
    Refused(String),
    /// The guest answered another question.
    #[error(
        "the guest agent gave an answer of the wrong kind; host and guest agent must be of the same release"
    )]
    WrongAnswer,
}

/// A session with the agent of one MicroVM; cheap to clone, ended by dropping every clone.
#[derive(Clone)]
pub struct Channel {
    session: Session,
}

impl fmt::Debug for Channel {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Channel").finish_non_exhaustive()
    }
}

impl Channel {
    /// Greets the guest until it answers, then starts a session; bound it with a timeout.
    ///
    /// The receiver yields what the guest tells unasked, and ends with the session.
    ///
    /// # Errors
    /// Where the transport fails or is closed.
    pub async fn establish<T>(
        mut io: T,
        answers: Answers,
    ) -> Result<(Self, mpsc::Receiver<Event>), HandshakeError>
    where
        T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        handshake::greet(&mut io).await?;
        let (session, accepted) = Session::start(io, Mode::Client);
        let (events, receiver) = mpsc::channel(EVENT_BACKLOG);
        tokio::spawn(serve_guest(accepted, events, answers));
        Ok((Self { session }, receiver))
    }

    /// Sends a request and waits for its answer, for as long as that takes.
    ///
    /// # Errors
    /// Where the session ends or the guest breaks the protocol; [`Response::Failed`] is no error here.
    pub async fn call(&self, request: &Request) -> Result<Response, CallError> {
        let mut stream = self.session.open().await?;
        exchange(&mut stream, request).await
    }

    /// Connects to a port on the guest's loopback.
    ///
    /// # Errors
    /// As [`call`](Self::call), and [`CallError::Refused`] where nothing listens there.
    pub async fn relay(&self, port: u16) -> Result<Relay, CallError> {
        Ok(Relay::over(self.stream(&Request::Relay { port }).await?))
    }

    /// Starts a shell beside the application.
    ///
    /// # Errors
    /// As [`call`](Self::call), and [`CallError::Refused`] where there is none to be had.
    pub async fn shell(&self) -> Result<shell::HostEnds, CallError> {
        Ok(shell::split(self.stream(&Request::Shell).await?))
    }

    /// The stream that a request was made on, once it was answered with `Done`.
    async fn stream(&self, request: &Request) -> Result<Stream, CallError> {
        let mut stream = self.session.open().await?;
        match exchange(&mut stream, request).await? {
            Response::Done => Ok(stream),
            Response::Failed { message } => Err(CallError::Refused(message)),
            _ => Err(CallError::WrongAnswer),
        }
    }

    /// Ends the session for every clone, relays included; returns once the transport is free.
    pub async fn close(&self) {
        self.session.close().await;
    }

    /// Returns when the session has ended, whoever ended it.
    pub async fn ended(&self) {
        self.session.ended().await;
    }
}

async fn exchange(stream: &mut Stream, request: &Request) -> Result<Response, CallError> {
    write_frame(stream, request).await?;
    read_frame(stream).await?.ok_or(CallError::NoAnswer)
}

async fn serve_guest(mut accepted: mpsc::Receiver<Stream>, events: mpsc::Sender<Event>, answers: Answers) {
    let permits = Arc::new(Semaphore::new(QUESTIONS_AT_ONCE));
    // Given to the first `Events` stream; a second one is dropped.
    let mut events = Some(events);
    while let Some(mut stream) = accepted.recv().await {
        match read_frame(&mut stream).await {
            Ok(Some(GuestStream::Events)) => {
                if let Some(events) = events.take() {
                    tokio::spawn(forward_events(stream, events));
                }
            }
            Ok(Some(GuestStream::Dns)) => {
                tokio::spawn(answer_query(stream, Arc::clone(&permits), Arc::clone(&answers.resolver)));
            }
            Ok(Some(GuestStream::Metadata)) => {
                tokio::spawn(describe(stream, Arc::clone(&permits), Arc::clone(&answers.describer)));
            }
            // A stream that does not say what it is for is dropped, which resets it.
            Ok(None) | Err(_) => {}
        }
    }
}

async fn forward_events(mut stream: Stream, events: mpsc::Sender<Event>) {
    while let Ok(Some(event)) = read_frame(&mut stream).await {
        // Nobody listening is no reason to block the guest: its events are read and dropped.
        let _ = events.send(event).await;
    }
}

async fn answer_query(mut stream: Stream, permits: Arc<Semaphore>, resolver: Resolver) {
    let Ok(_permit) = permits.acquire().await else {
        return;
    };
    let Ok(Some(DnsMessage(query))) = read_frame(&mut stream).await else {
        return;
    };
    if query.len() <= MAX_DNS_MESSAGE {
        let answer = resolver(query).await.map(DnsMessage);
        // A guest that went away needs no answer.
        let _ = write_frame(&mut stream, &answer).await;
    }
}

async fn describe(mut stream: Stream, permits: Arc<Semaphore>, describer: Describer) {
    let Ok(_permit) = permits.acquire().await else {
        return;
    };
    let metadata: Option<Metadata> = describer();
    // A guest that went away needs no answer.
    let _ = write_frame(&mut stream, &metadata).await;
}
