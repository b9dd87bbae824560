//! A machine that QEMU stops because the host's disk has no room for what it writes: it goes on once there is.
//!
//! Nothing is lost by it, as the write is tried again then. But QEMU waits to be told, for ever.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;

use super::qmp::{ANSWER_TIME, Connection, Event};
use crate::error::CommandError;

/// How often it is tried whether there is room again.
const RETRY: Duration = Duration::from_secs(1);

/// Why a machine does not run, as far as that is not QEMU's own business.
#[derive(Debug, Default)]
pub(crate) struct Stall {
    /// It was stopped on purpose.
    held: bool,
    /// It has stopped by itself.
    stalled: bool,
}

impl Stall {
    /// A command goes out.
    pub(crate) fn commanded(&mut self, command: &str) {
        match command {
            "stop" | "migrate" | "xen-save-devices-state" => self.held = true,
            "cont" => *self = Self::default(),
            _ => {}
        }
    }

    /// An event came.
    pub(crate) fn happened(&mut self, event: &Event) {
        let stops = event.name == "BLOCK_IO_ERROR" && event.data["action"] == "stop";
        self.stalled |= stops && event.data["nospace"] == true;
    }

    /// Whether it is to be told to go on.
    pub(crate) fn may_go_on(&self) -> bool {
        self.stalled && !self.held
    }
}

/// Looks after a machine until this is dropped.
#[derive(Debug)]
pub(crate) struct Watch(AbortHandle);

impl Drop for Watch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Has the machine of this process go on where it stops for want of room.
pub(crate) fn watch(
    pid: i32,
    connection: Arc<Mutex<Connection>>,
    socket: BorrowedFd<'_>,
) -> io::Result<Watch> {
    // Of its own, so that waiting for what comes keeps nobody from giving commands.
    let socket = socket.try_clone_to_owned()?;
    // SAFETY: an `OwnedFd` is open and the same until it is dropped, which only dropping the `AsyncFd` does.
    let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
    let task = tokio::spawn(async move {
        if let Err(error) = attend(pid, &connection, &socket).await {
            tracing::debug!(pid, %error, "a machine is not looked after any more");
        }
    });
    Ok(Watch(task.abort_handle()))
}

/// Ends with the connection.
async fn attend(
    pid: i32,
    connection: &Mutex<Connection>,
    socket: &AsyncFd<OwnedFd>,
) -> Result<(), CommandError> {
    loop {
        let mut ready = socket.readable().await?;
        connection.lock().await.hear()?;
        ready.clear_ready();
        while connection.lock().await.stall.may_go_on() {
            tracing::warn!(
                pid,
                "a machine has stopped: the host's disk is full; it goes on once there is room"
            );
            tokio::time::sleep(RETRY).await;
            let mut connection = connection.lock().await;
            // Somebody may have stopped it meanwhile.
            if connection.stall.may_go_on() {
                let told = tokio::time::timeout(ANSWER_TIME, connection.exchange("cont", json!({}), None));
                told.await.map_err(|_| CommandError::Timeout("cont".into()))??;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full(action: &str) -> Event {
        Event { name: "BLOCK_IO_ERROR".into(), data: json!({"action": action, "nospace": true}) }
    }

    #[test]
    fn a_machine_that_ran_out_of_room_is_to_go_on_unless_it_was_stopped() {
        let mut stall = Stall::default();
        stall.happened(&full("report"));
        stall.happened(&Event {
            name: "BLOCK_IO_ERROR".into(),
            data: json!({"action": "stop", "nospace": false}),
        });
        stall.happened(&Event { name: "STOP".into(), data: json!({}) });
        assert!(!stall.may_go_on());
        stall.happened(&full("stop"));
        assert!(stall.may_go_on());
        stall.commanded("cont");
        assert!(!stall.may_go_on());
        for stop in ["stop", "migrate", "xen-save-devices-state"] {
            stall.happened(&full("stop"));
            stall.commanded(stop);
            assert!(!stall.may_go_on(), "a saved machine must not run");
            stall.happened(&full("stop"));
            assert!(!stall.may_go_on());
            stall.commanded("cont");
        }
    }
}
