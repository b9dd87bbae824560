//! Where set-up puts what every MicroVM is made from.

use std::path::PathBuf;

/// Where `scripts/setup` puts the assets when nothing else is said.
pub const DEFAULT_ASSETS: &str = "/var/lib/rekindle/assets";
/// Variable that says otherwise.
pub const ASSETS_VARIABLE: &str = "REKINDLE_ASSETS";
pub(crate) const BASES: &str = "bases.erofs";
/// Sizes of the scratch disks, in GiB.
pub const SCRATCH_GIB: [u64; 3] = [8, 16, 32];

/// What `scripts/setup` made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assets {
    /// Their directory.
    pub dir: PathBuf,
}

impl Assets {
    /// The directory that the environment names, or else the default one.
    #[must_use]
    pub fn from_env() -> Self {
        let dir = std::env::var_os(ASSETS_VARIABLE).filter(|dir| !dir.is_empty());
        Self { dir: dir.unwrap_or_else(|| DEFAULT_ASSETS.into()).into() }
    }

    /// The guest's kernel.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.dir.join("kernel/vmlinuz")
    }

    /// Directory of the guest's modules and of `order`, which lists them in the order to load.
    #[must_use]
    pub fn modules(&self) -> PathBuf {
        self.dir.join("kernel/modules")
    }

    /// Root of a build VM.
    #[must_use]
    pub fn tools(&self) -> PathBuf {
        self.dir.join("tools.erofs")
    }

    /// The catalogue of base images.
    #[must_use]
    pub fn bases(&self) -> PathBuf {
        self.dir.join(BASES)
    }

    /// An empty file system for a scratch disk of one of [`SCRATCH_GIB`].
    #[must_use]
    pub fn scratch(&self, gib: u64) -> PathBuf {
        self.dir.join(scratch_name(gib))
    }

    /// What set-up has not made; empty where it has done its work.
    #[must_use]
    pub fn missing(&self) -> Vec<PathBuf> {
        let files = [self.kernel(), self.modules().join("order"), self.tools(), self.bases()];
        let scratches = SCRATCH_GIB.map(|gib| self.scratch(gib));
        files.into_iter().chain(scratches).filter(|path| !path.is_file()).collect()
    }
}

pub(crate) fn scratch_name(gib: u64) -> String {
    format!("scratch-{gib}g.ext4")
}
