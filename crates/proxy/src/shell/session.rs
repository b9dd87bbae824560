//! One client and its shell, from the answer to the handshake to the close.

use std::io;

use bytes::Bytes;
use futures::stream::{self, BoxStream, SplitSink, SplitStream, StreamExt};
use futures::{SinkExt, Stream};
use hyper::upgrade::OnUpgrade;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, interval_at, timeout};
use tokio_tungstenite::tungstenite::protocol::{Message, WebSocketConfig};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::closing::Closing;
use super::messages::{client_input, session_init};
use super::{Shell, ShellInput, ShellOutput};
use crate::forward::Held;
use crate::websocket::accept::{Socket, close, socket};
use crate::{Activity, Life, limits};

type ToClient = SplitSink<Socket, Message>;
type FromClient = SplitStream<Socket>;

/// A client that is to have a shell.
pub(super) struct Session {
    pub(super) held: Held,
    /// The server stops.
    pub(super) stopping: CancellationToken,
    /// Taken until the session is over.
    pub(super) _seat: OwnedSemaphorePermit,
}

impl Session {
    /// Runs until the shell or its client ends.
    pub(super) async fn run(self, client: OnUpgrade) {
        let socket = match socket(client, config(), limits::MAX_SHELL_MESSAGE).await {
            Ok(socket) => socket,
            Err(error) => return tracing::debug!("the client of a shell went before it had one: {error}"),
        };
        let (mut to, mut from) = socket.split();
        let closing = self.converse(&mut to, &mut from).await;
        if let Ok(socket) = to.reunite(from) {
            let unread = closing.as_ref().is_some_and(Closing::leaves_unread);
            close(socket, closing.as_ref().map(Closing::frame), unread).await;
        }
    }

    /// What to tell the client at the end; `None` where it is the client who ended it.
    async fn converse(&self, to: &mut ToClient, from: &mut FromClient) -> Option<Closing> {
        tokio::select! {
            biased;
            why = self.held.life.shells.ended() => Some(Closing::Farewell(why)),
            () = self.stopping.cancelled() => Some(Closing::Stopping),
            closing = join(&self.held.life, to, from) => closing,
        }
    }
}

/// Joins the client to a new shell.
async fn join(life: &Life, to: &mut ToClient, from: &mut FromClient) -> Option<Closing> {
    let Shell { input, output } = match start(life).await {
        Ok(shell) => shell,
        Err(why) => return Some(Closing::Failed(why)),
    };
    to.send(Message::text(session_init(Uuid::new_v4()))).await.ok()?;
    tokio::select! {
        closing = show(output, to, &life.activity) => closing,
        closing = type_in(from, input, &life.activity) => closing,
    }
}

async fn start(life: &Life) -> Result<Shell, String> {
    match timeout(limits::SHELL_START_TIMEOUT, life.connector.shell()).await {
        Ok(shell) => shell.map_err(|error| error.to_string()),
        Err(_) => Err(format!("no shell started within {} s", limits::SHELL_START_TIMEOUT.as_secs())),
    }
}

/// Shows the client what the shell shows, and pings it.
async fn show(
    output: BoxStream<'static, io::Result<ShellOutput>>,
    to: &mut ToClient,
    activity: &Activity,
) -> Option<Closing> {
    // The end of the output counts, not that of the pings.
    let output = output.map(Some).chain(stream::once(async { None }));
    let mut frames = stream::select(output.map(Frame::Shell), pings()).boxed();
    while let Some(frame) = frames.next().await {
        let message = match frame {
            Frame::Ping => Message::Ping(Bytes::new()),
            Frame::Shell(Some(Ok(ShellOutput::Bytes(bytes)))) => {
                activity.touch();
                Message::Binary(bytes)
            }
            Frame::Shell(Some(Ok(ShellOutput::Exited))) => return Some(Closing::Exited),
            Frame::Shell(Some(Err(_)) | None) => return Some(Closing::Lost),
        };
        to.send(message).await.ok()?;
    }
    None
}

enum Frame {
    Shell(Option<io::Result<ShellOutput>>),
    Ping,
}

fn pings() -> impl Stream<Item = Frame> {
    let first = Instant::now() + limits::PING_INTERVAL;
    stream::unfold(interval_at(first, limits::PING_INTERVAL), |mut interval| async {
        interval.tick().await;
        Some((Frame::Ping, interval))
    })
}

/// Gives the shell what the client types.
async fn type_in(
    from: &mut FromClient,
    mut input: impl SinkExt<ShellInput, Error = io::Error> + Unpin,
    activity: &Activity,
) -> Option<Closing> {
    while let Ok(Some(message)) = timeout(limits::SHELL_SILENCE, from.next()).await {
        let input_of_message = match message {
            Ok(Message::Text(text)) => client_input(&text),
            Ok(Message::Binary(bytes)) => ShellInput::Keys(bytes),
            // Pings and pongs show that the client is there, and are no activity.
            Ok(_) => continue,
            Err(error) => return Closing::after(&error),
        };
        activity.touch();
        for piece in pieces(input_of_message) {
            if input.send(piece).await.is_err() {
                // It has exited or is lost: its output says which.
                return std::future::pending().await;
            }
        }
    }
    None
}

/// The same in pieces that a guest takes.
fn pieces(input: ShellInput) -> Vec<ShellInput> {
    let ShellInput::Keys(mut keys) = input else { return vec![input] };
    let mut pieces = Vec::new();
    while !keys.is_empty() {
        pieces.push(ShellInput::Keys(keys.split_to(keys.len().min(limits::SHELL_KEYS))));
    }
    pieces
}

fn config() -> WebSocketConfig {
    WebSocketConfig::default()
        .read_buffer_size(limits::SHELL_READ_BUFFER)
        .write_buffer_size(0)
        .max_write_buffer_size(limits::SHELL_WRITE_BUFFER)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_go_in_pieces_and_none_is_lost() {
        let keys: Bytes = vec![7; limits::SHELL_KEYS * 2 + 1].into();
        let pieces = pieces(ShellInput::Keys(keys.clone()));
        let lengths: Vec<usize> = pieces.iter().map(length).collect();
        assert_eq!(lengths, [limits::SHELL_KEYS, limits::SHELL_KEYS, 1]);
        let resize = ShellInput::Resize { cols: 1, rows: 2 };
        assert_eq!(super::pieces(resize.clone()), [resize]);
    }

    fn length(piece: &ShellInput) -> usize {
        match piece {
            ShellInput::Keys(keys) => keys.len(),
            ShellInput::Resize { .. } => 0,
        }
    }
}
