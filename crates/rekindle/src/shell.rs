//! `rekindle shell`: a shell in a MicroVM, in this terminal.

mod input;
mod screen;

use std::io;
use std::time::Duration;

use futures::stream::SplitSink;
use futures::{SinkExt, StreamExt};
use http::StatusCode;
use ids::MicrovmId;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Message};
use tokio_tungstenite::tungstenite::{self, Bytes, Error};
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::cli;
use crate::client::{Client, ClientError, EndpointStream};
use crate::stop::Stop;
use input::{Input, InputError, Keys};
use screen::{Screen, window};

/// How long a token lives: it is used at once, and looked at but then.
const TOKEN_MINUTES: u32 = 5;
/// For the MicroVM to wake and answer.
const OPEN_TIMEOUT: Duration = Duration::from_secs(120);
/// A server from which nothing has come for so long, not even a ping, is gone.
const SILENCE: Duration = Duration::from_secs(150);
/// Between two ends of the input: one that comes while a command reads nothing is lost on the shell.
const END_AGAIN: Duration = Duration::from_millis(500);
/// What a terminal takes for the end of its input.
const END_OF_INPUT: &[u8] = &[4];

/// Why there is no shell, or it ended otherwise than by its exit.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ShellError {
    /// Nothing to type with.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The server cannot be asked, or refuses, or its endpoint cannot be reached.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The endpoint would not.
    #[error("the endpoint refuses a shell in {id} ({status}){}", hint(*.status))]
    Refused {
        /// In which MicroVM.
        id: MicrovmId,
        /// The answer's status.
        status: StatusCode,
    },
    /// No answer came in time.
    #[error("{0} has not opened a shell within {limit} s; `rekindle logs {0}` may say why it does not wake", limit = OPEN_TIMEOUT.as_secs())]
    Late(MicrovmId),
    /// The shell was ended from the other side.
    #[error("the shell has ended: {0}")]
    Ended(String),
    /// The connection broke.
    #[error(
        "the connection to the shell is lost ({0}); `aws lambda-microvms get-microvm` says whether the MicroVM is"
    )]
    Lost(String),
    /// This program is told to end.
    #[error("ended by {0}")]
    Stopped(&'static str),
    /// The terminal cannot be used.
    #[error("cannot use this terminal: {0}")]
    Terminal(#[from] io::Error),
}

fn hint(status: StatusCode) -> &'static str {
    match status {
        StatusCode::TOO_MANY_REQUESTS => {
            ": as many shells are open in it as may be at once; leave another one"
        }
        StatusCode::BAD_GATEWAY => {
            ": it has ended, or sleeps and cannot be woken by a request; `aws lambda-microvms get-microvm` says which, \
             `resume-microvm` wakes it"
        }
        _ => "",
    }
}

type Socket = WebSocketStream<EndpointStream>;

/// Returns when the shell has exited, with the terminal as it was.
pub(crate) async fn run(args: &cli::Shell) -> Result<(), ShellError> {
    let mut stop = Stop::listen()?;
    let input = Input::of_this_program()?;
    let open = async {
        let client = Client::of(&args.data.data_dir, args.account.as_deref())?;
        timeout(OPEN_TIMEOUT, open(&client, args.id)).await.unwrap_or(Err(ShellError::Late(args.id)))
    };
    tokio::select! {
        signal = stop.next() => Err(ShellError::Stopped(signal)),
        result = async { converse(open.await?, input).await } => result,
    }
}

async fn open(client: &Client, id: MicrovmId) -> Result<Socket, ShellError> {
    let endpoint = client.microvm(id).await?.endpoint;
    let token = client.shell_token(id, TOKEN_MINUTES).await?;
    let stream = client.connect(&endpoint).await?;
    let refused = |error: Error| match error {
        Error::Http(answer) => ShellError::Refused { id, status: answer.status() },
        other => ShellError::Lost(other.to_string()),
    };
    let mut request = format!("wss://{endpoint}/shell").into_client_request().map_err(refused)?;
    request.headers_mut().extend(token);
    let (socket, _) = client_async(request, stream).await.map_err(refused)?;
    Ok(socket)
}

/// Carries what is typed and what is shown until the shell ends.
async fn converse(socket: Socket, input: Input) -> Result<(), ShellError> {
    let (mut to, mut from) = socket.split();
    let (mut keys, _raw) = input.start()?;
    let shown = async {
        let mut screen = Screen::default();
        loop {
            match timeout(SILENCE, from.next()).await {
                Ok(Some(Ok(Message::Binary(bytes)))) => match screen.show(&bytes).await {
                    // Whoever reads what is shown may have enough of it.
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
                    shown => shown?,
                },
                Ok(Some(Ok(Message::Close(close)))) => return ended(close),
                Ok(Some(Ok(_))) => {}
                Ok(Some(Err(error))) => return Err(ShellError::Lost(error.to_string())),
                Ok(None) => return Err(ShellError::Lost("it was cut".into())),
                Err(_) => return Err(ShellError::Lost("nothing comes any more".into())),
            }
        }
    };
    let typed = async {
        type_in(&mut to, &mut keys).await?;
        // The connection is over, and what came last on it says why.
        std::future::pending().await
    };
    tokio::select! {
        result = shown => result,
        result = typed => result,
    }
}

/// Returns once the connection takes no more.
async fn type_in(to: &mut SplitSink<Socket, Message>, keys: &mut Keys) -> Result<(), ShellError> {
    let mut resized = signal(SignalKind::window_change())?;
    let mut message = window().map(resize);
    loop {
        if let Some(message) = message.take()
            && to.send(message).await.is_err()
        {
            return Ok(());
        }
        message = tokio::select! {
            typed = keys.next() => match typed {
                Some(bytes) => Some(Message::Binary(bytes)),
                None => return end(to).await,
            },
            _ = resized.recv() => window().map(resize),
        };
    }
}

/// Types the end of the input until the shell has taken it for its own.
async fn end(to: &mut SplitSink<Socket, Message>) -> Result<(), ShellError> {
    let mut again = tokio::time::interval(END_AGAIN);
    loop {
        again.tick().await;
        if to.send(Message::Binary(Bytes::from_static(END_OF_INPUT))).await.is_err() {
            return Ok(());
        }
    }
}

fn resize((cols, rows): (u16, u16)) -> Message {
    Message::text(format!(r#"{{"type":"resize","cols":{cols},"rows":{rows}}}"#))
}

fn ended(close: Option<CloseFrame>) -> Result<(), ShellError> {
    use tungstenite::protocol::frame::coding::CloseCode;
    match close {
        Some(CloseFrame { code: CloseCode::Normal, .. }) => Ok(()),
        Some(CloseFrame { reason, .. }) => Err(ShellError::Ended(reason.to_string())),
        None => Err(ShellError::Ended("no reason is given".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tungstenite::protocol::frame::coding::CloseCode;

    #[test]
    fn a_window_is_a_command() {
        assert_eq!(resize((120, 40)), Message::text(r#"{"type":"resize","cols":120,"rows":40}"#));
    }

    #[test]
    fn an_exit_is_no_error_and_every_other_end_is() {
        let close = |code, reason: &'static str| Some(CloseFrame { code, reason: reason.into() });
        assert!(ended(close(CloseCode::Normal, "shell exited")).is_ok());
        let error = ended(close(CloseCode::Away, "microvm suspended")).unwrap_err().to_string();
        assert_eq!(error, "the shell has ended: microvm suspended");
        assert!(ended(None).is_err());
    }
}
