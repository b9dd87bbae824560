//! Why a log cannot be written or read.

use std::io;
use std::path::{Path, PathBuf};

/// Why a log cannot be written or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} the log {}: {source}; check the owner of the data directory and the space left", path.display())]
pub struct LogError {
    /// What was attempted.
    attempt: &'static str,
    /// Which log.
    path: PathBuf,
    /// What the system said.
    source: io::Error,
}

impl LogError {
    pub(crate) fn new(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { attempt, path, source }
    }
}

/// Why a group or a stream is not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// There is one of this name.
    #[error("there is one of this name")]
    Exists,
    /// The group was deleted meanwhile.
    #[error("the log group was deleted")]
    NoGroup,
    /// The account has as many groups as it may have.
    #[error("the account has {0} log groups, which is the most; delete some")]
    TooMany(usize),
    /// It cannot be written.
    #[error(transparent)]
    Log(#[from] LogError),
}
