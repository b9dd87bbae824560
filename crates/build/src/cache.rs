//! What builds leave for later ones of their account.
//!
//! A *container* is kept by the key of everything that it follows from: a build from the same begins with its snapshot. The
//! *steps* are the builder's storage as an image's last build left it, with a layer for each step of its Dockerfile: a
//! build from a changed artifact carries out the steps alone that the change reaches. Losing either costs time only; so
//! containers, which snapshots are made from, are published and checked like layers, and steps, whose storage VMs write
//! to, are there whole or are not.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use agent_proto::ImageConfig;
use engine::LayerFormat;
use guest::Dirs;
use ids::{AccountId, ImageArn};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use snapshot::files::missing_is_fine;
use snapshot::manifest::{Manifest, ManifestError};
use snapshot::publish::{PublishError, Staging};

use crate::files::bytes_on_disk;

/// Raised when the same inputs come to another container, because the agent builds it in another way.
const FORMAT: u8 = 2;
const CODE: &str = "code";
const CONTAINER: &str = "container.json";
const STEPS: &str = "steps";
const CONTAINERS: &str = "containers";
/// What a Dockerfile fetches from the network gets old.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Of a disk image that names its content: erofs' superblock, with its UUID.
const NAMED_BY: u64 = 4096;
/// Steps that take more of the work disk would not leave the next build the room that it needs.
const MAX_STEPS_BYTES: u64 = 4 << 30;

/// Why something could not be kept or used. The build goes on without.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CacheError {
    #[error(transparent)]
    Publish(#[from] PublishError),
    #[error(transparent)]
    Manifest(#[from] ManifestError),
    #[error("{doing} {path}: {source}", path = path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error },
}

fn failed<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> CacheError + 'a {
    move |source| CacheError::File { doing, path: path.to_owned(), source }
}

/// Names what a build is carried out with: its tools and the base images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Toolset(String);

impl Toolset {
    /// Of the disks that a build VM reads, and the format of the one that it works on.
    ///
    /// # Errors
    /// Where one cannot be read.
    pub(crate) fn of(disks: &[PathBuf], work: LayerFormat) -> Result<Self, CacheError> {
        let mut parts = vec![vec![FORMAT], work.to_string().into_bytes()];
        for disk in disks {
            parts.push(sha256_of(disk, NAMED_BY).map_err(failed("reading", disk))?);
        }
        Ok(Self(hash_of(&parts)))
    }
}

/// Names a container by what it follows from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ContainerKey(String);

impl ContainerKey {
    /// Of the artifact's bytes, the tools, the names for base images, and what the steps reach.
    ///
    /// # Errors
    /// Where the artifact cannot be read.
    pub(crate) fn of(
        artifact: &Path,
        tools: &Toolset,
        aliases: &BTreeMap<String, String>,
        connectors: &[String],
    ) -> Result<Self, CacheError> {
        let artifact_sha = sha256_of(artifact, u64::MAX).map_err(failed("reading", artifact))?;
        let mut parts = vec![artifact_sha, tools.0.clone().into_bytes()];
        parts.extend(
            aliases.iter().flat_map(|(wanted, local)| [wanted, local]).map(|name| name.clone().into()),
        );
        // Where names end and connectors begin.
        parts.push(Vec::new());
        parts.extend(connectors.iter().map(|connector| connector.clone().into_bytes()));
        Ok(Self(hash_of(&parts)))
    }
}

/// Each part with its length, so that no two lists are one text.
fn hash_of(parts: &[Vec<u8>]) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

fn sha256_of(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    let mut hash = Sha256::new();
    io::copy(&mut fs::File::open(path)?.take(most), &mut hash)?;
    Ok(hash.finalize().to_vec())
}

/// How to run a container, beside its files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) code_bytes: u64,
    pub(crate) base_layers: Vec<String>,
    pub(crate) config: ImageConfig,
}

