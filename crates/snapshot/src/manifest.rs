//! The list of a layer's files with their sizes and checksums, and its own.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::sparse::next_data;

/// Name of the manifest in its directory.
pub const FILE_NAME: &str = "manifest.json";
/// The largest manifest that is read.
pub const MAX_BYTES: u64 = 1 << 20;
/// 1 had no checksum of its own.
const VERSION: u32 = 2;
/// What is read and, unless it is all zeros, hashed at a time.
const BLOCK: u64 = 64 << 10;

/// What a layer consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    version: u32,
    /// By file name; every file of the directory but the manifest.
    pub files: BTreeMap<String, Entry>,
    /// SHA-256, hexadecimal, of the manifest's text with nothing in this place.
    sha256: String,
}

/// The version alone, which is all that is read of a manifest of another one.
#[derive(Deserialize)]
struct Versioned {
    version: u32,
}

/// One file of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Length in bytes.
    pub size: u64,
    /// SHA-256, hexadecimal, of every block of 64 KiB that is not all zeros, each behind its offset: memory and
    /// disks are mostly holes, which cost nothing this way. `None`: the file carries checksums of its own, which
    /// whoever reads it compares.
    pub sha256: Option<String>,
}

/// Why a layer's files are not what its manifest says, or no manifest could be made.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file could not be read.
    #[error("reading {path} to check a snapshot: {source}")]
    Io {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Only plain files may be in a layer.
    #[error("{0} is not a plain file with a UTF-8 name, so it cannot be part of a snapshot")]
    Foreign(PathBuf),
    /// The manifest itself is unusable.
    #[error("the manifest {path} is damaged: {reason}; discard this snapshot")]
    Damaged {
        /// Which manifest.
        path: PathBuf,
        /// In what way.
        reason: String,
    },
    /// Written by another release.
    #[error(
        "the manifest {path} has format version {found}, this program reads {VERSION}: make the snapshot anew"
    )]
    Version {
        /// Which manifest.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
    /// A file differs from the manifest.
    #[error("{0} differs from its snapshot's manifest; discard this snapshot")]
    Mismatch(PathBuf),
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ManifestError + '_ {
    move |source| ManifestError::Io { path: path.to_owned(), source }
}

impl Manifest {
    /// Measures every file of `dir`; of those in `self_checked` only the length.
    pub fn of(dir: &Path, self_checked: &[&str]) -> Result<Self, ManifestError> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(io_error(dir))? {
            let path = entry.map_err(io_error(dir))?.path();
            let plain = fs::symlink_metadata(&path).map_err(io_error(&path))?.is_file();
            match path.file_name().and_then(|name| name.to_str()) {
                Some(FILE_NAME) => {}
                Some(name) if plain => {
                    files.insert(name.to_owned(), measure(&path, !self_checked.contains(&name))?);
                }
                _ => return Err(ManifestError::Foreign(path)),
            }
        }
        let mut manifest = Self { version: VERSION, files, sha256: String::new() };
        manifest.sha256 = manifest.checksum().map_err(io_error(dir))?;
        Ok(manifest)
    }

    /// Names the content of the whole layer.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.sha256
    }

    fn checksum(&self) -> io::Result<String> {
        let unsigned = Self { sha256: String::new(), ..self.clone() };
        Ok(hex(Sha256::digest(unsigned.to_json()?)))
    }

    /// Reads the manifest of `dir` without looking at the other files.
    pub fn load(dir: &Path) -> Result<Self, ManifestError> {
        let path = dir.join(FILE_NAME);
        let damaged = |reason: String| ManifestError::Damaged { path: path.clone(), reason };
        let file = File::open(&path).map_err(io_error(&path))?;
        let mut text = Vec::new();
        file.take(MAX_BYTES + 1).read_to_end(&mut text).map_err(io_error(&path))?;
        if text.len() as u64 > MAX_BYTES {
            return Err(damaged(format!("longer than {MAX_BYTES} bytes")));
        }
        let versioned: Versioned =
            serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        if versioned.version != VERSION {
            return Err(ManifestError::Version { path, found: versioned.version });
        }
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        // What says the same in other words was not written by this program.
        let as_written = manifest.to_json().map_err(io_error(&path))?;
        if manifest.checksum().map_err(io_error(&path))? != manifest.sha256 || as_written != text {
            return Err(damaged("its checksum is another".to_owned()));
        }
        Ok(manifest)
    }

    /// Reads the manifest of `dir` and compares every file with it: neither more, nor fewer, nor others.
    pub fn verify(dir: &Path) -> Result<Self, ManifestError> {
        let manifest = Self::load(dir)?;
        let self_checked = manifest.files.iter().filter(|(_, entry)| entry.sha256.is_none());
        let self_checked: Vec<&str> = self_checked.map(|(name, _)| name.as_str()).collect();
        let found = Self::of(dir, &self_checked)?;
        let names = manifest.files.keys().chain(found.files.keys());
        match names.into_iter().find(|name| manifest.files.get(*name) != found.files.get(*name)) {
            Some(name) => Err(ManifestError::Mismatch(dir.join(name))),
            None => Ok(manifest),
        }
    }

    /// The text to store.
    pub(crate) fn to_json(&self) -> io::Result<Vec<u8>> {
        serde_json::to_vec_pretty(self).map_err(io::Error::from)
    }
}

fn measure(path: &Path, hashed: bool) -> Result<Entry, ManifestError> {
    let file = File::open(path).map_err(io_error(path))?;
    let size = file.metadata().map_err(io_error(path))?.len();
    let sha256 = hashed.then(|| digest(&file, size)).transpose().map_err(io_error(path))?;
    Ok(Entry { size, sha256 })
}

fn digest(file: &File, size: u64) -> io::Result<String> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BLOCK as usize];
    let mut at = 0;
    while let Some(start) = next_data(file, at)? {
        at = start - start % BLOCK;
        let block = &mut buffer[..(size - at).min(BLOCK) as usize];
        file.read_exact_at(block, at)?;
        if block.iter().any(|byte| *byte != 0) {
            hash.update(at.to_le_bytes());
            hash.update(&*block);
        }
        at += block.len() as u64;
    }
    Ok(hex(hash.finalize()))
}

fn hex(digest: impl AsRef<[u8]>) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(fill: impl FnOnce(&File)) -> Entry {
        let file = tempfile::NamedTempFile::new().unwrap();
        fill(file.as_file());
        measure(file.path(), true).unwrap()
    }

    #[test]
    fn holes_and_written_zeros_are_the_same() {
        let sparse = digest_of(|file| {
            file.write_all_at(b"x", 3 * BLOCK).unwrap();
            file.set_len(1 << 30).unwrap();
        });
        let written = digest_of(|file| {
            file.write_all_at(&vec![0; 2 * BLOCK as usize], 0).unwrap();
            file.write_all_at(b"x", 3 * BLOCK).unwrap();
            file.set_len(1 << 30).unwrap();
        });
        assert_eq!(sparse, written);
    }

    #[test]
    fn place_and_content_both_count() {
        let at = |offset: u64, bytes: &[u8]| {
            digest_of(|file| {
                file.write_all_at(bytes, offset).unwrap();
                file.set_len(4 * BLOCK).unwrap();
            })
        };
        assert_ne!(at(0, b"x"), at(BLOCK, b"x"));
        assert_ne!(at(0, b"x"), at(0, b"y"));
        assert_eq!(at(7, b"x"), at(7, b"x"));
    }
}
