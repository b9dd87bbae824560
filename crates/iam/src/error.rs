//! What is wrong with a policy, and where. The caller answers MalformedPolicyDocument with it.

use crate::limits::DOCUMENT;

/// Why a document is no policy.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// Longer than anything that is looked at.
    #[error("The policy has {0} bytes, and at most {DOCUMENT} are allowed.")]
    TooLong(usize),
    /// Not JSON.
    #[error("This policy contains invalid Json: {0}")]
    Json(String),
    /// JSON, but not a policy.
    #[error("{what} (at {at})")]
    Invalid {
        /// The element, such as `Statement[1].Action[0]`.
        at: String,
        /// What is wrong with it, in a sentence.
        what: String,
    },
}

impl PolicyError {
    pub(crate) fn invalid(at: impl Into<String>, what: impl Into<String>) -> Self {
        PolicyError::Invalid { at: at.into(), what: what.into() }
    }
}
