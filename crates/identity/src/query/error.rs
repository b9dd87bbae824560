//! Why a call is refused: AWS's codes, statuses and words.

use auth::keys::GenerateError;
use iam::PolicyError;
use store::StoreError;

use crate::authorize::AccessDenied;

/// An error as it goes over the wire.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) message: String,
}

impl Refusal {
    fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        Self { status, code, message: message.into() }
    }

    pub(crate) fn unknown_action(action: &str, version: &str) -> Self {
        match action {
            "" => Self::new(400, "MissingAction", "Must specify an Action parameter"),
            _ => {
                let what = format!("Could not find operation {action} for version {version}");
                Self::new(400, "InvalidAction", what)
            }
        }
    }

    pub(crate) fn validation(message: impl Into<String>) -> Self {
        Self::new(400, "ValidationError", message)
    }

    pub(crate) fn invalid_input(message: impl Into<String>) -> Self {
        Self::new(400, "InvalidInput", message)
    }

    pub(crate) fn invalid_token() -> Self {
        Self::new(403, "InvalidClientTokenId", "The security token included in the request is invalid")
    }

    pub(crate) fn denied(message: impl Into<String>) -> Self {
        Self::new(403, "AccessDenied", message)
    }

    pub(crate) fn no_such_entity(message: impl Into<String>) -> Self {
        Self::new(404, "NoSuchEntity", message)
    }

    pub(crate) fn already_exists(message: impl Into<String>) -> Self {
        Self::new(409, "EntityAlreadyExists", message)
    }

    pub(crate) fn delete_conflict(message: impl Into<String>) -> Self {
        Self::new(409, "DeleteConflict", message)
    }

    pub(crate) fn limit(what: &str, limit: usize) -> Self {
        Self::new(409, "LimitExceeded", format!("Cannot exceed quota for {what}: {limit}"))
    }

    pub(crate) fn limit_exceeded(message: impl Into<String>) -> Self {
        Self::new(409, "LimitExceeded", message)
    }

    pub(crate) fn packed_policy_too_large(message: impl Into<String>) -> Self {
        Self::new(400, "PackedPolicyTooLarge", message)
    }
}

impl From<AccessDenied> for Refusal {
    fn from(denied: AccessDenied) -> Self {
        Self::denied(denied.to_string())
    }
}

impl From<PolicyError> for Refusal {
    fn from(error: PolicyError) -> Self {
        Self::new(400, "MalformedPolicyDocument", error.to_string())
    }
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        Self::new(500, "ServiceFailure", error.to_string())
    }
}

impl From<GenerateError> for Refusal {
    fn from(error: GenerateError) -> Self {
        Self::new(500, "ServiceFailure", error.to_string())
    }
}
