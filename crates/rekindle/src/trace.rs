//! `rekindle trace`: where the time of a MicroVM's launch, wakes and suspensions went, from the data directory.

use std::io::{self, Write};

use guest::Dirs;
use ids::MicrovmId;
use timeline::file::FileError;

use crate::cli;
use crate::data_dir::{DataDir, DataDirError};

/// Why there is nothing to print.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TraceError {
    /// The data directory is not one.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// Nothing is kept of it.
    #[error(
        "{0} has no timeline in this data directory: it is being launched, has ended, or belongs to another server \
         (--data-dir)"
    )]
    None(MicrovmId),
    /// What is kept cannot be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// It cannot be printed.
    #[error("cannot print the timelines: {0}")]
    Print(#[from] io::Error),
}

/// Prints the launch, then what followed, the oldest first.
pub(crate) fn run(args: &cli::Trace) -> Result<(), TraceError> {
    let data = DataDir::find(&args.data.data_dir)?;
    let records = timeline::file::read(&Dirs::new(data.path(), &data.tag()).microvm(args.id))?;
    if records.is_empty() {
        return Err(TraceError::None(args.id));
    }
    let mut out = io::stdout().lock();
    let text: Vec<String> = records.iter().map(ToString::to_string).collect();
    match write!(out, "{}", text.join("\n")) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => Ok(result?),
    }
}
