//! A published image version: what every clone of it shares.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use engine::{Compatibility, Disk, DiskError, Incompatible, Layer, LayerFormat, PrivateDisks, Restore};
use platform::{Platform, PlatformError};
use serde::{Deserialize, Serialize};
use snapshot::manifest::{Manifest, ManifestError};

use crate::{Dirs, Shape};

/// The container's files, or those above the catalogue's, read-only.
pub const CODE: &str = "code";
/// Followed by a disk's format: with the snapshot what was written to the scratch disk before it, with a MicroVM its own.
const SCRATCH: &str = "scratch.";
/// What the guest calls the disk that it writes to.
const SERIAL: &str = "scratch";
const MEMORY: &str = "memory";
const DEVICE: &str = "device";
const LAYOUT: &str = "snapshot.json";
/// 1 did not say what the snapshot had been made with, 2 had no base images below the container's files.
const VERSION: u32 = 3;

/// Why an image version cannot be cloned from.
#[derive(Debug, thiserror::Error)]
pub enum LayerError {
    /// Its files are not what was published: it fails closed.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    /// What it was made with is gone.
    #[error(transparent)]
    Platform(#[from] PlatformError),
    /// A disk could not be made.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// No scratch disk is that large.
    #[error("no scratch disk of {0} bytes is prepared; run set-up again")]
    Scratch(u64),
    /// Its description cannot be read or written.
    #[error("{doing} {path}: {source}", path = path.display())]
    File {
        /// The step.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Its description is of another release.
    #[error("{path} has format version {found}, this program reads {VERSION}: build the image again", path = path.display())]
    Version {
        /// Which description.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
    /// Its agent is of another release.
    #[error("the agent in {dir} has protocol version {found}, this program speaks {ours}: build the image again", dir = dir.display(), ours = agent_proto::VERSION)]
    Agent {
        /// Which layer.
        dir: PathBuf,
        /// What it says.
        found: u32,
    },
    /// It was made by another kind of host.
    #[error("the snapshot in {dir} cannot be used: {source}; build the image again", dir = dir.display())]
    Incompatible {
        /// Which layer.
        dir: PathBuf,
        /// In what they differ.
        source: Incompatible,
    },
}

impl LayerError {
    /// What a client is told, where the snapshot itself is at fault: no path of the host's.
    #[must_use]
    pub fn told(&self) -> Option<String> {
        const AGAIN: &str = "Build the image again.";
        match self {
            Self::Manifest(ManifestError::Version { .. }) | Self::Version { .. } | Self::Agent { .. } => {
                Some(format!(
                    "The image version's snapshot was made by another release of the service. {AGAIN}"
                ))
            }
            Self::Manifest(ManifestError::Mismatch(_) | ManifestError::Damaged { .. }) => {
                Some(format!("The image version's snapshot is damaged. {AGAIN}"))
            }
            Self::Manifest(ManifestError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                Some(format!("The image version's snapshot is incomplete. {AGAIN}"))
            }
            Self::Platform(PlatformError::Unknown { .. } | PlatformError::Damaged { .. }) => Some(format!(
                "The kernel and disks that the image version's snapshot was made with are not whole. {AGAIN}"
            )),
            Self::Incompatible { source, .. } => {
                Some(format!("The image version's snapshot does not fit this host: {source}. {AGAIN}"))
            }
            _ => None,
        }
    }
}

/// The shape of a snapshot's machine; kept with it, because its clones must have it too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    version: u32,
    /// Kernel, agent and lowest disks: names their content.
    platform: String,
    /// Whether the container's files lie on layers of the catalogue's.
    bases: bool,
    /// Which messages its agent knows.
    agent: u32,
    /// VMM, machine type and processor.
    made_with: Compatibility,
    /// Memory in MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub vcpus: u32,
    /// Size of the scratch disk.
    pub scratch_bytes: u64,
}

impl Layout {
    /// The layout of a snapshot that is about to be made.
    #[must_use]
    pub fn new(
        platform: &Platform,
        bases: bool,
        made_with: Compatibility,
        memory_mib: u32,
        vcpus: u32,
        scratch_bytes: u64,
    ) -> Self {
        Self {
            version: VERSION,
            platform: platform.id().to_owned(),
            bases,
            agent: agent_proto::VERSION,
            made_with,
            memory_mib,
            vcpus,
            scratch_bytes,
        }
    }

    fn read(path: &Path) -> Result<Self, LayerError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let text = std::fs::read(path).map_err(file_error("reading", path))?;
        let unreadable = |error: serde_json::Error| file_error("reading", path)(error.into());
        let Versioned { version } = serde_json::from_slice(&text).map_err(unreadable)?;
        if version != VERSION {
            return Err(LayerError::Version { path: path.to_owned(), found: version });
        }
        serde_json::from_slice(&text).map_err(unreadable)
    }
}

/// The platform of the version in `dir`, also of one that this release does not use; `None` where it does not say.
pub(crate) fn platform_of(dir: &Path) -> Option<String> {
    #[derive(Deserialize)]
    struct Named {
        platform: String,
    }
    let text = std::fs::read(dir.join(LAYOUT)).ok()?;
    serde_json::from_slice::<Named>(&text).ok().map(|named| named.platform)
}

/// An image version's directory.
#[derive(Debug, Clone)]
pub struct ImageLayer {
    dir: PathBuf,
    layout: Layout,
    platform: Platform,
    /// The format of the scratch disk.
    format: LayerFormat,
    /// Names its content; empty while it is being made.
    digest: String,
}

impl ImageLayer {
    /// A layer that is being made in `dir`: writes its description and its scratch disk, which is one of `disks`.
    ///
    /// # Errors
    /// [`LayerError`].
    pub fn create(
        dir: &Path,
        disks: &dyn PrivateDisks,
        layout: Layout,
        platform: Platform,
    ) -> Result<Self, LayerError> {
        let path = dir.join(LAYOUT);
        serde_json::to_vec_pretty(&layout)
            .map_err(io::Error::from)
            .and_then(|json| std::fs::write(&path, json))
            .map_err(file_error("writing", &path))?;
        let format = disks.format();
        let layer = Self { dir: dir.to_owned(), layout, platform, format, digest: String::new() };
        disks.make(&[layer.empty()?], &layer.scratch())?;
        Ok(layer)
    }

