//! A MicroVM that sleeps: a directory which appears at once, complete and durable.
//!
//! Its private disk stays where it is and goes on changing once the MicroVM lives again, so what is kept here can be
//! resumed from only once. That is noted by its name before the application runs: a second use fails closed. Its layers
//! of memory remain all the same, for the next suspension to write only what differs from them; they are hard links,
//! so that every directory is whole by itself and is removed without a thought for the others.
//!
//! | directory | what |
//! |---|---|
//! | `suspended` | device state and layers to resume from |
//! | `resumed` | the same, out of date: the MicroVM lives, or has lived, again |
//! | `merged` | one layer that is worth those of `resumed` |

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use engine::{Compatibility, DiffWrite, Incompatible, MemoryError, Restore, SaveError, open_layers};
use serde::{Deserialize, Serialize};
use snapshot::chain::{MAX_LAYERS, MERGE_LAYERS};
use snapshot::diff::Summary;
use snapshot::files::missing_is_fine;
use snapshot::manifest::{Manifest, ManifestError};
use snapshot::publish::{PublishError, Sealed, Staging};
use tokio::task::{JoinHandle, spawn_blocking};
use tokio_util::sync::CancellationToken;

use crate::{Guest, ImageLayer};

const NAME: &str = "suspended";
const USED: &str = "resumed";
const MERGED: &str = "merged";
const DEVICE: &str = "device";
/// Followed by a layer's number, of which 0 is the oldest.
const LAYER: &str = "memory.";
const DESCRIPTION: &str = "suspension.json";
const VERSION: u32 = 2;
/// How often a name is tried to be changed that must be, and the time between two tries.
const TRIES: u32 = 30;
const RETRY: Duration = Duration::from_secs(1);

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
    /// The guest must not go on: what was saved of it may come back.
    #[error(
        "what could not be saved durably cannot be taken back durably either: {0}; the disk of the data directory fails"
    )]
    Withdraw(#[source] Box<SuspensionError>),
    /// It was resumed once, and then lost.
    #[error("the MicroVM had been resumed when its virtual machine was lost; its saved state is out of date")]
    Used,
    /// Its layers of memory could not be merged.
    #[error("merging the layers of a MicroVM's memory: {0}")]
    Merge(#[source] MemoryError),
    /// It has no layers of memory that this program knows.
    #[error("{0} is no suspension of this release; the MicroVM cannot be resumed")]
    Layers(PathBuf),
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
            Self::Manifest(ManifestError::Version { .. }) | Self::Version { .. } | Self::Layers(_) => {
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

/// What saving came to.
#[derive(Debug)]
pub enum Saved {
    /// There is a suspension, on the disk.
    Durable,
    /// There is none: the guest was wanted again. What of the writing could not be stopped ends by itself, and must have
    /// before the next begins.
    GivenUp(JoinHandle<()>),
}

/// The saved state in a MicroVM's directory.
#[derive(Debug, Clone)]
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

    /// Bytes of what is saved; 0 where nothing is.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let files =
            fs::read_dir(self.path()).into_iter().flatten().filter_map(|file| file.ok()?.metadata().ok());
        files.map(|file| file.len()).sum()
    }

    /// Saves a frozen guest, which is stopped by it: unless it is `wanted` again before all is written, which is not
    /// waited for then. `layer`: where the layer is that it was cloned from.
    ///
    /// # Errors
    /// [`SuspensionError`]; then there is no saved state, and none comes back by a power cut, but for
    /// [`SuspensionError::Withdraw`].
    pub async fn save(
        &self,
        guest: &Guest,
        layer: &Path,
        wanted: &CancellationToken,
    ) -> Result<Saved, SuspensionError> {
        match self.try_save(guest, layer, wanted).await {
            Err(error) => {
                self.withdraw().await?;
                Err(error)
            }
            saved => saved,
        }
    }

    async fn try_save(
        &self,
        guest: &Guest,
        layer: &Path,
        wanted: &CancellationToken,
    ) -> Result<Saved, SuspensionError> {
        let staging = Staging::new(&self.path())?;
        let below = self.below();
        let (write, stopped_at) = guest.save_diff().await?;
        self.describe(staging.path(), layer, guest.compatibility(), stopped_at)?;
        let given_up = wanted.clone();
        let mut writing = spawn_blocking(move || write_all(staging, write, below, &given_up));
        let sealed = tokio::select! {
            biased;
            () = wanted.cancelled() => {
                return Ok(Saved::GivenUp(tokio::spawn(async { drop(writing.await) })));
            }
            sealed = &mut writing => sealed.map_err(self.cut())??,
        };
        let suspension = self.clone();
        let publish = move || {
            sealed.publish()?;
            if let Err(error) = suspension.remove_old() {
                tracing::warn!(%error, "cannot remove an old suspension; the next resume tries again");
            }
            Ok::<_, SuspensionError>(())
        };
        spawn_blocking(publish).await.map_err(self.cut())??;
        Ok(Saved::Durable)
    }

    /// Sees to it that there is no saved state, now and after a power cut, before the guest goes on: it would be of another
    /// moment than the disk.
    async fn withdraw(&self) -> Result<(), SuspensionError> {
        let suspension = self.clone();
        let remove = |suspension: &Self| missing_is_fine(fs::remove_dir_all(suspension.path()));
        let withdrawn = spawn_blocking(move || suspension.insist("taking back", remove));
        let withdrawn = withdrawn.await.map_err(self.cut()).flatten();
        withdrawn.map_err(|error| SuspensionError::Withdraw(Box::new(error)))
    }

    /// Changes a name in the MicroVM's directory, durably; a disk that fails is tried again. Blocks.
    fn insist(
        &self,
        doing: &'static str,
        change: impl Fn(&Self) -> io::Result<()>,
    ) -> Result<(), SuspensionError> {
        let mut tries = 1;
        loop {
            match change(self).map_err(self.error(doing)).and_then(|()| self.sync()) {
                Err(error) if tries < TRIES => {
                    tracing::error!(%error, tries, "a suspension's name cannot be changed; trying again");
                    std::thread::sleep(RETRY);
                    tries += 1;
                }
                done => return done,
            }
        }
    }

    /// Merges the layers that the next suspension will be compared with into one, if they have become many. Blocks.
    /// Nobody may save, nor restore, meanwhile; interrupted at any instant, it leaves them as they were.
    ///
    /// # Errors
    /// [`SuspensionError`].
    pub fn merge(
        &self,
        layer: &ImageLayer,
        given_up: &CancellationToken,
    ) -> Result<Option<Summary>, SuspensionError> {
        let below = self.below();
        if below.len() < MERGE_LAYERS {
            return Ok(None);
        }
        let chain = open_layers(&layer.memory(), &below);
        let chain = chain.map_err(|error| SuspensionError::Merge(error.into()))?;
        let staging = Staging::new(&self.merged())?;
        let name = layer_name(0);
        let file = File::create(staging.path().join(&name)).map_err(self.error("merging the layers of"))?;
        let summary = chain.merge(&file, &|| given_up.is_cancelled());
        let summary = summary.map_err(|error| SuspensionError::Merge(error.into()))?;
        staging.publish_with(&[&name])?;
        below.iter().try_for_each(fs::remove_file).map_err(self.error("removing merged layers of"))?;
        Ok(Some(summary))
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
        let manifest = Manifest::verify(&dir)?;
        let description = self.description()?;
        let incompatible = |source| SuspensionError::Incompatible { dir: dir.clone(), source };
        host.check(&description.made_with).map_err(incompatible)?;
        if description.layer != layer.digest() {
            return Err(SuspensionError::Layer { dir });
        }
        let layers = layers(&dir, &manifest);
        if layers.is_empty() {
            return Err(SuspensionError::Layers(dir));
        }
        Ok(Restore {
            base_memory: layer.memory(),
            device_state: dir.join(DEVICE),
            layers,
            stopped_at: Some(UNIX_EPOCH + Duration::from_nanos(description.stopped_at)),
        })
    }

    /// Notes, durably, that from now on the state is out of date: to be called before the application runs.
    ///
    /// # Errors
    /// [`SuspensionError::File`]; then it can be used still.
    pub fn mark_used(&self) -> Result<(), SuspensionError> {
        // A crash may have left them.
        self.remove_old()?;
        fs::rename(self.path(), self.used()).map_err(self.error("marking as used"))?;
        self.sync().inspect_err(|_| {
            let back = |this: &Self| missing_is_fine(fs::rename(this.used(), this.path()));
            // Where it is not to be had the MicroVM ends, with this very error.
            let _ = self.insist("taking back that it was used of", back);
        })
    }

    /// Makes the names in the MicroVM's directory durable.
    fn sync(&self) -> Result<(), SuspensionError> {
        let synced = File::open(&self.microvm).and_then(|dir| dir.sync_all());
        synced.map_err(self.error("syncing the directory of"))
    }

    /// The layers that the MicroVM was restored from, or one that is worth the same; none in its first life, nor where
    /// they are of no use any more.
    fn below(&self) -> Vec<PathBuf> {
        let dirs = [self.merged(), self.used()];
        let Some(dir) = dirs.iter().find(|dir| dir.is_dir()) else { return vec![] };
        match Manifest::load(dir) {
            Ok(manifest) => layers(dir, &manifest),
            Err(error) => {
                tracing::warn!(%error, "layers of a MicroVM's memory are of no use");
                vec![]
            }
        }
    }

    /// Removes what a newer suspension makes needless.
    fn remove_old(&self) -> Result<(), SuspensionError> {
        let mut old = [self.merged(), self.used()].into_iter();
        old.try_for_each(|path| missing_is_fine(fs::remove_dir_all(path))).map_err(self.error("removing"))
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

    fn merged(&self) -> PathBuf {
        self.microvm.join(MERGED)
    }

    fn cut(&self) -> impl FnOnce(tokio::task::JoinError) -> SuspensionError {
        let failed = self.error("writing");
        move |error| failed(io::Error::other(error))
    }

    fn error(&self, doing: &'static str) -> impl FnOnce(io::Error) -> SuspensionError {
        let path = self.path();
        move |source| SuspensionError::File { doing, path, source }
    }
}

/// Fills the staging directory and makes it durable.
fn write_all(
    staging: Staging,
    write: DiffWrite,
    mut below: Vec<PathBuf>,
    wanted: &CancellationToken,
) -> Result<Sealed, SuspensionError> {
    if below.len() >= MAX_LAYERS {
        below.clear();
    }
    let chain = write.below(&below).or_else(|error| {
        tracing::warn!(%error, "a layer below is of no use; writing all that differs from the image");
        below.clear();
        write.below(&below)
    });
    let chain = chain.map_err(|error| SaveError::from(MemoryError::from(error)))?;
    let dir = staging.path();
    for (number, layer) in below.iter().enumerate() {
        let link = dir.join(layer_name(number));
        fs::hard_link(layer, &link).map_err(|source| SuspensionError::File {
            doing: "linking",
            path: link,
            source,
        })?;
    }
    let diff = dir.join(layer_name(below.len()));
    let summary = write.run(&dir.join(DEVICE), &chain, &diff, &|| wanted.is_cancelled())?;
    tracing::debug!(pages = summary.pages, bytes = summary.file_bytes, layers = below.len() + 1, "saved");
    let names: Vec<String> = (0..=below.len()).map(layer_name).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    Ok(staging.seal(&names)?)
}

fn layer_name(number: usize) -> String {
    format!("{LAYER}{number}")
}

/// The layers of memory among a directory's files, the oldest first.
fn layers(dir: &Path, manifest: &Manifest) -> Vec<PathBuf> {
    let names = (0..=MAX_LAYERS).map(layer_name);
    names.take_while(|name| manifest.files.contains_key(name)).map(|name| dir.join(name)).collect()
}

#[cfg(test)]
mod tests;