/// What builds left, below one directory.
#[derive(Debug, Clone)]
pub(crate) struct Cache {
    root: PathBuf,
    /// Bytes on the disk; none is no cache.
    limit: u64,
}

impl Cache {
    pub(crate) fn new(dirs: &Dirs, limit: u64) -> Self {
        Self { root: dirs.build_cache(), limit }
    }

    /// The container of this key, its files linked to `code`.
    ///
    /// # Errors
    /// [`CacheError`] where it is damaged, and removed, or cannot be linked.
    pub(crate) fn container(
        &self,
        account: &AccountId,
        key: &ContainerKey,
        code: &Path,
    ) -> Result<Option<Kept>, CacheError> {
        let dir = self.container_dir(account, key);
        if age(&dir).is_none_or(|age| age > KEPT) {
            return Ok(None);
        }
        if let Err(error) = Manifest::verify(&dir) {
            // What cannot be removed either is refused the next time, too.
            let _ = fs::remove_dir_all(&dir);
            return Err(error.into());
        }
        let description = dir.join(CONTAINER);
        let kept = fs::read(&description).and_then(|text| Ok(serde_json::from_slice(&text)?));
        let kept = kept.map_err(failed("reading", &description))?;
        fs::hard_link(dir.join(CODE), code).map_err(failed("linking", code))?;
        Ok(Some(kept))
    }

    /// Keeps the files in `code`, which nobody writes to any more.
    ///
    /// # Errors
    /// [`CacheError`].
    pub(crate) fn keep_container(
        &self,
        account: &AccountId,
        key: &ContainerKey,
        code: &Path,
        kept: &Kept,
    ) -> Result<(), CacheError> {
        let dir = self.container_dir(account, key);
        if self.limit == 0 || dir.exists() && age(&dir).is_some_and(|age| age <= KEPT) {
            return Ok(());
        }
        remove(&dir).map_err(failed("removing", &dir))?;
        let staging = Staging::new(&dir)?;
        let to = staging.path().join(CODE);
        fs::hard_link(code, &to).map_err(failed("linking", &to))?;
        let description = staging.path().join(CONTAINER);
        let text = serde_json::to_vec(kept).map_err(io::Error::from);
        text.and_then(|text| fs::write(&description, text)).map_err(failed("writing", &description))?;
        staging.publish()?;
        Ok(())
    }

    /// Moves the storage of the image's last build to `to`, if there is one that was made with these tools. Until it is
    /// given back there is none.
    ///
    /// # Errors
    /// [`CacheError`].
    pub(crate) fn take_steps(
        &self,
        image: &ImageArn,
        tools: &Toolset,
        to: &Path,
    ) -> Result<bool, CacheError> {
        let from = self.steps(image, tools);
        let fresh = age(&from).is_some_and(|age| age <= KEPT);
        if !fresh {
            remove(&from).map_err(failed("removing", &from))?;
            return Ok(false);
        }
        match fs::rename(&from, to) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            renamed => renamed.map(|()| true).map_err(failed("taking", &from)),
        }
    }

    /// Keeps the storage in `from`, which no VM has any more.
    ///
    /// # Errors
    /// [`CacheError`].
    pub(crate) fn keep_steps(
        &self,
        image: &ImageArn,
        tools: &Toolset,
        from: &Path,
    ) -> Result<(), CacheError> {
        if self.limit == 0 || own_bytes(from) > MAX_STEPS_BYTES {
            return Ok(());
        }
        // A name without all of its content, as a power cut may leave it, would fail the next build.
        fs::File::open(from).and_then(|disk| disk.sync_all()).map_err(failed("syncing", from))?;
        let to = self.steps(image, tools);
        let parent = to.parent().map_or(Ok(()), fs::create_dir_all);
        parent.and_then(|()| fs::rename(from, &to)).map_err(failed("keeping", &to))
    }

    /// Forgets the steps of an image, whatever tools they were made with.
    ///
    /// # Errors
    /// [`CacheError`].
    pub(crate) fn forget(&self, image: &ImageArn) -> Result<(), CacheError> {
        let steps = self.steps_dir(image);
        remove(&steps).map_err(failed("removing", &steps))
    }

    /// Removes what is too old, and the oldest of the rest until they are within the limit.
    pub(crate) fn sweep(&self) {
        let (mut paths, mut found) = (Vec::new(), Vec::new());
        for account in entries(&self.root) {
            let steps = entries(&account.join(STEPS)).flat_map(|image| entries(&image));
            for path in steps.chain(entries(&account.join(CONTAINERS))) {
                let Some(age) = age(&path) else { continue };
                found.push(Found { age, bytes: own_bytes(&path) });
                paths.push(path);
            }
        }
        for index in surplus(&found, self.limit) {
            let path = &paths[index];
            if let Err(error) = remove(path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove what a build left for later ones");
            }
        }
    }

    fn container_dir(&self, account: &AccountId, key: &ContainerKey) -> PathBuf {
        self.root.join(account.to_string()).join(CONTAINERS).join(&key.0)
    }

    fn steps(&self, image: &ImageArn, tools: &Toolset) -> PathBuf {
        self.steps_dir(image).join(&tools.0)
    }

    fn steps_dir(&self, image: &ImageArn) -> PathBuf {
        let name = format!("{}-{}", image.region, image.name.as_str());
        self.root.join(image.account.to_string()).join(STEPS).join(name)
    }
}

