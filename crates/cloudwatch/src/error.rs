//! Why a call is refused: AWS's types and words.

use identity::AccessDenied;
use logs::{CreateError, LogError};

use crate::pattern::PatternError;

/// An error as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// Its type: `ResourceNotFoundException`.
    pub code: &'static str,
    /// In words.
    pub message: String,
}

impl Refusal {
    fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 400, code, message: message.into() }
    }

    pub(crate) fn unknown_operation(name: &str) -> Self {
        Self::new("UnknownOperationException", format!("CloudWatch Logs has no operation {name} here"))
    }

    pub(crate) fn serialization(error: &serde_json::Error) -> Self {
        Self::new("SerializationException", format!("The request's body cannot be read: {error}"))
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new("InvalidParameterException", message)
    }

    pub(crate) fn invalid_token() -> Self {
        Self::invalid("The specified nextToken is invalid.")
    }

    pub(crate) fn no_group() -> Self {
        Self::new("ResourceNotFoundException", "The specified log group does not exist.")
    }

    pub(crate) fn no_stream() -> Self {
        Self::new("ResourceNotFoundException", "The specified log stream does not exist.")
    }

    pub(crate) fn exists(what: &str) -> Self {
        Self::new("ResourceAlreadyExistsException", format!("The specified {what} already exists"))
    }

    pub(crate) fn limit(message: impl Into<String>) -> Self {
        Self::new("LimitExceededException", message)
    }

    /// Nothing of the host is told to a client; the server's log has it.
    fn unavailable() -> Self {
        let message = "The service cannot complete the request; the server's log says why.";
        Self { status: 503, ..Self::new("ServiceUnavailableException", message) }
    }
}

impl From<AccessDenied> for Refusal {
    fn from(denied: AccessDenied) -> Self {
        Self::new("AccessDeniedException", denied.to_string())
    }
}

impl From<PatternError> for Refusal {
    fn from(error: PatternError) -> Self {
        Self::invalid(error.to_string())
    }
}

impl From<LogError> for Refusal {
    fn from(error: LogError) -> Self {
        tracing::error!(%error, "a call of CloudWatch Logs failed");
        Self::unavailable()
    }
}

impl From<CreateError> for Refusal {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::Exists => Self::exists("log group"),
            CreateError::NoGroup => Self::no_group(),
            CreateError::TooMany(_) => Self::limit("Resource limit exceeded."),
            CreateError::Log(error) => error.into(),
        }
    }
}

/// A task that was broken off.
impl From<tokio::task::JoinError> for Refusal {
    fn from(error: tokio::task::JoinError) -> Self {
        tracing::error!(%error, "a call of CloudWatch Logs was not carried out to its end");
        Self::unavailable()
    }
}
