//! What a MicroVM is made from beneath its image: kernel, initial RAM file system, base images, scratch disks.
//!
//! A snapshot fits only the very files that it was made with. So these are kept as immutable copies, named by their
//! content: a later set-up or upgrade makes new ones beside them, and never changes an existing snapshot's.

mod assets;
mod cpio;
mod sparse;

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use sha2::{Digest, Sha256};

pub use assets::{ASSETS_VARIABLE, Assets, DEFAULT_ASSETS, SCRATCH_GIB};
use assets::{BASES, scratch_name};

const KERNEL: &str = "vmlinuz";
const INITRAMFS: &str = "initramfs";
/// Directories that the agent mounts the kernel's file systems on.
const MOUNT_POINTS: [&str; 3] = ["dev", "proc", "sys"];
/// Digits of an id: 128 bits of the content's hash.
const ID_DIGITS: usize = 32;
const GIB: u64 = 1 << 30;

/// Why a platform could not be installed or opened.
#[derive(Debug, thiserror::Error)]
pub enum PlatformError {
    /// Set-up has not been run, or not to its end.
    #[error("{} is missing: run scripts/setup", list(.0))]
    Missing(Vec<PathBuf>),
    /// A file failed.
    #[error("{doing} {path} to install the guest's platform (is the disk full?): {source}")]
    File {
        /// The step.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The list of modules names something else than a file beside it.
    #[error("the module list names '{0}', which is not a file name: run scripts/setup again")]
    Module(String),
    /// Its files are not what they were.
    #[error(
        "platform '{id}' in {dir} has changed: the snapshots made with it cannot be used, build their images again"
    )]
    Damaged {
        /// What was asked for.
        id: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
    /// There is no such platform.
    #[error(
        "platform '{id}' is not whole in {dir}: the snapshots made with it cannot be used, build their images again"
    )]
    Unknown {
        /// What was asked for.
        id: String,
        /// Where it was looked for.
        dir: PathBuf,
    },
}

fn list(paths: &[PathBuf]) -> String {
    let names: Vec<_> = paths.iter().map(|path| path.display().to_string()).collect();
    names.join(", ")
}

fn file_error<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PlatformError + 'a {
    move |source| PlatformError::File { doing, path: path.to_owned(), source }
}

/// Immutable files that machines are started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    id: String,
    dir: PathBuf,
}

impl Platform {
    /// Makes the platform of these assets and this agent below `platforms`, unless it is there.
    ///
    /// # Errors
    /// Where set-up has not been run or a file fails.
    pub fn install(assets: &Assets, agent: &Path, platforms: &Path) -> Result<Self, PlatformError> {
        let missing = assets.missing();
        if !missing.is_empty() {
            return Err(PlatformError::Missing(missing));
        }
        fs::create_dir_all(platforms).map_err(file_error("creating", platforms))?;
        let new = tempfile::Builder::new()
            .prefix(".new-")
            .tempdir_in(platforms)
            .map_err(file_error("creating a directory in", platforms))?;
        let initramfs = new.path().join(INITRAMFS);
        fs::write(&initramfs, archive(assets, agent)?).map_err(file_error("writing", &initramfs))?;
        let made_from = sources(assets, &initramfs);
        let id = identify(made_from.values())?;
        let dir = platforms.join(&id);
        if is_whole(&dir) {
            return Ok(Self { id, dir });
        }
        for (name, from) in made_from.iter().filter(|(_, from)| **from != initramfs) {
            sparse::copy(from, &new.path().join(name)).map_err(file_error("copying", from))?;
        }
        // Of the copy, and not of the assets: what is used is what was hashed, whatever is written to those meanwhile.
        let id = identify(files(new.path()).values())?;
        let dir = platforms.join(&id);
        if !is_whole(&dir) {
            // Of one whose removal was broken off.
            if dir.exists() {
                fs::remove_dir_all(&dir).map_err(file_error("removing what is left of", &dir))?;
            }
            publish(new.path(), &dir, platforms)?;
        }
        Ok(Self { id, dir })
    }

    /// The platform that an existing snapshot was made with. The first time since the program's start its content is
    /// compared with its id, which takes as long as reading it; blocks.
    ///
    /// # Errors
    /// Where it is not there, not whole, or changed.
    pub fn open(platforms: &Path, id: &str) -> Result<Self, PlatformError> {
        let legal = id.len() == ID_DIGITS && id.bytes().all(|byte| byte.is_ascii_hexdigit());
        let dir = platforms.join(id);
        if !legal || !is_whole(&dir) {
            return Err(PlatformError::Unknown { id: id.to_owned(), dir: platforms.to_owned() });
        }
        if !verified_once(&dir, id)? {
            return Err(PlatformError::Damaged { id: id.to_owned(), dir: platforms.to_owned() });
        }
        Ok(Self { id: id.to_owned(), dir })
    }

