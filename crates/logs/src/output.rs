//! Where one build or MicroVM prints to.

use std::sync::{Mutex, PoisonError};

use crate::record::STORE;
use crate::{CreateError, Destination, Line, Logs};

/// Takes lines to where they are kept, or nowhere.
#[derive(Debug)]
pub struct Output(Option<To>);

#[derive(Debug)]
struct To {
    logs: Logs,
    destination: Destination,
    /// Lines that could not be written, which the next one that can be tells of.
    lost: Mutex<u64>,
}

impl Output {
    /// Nothing is kept.
    #[must_use]
    pub fn nowhere() -> Self {
        Self(None)
    }

    pub(crate) fn to(logs: Logs, destination: Destination) -> Self {
        Self(Some(To { logs, destination, lost: Mutex::default() }))
    }

    /// Adds lines. Not durable: a log is worth no wait for the disk.
    ///
    /// # Errors
    /// [`CreateError`]: they are lost, and the next ones that are written say so.
    pub fn write(&self, lines: Vec<Vec<u8>>) -> Result<(), CreateError> {
        let Some(to) = self.0.as_ref().filter(|_| !lines.is_empty()) else { return Ok(()) };
        // What is behind the lock stays true wherever a holder of it panicked.
        let mut lost = to.lost.lock().unwrap_or_else(PoisonError::into_inner);
        let count = lines.len() as u64;
        let source = to.destination.source;
        let line = |source, message| Line { timestamp: None, source, message };
        let told = (*lost > 0).then(|| {
            line(STORE, format!("rekindle: {lost} lines before this one could not be written").into_bytes())
        });
        let lines: Vec<Line> =
            told.into_iter().chain(lines.into_iter().map(|message| line(source, message))).collect();
        match to.logs.append_to(&to.destination, &lines) {
            Ok(()) => *lost = 0,
            Err(error) => {
                *lost += count;
                return Err(error);
            }
        }
        Ok(())
    }

    /// A life has ended: nothing more comes for now.
    pub fn rest(&self) {
        if let Some(To { logs, destination, .. }) = &self.0
            && let Err(error) = logs.rest(destination)
        {
            tracing::warn!(%error, "a log stays open");
        }
    }
}
