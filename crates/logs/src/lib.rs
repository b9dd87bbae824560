//! What builds and applications print: one bounded file each, readable while it is written.
//!
//! The bytes are the tenant's and are kept as they came; whoever shows them escapes them.

mod file;
mod reader;

use std::io;
use std::path::{Path, PathBuf};

use ids::{BuildId, MicrovmId};

pub use file::{LIMIT, LogFile};
pub use reader::LogReader;

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
    fn new(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { attempt, path, source }
    }
}

/// The logs of one server.
#[derive(Debug, Clone)]
pub struct Logs {
    dir: PathBuf,
}

impl Logs {
    /// The logs kept in `dir`, which need not exist yet.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    /// What a build printed.
    #[must_use]
    pub fn build(&self, id: BuildId) -> LogFile {
        self.log("builds", &id.to_string())
    }

    /// What the application in a MicroVM printed.
    #[must_use]
    pub fn microvm(&self, id: MicrovmId) -> LogFile {
        self.log("microvms", &id.to_string())
    }

    fn log(&self, kind: &str, id: &str) -> LogFile {
        LogFile::new(self.dir.join(kind).join(format!("{id}.log")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_build_and_microvm_has_a_file_of_its_own() {
        let logs = Logs::new("/data/logs");
        let (build, microvm) = (BuildId::random(), MicrovmId::random());
        let path = |name: String| PathBuf::from("/data/logs").join(name);
        assert_eq!(logs.build(build).path(), path(format!("builds/{build}.log")));
        assert_eq!(logs.microvm(microvm).path(), path(format!("microvms/{microvm}.log")));
    }
}
