//! Small files that say what a directory is.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

/// Bytes of a name's hash that stand for it: names are longer than a file's may be.
const HASH: usize = 16;

/// Directories above the file that may be new: the group's and the account's, and what holds that.
const PARENTS: usize = 3;

/// What a group or stream of this name is called on the disk.
pub(crate) fn hashed(name: &str) -> String {
    Sha256::digest(name.as_bytes())[..HASH].iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Writes the file whole, or leaves what was there; durable once it returns where that is asked for.
pub(crate) fn write(path: &Path, value: &impl Serialize, durable: bool) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec(value)?)?;
    if !durable {
        return fs::rename(&new, path);
    }
    File::open(&new)?.sync_all()?;
    fs::rename(&new, path)?;
    path.ancestors().skip(1).take(PARENTS).try_for_each(|dir| File::open(dir)?.sync_all())
}

/// What it says; nothing where it is not there, or was never written whole.
pub(crate) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    match fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        bytes => Ok(serde_json::from_slice(&bytes?).ok()),
    }
}
