//! A MicroVM that sleeps: a directory which appears at once, complete and durable.
//!
//! Its private disk stays where it is and goes on changing once the MicroVM lives again, so what is kept here can be
//! used only once. That is noted by its name before the application runs: a second use fails closed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use engine::Restore;
use engine::SaveError;
use snapshot::manifest::{Manifest, ManifestError};
use snapshot::publish::{PublishError, Staging};

use crate::{Guest, ImageLayer};

const NAME: &str = "suspended";
const USED: &str = "resumed";
const DEVICE: &str = "device";
const DIFF: &str = "memory.diff";

/// Why a MicroVM could not be put to sleep, or not be woken.
#[derive(Debug, thiserror::Error)]
pub enum SuspensionError {
    /// The machine could not be saved.
    #[error(transparent)]
    Save(#[from] SaveError),
    /// What was saved could not be published.
    #[error(transparent)]
    Publish(#[from] PublishError),
    /// What was saved is not what was published.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// It was resumed once, and then lost.
    #[error("the MicroVM had been resumed when its virtual machine was lost; its saved state is out of date")]
    Used,
    /// A step on the file system failed.
    #[error("{doing} {path}: {source}", path = path.display())]
    File {
        /// The step.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The saved state in a MicroVM's directory.
#[derive(Debug)]
pub struct Suspension {
    microvm: PathBuf,
}

impl Suspension {
    /// The saved state of the MicroVM whose directory this is, existing or not.
    #[must_use]
    pub fn of(microvm: &Path) -> Self {
        Self { microvm: microvm.to_owned() }
    }

    /// Whether there is one that can be used.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path().is_dir()
    }

    /// Saves a frozen guest, which is stopped by it.
    ///
    /// # Errors
    /// [`SuspensionError`]; then there is no saved state.
    pub async fn save(&self, guest: &Guest) -> Result<(), SuspensionError> {
        self.forget()?;
        let staging = Staging::new(&self.path())?;
        guest.save_diff(&staging.path().join(DEVICE), &staging.path().join(DIFF)).await?;
        let published = tokio::task::spawn_blocking(move || staging.publish_with(&[DIFF])).await;
        published.map_err(|error| self.error("publishing")(io::Error::other(error)))??;
        Ok(())
    }

    /// What to restore from, with the layer below. Blocks while a small file is read; the memory is checked as it is
    /// loaded.
    ///
    /// # Errors
    /// [`SuspensionError`] where it was used already or is damaged.
    pub fn restore(&self, layer: &ImageLayer) -> Result<Restore, SuspensionError> {
        let dir = self.path();
        if !dir.is_dir() && self.used().is_dir() {
            return Err(SuspensionError::Used);
        }
        Manifest::verify(&dir)?;
        Ok(Restore {
            base_memory: layer.memory(),
            device_state: dir.join(DEVICE),
            diff: Some(dir.join(DIFF)),
        })
    }

    /// Notes, durably, that from now on the state is out of date: to be called before the application runs.
    ///
    /// # Errors
    /// [`SuspensionError::File`].
    pub fn mark_used(&self) -> Result<(), SuspensionError> {
        fs::rename(self.path(), self.used()).map_err(self.error("marking as used"))?;
        File::open(&self.microvm)
            .and_then(|dir| dir.sync_all())
            .map_err(self.error("syncing the directory of"))
    }

    /// Removes what an earlier life left.
    ///
    /// # Errors
    /// [`SuspensionError::File`].
    pub fn forget(&self) -> Result<(), SuspensionError> {
        for path in [self.path(), self.used()] {
            match fs::remove_dir_all(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(self.error("removing")(error));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn path(&self) -> PathBuf {
        self.microvm.join(NAME)
    }

    fn used(&self) -> PathBuf {
        self.microvm.join(USED)
    }

    fn error(&self, doing: &'static str) -> impl FnOnce(io::Error) -> SuspensionError {
        let path = self.path();
        move |source| SuspensionError::File { doing, path, source }
    }
}
