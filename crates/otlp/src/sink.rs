//! The way of log records to a collector. Who sends keeps what is not taken, and tries again.

use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceResponse;
use prost::Message;

use crate::client::{HttpClient, SendError, StartError};
use crate::records::{self, Lines};
use crate::settings::{Collector, Settings, SettingsError};

/// For a collector to take a request and answer; lines may be many, and the way slow.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Why there is no sink.
#[derive(Debug, thiserror::Error)]
pub enum SinkError {
    /// The settings are of no use.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// There is no way to send.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Why lines were not taken.
#[derive(Debug, thiserror::Error)]
pub enum PostError {
    /// No answer.
    #[error("the collector at {0}: {1}")]
    Send(String, #[source] SendError),
    /// An answer that says no.
    #[error("the collector at {0} answered {1}")]
    Status(String, StatusCode),
}

impl PostError {
    /// Whether the lines themselves are at fault, so that sending them again is of no use. Whatever else an answer says,
    /// such as of a path or a key that is wrong, can be put right.
    #[must_use]
    pub fn is_final(&self) -> bool {
        matches!(
            self,
            Self::Status(
                _,
                StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
            )
        )
    }
}

/// Sends lines to a collector.
#[derive(Debug)]
pub struct LogSink {
    collector: Collector,
    service_name: Option<String>,
    client: HttpClient,
}

impl LogSink {
    /// Where the settings say; `None` where they say nothing. Variables of the environment have no say: what tenants
    /// print is not the server's own to send where they say.
    ///
    /// # Errors
    /// [`SinkError`].
    pub fn open(settings: &Settings) -> Result<Option<Self>, SinkError> {
        let Some(collector) = Collector::of_logs(settings)? else { return Ok(None) };
        let client = HttpClient::open(&collector.uri, TIMEOUT)?;
        Ok(Some(Self { collector, service_name: settings.service_name.clone(), client }))
    }

    /// Sends lines, and returns once they are taken; how many of them the collector did not want.
    ///
    /// # Errors
    /// [`PostError`]: none is known to be taken.
    pub async fn send(&self, lines: Vec<Lines<'_>>) -> Result<u64, PostError> {
        let body = Bytes::from(records::request(self.service_name.as_deref(), lines).encode_to_vec());
        let uri = || self.collector.uri.to_string();
        let sent = self.client.send(self.collector.post(body)).await;
        let (status, answer) = sent.map_err(|error| PostError::Send(uri(), error))?;
        if !status.is_success() {
            return Err(PostError::Status(uri(), status));
        }
        Ok(rejected(&answer))
    }
}

/// A collector may take some of a request and say why not the rest.
fn rejected(answer: &[u8]) -> u64 {
    let rejected = ExportLogsServiceResponse::decode(answer).ok().and_then(|answer| answer.partial_success);
    let Some(rejected) = rejected.filter(|rejected| rejected.rejected_log_records > 0) else { return 0 };
    let (lines, why) = (rejected.rejected_log_records, rejected.error_message);
    tracing::warn!(lines, why, "the collector did not take all lines");
    lines.unsigned_abs()
}
