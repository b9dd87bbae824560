//! Reading a log while it is written, over the change from one file to the next.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::file::aside;

/// Reads a log from the oldest byte kept. Zero bytes mean the present end: later there may be more.
#[derive(Debug)]
pub struct LogReader {
    path: PathBuf,
    file: File,
}

impl LogReader {
    pub(crate) fn open(path: &Path) -> io::Result<Option<Self>> {
        for first in [aside(path), path.to_owned()] {
            match File::open(first) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                file => return Ok(Some(Self { path: path.to_owned(), file: file? })),
            }
        }
        Ok(None)
    }

    /// The file that is written now, where that is no longer the one being read.
    fn successor(&self) -> io::Result<Option<File>> {
        let now = match fs::metadata(&self.path) {
            // Between a file's being put aside and the next one's first byte.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            now => now?,
        };
        if now.ino() == self.file.metadata()?.ino() { Ok(None) } else { File::open(&self.path).map(Some) }
    }
}

impl Read for LogReader {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.file.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let Some(next) = self.successor()? else { return Ok(0) };
            // Nothing is written to a file once it was put aside, but something may have been just before.
            let rest = self.file.read(buffer)?;
            if rest > 0 {
                return Ok(rest);
            }
            self.file = next;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::LogFile;

    fn rest(reader: &mut LogReader) -> String {
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_reader_sees_what_is_added_and_follows_to_the_next_file() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogFile::with_limit(dir.path().join("x.log"), 8);
        log.append(b"aaaa\n").unwrap();
        let mut reader = log.reader().unwrap().unwrap();
        assert_eq!(rest(&mut reader), "aaaa\n");
        assert_eq!(rest(&mut reader), "");
        log.append(b"bb\n").unwrap();
        log.append(b"cccc\n").unwrap();
        assert_eq!(rest(&mut reader), "bb\ncccc\n");
        log.append(b"dd\n").unwrap();
        assert_eq!(rest(&mut reader), "dd\n");
    }

    #[test]
    fn a_reader_begins_with_the_file_put_aside() {
        let dir = tempfile::tempdir().unwrap();
        let log = LogFile::with_limit(dir.path().join("x.log"), 8);
        for line in ["aaaa\n", "bbbb\n"] {
            log.append(line.as_bytes()).unwrap();
        }
        assert_eq!(rest(&mut log.reader().unwrap().unwrap()), "aaaa\nbbbb\n");
    }
}
