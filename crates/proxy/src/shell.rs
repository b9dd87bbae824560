//! The shell of a MicroVM (SPEC §6): a WebSocket that the proxy terminates itself, joined to a terminal in the guest.

mod closing;
mod messages;
mod session;

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures::Sink;
use futures::stream::BoxStream;
use hyper::upgrade::OnUpgrade;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub use closing::Farewell;
pub use messages::client_input;

use crate::error::Refusal;
use crate::forward::Held;
use crate::limits;
use session::Session;

/// What a client sends to its shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShellInput {
    /// Bytes as if typed.
    Keys(Bytes),
    /// The size of the client's window, in characters.
    Resize {
        /// Its width.
        cols: u16,
        /// Its height.
        rows: u16,
    },
}

/// What a shell sends to its client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ShellOutput {
    /// Bytes that its terminal shows.
    Bytes(Bytes),
    /// It has exited; nothing follows.
    Exited,
}

/// A shell that runs. Dropped, it is hung up.
pub struct Shell {
    /// Where the client's input goes; waits while the terminal takes no more.
    pub input: Pin<Box<dyn Sink<ShellInput, Error = io::Error> + Send>>,
    /// What it shows; ends early, or with an error, where the guest is lost.
    pub output: BoxStream<'static, io::Result<ShellOutput>>,
}

impl fmt::Debug for Shell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shell").finish_non_exhaustive()
    }
}

/// The shells of one life.
pub(crate) struct Shells {
    seats: Arc<Semaphore>,
    ended: watch::Sender<Option<Farewell>>,
}

impl Default for Shells {
    fn default() -> Self {
        Self { seats: Arc::new(Semaphore::new(limits::MAX_SHELLS)), ended: watch::Sender::new(None) }
    }
}

impl Shells {
    /// A place for one more; `None` where as many are open as may be.
    fn seat(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.seats).try_acquire_owned().ok()
    }

    pub(crate) fn end(&self, why: Farewell) {
        // The first reason is the one that ends them.
        self.ended.send_if_modified(|ended| ended.is_none() && ended.replace(why).is_none());
    }

    /// Returns once the life's shells are to end.
    async fn ended(&self) -> Farewell {
        let mut ended = self.ended.subscribe();
        let why = ended.wait_for(Option::is_some).await.ok().and_then(|why| *why);
        // There is one: the sender, which is `self`, lives on.
        why.unwrap_or(Farewell::Terminated)
    }
}

/// The shells of a proxy, whose clients are told when its server stops.
#[derive(Default)]
pub(crate) struct Sessions {
    running: TaskTracker,
    stopping: CancellationToken,
}

impl Sessions {
    /// Ends them; returns once every client has been told.
    pub(crate) async fn end(&self) {
        self.stopping.cancel();
        self.running.close();
        self.running.wait().await;
    }
}

/// Has a shell follow the answer to the client's handshake.
pub(crate) fn open(sessions: &Sessions, client: OnUpgrade, held: Held, came: Instant) -> Result<(), Refusal> {
    let seat = held.life.shells.seat().ok_or(Refusal::TooManyShells)?;
    held.life.answered(came);
    let session = Session { held, stopping: sessions.stopping.clone(), _seat: seat };
    sessions.running.spawn(session.run(client));
    Ok(())
}
