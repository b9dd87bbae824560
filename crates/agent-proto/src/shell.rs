//! The stream of a shell, once its request has been answered: frames both ways, each way by itself.

use std::marker::PhantomData;

use serde::{Serialize, de::DeserializeOwned};
use tokio::io::{AsyncWriteExt, ReadHalf, WriteHalf};

use crate::codec::{FrameError, MAX_SHELL_FRAME, read_frame_within, write_frame};
use crate::messages::{ShellInput, ShellOutput};
use crate::stream::Stream;

/// Sends one side's frames.
#[derive(Debug)]
pub struct Sender<M> {
    half: WriteHalf<Stream>,
    kind: PhantomData<M>,
}

/// Receives the other side's frames.
#[derive(Debug)]
pub struct Receiver<M> {
    half: ReadHalf<Stream>,
    kind: PhantomData<M>,
}

/// A shell as the host has it. Dropped, the shell is hung up.
pub type HostEnds = (Sender<ShellInput>, Receiver<ShellOutput>);
/// A shell as the guest has it.
pub type GuestEnds = (Sender<ShellOutput>, Receiver<ShellInput>);

pub(crate) fn split<S, R>(stream: Stream) -> (Sender<S>, Receiver<R>) {
    let (read, write) = tokio::io::split(stream);
    (Sender { half: write, kind: PhantomData }, Receiver { half: read, kind: PhantomData })
}

impl<M: Serialize> Sender<M> {
    /// Sends a frame; waits while the other side is behind.
    ///
    /// # Errors
    /// Where the stream fails.
    pub async fn send(&mut self, frame: &M) -> Result<(), FrameError> {
        write_frame(&mut self.half, frame).await
    }

    /// Sends no more; returns once what was sent has left.
    ///
    /// # Errors
    /// Where the stream fails.
    pub async fn close(&mut self) -> Result<(), FrameError> {
        Ok(self.half.shutdown().await?)
    }
}

impl<M: DeserializeOwned> Receiver<M> {
    /// The next frame; `None` where the other side sends no more. Not to be dropped half way.
    ///
    /// # Errors
    /// Where the stream fails, or carries nonsense or a frame that is too long.
    pub async fn next(&mut self) -> Result<Option<M>, FrameError> {
        read_frame_within(&mut self.half, MAX_SHELL_FRAME).await
    }
}
