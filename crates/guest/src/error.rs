//! Why something with a guest did not work.

use std::io;
use std::path::PathBuf;

use agent_proto::HandshakeError;
use agent_proto::host::CallError;
use engine::{CommandError, SaveError, StartError};
use network::cgroup::CgroupError;
use network::{AcquireError, AdoptError, BindError};

use crate::LayerError;

/// Why a guest was not started, reached or saved.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// No room for it.
    #[error(transparent)]
    Full(#[from] capacity::Shortage),
    /// No network for it.
    #[error(transparent)]
    Slot(#[from] AcquireError),
    /// Its network connectors could not be applied.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Its network could not be taken over.
    #[error(transparent)]
    Adopt(#[from] AdoptError),
    /// No cgroup for it.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// The VMM did not start.
    #[error(transparent)]
    Start(#[from] StartError),
    /// The VMM did not do as told.
    #[error(transparent)]
    Command(#[from] CommandError),
    /// Its image version is unusable.
    #[error(transparent)]
    Layer(#[from] LayerError),
    /// It could not be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// The agent could not be greeted.
    #[error(transparent)]
    Handshake(#[from] HandshakeError),
    /// The agent did not answer as it should.
    #[error(transparent)]
    Call(#[from] CallError),
    /// The agent was lost in the middle of something.
    #[error("{doing}: {source}; {vmm}; the guest's console ends with: {console}")]
    Broken {
        /// The step.
        doing: &'static str,
        /// How the call ended.
        source: CallError,
        /// Whether there still is a VMM.
        vmm: &'static str,
        /// What the guest's kernel, or else its VMM, last said.
        console: String,
    },
    /// The agent tried and failed.
    #[error("the guest failed: {0}")]
    Failed(String),
    /// The agent took too long.
    #[error("the guest did not answer within {seconds} s while {doing}; its console ends with: {console}")]
    Timeout {
        /// The step.
        doing: &'static str,
        /// How long it was waited for.
        seconds: u64,
        /// What the guest's kernel last said.
        console: String,
    },
    /// The system gave no random bytes.
    #[error("drawing a guest's entropy: {0}")]
    Random(getrandom::Error),
    /// A file failed.
    #[error("{doing} {path}: {source}; check the disk's space and the directory's permissions", path = path.display())]
    File {
        /// The step.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

impl GuestError {
    /// What a client is told, where a snapshot itself is at fault: no path of the host's.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        match self {
            Self::Layer(error) => error.told(),
            Self::Start(StartError::Memory(error)) if error.is_damage() => {
                Some("The MicroVM's saved state is damaged.".to_owned())
            }
            _ => None,
        }
    }

    pub(crate) fn file(doing: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::File { doing, path, source }
    }
}
