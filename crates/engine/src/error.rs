//! Why an operation on a machine failed, one type per operation.

use std::io;
use std::path::PathBuf;

use crate::memory::MemoryError;

/// Why a machine could not be started or adopted.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The specification cannot be met.
    #[error("the machine's specification is unusable: {0}")]
    Spec(String),
    /// A file could not be prepared.
    #[error("{doing} {path} to start a machine: {source}")]
    File {
        /// The step.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The VMM ended or did not do as told.
    #[error("starting the VMM: {source}; it wrote: {log}")]
    Vmm {
        /// What went wrong in talking to it.
        source: Box<CommandError>,
        /// The end of what it printed.
        log: String,
    },
    /// The memory diff could not be loaded.
    #[error("loading a suspended machine's memory: {0}")]
    Memory(#[from] MemoryError),
}

/// Why the VMM did not carry out a command.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The VMM refused.
    #[error("the VMM refused '{command}': {reason}")]
    Refused {
        /// What was asked.
        command: String,
        /// Its answer.
        reason: String,
    },
    /// The control connection failed.
    #[error("the control connection to the VMM failed (the machine has probably ended): {0}")]
    Connection(#[from] io::Error),
    /// The VMM sent something that is not the protocol.
    #[error("the VMM broke the control protocol ({0}); kill the machine")]
    Protocol(&'static str),
    /// No answer in time.
    #[error("the VMM did not answer '{0}' in time; kill the machine")]
    Timeout(String),
}

/// Why a machine's state could not be saved.
#[derive(Debug, thiserror::Error)]
pub enum SaveError {
    /// The VMM failed.
    #[error("saving a machine: {0}")]
    Vmm(#[from] CommandError),
    /// A file failed.
    #[error("{doing} {path} to save a machine (is the disk full?): {source}")]
    File {
        /// The step.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The memory could not be read or written out.
    #[error("saving a machine's memory: {0}")]
    Memory(#[from] MemoryError),
    /// The machine was started in the other way.
    #[error("this kind of save needs a machine that was {0}")]
    Kind(&'static str),
}