/// Something that is kept.
#[derive(Debug, Clone, Copy)]
struct Found {
    age: Duration,
    bytes: u64,
}

/// Which are to be removed.
fn surplus(found: &[Found], limit: u64) -> Vec<usize> {
    let mut youngest_first: Vec<usize> = (0..found.len()).collect();
    youngest_first.sort_by_key(|&index| found[index].age);
    let mut total = 0_u64;
    youngest_first.retain(|&index| {
        let Found { age, bytes } = found[index];
        let with_it = total.saturating_add(bytes);
        let stays = age <= KEPT && with_it <= limit;
        if stays {
            total = with_it;
        }
        !stays
    });
    youngest_first
}

/// `None` where there is nothing. A file of the future is new.
fn age(path: &Path) -> Option<Duration> {
    let made = fs::metadata(path).ok()?.modified().ok()?;
    Some(SystemTime::now().duration_since(made).unwrap_or_default())
}

/// What would be free without it: a file that a published version has too takes nothing.
fn own_bytes(path: &Path) -> u64 {
    let of_file = |path: &Path| {
        let file = fs::symlink_metadata(path).ok().filter(|file| file.nlink() == 1);
        file.map_or(0, |file| bytes_on_disk(&file))
    };
    if path.is_dir() { entries(path).map(|path| of_file(&path)).sum() } else { of_file(path) }
}

fn remove(path: &Path) -> io::Result<()> {
    missing_is_fine(if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) })
}

