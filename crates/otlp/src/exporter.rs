//! The way to the collector: a bounded queue, and a task that posts what is in it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse;
use prost::Message;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::client::{HttpClient, SendError, StartError};
use crate::{Target, Trace, spans};

/// Timelines that wait to be sent; further ones are dropped. This and the next as OpenTelemetry's SDKs have it.
const QUEUE: usize = 2048;
/// Most timelines in one request.
const BATCH: usize = 512;
/// How long the first of a batch waits for others.
const GATHER: Duration = Duration::from_millis(500);
/// For a collector to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Between tries of a request that may succeed later.
const PAUSES: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];
/// For what waits to be sent when the server ends.
const CLOSE: Duration = Duration::from_secs(2);

/// Why a request was of no use.
#[derive(Debug, thiserror::Error)]
enum PostError {
    #[error(transparent)]
    Send(#[from] SendError),
    #[error("it answered {0}")]
    Status(StatusCode),
}

impl PostError {
    /// Whether the same request may succeed later (OTLP 1.x, "Retryable Response Codes").
    fn passes(&self) -> bool {
        match self {
            Self::Send(SendError::Unreachable(_) | SendError::Late(_)) => true,
            Self::Send(SendError::Answer(_)) => false,
            Self::Status(status) => matches!(status.as_u16(), 429 | 502 | 503 | 504),
        }
    }
}

/// Takes timelines to a collector. Cloning shares the way.
#[derive(Clone)]
pub struct Exporter {
    queue: mpsc::Sender<Trace>,
    dropped: Arc<AtomicU64>,
    closing: CancellationToken,
    closed: CancellationToken,
}

impl fmt::Debug for Exporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exporter").field("dropped", &self.dropped).finish_non_exhaustive()
    }
}

impl Exporter {
    /// Sends what is exported from now on, in a task of its own.
    ///
    /// # Errors
    /// [`StartError`].
    pub fn start(target: Target) -> Result<Self, StartError> {
        let (sender, queue) = mpsc::channel(QUEUE);
        let client = HttpClient::open(&target.collector.uri, TIMEOUT)?;
        let (dropped, closing, closed) = (Arc::default(), CancellationToken::new(), CancellationToken::new());
        let exporter = Self {
            queue: sender,
            dropped: Arc::clone(&dropped),
            closing: closing.clone(),
            closed: closed.clone(),
        };
        let courier = Courier { target, client, queue, dropped, closing };
        tokio::spawn(async move {
            courier.run().await;
            closed.cancel();
        });
        Ok(exporter)
    }

    /// Has a timeline sent; dropped where too many wait already. Never waits.
    pub fn export(&self, trace: Trace) {
        if self.queue.try_send(trace).is_err() {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Sends what waits, for a moment at most.
    pub async fn close(&self) {
        self.closing.cancel();
        if tokio::time::timeout(CLOSE, self.closed.cancelled()).await.is_err() {
            tracing::warn!("the last traces were not sent: the collector is too slow");
        }
    }
}

/// The task that posts.
struct Courier {
    target: Target,
    client: HttpClient,
    queue: mpsc::Receiver<Trace>,
    dropped: Arc<AtomicU64>,
    closing: CancellationToken,
}

impl Courier {
    /// Until the exporter is closed and all is sent.
    async fn run(mut self) {
        loop {
            let mut batch = vec![];
            tokio::select! {
                () = gather(&mut self.queue, &mut batch) => {}
                () = self.closing.cancelled() => self.queue.close(),
            }
            while batch.len() < BATCH
                && let Ok(trace) = self.queue.try_recv()
            {
                batch.push(trace);
            }
            if batch.is_empty() {
                return;
            }
            self.deliver(&batch).await;
            let dropped = self.dropped.swap(0, Ordering::Relaxed);
            if dropped > 0 {
                tracing::warn!(dropped, "traces were not sent");
            }
        }
    }

    async fn deliver(&self, batch: &[Trace]) {
        let body = Bytes::from(spans::request(&self.target.service_name, batch).encode_to_vec());
        let mut pauses = PAUSES.into_iter();
        while let Err(error) = self.post(body.clone()).await {
            let again = pauses.next().filter(|_| error.passes());
            let Some(pause) = again else { return self.give_up(batch, &error) };
            if self.closing.run_until_cancelled(tokio::time::sleep(pause)).await.is_none() {
                return self.give_up(batch, &error);
            }
        }
    }

    fn give_up(&self, batch: &[Trace], error: &PostError) {
        tracing::warn!(endpoint = %self.target.collector.uri, %error, "cannot export traces");
        self.dropped.fetch_add(batch.len() as u64, Ordering::Relaxed);
    }

    async fn post(&self, body: Bytes) -> Result<(), PostError> {
        let (status, answer) = self.client.send(self.target.collector.post(body)).await?;
        if !status.is_success() {
            return Err(PostError::Status(status));
        }
        tell_of_rejected(&answer);
        Ok(())
    }
}

/// A batch: what waits within a moment of the first. Safe to drop.
async fn gather(queue: &mut mpsc::Receiver<Trace>, batch: &mut Vec<Trace>) {
    if queue.recv_many(batch, BATCH).await > 0 {
        tokio::time::sleep(GATHER).await;
    }
}

/// A collector may take some of a request and say why not the rest.
fn tell_of_rejected(answer: &[u8]) {
    let rejected = ExportTraceServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    if let Some(rejected) = rejected.filter(|rejected| rejected.rejected_spans > 0) {
        let (spans, why) = (rejected.rejected_spans, rejected.error_message);
        tracing::warn!(spans, why, "the collector did not take all of a trace");
    }
}

#[cfg(test)]
mod tests;
