//! What a power cut would undo: data and names that were not synced, by the strictest reading of POSIX. A name lasts
//! once its directory is synced, data once its file is.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use crate::plan::Fault;

/// What is torn at a time.
const BLOCK: u64 = 4096;

/// A change of a directory, with what takes it back.
#[derive(Debug)]
pub(crate) enum Name {
    Made(PathBuf),
    MadeDirectory(PathBuf),
    Removed { path: PathBuf, stash: PathBuf },
    RemovedDirectory(PathBuf),
    Renamed { from: PathBuf, to: PathBuf, replaced: Option<PathBuf> },
}

impl Name {
    fn directory(&self) -> Option<&Path> {
        match self {
            Self::Made(path)
            | Self::MadeDirectory(path)
            | Self::Removed { path, .. }
            | Self::RemovedDirectory(path)
            | Self::Renamed { to: path, .. } => path.parent(),
        }
    }

    fn undo(self) {
        // Whatever cannot be taken back was not there any more.
        let _ = match self {
            Self::Made(path) => fs::remove_file(path),
            Self::MadeDirectory(path) => fs::remove_dir_all(path),
            Self::Removed { path, stash } => fs::rename(stash, path),
            Self::RemovedDirectory(path) => fs::create_dir(path),
            Self::Renamed { from, to, replaced } => {
                let _ = fs::rename(&to, from);
                replaced.map_or(Ok(()), |stash| fs::rename(stash, to))
            }
        };
    }

    fn forget(self) {
        if let Self::Removed { stash, .. } | Self::Renamed { replaced: Some(stash), .. } = self {
            let _ = fs::remove_file(stash);
        }
    }
}

/// A file with data that is not synced.
#[derive(Debug)]
struct Dirty {
    file: File,
    length: u64,
    /// What was overwritten, and where.
    overwritten: Vec<(u64, Vec<u8>)>,
}

#[derive(Debug)]
pub(crate) struct Journal {
    stash: PathBuf,
    stashed: u64,
    names: Vec<Name>,
    files: HashMap<(u64, u64), Dirty>,
}

impl Journal {
    pub(crate) fn new(stash: PathBuf) -> Self {
        Self { stash, stashed: 0, names: Vec::new(), files: HashMap::new() }
    }

    /// Keeps a file that is about to lose its name.
    pub(crate) fn keep(&mut self, path: &Path) -> Option<PathBuf> {
        self.stashed += 1;
        let stash = self.stash.join(format!("{}-{}", std::process::id(), self.stashed));
        fs::hard_link(path, &stash).ok().map(|()| stash)
    }

    pub(crate) fn named(&mut self, name: Name) {
        self.names.push(name);
    }

    /// `path`, a file or a directory, was synced.
    pub(crate) fn synced(&mut self, path: &Path) {
        let Ok(about) = fs::metadata(path) else { return };
        if about.is_file() {
            self.files.remove(&(about.dev(), about.ino()));
            return;
        }
        let synced = self.names.extract_if(.., |name| name.directory() == Some(path));
        synced.for_each(Name::forget);
    }

    /// Keeps what a change of a file, from `offset` on, is about to overwrite.
    pub(crate) fn changes(&mut self, path: &Path, offset: u64, length: u64) {
        let Ok(about) = fs::metadata(path) else { return };
        if !about.is_file() {
            return;
        }
        let dirty = match self.files.entry((about.dev(), about.ino())) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                let Ok(file) = File::options().read(true).write(true).open(path) else { return };
                entry.insert(Dirty { file, length: about.len(), overwritten: Vec::new() })
            }
        };
        let end = offset.saturating_add(length).min(dirty.length).min(about.len());
        if offset < end {
            let mut old = vec![0; (end - offset) as usize];
            if dirty.file.read_exact_at(&mut old, offset).is_ok() {
                dirty.overwritten.push((offset, old));
            }
        }
    }

    /// Leaves the disk as the power cut does.
    pub(crate) fn undo(&mut self, fault: Fault, seed: u64) {
        let mut chance = Chance(seed | 1);
        for dirty in self.files.values_mut() {
            if fault == Fault::PowerCutTorn {
                dirty.tear(&mut chance);
            } else {
                dirty.undo();
            }
        }
        if fault != Fault::PowerCutNames {
            self.names.drain(..).rev().for_each(Name::undo);
        }
    }
}

impl Dirty {
    fn undo(&mut self) {
        for (offset, old) in self.overwritten.drain(..).rev() {
            let _ = self.file.write_all_at(&old, offset);
        }
        let _ = self.file.set_len(self.length);
    }

    /// Each block is there or not. Where the file grew, those that are not read as zeros.
    fn tear(&mut self, chance: &mut Chance) {
        for (offset, old) in self.overwritten.drain(..).rev() {
            if chance.coin() {
                let _ = self.file.write_all_at(&old, offset);
            }
        }
        let grown = self.file.metadata().map_or(0, |about| about.len());
        let mut at = self.length;
        while at < grown {
            let next = (at - at % BLOCK + BLOCK).min(grown);
            if chance.coin() {
                let _ = self.file.write_all_at(&vec![0; (next - at) as usize], at);
            }
            at = next;
        }
        if chance.coin() && grown > self.length {
            let _ = self.file.set_len(self.length + chance.next() % (grown - self.length));
        }
    }
}

/// xorshift64.
struct Chance(u64);

impl Chance {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn coin(&mut self) -> bool {
        self.next() >> 32 & 1 == 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal() -> (tempfile::TempDir, Journal) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("stash")).unwrap();
        let journal = Journal::new(dir.path().join("stash"));
        (dir, journal)
    }

    #[test]
    fn what_was_synced_stays_and_the_rest_goes() {
        let (dir, mut journal) = journal();
        let path = dir.path().join("file");
        fs::write(&path, "old words").unwrap();
        journal.changes(&path, 0, 3);
        fs::write(&path, "new words").unwrap();
        journal.synced(&path);
        journal.changes(&path, 4, 100);
        fs::write(&path, "new thoughts").unwrap();
        journal.undo(Fault::PowerCut, 1);
        assert_eq!(fs::read_to_string(&path).unwrap(), "new words");
    }

    #[test]
    fn names_last_once_their_directory_is_synced() {
        let (dir, mut journal) = journal();
        let [a, b] = ["a", "b"].map(|name| dir.path().join(name));
        fs::write(&a, "new").unwrap();
        fs::write(&b, "old").unwrap();
        let replaced = journal.keep(&b);
        fs::rename(&a, &b).unwrap();
        journal.named(Name::Renamed { from: a.clone(), to: b.clone(), replaced });
        journal.undo(Fault::PowerCutNames, 1);
        assert_eq!(fs::read_to_string(&b).unwrap(), "new");
        journal.undo(Fault::PowerCut, 1);
        assert_eq!(
            (fs::read_to_string(&a).unwrap(), fs::read_to_string(&b).unwrap()),
            ("new".into(), "old".into())
        );

        fs::rename(&a, &b).unwrap();
        journal.named(Name::Renamed { from: a.clone(), to: b.clone(), replaced: None });
        journal.synced(dir.path());
        journal.undo(Fault::PowerCut, 1);
        assert!(!a.exists() && b.exists());
    }
}
