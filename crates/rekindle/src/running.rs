//! A server that runs, found by its data directory.

use std::path::{Path, PathBuf};

use auth::keys::AccessKey;
use ids::AccountId;

use crate::account::{self, AccountsError};
use crate::data_dir::{DataDir, DataDirError};
use crate::server_file::ServerFile;

/// Why there is no server to speak to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RunningError {
    /// The data directory is not one.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// The account that was asked for cannot be had.
    #[error(transparent)]
    Account(#[from] AccountsError),
    /// Nobody to point at.
    #[error(
        "no server runs on the data directory {0}; start it with `rekindle serve --data-dir {0}`, or wait for it with \
         `rekindle env --wait`"
    )]
    NotRunning(PathBuf),
}

/// A running server, as its data directory tells of it.
#[derive(Debug, Clone)]
pub(crate) struct Running {
    /// Its data directory.
    pub(crate) data: DataDir,
    /// Where it listens, and as whom.
    pub(crate) server: ServerFile,
}

impl Running {
    /// The one on this data directory.
    pub(crate) fn find(dir: &Path) -> Result<Self, RunningError> {
        let data = DataDir::find(dir)?;
        let server =
            ServerFile::read(&data)?.ok_or_else(|| RunningError::NotRunning(data.path().to_owned()))?;
        Ok(Self { data, server })
    }

    /// The root key of an account with this id or name, or of the first one.
    pub(crate) fn key(&self, account: Option<&str>) -> Result<(AccountId, AccessKey), RunningError> {
        match account {
            None => Ok((self.server.account_id.clone(), self.data.account()?.key)),
            Some(account) => {
                let found = account::find(self.data.path(), account)?;
                Ok((found.record.id, found.key))
            }
        }
    }
}
