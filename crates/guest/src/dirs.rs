//! Where a server keeps what its guests are made of.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use ids::{BuildId, ImageArn, ImageVersion, MicrovmId};
use snapshot::publish::STAGING_SUFFIX;

use crate::layer::platform_of;

const SPARES: &str = "spares";
const BUILD_CACHE: &str = "build-cache";

/// Why a server's directories could not be made.
#[derive(Debug, thiserror::Error)]
pub enum DirsError {
    /// One of them.
    #[error("creating {dir}: {source}; check the disk's space and the permissions above it", dir = dir.display())]
    Create {
        /// Which.
        dir: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// The directories of one server.
#[derive(Debug, Clone)]
pub struct Dirs {
    data: PathBuf,
    run: PathBuf,
}

impl Dirs {
    /// Durable things go below `data`. Sockets and pid files go below `/run`, which a reboot empties like the VMMs
    /// themselves, and whose names stay short enough for a socket's address.
    #[must_use]
    pub fn new(data: &Path, instance: &network::InstanceTag) -> Self {
        Self { data: data.to_owned(), run: PathBuf::from(format!("/run/rekindle-{instance}")) }
    }

    /// One directory for each running guest.
    #[must_use]
    pub fn run(&self) -> &Path {
        &self.run
    }

    /// What snapshots depend on (see the `platform` crate).
    #[must_use]
    pub fn platforms(&self) -> PathBuf {
        self.data.join("platforms")
    }

    /// What an engine makes private disks from.
    #[must_use]
    pub fn overlays(&self) -> PathBuf {
        self.data.join("overlays")
    }

    /// Makes the directories.
    ///
    /// # Errors
    /// Where the data directory or `/run` cannot be written.
    pub fn prepare(&self) -> Result<(), DirsError> {
        let spares = self.data.join(SPARES);
        match fs::remove_dir_all(&spares) {
            // Those of an earlier server are discarded.
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(DirsError::Create { dir: spares, source });
            }
            _ => {}
        }
        let below = ["platforms", "overlays", "images", "microvms", "builds", BUILD_CACHE, SPARES];
        let below = below.map(|name| self.data.join(name));
        for dir in below.iter().chain([&self.run]) {
            fs::create_dir_all(dir).map_err(|source| DirsError::Create { dir: dir.clone(), source })?;
        }
        Ok(())
    }

    /// For a start: removes what belongs to no MicroVM or build of `living`, by their ids, and platforms that neither a
    /// version's snapshot nor this start, on `platform`, uses. A power cut brings back what was removed just before, and a
    /// disk that failed may have kept it. What stays now goes with the next start.
    pub fn sweep(&self, living: &BTreeSet<String>, platform: &str) {
        let belongs =
            |path: &Path| path.file_name().is_some_and(|name| living.contains(&*name.to_string_lossy()));
        let left = ["microvms", "builds"].into_iter().flat_map(|name| entries(&self.data.join(name)));
        let left = left.filter(|path| !belongs(path));
        // No build is under way yet, and one that begins anew makes its own.
        let (unpublished, published): (Vec<_>, Vec<_>) =
            self.versions().partition(|path| path.to_string_lossy().ends_with(STAGING_SUFFIX));
        for dir in left.chain(unpublished).chain(self.unused_platforms(&published, platform)) {
            tracing::info!(dir = %dir.display(), "removing what an earlier server left");
            if let Err(error) = fs::remove_dir_all(&dir) {
                tracing::warn!(dir = %dir.display(), %error, "cannot remove what an earlier server left");
            }
        }
    }

    /// The directories of all versions, also of those that are not whole.
    fn versions(&self) -> impl Iterator<Item = PathBuf> {
        let images = entries(&self.data.join("images")).flat_map(|place| entries(&place));
        images.flat_map(|image| entries(&image))
    }

    /// None where a version does not say which it uses.
    fn unused_platforms(&self, versions: &[PathBuf], current: &str) -> Vec<PathBuf> {
        let Some(used) = versions.iter().map(|version| platform_of(version)).collect::<Option<BTreeSet<_>>>()
        else {
            return Vec::new();
        };
        let is_used = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name == current || used.contains(&*name)
        };
        entries(&self.platforms()).filter(|path| !is_used(path)).collect()
    }

    /// The image's published versions.
    #[must_use]
    pub fn image(&self, image: &ImageArn) -> PathBuf {
        let place = format!("{}-{}", image.account, image.region);
        self.data.join("images").join(place).join(image.name.as_str())
    }

    /// One published version.
    #[must_use]
    pub fn version(&self, image: &ImageArn, version: ImageVersion) -> PathBuf {
        self.image(image).join(version.to_string())
    }

    /// A MicroVM's private disk and, while it sleeps, its memory.
    #[must_use]
    pub fn microvm(&self, id: MicrovmId) -> PathBuf {
        self.data.join("microvms").join(id.to_string())
    }

    /// The private disk of a VMM that no MicroVM has yet.
    #[must_use]
    pub fn spare(&self, name: &str) -> PathBuf {
        self.data.join(SPARES).join(name)
    }

    /// What builds leave for later ones.
    #[must_use]
    pub fn build_cache(&self) -> PathBuf {
        self.data.join(BUILD_CACHE)
    }

    /// What a build needs while it is under way.
    #[must_use]
    pub fn build(&self, id: BuildId) -> PathBuf {
        self.data.join("builds").join(id.to_string())
    }
}

/// Of a directory that may not be there.
fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_belongs_to_nobody_is_swept() {
        let data = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(data.path(), &network::InstanceTag::of_data_dir(data.path()));
        let kept =
            ["microvms/microvm-a", "builds/b", "images/1-x/name/1.0", "platforms/now", "platforms/used"];
        let left = ["microvms/microvm-b", "builds/c", "images/1-x/name/2.0.staging", "platforms/old"];
        for dir in kept.iter().chain(&left) {
            fs::create_dir_all(data.path().join(dir)).unwrap();
            fs::write(data.path().join(dir).join("file"), "").unwrap();
        }
        let description = data.path().join("images/1-x/name/1.0/snapshot.json");
        let sweep = || dirs.sweep(&["microvm-a", "b"].map(str::to_owned).into(), "now");
        sweep();
        assert!(data.path().join("platforms/old").exists(), "who knows what the version uses?");
        // Of whatever release: its MicroVMs may live on.
        fs::write(description, r#"{"version": 1, "platform": "used"}"#).unwrap();
        sweep();
        let stays = |dir: &&str| data.path().join(dir).exists();
        assert!(kept.iter().all(stays), "what belongs to somebody is gone");
        assert!(!left.iter().any(stays), "what belongs to nobody is there");
    }
}
