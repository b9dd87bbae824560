//! The timelines of a MicroVM, in a file of its directory that goes with it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::{Kind, Record};

const NAME: &str = "timelines.json";
/// Wakes and suspensions that are kept, the last ones; the launch is kept always.
const MAX_LATER: usize = 16;

/// Why there are no timelines to read, or none were kept.
#[derive(Debug, thiserror::Error)]
#[error("{doing} the timelines in {path}: {source}", path = path.display())]
pub struct FileError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

/// Adds a record to those in the MicroVM's directory, or puts it in the place of an earlier state of it. Nothing is
/// done where the directory is gone, and what cannot be read of those before is given up. Blocks.
///
/// # Errors
/// [`FileError`].
pub fn keep(microvm: &Path, record: Record) -> Result<(), FileError> {
    // Two at a time would lose one.
    static KEEPING: Mutex<()> = Mutex::new(());
    let _alone = KEEPING.lock().unwrap_or_else(PoisonError::into_inner);
    // Nothing is synced here: a power cut may leave an empty file, which must not keep out all that follows.
    let mut records = read(microvm).unwrap_or_default();
    add(&mut records, record);
    let (path, new) = (microvm.join(NAME), microvm.join("timelines.new"));
    let written =
        serde_json::to_vec(&records).map_err(io::Error::from).and_then(|json| fs::write(&new, json));
    match written.and_then(|()| fs::rename(&new, &path)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(FileError { doing: "writing", path, source })
        }
        _ => Ok(()),
    }
}

/// What is kept in the MicroVM's directory: its launch, then the last of what followed; nothing where the MicroVM has
/// ended or has not been launched yet. Blocks.
///
/// # Errors
/// [`FileError`].
pub fn read(microvm: &Path) -> Result<Vec<Record>, FileError> {
    let path = microvm.join(NAME);
    let text = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(vec![]),
        text => text,
    };
    let records = text.and_then(|text| serde_json::from_slice(&text).map_err(io::Error::from));
    records.map_err(|source| FileError { doing: "reading", path, source })
}

fn add(records: &mut Vec<Record>, record: Record) {
    let same = |other: &&mut Record| (other.kind, other.began_micros) == (record.kind, record.began_micros);
    if let Some(earlier) = records.iter_mut().find(same) {
        *earlier = record;
        return;
    }
    records.push(record);
    let later = records.iter().filter(|record| record.kind != Kind::Launch).count();
    if later > MAX_LATER
        && let Some(oldest) = records.iter().position(|record| record.kind != Kind::Launch)
    {
        records.remove(oldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Reached, Step};

    fn record(kind: Kind, began_micros: u64, micros: u64) -> Record {
        Record {
            kind,
            began_micros,
            parent: None,
            failed: None,
            steps: vec![Reached { step: Step::Hook, micros }],
        }
    }

    #[test]
    fn the_launch_and_the_last_of_the_rest_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(read(dir.path()).unwrap(), []);
        keep(dir.path(), record(Kind::Launch, 0, 5)).unwrap();
        let later = MAX_LATER as u64 + 3;
        for began in 1..=later {
            keep(dir.path(), record(Kind::Wake, began, 1)).unwrap();
        }
        keep(dir.path(), record(Kind::Wake, later, 2)).unwrap();
        let kept = read(dir.path()).unwrap();
        assert_eq!(kept.len(), 1 + MAX_LATER);
        assert_eq!((kept[0].kind, kept[1].began_micros), (Kind::Launch, 4));
        assert_eq!(kept.last(), Some(&record(Kind::Wake, later, 2)));
    }

    #[test]
    fn what_a_power_cut_left_does_not_keep_out_the_next() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(NAME), "").unwrap();
        assert!(read(dir.path()).is_err());
        keep(dir.path(), record(Kind::Wake, 1, 5)).unwrap();
        assert_eq!(read(dir.path()).unwrap(), [record(Kind::Wake, 1, 5)]);
    }

    #[test]
    fn an_ended_microvm_keeps_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let gone = dir.path().join("gone");
        keep(&gone, record(Kind::Launch, 0, 5)).unwrap();
        assert!(!gone.exists());
    }
}