/// Of a directory that may not be there.
fn entries(dir: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(dir).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()))
}

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    const LIMIT: u64 = 1 << 30;

    struct Place {
        dir: tempfile::TempDir,
        dirs: Dirs,
    }

    impl Place {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let dirs = Dirs::new(dir.path(), &network::InstanceTag::of_data_dir(dir.path()));
            Self { dir, dirs }
        }

        fn cache(&self) -> Cache {
            Cache::new(&self.dirs, LIMIT)
        }

        fn file(&self, name: &str, content: &str) -> PathBuf {
            let path = self.dir.path().join(name);
            fs::write(&path, content).unwrap();
            path
        }

        fn key(&self, artifact: &str) -> ContainerKey {
            let tools = Toolset::of(&[self.file("tools", "tools")], LayerFormat::Raw).unwrap();
            ContainerKey::of(&self.file("artifact", artifact), &tools, &BTreeMap::new(), &[]).unwrap()
        }
    }

    fn image(account: &str, name: &str) -> ImageArn {
        format!("arn:aws:lambda:us-east-1:{account}:microvm-image:{name}").parse().unwrap()
    }

    fn account() -> AccountId {
        image("123456789012", "a").account
    }

    fn kept() -> Kept {
        Kept {
            code_bytes: 5,
            base_layers: vec!["base".into()],
            config: ImageConfig { user: "web".into(), ..ImageConfig::default() },
        }
    }

    fn grow_old(path: &Path) {
        let then = SystemTime::now() - KEPT - Duration::from_secs(60);
        File::open(path).unwrap().set_modified(then).unwrap();
    }

    #[test]
    fn a_container_is_found_by_those_who_would_build_the_same() {
        let place = Place::new();
        let (cache, key) = (place.cache(), place.key("zip"));
        let code = place.file("code", "files");
        cache.keep_container(&account(), &key, &code, &kept()).unwrap();
        // The build's own directory goes with the build.
        fs::remove_file(code).unwrap();
        let to = place.dir.path().join("again");
        assert_eq!(cache.container(&account(), &key, &to).unwrap(), Some(kept()));
        assert_eq!(fs::read_to_string(&to).unwrap(), "files");

        let other = place.dir.path().join("other");
        assert_eq!(cache.container(&account(), &place.key("another zip"), &other).unwrap(), None);
        let stranger = image("210987654321", "a").account;
        assert_eq!(cache.container(&stranger, &key, &other).unwrap(), None);
    }

    #[test]
    fn a_key_follows_from_all_that_a_container_does() {
        let place = Place::new();
        let (zip, tools) = (
            place.file("zip", "zip"),
            Toolset::of(&[place.file("tools", "tools")], LayerFormat::Raw).unwrap(),
        );
        let none = BTreeMap::new();
        let alias = BTreeMap::from([("a".to_owned(), "b".to_owned())]);
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
        let newer = Toolset::of(&[place.file("newer", "newer")], LayerFormat::Raw).unwrap();
        let layered = Toolset::of(&[place.file("tools", "tools")], LayerFormat::Qcow2).unwrap();
        let keys = [
            ContainerKey::of(&zip, &tools, &none, &[]),
            ContainerKey::of(&place.file("other", "zip2"), &tools, &none, &[]),
            ContainerKey::of(&zip, &newer, &none, &[]),
            ContainerKey::of(&zip, &layered, &none, &[]),
            ContainerKey::of(&zip, &tools, &alias, &[]),
            ContainerKey::of(&zip, &tools, &none, &words(&["a", "b"])),
            ContainerKey::of(&zip, &tools, &none, &words(&["ab"])),
        ];
        let keys = keys.map(|key| key.unwrap().0);
        let different: std::collections::BTreeSet<&String> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
        assert_eq!(ContainerKey::of(&zip, &tools, &none, &[]).unwrap().0, keys[0]);
    }

    #[test]
    fn what_is_damaged_or_old_is_not_used() {
        let place = Place::new();
        let (cache, key) = (place.cache(), place.key("zip"));
        let code = place.file("code", "files");
        cache.keep_container(&account(), &key, &code, &kept()).unwrap();
        let dir = cache.container_dir(&account(), &key);
        grow_old(&dir);
        let to = place.dir.path().join("again");
        assert_eq!(cache.container(&account(), &key, &to).unwrap(), None);
        // It is replaced by what was built in its place.
        cache.keep_container(&account(), &key, &code, &kept()).unwrap();
        fs::write(&code, "filed").unwrap();
        assert!(matches!(cache.container(&account(), &key, &to), Err(CacheError::Manifest(_))));
        assert!(!to.exists() && !dir.exists());
        assert_eq!(cache.container(&account(), &key, &to).unwrap(), None);
    }

    #[test]
    fn steps_are_of_one_image_and_of_one_build_at_a_time() {
        let place = Place::new();
        let cache = place.cache();
        let tools = Toolset::of(&[place.file("tools", "tools")], LayerFormat::Raw).unwrap();
        let newer = Toolset::of(&[place.file("newer", "newer")], LayerFormat::Raw).unwrap();
        let (a, b) = (image("123456789012", "a"), image("123456789012", "b"));
        let disk = place.file("disk", "steps");
        cache.keep_steps(&a, &tools, &disk).unwrap();
        assert!(!cache.take_steps(&b, &tools, &disk).unwrap());
        assert!(!cache.take_steps(&a, &newer, &disk).unwrap());
        assert!(cache.take_steps(&a, &tools, &disk).unwrap());
        assert_eq!(fs::read_to_string(&disk).unwrap(), "steps");
        assert!(!cache.take_steps(&a, &tools, &place.dir.path().join("second")).unwrap());
        cache.keep_steps(&a, &tools, &disk).unwrap();
        grow_old(&cache.steps(&a, &tools));
        assert!(!cache.take_steps(&a, &tools, &disk).unwrap());
        let disk = place.file("disk", "steps");
        cache.keep_steps(&a, &tools, &disk).unwrap();
        cache.forget(&a).unwrap();
        assert!(!cache.take_steps(&a, &tools, &disk).unwrap());
    }

    #[test]
    fn without_a_limit_nothing_is_kept() {
        let place = Place::new();
        let cache = Cache::new(&place.dirs, 0);
        let (key, code) = (place.key("zip"), place.file("code", "files"));
        cache.keep_container(&account(), &key, &code, &kept()).unwrap();
        let tools = Toolset::of(&[], LayerFormat::Raw).unwrap();
        cache.keep_steps(&image("123456789012", "a"), &tools, &code).unwrap();
        assert!(entries(&cache.root).next().is_none());
    }

    #[test]
    fn a_sweep_removes_the_oldest_until_the_rest_is_within_the_limit() {
        let place = Place::new();
        let cache = place.cache();
        let tools = Toolset::of(&[], LayerFormat::Raw).unwrap();
        let (old, new) = (image("123456789012", "old"), image("123456789012", "new"));
        for image in [&old, &new] {
            cache.keep_steps(image, &tools, &place.file("disk", &"x".repeat(100_000))).unwrap();
        }
        let then = SystemTime::now() - Duration::from_secs(60);
        File::open(cache.steps(&old, &tools)).unwrap().set_modified(then).unwrap();
        cache.sweep();
        assert!(cache.steps(&old, &tools).exists() && cache.steps(&new, &tools).exists());
        Cache::new(&place.dirs, 150_000).sweep();
        assert!(!cache.steps(&old, &tools).exists() && cache.steps(&new, &tools).exists());
    }

    proptest::proptest! {
        #[test]
        fn what_stays_is_young_and_within_the_limit(
            found in proptest::collection::vec((0_u64..200_000, 0_u64..1000), 0..20),
            limit in 0_u64..5000,
        ) {
            let found: Vec<Found> = found
                .into_iter()
                .map(|(age, bytes)| Found { age: Duration::from_secs(age), bytes })
                .collect();
            let goes = surplus(&found, limit);
            let stays = || found.iter().enumerate().filter(|(index, _)| !goes.contains(index)).map(|(_, of)| of);
            proptest::prop_assert!(stays().all(|of| of.age <= KEPT));
            proptest::prop_assert!(stays().map(|of| of.bytes).sum::<u64>() <= limit);
            for gone in goes.iter().map(|&index| found[index]).filter(|of| of.age <= KEPT) {
                let younger = stays().filter(|of| of.age <= gone.age).map(|of| of.bytes).sum::<u64>();
                proptest::prop_assert!(younger + gone.bytes > limit, "it would have fitted");
            }
        }
    }
}
