//! Whose bucket it is: `<dir>/<bucket>` holds the number of the account.

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use ids::AccountId;
use tempfile::NamedTempFile;

use crate::store::sync_dir;

/// The owners on disk.
#[derive(Debug)]
pub(crate) struct Owners {
    pub(crate) dir: PathBuf,
    /// On the same file system.
    pub(crate) tmp: PathBuf,
}

impl Owners {
    pub(crate) fn prepare(&self) -> io::Result<()> {
        fs::create_dir_all(&self.dir)
    }

    /// The owner of a bucket: who it was, or `heir` from now on.
    pub(crate) fn find_or_set(&self, bucket: &str, heir: &AccountId) -> io::Result<AccountId> {
        match fs::read_to_string(self.dir.join(bucket)) {
            Ok(owner) => owner.parse().map_err(io::Error::other),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.set(bucket, heir)?;
                Ok(heir.clone())
            }
            Err(error) => Err(error),
        }
    }

    /// Records the owner of a bucket, durably.
    pub(crate) fn set(&self, bucket: &str, owner: &AccountId) -> io::Result<()> {
        let mut file = NamedTempFile::new_in(&self.tmp)?;
        write!(file, "{owner}")?;
        file.as_file().sync_all()?;
        file.persist(self.dir.join(bucket))?;
        sync_dir(&self.dir)
    }

    /// Forgets the owner of a bucket that is gone. What a crash leaves, the next start forgets.
    pub(crate) fn remove(&self, bucket: &str) -> io::Result<()> {
        fs::remove_file(self.dir.join(bucket))
    }

    /// Forgets the owners of all other buckets.
    pub(crate) fn keep_only(&self, is_there: impl Fn(&str) -> bool) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(&is_there) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}
