//! Why a build failed, and what its client reads.

use std::io;
use std::path::{Path, PathBuf};

use agent_proto::BuildFailure;
use capacity::Shortage;
use connectors::ConnectorError;
use guest::{GuestError, LayerError};
use objects::ReadError;
use snapshot::publish::PublishError;
use store::StoreError;

use crate::artifact::ArtifactError;

/// Why a build failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BuildError {
    /// The artifact cannot be had.
    #[error("{code}: cannot read s3://{bucket}/{key}: {why}")]
    S3 { code: &'static str, bucket: String, key: String, why: String },
    /// The build role is not ours to use.
    #[error("We were unable to assume the role provided. {0}")]
    Role(String),
    /// The artifact is unusable.
    #[error(transparent)]
    Artifact(#[from] ArtifactError),
    /// The build VM says so.
    #[error("{0}")]
    Container(String),
    /// The application did not come up, or not through its hooks.
    #[error("{0}")]
    Application(String),
    /// The host had no room for its VMs for too long.
    #[error("INSUFFICIENT_CAPACITY: {0}")]
    Full(#[from] Shortage),
    /// What the build was to reach cannot be reached.
    #[error("NETWORK_CONNECTOR_UNAVAILABLE: {0}")]
    Connector(#[from] ConnectorError),
    /// The Dockerfile took too long.
    #[error("CONTAINER_BUILD_FAILED: the container image was not built within {0} minutes")]
    TooLong(u64),
    #[error(transparent)]
    Guest(#[from] GuestError),
    #[error(transparent)]
    Layer(#[from] LayerError),
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Save(#[from] engine::SaveError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("{doing} {path}: {source}", path = path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
    #[error("an internal step was cut short: {0}")]
    Cut(#[from] tokio::task::JoinError),
}

impl BuildError {
    /// The build's `stateReason`. What is our own fault is told in the server's log alone.
    pub(crate) fn reason(&self) -> String {
        match self {
            Self::Connector(error) if !matches!(error, ConnectorError::Store(_)) => self.to_string(),
            Self::S3 { .. }
            | Self::Role(_)
            | Self::Artifact(_)
            | Self::Container(_)
            | Self::Application(_)
            | Self::Full(_)
            | Self::TooLong(_) => self.to_string(),
            _ => "INTERNAL_PLATFORM_ERROR: the build could not be carried out; the server's log says why"
                .to_owned(),
        }
    }

    pub(crate) fn file(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }

    /// An object that cannot be read (SPEC §3).
    pub(crate) fn s3(error: ReadError, bucket: &str, key: &str) -> Self {
        let (code, why) = match error {
            ReadError::NoSuchBucket => ("S3_NO_SUCH_BUCKET", "there is no such bucket"),
            ReadError::NoSuchKey => ("S3_NO_SUCH_KEY", "there is no such object"),
            ReadError::NotYours => ("S3_ACCESS_DENIED", "the bucket belongs to another account"),
            ReadError::Io(source) => {
                return Self::file("reading", Path::new(&format!("{bucket}/{key}")))(source);
            }
        };
        Self::S3 { code, bucket: bucket.to_owned(), key: key.to_owned(), why: why.to_owned() }
    }

    /// An object that the build role may not read; `why` is in words.
    pub(crate) fn access_denied(bucket: &str, key: &str, why: String) -> Self {
        Self::S3 { code: "S3_ACCESS_DENIED", bucket: bucket.to_owned(), key: key.to_owned(), why }
    }

    /// Whether a step of the Dockerfile failed, and not what carries it out.
    pub(crate) fn is_of_the_dockerfile(&self) -> bool {
        matches!(self, Self::Container(_))
    }

    /// What the build VM came to.
    pub(crate) fn container(kind: BuildFailure, message: String) -> Self {
        match kind {
            BuildFailure::Artifact => Self::Container(format!("ARCHIVE_INVALID: {message}")),
            BuildFailure::Dockerfile => Self::Container(message),
            BuildFailure::DiskFull => Self::Container(format!("DISK_STORAGE_FULL: {message}")),
            BuildFailure::Internal => GuestError::Failed(message).into(),
        }
    }
}
