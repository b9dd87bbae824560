//! What builds and applications print: one bounded file each, readable while it is written.
//!
//! The bytes are the tenant's and are kept as they came; whoever shows them escapes them.

mod file;
mod permission;
mod reader;

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ids::{BuildId, MicrovmId};

pub use file::{LIMIT, LogFile};
pub use permission::permitted;
pub use reader::LogReader;

const BUILDS: &str = "builds";
const MICROVMS: &str = "microvms";

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
        self.log(BUILDS, &id.to_string())
    }

    /// What the application in a MicroVM printed.
    #[must_use]
    pub fn microvm(&self, id: MicrovmId) -> LogFile {
        self.log(MICROVMS, &id.to_string())
    }

    /// Removes the logs of builds and MicroVMs that are not known any more.
    ///
    /// # Errors
    /// [`LogError`] where they cannot be listed or removed; what was removed before stays so.
    pub fn sweep(
        &self,
        known_build: impl Fn(BuildId) -> bool,
        known_microvm: impl Fn(MicrovmId) -> bool,
    ) -> Result<(), LogError> {
        let unless = |known: Option<bool>| known == Some(false);
        self.remove_where(BUILDS, |name| unless(name.parse().ok().map(&known_build)))?;
        self.remove_where(MICROVMS, |name| unless(name.parse().ok().map(&known_microvm)))
    }

    /// `gone` is asked of the name before the ending.
    fn remove_where(&self, kind: &str, gone: impl Fn(&str) -> bool) -> Result<(), LogError> {
        let dir = self.dir.join(kind);
        let list = match fs::read_dir(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            list => list.map_err(LogError::new("list", &dir))?,
        };
        for entry in list {
            let path = entry.map_err(LogError::new("list", &dir))?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.split_once('.').is_some_and(|(id, _)| gone(id)) {
                fs::remove_file(&path).map_err(LogError::new("remove", &path))?;
            }
        }
        Ok(())
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

    #[test]
    fn what_is_not_known_any_more_is_swept() {
        let dir = tempfile::tempdir().unwrap();
        let logs = Logs::new(dir.path());
        let (kept, gone, build) = (MicrovmId::random(), MicrovmId::random(), BuildId::random());
        for log in [logs.microvm(kept), logs.microvm(gone), logs.build(build)] {
            log.append(b"x").unwrap();
        }
        let aside = file::aside(logs.microvm(gone).path());
        fs::write(&aside, b"older").unwrap();
        let foreign = dir.path().join("microvms/notes.txt");
        fs::write(&foreign, b"mine").unwrap();
        logs.sweep(|_| true, |id| id == kept).unwrap();
        assert!(logs.microvm(kept).path().exists() && logs.build(build).path().exists() && foreign.exists());
        assert!(!logs.microvm(gone).path().exists() && !aside.exists());
    }
}
