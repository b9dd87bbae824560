//! Why an operation did not succeed.

use api::Error;
use store::StoreError;

/// A refusal for the client, or the records' failure, which is for the operator.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    #[error(transparent)]
    Refused(#[from] Error),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Refused(error) => error,
            Failure::Store(error) => {
                tracing::error!(%error, "an operation failed");
                Error::internal("Reading or writing the server's records failed; its log says why")
            }
        }
    }
}
