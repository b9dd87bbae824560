//! Bodies of requests and answers.

use api::{Error, ErrorKind};
use bytes::Bytes;
use http_body::Frame;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use tokio::sync::mpsc;

/// Longest body of a request: 100 environment variables of 4 KiB fit.
pub const MAX_REQUEST: usize = 1 << 20;

/// What a body's reader may meet.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// The body of an answer, ours or the fallback's.
pub type Body = UnsyncBoxBody<Bytes, BodyError>;

/// A body whose bytes come piece by piece, until the sender is gone.
pub fn stream(pieces: mpsc::Receiver<Bytes>) -> Body {
    let frames = futures::stream::unfold(pieces, |mut pieces| async {
        let piece = pieces.recv().await?;
        Some((Ok::<_, BodyError>(Frame::data(piece)), pieces))
    });
    StreamBody::new(frames).boxed_unsync()
}

/// A body whose bytes are known.
pub fn full(bytes: impl Into<Bytes>) -> Body {
    Full::new(bytes.into()).map_err(|never| match never {}).boxed_unsync()
}

/// Reads a request's body to its end, within [`MAX_REQUEST`].
pub async fn read<B>(body: B) -> Result<Bytes, Error>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    read_within(body, MAX_REQUEST).await
}

/// The same within so many bytes.
pub async fn read_within<B>(body: B, limit: usize) -> Result<Bytes, Error>
where
    B: http_body::Body<Data = Bytes>,
    B::Error: Into<BodyError>,
{
    let collected = Limited::new(body, limit).collect().await;
    collected.map(http_body_util::Collected::to_bytes).map_err(|error| {
        if error.is::<LengthLimitError>() {
            let message = format!("The request's body is longer than the {limit} bytes allowed");
            Error::new(ErrorKind::RequestEntityTooLarge, message)
        } else {
            Error::new(
                ErrorKind::Serialization,
                format!("Reading the request's body: {error}; send it again"),
            )
        }
    })
}
