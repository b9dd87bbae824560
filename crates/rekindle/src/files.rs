//! Small files that are there whole or not at all, also after a power cut.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use serde::Serialize;

/// For its owner alone.
pub(crate) const SECRET: u32 = 0o600;
/// A directory for its owner alone.
pub(crate) const SECRET_DIR: u32 = 0o700;
/// For everybody to read.
pub(crate) const PUBLIC: u32 = 0o644;

/// Why a file of the data directory cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot {attempt} {path}: {source}; check the owner and mode of the directory, and the space left")]
pub(crate) struct FileError {
    /// What was attempted.
    pub(crate) attempt: &'static str,
    /// On which file.
    pub(crate) path: PathBuf,
    /// What the system said.
    pub(crate) source: io::Error,
}

impl FileError {
    pub(crate) fn new(attempt: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { attempt, path, source }
    }
}

/// Makes a directory for its owner alone, where there is none.
pub(crate) fn make_secret_dir(path: &Path) -> Result<(), FileError> {
    DirBuilder::new().recursive(true).mode(SECRET_DIR).create(path).map_err(FileError::new("make", path))
}

/// Writes a whole file or nothing, durably.
pub(crate) fn write(path: &Path, content: &[u8], mode: u32) -> Result<(), FileError> {
    let fresh = path.with_added_extension("new");
    let done = (|| {
        remove_if_there(&fresh)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(content)?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
    })();
    done.map_err(FileError::new("write", path))
}

/// Writes `value` as JSON for people to read, whole or not at all.
pub(crate) fn write_json(path: &Path, value: &impl Serialize, mode: u32) -> Result<(), FileError> {
    let text = serde_json::to_vec_pretty(value).map_err(io::Error::other);
    write(path, &text.map_err(FileError::new("write", path))?, mode)
}

/// Its content, or `None` where there is no such file.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, FileError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::new("read", path)(error)),
    }
}

/// Removes a file that may be there.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    remove_if_there(path).map_err(FileError::new("remove", path))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_whole_and_what_a_crash_left_does_not_hinder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.json");
        fs::write(dir.path().join("x.json.new"), "half").unwrap();
        write(&path, b"one", SECRET).unwrap();
        write(&path, b"two", SECRET).unwrap();
        assert_eq!(read(&path).unwrap().unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, SECRET);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
        remove(&path).unwrap();
        remove(&path).unwrap();
        assert!(read(&path).unwrap().is_none());
    }
}