    /// Names the content.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The guest's kernel.
    #[must_use]
    pub fn kernel(&self) -> PathBuf {
        self.dir.join(KERNEL)
    }

    /// The agent and its modules.
    #[must_use]
    pub fn initramfs(&self) -> PathBuf {
        self.dir.join(INITRAMFS)
    }

    /// The catalogue of base images, on whose layers those of other images lie.
    #[must_use]
    pub fn bases(&self) -> PathBuf {
        self.dir.join(BASES)
    }

    /// The smallest scratch disk of at least `bytes`.
    #[must_use]
    pub fn scratch(&self, bytes: u64) -> Option<PathBuf> {
        let gib = SCRATCH_GIB.into_iter().find(|gib| gib * GIB >= bytes)?;
        Some(self.dir.join(scratch_name(gib)))
    }
}

/// What a platform's files are made from, by the names that they get.
fn sources(assets: &Assets, initramfs: &Path) -> BTreeMap<String, PathBuf> {
    let one = |name: &str, path| (name.to_owned(), path);
    let scratches = SCRATCH_GIB.map(|gib| (scratch_name(gib), assets.scratch(gib)));
    [one(KERNEL, assets.kernel()), one(INITRAMFS, initramfs.to_owned()), one(BASES, assets.bases())]
        .into_iter()
        .chain(scratches)
        .collect()
}

/// The files of the platform in `dir`.
fn files(dir: &Path) -> BTreeMap<String, PathBuf> {
    let names = [KERNEL, INITRAMFS, BASES].map(String::from).into_iter().chain(SCRATCH_GIB.map(scratch_name));
    names.map(|name| (name.clone(), dir.join(name))).collect()
}

/// Whether all of the platform in `dir` is there.
fn is_whole(dir: &Path) -> bool {
    files(dir).values().all(|path| path.is_file())
}

fn archive(assets: &Assets, agent: &Path) -> Result<Vec<u8>, PlatformError> {
    let read = |path: &Path| fs::read(path).map_err(file_error("reading", path));
    let mut archive = cpio::Archive::default();
    MOUNT_POINTS.iter().for_each(|name| archive.directory(name));
    archive.executable("init", &read(agent)?);
    archive.directory("modules");
    let order = read(&assets.modules().join("order"))?;
    for name in String::from_utf8_lossy(&order).lines() {
        if name.is_empty() || name.contains('/') || name.starts_with('.') {
            return Err(PlatformError::Module(name.to_owned()));
        }
        archive.file(&format!("modules/{name}"), &read(&assets.modules().join(name))?);
    }
    archive.file("modules/order", &order);
    Ok(archive.finish())
}

/// By the files in the order of their names.
fn identify<'a>(files: impl Iterator<Item = &'a PathBuf>) -> Result<String, PlatformError> {
    let mut hash = Sha256::new();
    for path in files {
        sparse::hash(path, &mut hash).map_err(file_error("reading", path))?;
    }
    let digits = hash.finalize().iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}"));
    Ok(digits[..ID_DIGITS].to_owned())
}

/// Whether the content is what its id says. Platforms are immutable, so that once is enough.
fn verified_once(dir: &Path, id: &str) -> Result<bool, PlatformError> {
    static VERIFIED: Mutex<BTreeSet<PathBuf>> = Mutex::new(BTreeSet::new());
    let verified = || VERIFIED.lock().unwrap_or_else(PoisonError::into_inner);
    if verified().contains(dir) {
        return Ok(true);
    }
    let same = identify(files(dir).values())? == id;
    if same {
        verified().insert(dir.to_owned());
    }
    Ok(same)
}

/// Makes the files durable, then their name.
fn publish(new: &Path, dir: &Path, platforms: &Path) -> Result<(), PlatformError> {
    for path in files(new).into_values() {
        let sync = || {
            let file = File::open(&path)?;
            file.set_permissions(Permissions::from_mode(0o644))?;
            file.sync_all()
        };
        sync().map_err(file_error("syncing", &path))?;
    }
    let rename = || {
        let opened = File::open(new)?;
        opened.set_permissions(Permissions::from_mode(0o755))?;
        opened.sync_all()?;
        match fs::rename(new, dir) {
            // Somebody else has just installed the same.
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
            done => done?,
        }
        File::open(platforms)?.sync_all()
    };
    rename().map_err(file_error("naming", dir))
}
