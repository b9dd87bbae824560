//! The list of a layer's files with their sizes and checksums.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Name of the manifest in its directory.
pub const FILE_NAME: &str = "manifest.json";
/// The largest manifest that is read.
pub const MAX_BYTES: u64 = 1 << 20;
const VERSION: u32 = 1;
const CHUNK: usize = 1 << 20;

/// What a layer consists of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    version: u32,
    /// By file name; every file of the directory but the manifest.
    pub files: BTreeMap<String, Entry>,
}

/// One file of a layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Length in bytes.
    pub size: u64,
    /// SHA-256 of the content, hexadecimal.
    pub sha256: String,
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
    /// A file differs from the manifest.
    #[error("{0} differs from its snapshot's manifest; discard this snapshot")]
    Mismatch(PathBuf),
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> ManifestError + '_ {
    move |source| ManifestError::Io { path: path.to_owned(), source }
}

impl Manifest {
    /// Measures every file of `dir`.
    pub fn of(dir: &Path) -> Result<Self, ManifestError> {
        let mut files = BTreeMap::new();
        for entry in fs::read_dir(dir).map_err(io_error(dir))? {
            let path = entry.map_err(io_error(dir))?.path();
            let plain = fs::symlink_metadata(&path).map_err(io_error(&path))?.is_file();
            match path.file_name().and_then(|name| name.to_str()) {
                Some(FILE_NAME) => {}
                Some(name) if plain => {
                    files.insert(name.to_owned(), measure(&path)?);
                }
                _ => return Err(ManifestError::Foreign(path)),
            }
        }
        Ok(Self { version: VERSION, files })
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
        let manifest: Self = serde_json::from_slice(&text).map_err(|error| damaged(error.to_string()))?;
        match manifest.version {
            VERSION => Ok(manifest),
            other => Err(damaged(format!("format version {other}, this program reads {VERSION}"))),
        }
    }

    /// Reads the manifest of `dir` and compares every file with it: neither more, nor fewer, nor others.
    pub fn verify(dir: &Path) -> Result<Self, ManifestError> {
        let manifest = Self::load(dir)?;
        let found = Self::of(dir)?;
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

fn measure(path: &Path) -> Result<Entry, ManifestError> {
    let mut file = File::open(path).map_err(io_error(path))?;
    let mut hash = Sha256::new();
    let mut size = 0;
    let mut buffer = vec![0; CHUNK];
    loop {
        match file.read(&mut buffer).map_err(io_error(path))? {
            0 => break,
            count => {
                hash.update(&buffer[..count]);
                size += count as u64;
            }
        }
    }
    let sha256 = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(Entry { size, sha256 })
}