    /// A published layer, to be used on `host`. The first time since the program's start its files are compared with
    /// their manifest, which takes as long as reading them; blocks.
    ///
    /// # Errors
    /// [`LayerError`]; a layer that differs from its manifest, or was made by another kind of host, is not used.
    pub fn open(dir: &Path, dirs: &Dirs, host: &Compatibility) -> Result<Self, LayerError> {
        let digest = verify_once(dir)?;
        let layout = Layout::read(&dir.join(LAYOUT))?;
        let incompatible = |source| LayerError::Incompatible { dir: dir.to_owned(), source };
        host.check(&layout.made_with).map_err(incompatible)?;
        if layout.agent != agent_proto::VERSION {
            return Err(LayerError::Agent { dir: dir.to_owned(), found: layout.agent });
        }
        let platform = Platform::open(&dirs.platforms(), &layout.platform)?;
        // Made by the same VMM as this host's, which names it by its format.
        let format = [LayerFormat::Raw, LayerFormat::Qcow2]
            .into_iter()
            .find(|format| dir.join(scratch_name(*format)).exists())
            .ok_or_else(|| file_error("finding", &dir.join(SCRATCH))(io::ErrorKind::NotFound.into()))?;
        Ok(Self { dir: dir.to_owned(), layout, platform, format, digest })
    }

    /// Where its files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Names its content, so that a suspension knows what it lies over.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The read-only disk.
    #[must_use]
    pub fn code(&self) -> PathBuf {
        self.dir.join(CODE)
    }

