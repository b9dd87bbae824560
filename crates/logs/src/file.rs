//! One log: a file that is appended to and, when it is full, becomes the older of two.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::{LogError, LogReader};

/// Bytes after which a log's file is put aside and a new one begun; only the last one put aside is kept, so that a
/// log takes at most twice as much.
pub const LIMIT: u64 = 64 << 20;

/// A log. The file is made by the first byte written to it, and so are the folders above it.
#[derive(Debug)]
pub struct LogFile {
    path: PathBuf,
    limit: u64,
    kept: bool,
    open: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    file: File,
    len: u64,
}

impl LogFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self::with_limit(path, LIMIT)
    }

    pub(crate) fn with_limit(path: PathBuf, limit: u64) -> Self {
        Self { path, limit, kept: true, open: Mutex::new(None) }
    }

    /// The same log, to which nothing is added unless it may be kept.
    #[must_use]
    pub fn kept_if(self, kept: bool) -> Self {
        Self { kept, ..self }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds `bytes` at the end. Not durable: a log is worth no wait for the disk.
    ///
    /// # Errors
    /// [`LogError`]; what was written before stays.
    pub fn append(&self, bytes: &[u8]) -> Result<(), LogError> {
        self.write(bytes).map_err(LogError::new("write", &self.path))
    }

    /// The last `bytes` of it, less where there are not so many; nothing of a log that was never written.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn tail(&self, bytes: usize) -> Result<Vec<u8>, LogError> {
        let read = || {
            let mut newer = end_of(&self.path, bytes)?;
            let mut tail = end_of(&aside(&self.path), bytes - newer.len())?;
            tail.append(&mut newer);
            Ok(tail)
        };
        read().map_err(LogError::new("read", &self.path))
    }

    /// Reads it from the oldest byte kept, and then what is added; `None` of a log that was never written.
    ///
    /// # Errors
    /// [`LogError`].
    pub fn reader(&self) -> Result<Option<LogReader>, LogError> {
        LogReader::open(&self.path).map_err(LogError::new("read", &self.path))
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        if !self.kept {
            return Ok(());
        }
        // What is behind the lock stays true wherever a holder of it panicked.
        let mut slot = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open = match slot.take() {
            Some(open) => open,
            None => open_at(&self.path)?,
        };
        let adding = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
        if open.len > 0 && open.len.saturating_add(adding) > self.limit {
            fs::rename(&self.path, aside(&self.path))?;
            open = open_at(&self.path)?;
        }
        open.file.write_all(bytes)?;
        open.len += adding;
        // Only a file whose length is known for certain is kept open.
        *slot = Some(open);
        Ok(())
    }
}

fn open_at(path: &Path) -> io::Result<Open> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let file = OpenOptions::new().append(true).create(true).open(path)?;
    let len = file.metadata()?.len();
    Ok(Open { file, len })
}

/// Where a full file goes.
pub(crate) fn aside(path: &Path) -> PathBuf {
    path.with_added_extension("1")
}

fn end_of(path: &Path, bytes: usize) -> io::Result<Vec<u8>> {
    let mut file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        file => file?,
    };
    let wanted = u64::try_from(bytes).unwrap_or(u64::MAX);
    file.seek(SeekFrom::Start(file.metadata()?.len().saturating_sub(wanted)))?;
    let mut end = Vec::new();
    file.take(wanted).read_to_end(&mut end)?;
    Ok(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(dir: &tempfile::TempDir, limit: u64) -> LogFile {
        LogFile::with_limit(dir.path().join("builds/x.log"), limit)
    }

    #[test]
    fn nothing_is_added_to_a_log_that_may_not_be_kept() {
        let dir = tempfile::tempdir().unwrap();
        log(&dir, 100).append(b"before").unwrap();
        log(&dir, 100).kept_if(false).append(b"after").unwrap();
        assert_eq!(log(&dir, 100).tail(100).unwrap(), b"before");
    }

    #[test]
    fn a_log_goes_on_where_an_earlier_server_left_it() {
        let dir = tempfile::tempdir().unwrap();
        log(&dir, 100).append(b"one\n").unwrap();
        let again = log(&dir, 100);
        again.append(b"two\n").unwrap();
        assert_eq!(again.tail(100).unwrap(), b"one\ntwo\n");
        assert_eq!(again.tail(3).unwrap(), b"wo\n");
        assert_eq!(again.tail(0).unwrap(), b"");
    }

    #[test]
    fn a_log_never_written_is_empty() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(log(&dir, 100).tail(100).unwrap(), b"");
        assert!(log(&dir, 100).reader().unwrap().is_none());
    }

    #[test]
    fn a_full_file_is_put_aside_and_the_one_before_it_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(&dir, 8);
        for line in ["aaaa\n", "bbbb\n", "cccc\n"] {
            log.append(line.as_bytes()).unwrap();
        }
        assert_eq!(log.tail(100).unwrap(), b"bbbb\ncccc\n");
        assert_eq!(log.tail(7).unwrap(), b"b\ncccc\n");
        assert_eq!(fs::read_dir(dir.path().join("builds")).unwrap().count(), 2);
    }

    #[test]
    fn more_than_the_limit_at_once_is_kept_whole() {
        let dir = tempfile::tempdir().unwrap();
        let log = log(&dir, 4);
        log.append(b"longer than that").unwrap();
        assert_eq!(log.tail(100).unwrap(), b"longer than that");
    }

    #[test]
    fn an_error_names_the_file() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("builds"), "no folder").unwrap();
        let error = log(&dir, 100).append(b"x").unwrap_err().to_string();
        assert!(error.contains("cannot write the log") && error.contains("x.log"), "{error}");
    }
}
