//! A published image version: what every clone of it shares.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use engine::qemu::overlay::{self, OverlayError};
use engine::{Disk, Layer, LayerFormat, Restore};
use platform::{Platform, PlatformError};
use serde::{Deserialize, Serialize};
use snapshot::manifest::{Manifest, ManifestError};

use crate::{Dirs, Shape};

/// The container's files, read-only.
pub const CODE: &str = "code";
/// What was written to the scratch disk before the snapshot.
const SCRATCH: &str = "scratch.qcow2";
const MEMORY: &str = "memory";
const DEVICE: &str = "device";
const LAYOUT: &str = "snapshot.json";
const VERSION: u32 = 1;

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
    Overlay(#[from] OverlayError),
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
    #[error("{path} has format version {found}, this program reads {VERSION}", path = path.display())]
    Version {
        /// Which description.
        path: PathBuf,
        /// What it says.
        found: u32,
    },
}

/// The shape of a snapshot's machine; kept with it, because its clones must have it too.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layout {
    version: u32,
    /// What it was made with.
    platform: String,
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
    pub fn new(platform: &Platform, memory_mib: u32, vcpus: u32, scratch_bytes: u64) -> Self {
        Self { version: VERSION, platform: platform.id().to_owned(), memory_mib, vcpus, scratch_bytes }
    }
}

/// An image version's directory.
#[derive(Debug, Clone)]
pub struct ImageLayer {
    dir: PathBuf,
    layout: Layout,
    platform: Platform,
    empty_overlay: PathBuf,
}

impl ImageLayer {
    /// A layer that is being made in `dir`: writes its description and its empty scratch disk.
    ///
    /// # Errors
    /// [`LayerError`].
    pub fn create(dir: &Path, dirs: &Dirs, layout: Layout, platform: Platform) -> Result<Self, LayerError> {
        let path = dir.join(LAYOUT);
        serde_json::to_vec_pretty(&layout)
            .map_err(io::Error::from)
            .and_then(|json| std::fs::write(&path, json))
            .map_err(file_error("writing", &path))?;
        let empty_overlay = dirs.overlay(layout.scratch_bytes);
        let layer = Self { dir: dir.to_owned(), layout, platform, empty_overlay };
        layer.make_overlay(&layer.scratch())?;
        Ok(layer)
    }

    /// A published layer. The first time since the program's start its files are compared with their manifest, which
    /// takes as long as reading them; blocks.
    ///
    /// # Errors
    /// [`LayerError`]; a layer that differs from its manifest is not used.
    pub fn open(dir: &Path, dirs: &Dirs) -> Result<Self, LayerError> {
        verify_once(dir)?;
        let path = dir.join(LAYOUT);
        let text = std::fs::read(&path).map_err(file_error("reading", &path))?;
        let layout: Layout =
            serde_json::from_slice(&text).map_err(|error| file_error("reading", &path)(error.into()))?;
        if layout.version != VERSION {
            return Err(LayerError::Version { path, found: layout.version });
        }
        let platform = Platform::open(&dirs.platforms(), &layout.platform)?;
        let empty_overlay = dirs.overlay(layout.scratch_bytes);
        Ok(Self { dir: dir.to_owned(), layout, platform, empty_overlay })
    }

    /// Where its files are.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
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
        self.dir.join(SCRATCH)
    }

    /// The machine that the snapshot is taken of.
    ///
    /// # Errors
    /// [`LayerError::Scratch`].
    pub fn source(&self) -> Result<Shape, LayerError> {
        self.shape(vec![])
    }

    /// A clone whose writes go to the private disk `overlay`.
    ///
    /// # Errors
    /// [`LayerError::Scratch`].
    pub fn clone_with(&self, overlay: PathBuf) -> Result<Shape, LayerError> {
        self.shape(vec![Layer { path: overlay, format: LayerFormat::Qcow2 }])
    }

    /// Makes an empty private disk for a clone at `path`, which must not exist. Blocks for less than a millisecond.
    ///
    /// # Errors
    /// [`LayerError::Overlay`].
    pub fn make_overlay(&self, path: &Path) -> Result<(), LayerError> {
        Ok(overlay::copy_template(&self.empty_overlay, path)?)
    }

    /// What a clone starts from.
    #[must_use]
    pub fn restore(&self) -> Restore {
        Restore { base_memory: self.memory(), device_state: self.device(), diff: None }
    }

    fn shape(&self, above: Vec<Layer>) -> Result<Shape, LayerError> {
        let size = self.layout.scratch_bytes;
        let empty = self.platform.scratch(size).ok_or(LayerError::Scratch(size))?;
        let mut layers = vec![
            Layer { path: empty, format: LayerFormat::Raw },
            Layer { path: self.scratch(), format: LayerFormat::Qcow2 },
        ];
        layers.extend(above);
        let code = Layer { path: self.code(), format: LayerFormat::Raw };
        Ok(Shape {
            memory_mib: self.layout.memory_mib,
            vcpus: self.layout.vcpus,
            kernel: self.platform.kernel(),
            initramfs: self.platform.initramfs(),
            disks: vec![
                Disk { serial: "code".into(), read_only: true, layers: vec![code] },
                Disk { serial: "scratch".into(), read_only: false, layers },
            ],
        })
    }
}

/// Published layers are immutable, so that once is enough.
fn verify_once(dir: &Path) -> Result<(), ManifestError> {
    static VERIFIED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let verified = || VERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
    if verified().contains(dir) {
        return Ok(());
    }
    Manifest::verify(dir)?;
    verified().insert(dir.to_owned());
    Ok(())
}

fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LayerError {
    let path = path.to_owned();
    move |source| LayerError::File { doing, path, source }
}
