//! The shell of a guest, from its agent's frames to what the proxy hands to a client.

use std::io;

use agent_proto::shell::{HostEnds, Receiver};
use agent_proto::{ShellInput, ShellOutput};
use bytes::Bytes;
use futures::{StreamExt, sink, stream};
use proxy::Shell;

/// What the proxy is to have of a shell that the agent has started.
pub(crate) fn of_agent((sender, receiver): HostEnds) -> Shell {
    let input = sink::unfold(sender, |mut sender, input| async move {
        sender.send(&to_guest(input)).await.map_err(io::Error::other)?;
        Ok(sender)
    });
    Shell { input: Box::pin(input), output: stream::unfold(receiver, next).boxed() }
}

async fn next(
    mut receiver: Receiver<ShellOutput>,
) -> Option<(io::Result<proxy::ShellOutput>, Receiver<ShellOutput>)> {
    let frame = receiver.next().await.map_err(io::Error::other).transpose()?;
    Some((frame.map(to_client), receiver))
}

fn to_guest(input: proxy::ShellInput) -> ShellInput {
    match input {
        proxy::ShellInput::Keys(keys) => ShellInput::Keys(keys.into()),
        proxy::ShellInput::Resize { cols, rows } => ShellInput::Resize { cols, rows },
    }
}

fn to_client(output: ShellOutput) -> proxy::ShellOutput {
    match output {
        ShellOutput::Bytes(bytes) => proxy::ShellOutput::Bytes(Bytes::from(bytes)),
        ShellOutput::Exited => proxy::ShellOutput::Exited,
    }
}

const _: () = assert!(proxy::limits::SHELL_KEYS <= agent_proto::MAX_SHELL_CHUNK);
