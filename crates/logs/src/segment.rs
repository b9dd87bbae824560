//! A piece of a stream: one file of events, whose name says what is in it once it is full.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::record;

const SEALED: &str = ".seg";
const OPEN: &str = ".open";

/// What is known of a segment without looking into it: the index of a stream is a list of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Number of its first event in the stream.
    pub(crate) first: u64,
    pub(crate) count: u64,
    pub(crate) bytes: u64,
    /// Least timestamp.
    pub(crate) oldest: u64,
    /// Greatest timestamp.
    pub(crate) newest: u64,
    /// When its last event was added.
    pub(crate) ingested: u64,
    /// Whether nothing is added any more.
    pub(crate) sealed: bool,
}

impl Summary {
    /// Nothing yet, from this event on.
    pub(crate) fn open(first: u64) -> Self {
        Self { first, count: 0, bytes: 0, oldest: u64::MAX, newest: 0, ingested: 0, sealed: false }
    }

    /// Its file's name.
    pub(crate) fn file(&self) -> String {
        let Self { first, count, oldest, newest, ingested, .. } = self;
        if self.sealed {
            format!("{first:020}-{count}-{oldest}-{newest}-{ingested}{SEALED}")
        } else {
            format!("{first:020}{OPEN}")
        }
    }

    /// By a file's name; of one that is open it says but where it begins.
    pub(crate) fn parse(file: &str) -> Option<Self> {
        if let Some(first) = file.strip_suffix(OPEN) {
            return Some(Self::open(first.parse().ok()?));
        }
        let numbers = file.strip_suffix(SEALED)?.split('-').map(|part| part.parse().ok());
        let numbers: Vec<u64> = numbers.collect::<Option<_>>()?;
        let [first, count, oldest, newest, ingested] = numbers[..] else { return None };
        Some(Self { first, count, bytes: 0, oldest, newest, ingested, sealed: true })
    }

    /// Takes note of an event that is added, which ends at `end`.
    pub(crate) fn add(&mut self, timestamp: u64, ingested: u64, end: u64) {
        self.count += 1;
        self.bytes = end;
        self.oldest = self.oldest.min(timestamp);
        self.newest = self.newest.max(timestamp);
        self.ingested = ingested;
    }

    /// The number of the event after its last one.
    pub(crate) fn next(&self) -> u64 {
        self.first + self.count
    }
}

/// The segments in a stream's directory, in their order; those that are open by their names alone.
pub(crate) fn list(dir: &Path) -> io::Result<Vec<(Summary, PathBuf)>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Some(mut summary) = entry.file_name().to_str().and_then(Summary::parse) else { continue };
        match entry.metadata() {
            Ok(metadata) => summary.bytes = metadata.len(),
            // Renamed or removed meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        }
        found.push((summary, entry.path()));
    }
    found.sort_by_key(|(summary, _)| summary.first);
    Ok(found)
}

/// Looks an open segment through after a start, and cuts off what a crash left half written.
pub(crate) fn recover(first: u64, path: &Path) -> io::Result<Summary> {
    let bytes = fs::read(path)?;
    let mut summary = Summary::open(first);
    for (event, end) in record::events(&bytes) {
        summary.add(event.timestamp, event.ingested, end as u64);
    }
    if summary.bytes < bytes.len() as u64 {
        fs::OpenOptions::new().write(true).open(path)?.set_len(summary.bytes)?;
    }
    Ok(summary)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_segments_name_says_what_is_in_it() {
        let full = Summary { first: 7, count: 3, bytes: 0, oldest: 1, newest: 9, ingested: 8, sealed: true };
        assert_eq!(full.file(), "00000000000000000007-3-1-9-8.seg");
        assert_eq!(Summary::parse(&full.file()), Some(full));
        assert_eq!(Summary::parse(&Summary::open(7).file()), Some(Summary::open(7)));
        for other in ["stream.json", ".open", "x.open", "1-2-3.seg", "1-2-3-4-5-6.seg", "1-2-3-4-x.seg"] {
            assert_eq!(Summary::parse(other), None, "{other}");
        }
    }

    #[test]
    fn a_torn_end_is_cut_off() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(Summary::open(5).file());
        let mut bytes = Vec::new();
        let event = record::Raw { timestamp: 3, ingested: 4, source: 0, message: b"x" };
        record::encode(event, &mut bytes);
        let whole = bytes.len() as u64;
        bytes.extend([1; 20]);
        fs::write(&path, &bytes).unwrap();
        let summary = recover(5, &path).unwrap();
        assert_eq!((summary.next(), summary.bytes, summary.newest, summary.ingested), (6, whole, 3, 4));
        assert_eq!(fs::metadata(&path).unwrap().len(), whole);
    }
}
