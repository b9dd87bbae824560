//! The task that sends what is added to streams, several at once, each in its order.

use std::collections::{BTreeMap, BTreeSet};
use std::future;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use logs::{Ahead, LogError, Logs};
use otlp::Printer;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::follow::{Followed, Streams};
use crate::origin::Printers;
use crate::target::{Failure, Target};

/// Between two looks for something new.
const PAUSE: Duration = Duration::from_millis(500);
/// Streams that are sent at once.
const AT_ONCE: usize = 8;
/// Batches of a stream before others have their turn.
const BATCHES_A_TURN: usize = 4;
/// Before the second try of a target that is away; it doubles with each.
const FIRST_RETRY: Duration = Duration::from_secs(1);
/// The longest time between two tries.
const LAST_RETRY: Duration = Duration::from_secs(60);
/// For how long a stream is left alone that the target does not take.
const BARRED: Duration = Duration::from_secs(60);
/// For what is under way when the server ends.
const CLOSE: Duration = Duration::from_secs(3);

/// Sends logs to one target, in a task of its own.
#[derive(Debug)]
pub struct Forwarder {
    task: JoinHandle<()>,
    closing: CancellationToken,
}

impl Forwarder {
    /// Sends what is in `logs` and was not sent before, and what is added from now on.
    #[must_use]
    pub fn start(logs: Logs, printers: Arc<dyn Printers>, region: &str, target: Target) -> Self {
        let closing = CancellationToken::new();
        let pump = Pump {
            logs,
            printers,
            region: region.to_owned(),
            target,
            closing: closing.clone(),
            batches: AtomicU64::new(0),
            lost: AtomicU64::new(0),
        };
        Self { task: tokio::spawn(pump.run()), closing }
    }

    /// Ends once what is under way is sent, after a moment at most. The next server goes on.
    pub async fn close(mut self) {
        self.closing.cancel();
        if tokio::time::timeout(CLOSE, &mut self.task).await.is_err() {
            self.task.abort();
        }
    }
}

/// Why nothing is sent now.
#[derive(Debug, thiserror::Error)]
enum RoundError {
    #[error("{0}")]
    Away(String),
    #[error(transparent)]
    Logs(#[from] LogError),
    #[error("reading logs: {0}")]
    Task(#[from] JoinError),
}

struct Pump {
    logs: Logs,
    printers: Arc<dyn Printers>,
    region: String,
    target: Target,
    closing: CancellationToken,
    /// Batches that are done with.
    batches: AtomicU64,
    /// Lines that were not and will not be sent, since this was last told.
    lost: AtomicU64,
}

impl Pump {
    async fn run(self) {
        let (mut streams, mut seen, mut retry, mut is_away) = (Streams::default(), None, FIRST_RETRY, false);
        let to = self.target.reader();
        loop {
            let additions = self.logs.additions();
            let mut pause = PAUSE;
            // Where nothing was added and nothing waits, no stream is looked at.
            if seen != Some(additions) || streams.are_behind() {
                let batches = self.batches.load(Ordering::Relaxed);
                match self.round(&mut streams).await {
                    Ok(()) => {
                        if mem::take(&mut is_away) {
                            tracing::info!(to, "logs are forwarded again");
                        }
                        (seen, retry) = (Some(additions), FIRST_RETRY);
                        // There is more than was anybody's turn.
                        if self.batches.load(Ordering::Relaxed) > batches && streams.due().next().is_some() {
                            pause = Duration::ZERO;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(to, %error, again_in = ?retry, "logs are not forwarded; they wait where they are kept");
                        (seen, pause, is_away) = (None, retry, true);
                        retry = (retry * 2).min(LAST_RETRY);
                    }
                }
                let lines = self.lost.swap(0, Ordering::Relaxed);
                if lines > 0 {
                    tracing::warn!(
                        to,
                        lines,
                        "lines were dropped before they were forwarded, or were not wanted"
                    );
                }
            }
            if self.closing.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return;
            }
        }
    }

    /// Sends some of what waits in each stream.
    async fn round(&self, streams: &mut Streams) -> Result<(), RoundError> {
        let (logs, reader, before) = (self.logs.clone(), self.target.reader(), mem::take(streams));
        *streams = spawn_blocking(move || before.refreshed(&logs, reader)).await??;
        let turns: Vec<_> = streams.due().map(|followed| self.turn(followed)).collect();
        let barred: Vec<String> = stream::iter(turns)
            .take_until(self.closing.cancelled())
            .buffer_unordered(AT_ONCE)
            .try_filter_map(|why| future::ready(Ok(why)))
            .try_collect()
            .await?;
        // Many are for the same reason.
        if let Some(why) = barred.first() {
            let streams = barred.len();
            tracing::warn!(to = self.target.reader(), streams, why, "some logs are not forwarded for now");
        }
        Ok(())
    }

    /// Sends what waits in a stream, or as much of it as is its turn. Says why where that is not possible for now.
    async fn turn(&self, followed: &mut Followed) -> Result<Option<String>, RoundError> {
        for _ in 0..BATCHES_A_TURN {
            if !followed.is_behind() || self.closing.is_cancelled() {
                break;
            }
            let sent = self.send_next(followed).await;
            if let Err(Failure::Away(why)) = sent {
                return Err(RoundError::Away(why));
            }
            if let Err(Failure::Stream(why)) = sent {
                followed.barred_until = Some(Instant::now() + BARRED);
                return Ok(Some(why));
            }
        }
        Ok(None)
    }

    async fn send_next(&self, followed: &mut Followed) -> Result<(), Failure> {
        let (ahead, printers) =
            self.read(followed).await.map_err(|error| Failure::Stream(error.to_string()))?;
        let unwanted = match &ahead.events[..] {
            [] => 0,
            events => match self.target.send(&followed.origin, &self.region, events, &printers).await {
                Err(Failure::Final(why)) => {
                    tracing::warn!(to = self.target.reader(), why, "lines cannot be forwarded");
                    events.len() as u64
                }
                sent => sent?,
            },
        };
        self.lost.fetch_add(unwanted + ahead.dropped, Ordering::Relaxed);
        self.batches.fetch_add(u64::from(!ahead.events.is_empty()), Ordering::Relaxed);
        let mut cursor = followed.cursor.clone();
        let noted = spawn_blocking(move || {
            let noted = cursor.advance(ahead);
            (cursor, noted)
        });
        let (cursor, noted) = noted.await.map_err(|error| Failure::Stream(error.to_string()))?;
        followed.cursor = cursor;
        noted.map_err(|error| Failure::Stream(error.to_string()))
    }

    /// What is next in a stream, and who has printed it.
    async fn read(&self, followed: &Followed) -> Result<(Ahead, BTreeMap<u128, Printer>), RoundError> {
        let (cursor, room, all) = (followed.cursor.clone(), self.target.room(), Arc::clone(&self.printers));
        let end = followed.end();
        let wants_printers = self.target.wants_printers();
        let read = spawn_blocking(move || {
            let ahead = cursor.read(room, end)?;
            let sources: BTreeSet<u128> = ahead.events.iter().map(|event| event.source).collect();
            let known = sources.into_iter().filter(|_| wants_printers);
            let known = known.filter_map(|source| Some((source, all.find(source)?))).collect();
            Ok::<_, LogError>((ahead, known))
        });
        Ok(read.await??)
    }
}
