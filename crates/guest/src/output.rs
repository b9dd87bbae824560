//! What an application says without being asked: its output, and its end.

use std::sync::Arc;

use agent_proto::Event;
use logs::LogFile;
use tokio::sync::{mpsc, watch};

/// Writes output to `log` in the background. The receiver holds the exit code of the application's first process once
/// that has ended; its sender goes when the session does.
pub(crate) fn listen(events: mpsc::Receiver<Event>, log: Arc<LogFile>) -> watch::Receiver<Option<i32>> {
    let (exit, exited) = watch::channel(None);
    tokio::spawn(forward(events, log, exit));
    exited
}

async fn forward(mut events: mpsc::Receiver<Event>, log: Arc<LogFile>, exit: watch::Sender<Option<i32>>) {
    while let Some(event) = events.recv().await {
        match event {
            Event::Log { bytes, .. } => {
                if let Err(error) = log.append(&bytes) {
                    tracing::warn!(%error, "output of a guest is lost");
                }
            }
            Event::AppExited { code } => drop(exit.send_replace(Some(code))),
        }
    }
}
