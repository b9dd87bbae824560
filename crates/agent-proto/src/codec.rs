//! Frames: a little-endian `u32` length, then a postcard message of that length.

use std::io;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::messages::MAX_SHELL_CHUNK;

/// Longest message of either side.
pub const MAX_FRAME: usize = 1024 * 1024;

/// Longest frame of a shell: a chunk with its kind and its length.
pub(crate) const MAX_SHELL_FRAME: usize = MAX_SHELL_CHUNK + 8;

/// Why a frame could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The transport failed.
    #[error("reading or writing a frame of the agent channel: {0}")]
    Io(#[from] io::Error),
    /// Longer than [`MAX_FRAME`], or than a shell's may be.
    #[error("a frame of {0} bytes exceeds the limit of its stream; split the message")]
    TooLong(usize),
    /// Not a message of the expected type.
    #[error("a frame does not decode ({0}); host and guest agent must be of the same release")]
    Malformed(#[from] postcard::Error),
    /// Bytes after the message.
    #[error("a frame has {0} bytes after its message; host and guest agent must be of the same release")]
    Trailing(usize),
}

/// Writes one message as a frame and flushes it.
///
/// # Errors
/// Where the message is too long or the transport fails.
pub async fn write_frame<W, M>(writer: &mut W, message: &M) -> Result<(), FrameError>
where
    W: AsyncWrite + Unpin,
    M: Serialize,
{
    let frame = encode(message)?;
    writer.write_all(&frame).await?;
    Ok(writer.flush().await?)
}

/// Reads one frame; `None` where the peer closed the stream between frames.
///
/// # Errors
/// Where the frame is too long, does not decode, is cut short, or the transport fails.
pub async fn read_frame<R, M>(reader: &mut R) -> Result<Option<M>, FrameError>
where
    R: AsyncRead + Unpin,
    M: DeserializeOwned,
{
    read_frame_within(reader, MAX_FRAME).await
}

/// The same with a limit of the stream's own.
pub(crate) async fn read_frame_within<R, M>(reader: &mut R, limit: usize) -> Result<Option<M>, FrameError>
where
    R: AsyncRead + Unpin,
    M: DeserializeOwned,
{
    let Some(length) = read_length(reader).await? else {
        return Ok(None);
    };
    if length > limit {
        return Err(FrameError::TooLong(length));
    }
    // Grown as bytes arrive, so that a length alone commits no memory.
    let mut body = Vec::new();
    reader.take(length as u64).read_to_end(&mut body).await?;
    if body.len() < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    decode(&body).map(Some)
}

async fn read_length<R: AsyncRead + Unpin>(reader: &mut R) -> io::Result<Option<usize>> {
    let mut prefix = [0; 4];
    if reader.read(&mut prefix[..1]).await? == 0 {
        return Ok(None);
    }
    reader.read_exact(&mut prefix[1..]).await?;
    Ok(Some(u32::from_le_bytes(prefix) as usize))
}

fn encode<M: Serialize>(message: &M) -> Result<Vec<u8>, FrameError> {
    let mut frame = postcard::to_extend(message, vec![0; 4])?;
    let length = frame.len() - 4;
    match u32::try_from(length) {
        Ok(prefix) if length <= MAX_FRAME => frame[..4].copy_from_slice(&prefix.to_le_bytes()),
        _ => return Err(FrameError::TooLong(length)),
    }
    Ok(frame)
}

fn decode<M: DeserializeOwned>(body: &[u8]) -> Result<M, FrameError> {
    match postcard::take_from_bytes(body)? {
        (message, []) => Ok(message),
        (_, rest) => Err(FrameError::Trailing(rest.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BuildOutcome, Event, Request, Response, ShellInput, ShellOutput};
    use proptest::prelude::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_frame_comes_back_as_it_went() {
        block_on(async {
            let mut pipe = Vec::new();
            write_frame(&mut pipe, &Request::Relay { port: 8080 }).await.unwrap();
            let mut reader = pipe.as_slice();
            assert_eq!(read_frame(&mut reader).await.unwrap(), Some(Request::Relay { port: 8080 }));
            assert_eq!(read_frame::<_, Request>(&mut reader).await.unwrap(), None);
        });
    }

    #[test]
    fn an_oversized_length_is_refused_before_its_bytes() {
        let error = block_on(read_frame::<_, Request>(&mut &[0xff, 0xff, 0xff, 0xff][..])).unwrap_err();
        assert!(matches!(error, FrameError::TooLong(_)), "{error}");
    }

    #[test]
    fn an_oversized_message_is_not_sent() {
        let event = Event::Log { source: crate::LogSource::Stdout, bytes: vec![0; MAX_FRAME] };
        let error = block_on(write_frame(&mut Vec::new(), &event)).unwrap_err();
        assert!(matches!(error, FrameError::TooLong(_)), "{error}");
    }

    #[test]
    fn a_cut_frame_and_trailing_bytes_are_errors() {
        assert!(block_on(read_frame::<_, Request>(&mut &[5, 0, 0, 0, 2][..])).is_err());
        let padded = block_on(read_frame::<_, Response>(&mut &[2, 0, 0, 0, 0, 9][..])).unwrap_err();
        assert!(matches!(padded, FrameError::Trailing(1)), "{padded}");
    }

    proptest! {
        #[test]
        fn hostile_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = decode::<Request>(&bytes);
            let _ = decode::<Response>(&bytes);
            let _ = decode::<Event>(&bytes);
            let _ = decode::<BuildOutcome>(&bytes);
            let _ = decode::<ShellInput>(&bytes);
            let _ = decode::<ShellOutput>(&bytes);
            let _ = block_on(read_frame::<_, Response>(&mut bytes.as_slice()));
        }

        #[test]
        fn any_log_survives(bytes in proptest::collection::vec(any::<u8>(), 0..4096)) {
            let event = Event::Log { source: crate::LogSource::Stderr, bytes };
            let frame = encode(&event).unwrap();
            prop_assert_eq!(decode::<Event>(&frame[4..]).unwrap(), event);
        }
    }
}
