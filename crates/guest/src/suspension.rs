//! A MicroVM that sleeps: a directory which appears at once, complete and durable.
//!
//! Its private disk stays where it is and goes on changing once the MicroVM lives again, so what is kept here can be
//! used only once. That is noted by its name before the application runs: a second use fails closed.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::{Compatibility, Incompatible, Restore, SaveError};
use serde::{Deserialize, Serialize};
use snapshot::manifest::{Manifest, ManifestError};
use snapshot::publish::{PublishError, Staging};

use crate::{Guest, ImageLayer};

const NAME: &str = "suspended";
const USED: &str = "resumed";
const DEVICE: &str = "device";
const DIFF: &str = "memory.diff";
const DESCRIPTION: &str = "suspension.json";
const VERSION: u32 = 1;

/// What a saved state needs besides its own files.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Description {
    version: u32,
    /// The digest of the layer that it differs from.
    layer: String,
    /// VMM, machine type and processor.
    made_with: Compatibility,
    /// Nanoseconds since the Unix epoch: the guest's clocks go on from then.
    stopped_at: u64,
}

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
    /// It was saved by another kind of host.
    #[error("the saved state in {dir} cannot be used: {source}", dir = dir.display())]
    Incompatible {
        /// Which.
        dir: PathBuf,
        /// In what they differ.
        source: Incompatible,
    },
    /// Its description is of another release.
    #[error("{path} has format version {found}, this program reads {VERSION}", path = path.display())]
    Version {
        /// Which description.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
    /// It differs from another layer than its image version's.
    #[error("the saved state in {dir} was made over another layer than its image version has now", dir = dir.display())]
    Layer {
        /// Which.
        dir: PathBuf,
    },
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

impl SuspensionError {
    /// What a client is told, where the saved state itself is at fault: no path of the host's.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        match self {
            Self::Manifest(ManifestError::Mismatch(_) | ManifestError::Damaged { .. }) => {
                Some("The MicroVM's saved state is damaged.".to_owned())
            }
            Self::Manifest(ManifestError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Some("The MicroVM's saved state is incomplete.".to_owned())
            }
            Self::Manifest(ManifestError::Version { .. }) | Self::Version { .. } => {
                Some("The MicroVM's saved state was made by another release of the service.".to_owned())
            }
            Self::Incompatible { source, .. } => {
                Some(format!("The MicroVM's saved state does not fit this host: {source}."))
            }
            Self::Layer { .. } => Some("The MicroVM's saved state does not fit its image version.".to_owned()),
            Self::Used => Some(
                "The MicroVM had been resumed when its virtual machine was lost; its saved state is out of date."
                    .to_owned(),
            ),
            _ => None,
        }
    }
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

    /// Saves a frozen guest, which is stopped by it. `layer`: where the layer is that it was cloned from.
    ///
    /// # Errors
    /// [`SuspensionError`]; then there is no saved state.
    pub async fn save(&self, guest: &Guest, layer: &Path) -> Result<(), SuspensionError> {
        self.forget()?;
        let staging = Staging::new(&self.path())?;
        let files = [DEVICE, DIFF].map(|name| staging.path().join(name));
        let stopped_at = guest.save_diff(&files[0], &files[1]).await?;
        self.describe(staging.path(), layer, guest.compatibility(), stopped_at)?;
        let published = tokio::task::spawn_blocking(move || staging.publish_with(&[DIFF])).await;
        published.map_err(|error| self.error("publishing")(io::Error::other(error)))??;
        Ok(())
    }

    /// What to restore from on `host`, with the layer below. Blocks while small files are read; the memory is checked
    /// as it is loaded.
    ///
    /// # Errors
    /// [`SuspensionError`] where it was used already, is damaged, or belongs to another host or layer.
    pub fn restore(&self, layer: &ImageLayer, host: &Compatibility) -> Result<Restore, SuspensionError> {
        let dir = self.path();
        if !dir.is_dir() && self.used().is_dir() {
            return Err(SuspensionError::Used);
        }
        Manifest::verify(&dir)?;
        let description = self.description()?;
        let incompatible = |source| SuspensionError::Incompatible { dir: dir.clone(), source };
        host.check(&description.made_with).map_err(incompatible)?;
        if description.layer != layer.digest() {
            return Err(SuspensionError::Layer { dir });
        }
        Ok(Restore {
            base_memory: layer.memory(),
            device_state: dir.join(DEVICE),
            diff: Some(dir.join(DIFF)),
            stopped_at: Some(UNIX_EPOCH + Duration::from_nanos(description.stopped_at)),
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

    fn describe(
        &self,
        dir: &Path,
        layer: &Path,
        made_with: &Compatibility,
        stopped_at: SystemTime,
    ) -> Result<(), SuspensionError> {
        let layer = Manifest::load(layer)?.digest().to_owned();
        let since = stopped_at.duration_since(UNIX_EPOCH).unwrap_or_default();
        let stopped_at = u64::try_from(since.as_nanos()).unwrap_or(u64::MAX);
        let description = Description { version: VERSION, layer, made_with: made_with.clone(), stopped_at };
        serde_json::to_vec_pretty(&description)
            .map_err(io::Error::from)
            .and_then(|json| fs::write(dir.join(DESCRIPTION), json))
            .map_err(self.error("describing"))
    }

    fn description(&self) -> Result<Description, SuspensionError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let path = self.path().join(DESCRIPTION);
        let unreadable = |error: serde_json::Error| self.error("reading the description of")(error.into());
        let text = fs::read(&path).map_err(self.error("reading the description of"))?;
        let Versioned { version } = serde_json::from_slice(&text).map_err(unreadable)?;
        if version != VERSION {
            return Err(SuspensionError::Version { path, found: version });
        }
        serde_json::from_slice(&text).map_err(unreadable)
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

#[cfg(test)]
mod tests;
