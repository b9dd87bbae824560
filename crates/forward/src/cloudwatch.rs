//! A client of CloudWatch Logs that puts events, and makes the groups and streams for them.

use std::fmt;
use std::time::Duration;

use auth::sigv4::{self, SignError};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST, HeaderName, HeaderValue};
use http::{Method, Request, StatusCode};
use http_body_util::Full;
use logs::Event;
use otlp::{HttpClient, SendError, StartError};
use serde::Deserialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::batch::{self, Entry};
use crate::origin::Origin;
use crate::settings::{CloudWatchSettings, Place, SettingsError};

const SERVICE: &str = "logs";
/// For a request to be taken and answered; a batch may be long, and the way slow.
const TIMEOUT: Duration = Duration::from_secs(60);
const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
const SECURITY_TOKEN: HeaderName = HeaderName::from_static("x-amz-security-token");
const JSON: HeaderValue = HeaderValue::from_static("application/x-amz-json-1.1");

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The settings are of no use.
    #[error(transparent)]
    Settings(#[from] SettingsError),
    /// The session token cannot be sent.
    #[error("cannot forward logs to CloudWatch: the session token is no text for a header")]
    Token,
    /// There is no way to send.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// Why events were not taken.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PutError {
    /// The request cannot be signed.
    #[error(transparent)]
    Sign(#[from] SignError),
    /// No answer.
    #[error("CloudWatch at {0}: {1}")]
    Send(String, #[source] SendError),
    /// An answer that says no.
    #[error("CloudWatch at {uri} answered {operation} with {status} {code}: {message}")]
    Refused { uri: String, operation: &'static str, status: StatusCode, code: String, message: String },
}

impl PutError {
    fn code(&self) -> &str {
        match self {
            Self::Refused { code, .. } => code,
            _ => "",
        }
    }

    /// Whether the events themselves are at fault.
    pub(crate) fn is_final(&self) -> bool {
        matches!(self.code(), "InvalidParameterException" | "SerializationException" | "ValidationException")
    }

    /// Whether it is about this group or stream alone.
    pub(crate) fn is_of_stream(&self) -> bool {
        matches!(
            self.code(),
            "AccessDeniedException"
                | "LimitExceededException"
                | "OperationAbortedException"
                | "ResourceNotFoundException"
        )
    }
}

/// The service, in one region, for the holder of one key.
pub struct CloudWatch {
    place: Place,
    host: HeaderValue,
    session_token: Option<HeaderValue>,
    client: HttpClient,
}

impl fmt::Debug for CloudWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CloudWatch").field("uri", &self.place.uri).finish_non_exhaustive()
    }
}

/// How an answer says why not.
#[derive(Deserialize, Default)]
struct Refusal {
    #[serde(rename = "__type", default)]
    code: String,
    #[serde(alias = "Message", default)]
    message: String,
}

impl CloudWatch {
    /// The one that the settings of a server in `region` name, with keys from there or from the environment's `variable`s.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(
        settings: &CloudWatchSettings,
        region: &str,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, OpenError> {
        let place = Place::find(settings, region, variable)?;
        let host = place.uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
        let host = HeaderValue::from_str(host).map_err(|_| SettingsError::Endpoint(host.to_owned()))?;
        let token = |token: &String| {
            let mut value = HeaderValue::from_str(token).map_err(|_| OpenError::Token)?;
            value.set_sensitive(true);
            Ok::<_, OpenError>(value)
        };
        let session_token = place.session_token.as_ref().map(token).transpose()?;
        let client = HttpClient::open(&place.uri, TIMEOUT)?;
        Ok(Self { place, host, session_token, client })
    }

    /// Puts events, and returns once they are taken; how many of them the service did not want, for their age.
    pub(crate) async fn put(&self, origin: &Origin, events: &[Event]) -> Result<u64, PutError> {
        let group = self.place.group(&origin.account.to_string(), &origin.group);
        let mut unwanted = 0;
        for batch in batch::batches(events) {
            unwanted += match self.put_batch(&group, &origin.stream, &batch).await {
                Err(error) if error.code() == "ResourceNotFoundException" => {
                    self.make(&group, &origin.stream).await?;
                    self.put_batch(&group, &origin.stream, &batch).await?
                }
                unwanted => unwanted?,
            };
        }
        Ok(unwanted)
    }

    async fn put_batch(&self, group: &str, stream: &str, batch: &[Entry]) -> Result<u64, PutError> {
        let events: Vec<Value> = batch
            .iter()
            .map(|Entry { timestamp, message }| json!({"timestamp": timestamp, "message": message}))
            .collect();
        let request = json!({"logGroupName": group, "logStreamName": stream, "logEvents": events});
        let answer = self.call("PutLogEvents", &request).await;
        match answer {
            Err(error) if error.code() == "DataAlreadyAcceptedException" => Ok(0),
            answer => answer.map(|answer| unwanted(&answer["rejectedLogEventsInfo"], batch.len() as u64)),
        }
    }

    async fn make(&self, group: &str, stream: &str) -> Result<(), PutError> {
        let (of_group, of_stream) =
            (json!({"logGroupName": group}), json!({"logGroupName": group, "logStreamName": stream}));
        for (operation, request) in [("CreateLogGroup", of_group), ("CreateLogStream", of_stream)] {
            match self.call(operation, &request).await {
                Err(error) if error.code() == "ResourceAlreadyExistsException" => {}
                // Whoever may not make groups may put events to one that somebody made.
                Err(error) if operation == "CreateLogGroup" && error.code() == "AccessDeniedException" => {}
                answer => drop(answer?),
            }
        }
        Ok(())
    }

    async fn call(&self, operation: &'static str, request: &Value) -> Result<Value, PutError> {
        let body = Bytes::from(request.to_string());
        let mut signed = Request::new(Full::new(body.clone()));
        *signed.method_mut() = Method::POST;
        *signed.uri_mut() = self.place.uri.clone();
        let target = HeaderValue::from_str(&format!("Logs_20140328.{operation}")).map_err(SignError::from)?;
        signed.headers_mut().extend([(HOST, self.host.clone()), (CONTENT_TYPE, JSON), (TARGET, target)]);
        signed.headers_mut().extend(self.session_token.clone().map(|token| (SECURITY_TOKEN, token)));
        let (mut head, content) = signed.into_parts();
        let Place { key, region, uri, .. } = &self.place;
        sigv4::sign(&mut head, &body, key, region, SERVICE, OffsetDateTime::now_utc())?;
        let sent = self.client.send(Request::from_parts(head, content)).await;
        let (status, answer) = sent.map_err(|error| PutError::Send(uri.to_string(), error))?;
        if status.is_success() {
            return Ok(serde_json::from_slice(&answer).unwrap_or_default());
        }
        let Refusal { code, message } = serde_json::from_slice(&answer).unwrap_or_default();
        let code = code.rsplit('#').next().unwrap_or_default().to_owned();
        Err(PutError::Refused { uri: uri.to_string(), operation, status, code, message })
    }
}

/// How many of a batch are outside of what the service keeps, by its answer: the first so many, and those from one on.
fn unwanted(info: &Value, events: u64) -> u64 {
    let at = |name: &str| info[name].as_u64();
    let old = at("tooOldLogEventEndIndex").max(at("expiredLogEventEndIndex")).unwrap_or(0);
    old + at("tooNewLogEventStartIndex").map_or(0, |start| events.saturating_sub(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_that_the_service_does_not_want_are_counted() {
        for (info, wanted) in [
            (json!(null), 0),
            (json!({"tooOldLogEventEndIndex": 2, "expiredLogEventEndIndex": 3}), 3),
            (json!({"tooNewLogEventStartIndex": 8}), 2),
            (json!({"tooOldLogEventEndIndex": 1, "tooNewLogEventStartIndex": 9}), 2),
        ] {
            assert_eq!(unwanted(&info, 10), wanted, "{info}");
        }
    }

    #[test]
    fn refusals_are_of_the_events_of_the_stream_or_of_everything() {
        let refused = |code: &str| PutError::Refused {
            uri: "http://a/".into(),
            operation: "PutLogEvents",
            status: StatusCode::BAD_REQUEST,
            code: code.into(),
            message: String::new(),
        };
        assert!(refused("InvalidParameterException").is_final());
        assert!(refused("AccessDeniedException").is_of_stream());
        for code in ["InvalidSignatureException", "UnrecognizedClientException", "ThrottlingException", ""] {
            assert!(!refused(code).is_final() && !refused(code).is_of_stream(), "{code}");
        }
    }
}