    /// The file that the memory of the machine which is snapshotted is in.
    #[must_use]
    pub fn memory(&self) -> PathBuf {
        self.dir.join(MEMORY)
    }

    /// The machine's state besides its memory.
    #[must_use]
    pub fn device(&self) -> PathBuf {
        self.dir.join(DEVICE)
    }

    /// What was written to the scratch disk.
    #[must_use]
    pub fn scratch(&self) -> PathBuf {
        self.dir.join(scratch_name(self.format))
    }

    /// The private disk of the clone whose directory this is.
    #[must_use]
    pub fn private_disk(&self, dir: &Path) -> PathBuf {
        dir.join(scratch_name(self.format))
    }

    /// The machine that the snapshot is taken of.
    ///
    /// # Errors
    /// [`LayerError::Scratch`].
    pub fn source(&self) -> Result<Shape, LayerError> {
        Ok(self.shape(Disk::private(SERIAL, vec![self.empty()?], self.written(self.scratch()))))
    }

    /// A clone with this private disk.
    ///
    /// # Errors
    /// [`LayerError::Scratch`].
    pub fn clone_with(&self, disk: PathBuf) -> Result<Shape, LayerError> {
        Ok(self.shape(Disk::private(SERIAL, self.below()?, self.written(disk))))
    }

    /// Makes a private disk, one of `disks`, for a clone at `path`, which must not exist. Blocks.
    ///
    /// # Errors
    /// [`LayerError::Disk`].
    pub fn make_disk(&self, disks: &dyn PrivateDisks, path: &Path) -> Result<(), LayerError> {
        Ok(disks.make(&self.below()?, path)?)
    }

    /// What a clone starts from.
    #[must_use]
    pub fn restore(&self) -> Restore {
        Restore { base_memory: self.memory(), device_state: self.device(), layers: vec![], stopped_at: None }
    }

    fn shape(&self, scratch: Disk) -> Shape {
        let read_only = |serial: &str, path| {
            let layer = Layer { path, format: LayerFormat::Raw };
            Disk { serial: serial.into(), read_only: true, layers: vec![layer] }
        };
        let bases = self.layout.bases.then(|| read_only("bases", self.platform.bases()));
        Shape {
            memory_mib: self.layout.memory_mib,
            vcpus: self.layout.vcpus,
            kernel: self.platform.kernel(),
            initramfs: self.platform.initramfs(),
            disks: [Some(read_only("code", self.code())), bases, Some(scratch)]
                .into_iter()
                .flatten()
                .collect(),
        }
    }

    /// What the snapshot's scratch disk was made from.
    fn empty(&self) -> Result<Layer, LayerError> {
        let size = self.layout.scratch_bytes;
        let path = self.platform.scratch(size).ok_or(LayerError::Scratch(size))?;
        Ok(Layer { path, format: LayerFormat::Raw })
    }

    /// What a clone's private disk is made from.
    fn below(&self) -> Result<Vec<Layer>, LayerError> {
        Ok(Disk::private(SERIAL, vec![self.empty()?], self.written(self.scratch())).layers)
    }

    fn written(&self, path: PathBuf) -> Layer {
        Layer { path, format: self.format }
    }
}

fn scratch_name(format: LayerFormat) -> String {
    format!("{SCRATCH}{format}")
}

/// Published layers are immutable, so that once is enough; but a name can be given again to another. The layer's digest.
fn verify_once(dir: &Path) -> Result<String, ManifestError> {
    static VERIFIED: Mutex<BTreeSet<(PathBuf, String)>> = Mutex::new(BTreeSet::new());
    let verified = || VERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
    let this = (dir.to_owned(), Manifest::load(dir)?.digest().to_owned());
    if !verified().contains(&this) {
        Manifest::verify(dir)?;
        verified().insert(this.clone());
    }
    Ok(this.1)
}

fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayerError {
    let path = path.to_owned();
    move |source| LayerError::File { doing, path, source }
}

#[cfg(test)]
pub(crate) mod tests;
