//! The guest's side of a session.

use std::fmt;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;
use yamux::Mode;

use crate::Relay;
use crate::codec::{FrameError, read_frame, write_frame};
use crate::handshake::{self, HandshakeError};
use crate::messages::{DnsMessage, Event, GuestStream, Metadata, Request, Response};
use crate::session::{Session, SessionEnded};
use crate::shell;
use crate::stream::Stream;

/// Why something the guest began failed.
#[derive(Debug, thiserror::Error)]
pub enum TellError {
    /// The session ended.
    #[error("telling the host: {0}")]
    Ended(#[from] SessionEnded),
    /// The stream failed.
    #[error("telling the host: {0}")]
    Frame(#[from] FrameError),
}

/// A session with the host; cheap to clone, ended by dropping every clone.
#[derive(Clone)]
pub struct Host {
    session: Session,
}

impl fmt::Debug for Host {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Host").finish_non_exhaustive()
    }
}

/// The streams that the host opens.
#[derive(Debug)]
pub struct Calls {
    accepted: mpsc::Receiver<Stream>,
}

/// A stream on which the host will say what it wants.
pub struct Incoming(Stream);

/// One request, to be answered.
pub struct Call {
    /// What the host wants.
    pub request: Request,
    stream: Stream,
}

/// Where events go.
pub struct EventSink(Stream);

impl fmt::Debug for Incoming {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Incoming").finish_non_exhaustive()
    }
}

impl fmt::Debug for Call {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Call").field("request", &self.request).finish_non_exhaustive()
    }
}

impl fmt::Debug for EventSink {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EventSink").finish_non_exhaustive()
    }
}

/// Discards bytes until a host greets, answers it, and starts a session.
///
/// # Errors
/// Where the transport fails or is closed.
pub async fn accept<T>(mut io: T) -> Result<(Host, Calls), HandshakeError>
where
    T: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    handshake::answer(&mut io).await?;
    let (session, accepted) = Session::start(io, Mode::Server);
    Ok((Host { session }, Calls { accepted }))
}

impl Host {
    /// Opens the stream for events; the host listens to the first one of a session.
    ///
    /// # Errors
    /// Where the session has ended.
    pub async fn events(&self) -> Result<EventSink, TellError> {
        let mut stream = self.session.open().await?;
        write_frame(&mut stream, &GuestStream::Events).await?;
        Ok(EventSink(stream))
    }

    /// Has the host answer a raw DNS query; `None` where it cannot.
    ///
    /// # Errors
    /// Where the session ends first.
    pub async fn resolve(&self, query: Vec<u8>) -> Result<Option<Vec<u8>>, TellError> {
        let mut stream = self.session.open().await?;
        write_frame(&mut stream, &GuestStream::Dns).await?;
        write_frame(&mut stream, &DnsMessage(query)).await?;
        let answer: Option<Option<DnsMessage>> = read_frame(&mut stream).await?;
        Ok(answer.flatten().map(|message| message.0))
    }

    /// Has the host tell what this guest is; `None` while it is nobody's.
    ///
    /// # Errors
    /// Where the session ends first.
    pub async fn describe(&self) -> Result<Option<Metadata>, TellError> {
        let mut stream = self.session.open().await?;
        write_frame(&mut stream, &GuestStream::Metadata).await?;
        let metadata: Option<Option<Metadata>> = read_frame(&mut stream).await?;
        Ok(metadata.flatten())
    }

    /// Ends the session for every clone; returns once the transport is free, with the last answers sent.
    pub async fn close(&self) {
        self.session.close().await;
    }

    /// Returns when the session has ended, whoever ended it.
    pub async fn ended(&self) {
        self.session.ended().await;
    }
}

impl Calls {
    /// The next stream that the host opens; `None` once the session has ended.
    pub async fn next(&mut self) -> Option<Incoming> {
        self.accepted.recv().await.map(Incoming)
    }
}

impl Incoming {
    /// Reads the request; `None` where the host closed the stream without one.
    ///
    /// # Errors
    /// Where the stream fails or carries nonsense.
    pub async fn request(mut self) -> Result<Option<Call>, FrameError> {
        let request = read_frame(&mut self.0).await?;
        Ok(request.map(|request| Call { request, stream: self.0 }))
    }
}

impl Call {
    /// Answers, and closes the stream.
    ///
    /// # Errors
    /// Where the stream fails.
    pub async fn answer(mut self, response: &Response) -> Result<(), FrameError> {
        write_frame(&mut self.stream, response).await?;
        Ok(self.stream.shutdown().await?)
    }

    /// Answers [`Response::Done`] and hands over the stream, for the raw bytes of a relay.
    ///
    /// # Errors
    /// Where the stream fails.
    pub async fn into_relay(self) -> Result<Relay, FrameError> {
        self.into_stream().await.map(Relay::over)
    }

    /// The same, for the frames of a shell.
    ///
    /// # Errors
    /// Where the stream fails.
    pub async fn into_shell(self) -> Result<shell::GuestEnds, FrameError> {
        self.into_stream().await.map(shell::split)
    }

    async fn into_stream(mut self) -> Result<Stream, FrameError> {
        write_frame(&mut self.stream, &Response::Done).await?;
        Ok(self.stream)
    }
}

impl EventSink {
    /// Tells the host; waits while the host is behind.
    ///
    /// # Errors
    /// Where the session has ended.
    pub async fn send(&mut self, event: &Event) -> Result<(), FrameError> {
        write_frame(&mut self.0, event).await
    }
}
