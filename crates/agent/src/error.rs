//! What goes wrong in the guest, told to the host as text.

use std::fmt::Display;

/// Something the agent attempted, and why it failed.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}: {cause}")]
pub(crate) struct Error {
    attempt: String,
    cause: String,
}

impl Error {
    pub(crate) fn new(attempt: impl Into<String>, cause: impl Display) -> Self {
        Self { attempt: attempt.into(), cause: cause.to_string() }
    }
}

/// For `map_err`: says what was attempted.
pub(crate) fn trying<E: Display>(attempt: impl Into<String>) -> impl FnOnce(E) -> Error {
    move |cause| Error::new(attempt, cause)
}
