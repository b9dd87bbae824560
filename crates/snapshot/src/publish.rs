//! Making a directory of files appear at once, complete and durable, or not at all.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::files::missing_is_fine;
use crate::manifest::{FILE_NAME, Manifest, ManifestError};

/// Ending of a directory that is still being filled; a start of the program may delete those.
pub const STAGING_SUFFIX: &str = ".staging";

/// Why a layer was not published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The destination has no parent or name.
    #[error("{0} is not a place where a snapshot can be published")]
    Place(PathBuf),
    /// A step on the file system failed.
    #[error("{doing} {path} to publish a snapshot: {source}")]
    Io {
        /// The step.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The manifest could not be made.
    #[error(transparent)]
    Manifest(#[from] ManifestError),
}

fn io_error<'a>(doing: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> PublishError + 'a {
    move |source| PublishError::Io { doing, path: path.to_owned(), source }
}

/// A directory beside its destination, to be filled and then published. Dropped before, it is removed.
#[derive(Debug)]
pub struct Staging {
    path: PathBuf,
    destination: PathBuf,
    parent: PathBuf,
}

impl Staging {
    /// An empty staging directory for `destination`; what an earlier attempt left is removed.
    pub fn new(destination: &Path) -> Result<Self, PublishError> {
        let place = || PublishError::Place(destination.to_owned());
        let parent =
            destination.parent().filter(|parent| !parent.as_os_str().is_empty()).ok_or_else(place)?;
        let mut name = destination.file_name().ok_or_else(place)?.to_owned();
        name.push(STAGING_SUFFIX);
        let path = parent.join(name);
        missing_is_fine(fs::remove_dir_all(&path)).map_err(io_error("emptying", &path))?;
        create_durably(parent).and_then(|()| fs::create_dir(&path)).map_err(io_error("creating", &path))?;
        Ok(Self { path, destination: destination.to_owned(), parent: parent.to_owned() })
    }

    /// Where to put the files.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the manifest, makes everything durable and gives the directory its name. The destination must not
    /// exist with anything in it: published layers are immutable.
    pub fn publish(self) -> Result<Manifest, PublishError> {
        self.publish_with(&[])
    }

    /// The same where the files in `self_checked` carry checksums of their own, so that they need not be read again.
    pub fn publish_with(self, self_checked: &[&str]) -> Result<Manifest, PublishError> {
        self.seal(self_checked)?.publish()
    }

    /// Takes the name away again, of what nobody may trust.
    fn take_back(&self) {
        // Where this fails too, its owner is told of the failure before.
        let _ = fs::rename(&self.destination, &self.path);
    }

    /// Writes the manifest and makes everything durable: all of publishing that takes time.
    pub fn seal(self, self_checked: &[&str]) -> Result<Sealed, PublishError> {
        let manifest = Manifest::of(&self.path, self_checked)?;
        let file = self.path.join(FILE_NAME);
        manifest.to_json().and_then(|json| fs::write(&file, json)).map_err(io_error("writing", &file))?;
        for name in manifest.files.keys().map(String::as_str).chain([FILE_NAME]) {
            let path = self.path.join(name);
            seal(&path).map_err(io_error("sealing", &path))?;
            sync(&path)?;
        }
        sync(&self.path)?;
        Ok(Sealed { staging: self, manifest })
    }
}

/// A directory that is complete and durable, and lacks but its name. Dropped, it is removed.
#[derive(Debug)]
pub struct Sealed {
    staging: Staging,
    manifest: Manifest,
}

impl Sealed {
    /// Gives the directory its name, durably. Where it fails there is none of that name, until the power is cut: it may be
    /// on the disk all the same, unless the parent is synced once more.
    pub fn publish(self) -> Result<Manifest, PublishError> {
        let Self { staging, manifest } = self;
        let renamed = fs::rename(&staging.path, &staging.destination);
        renamed.map_err(io_error("renaming", &staging.path))?;
        sync(&staging.parent).inspect_err(|_| staging.take_back())?;
        Ok(manifest)
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // After publishing there is nothing by this name. What cannot be removed is removed by the next attempt.
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// Takes the file from whoever wrote it: a VMM's user could otherwise still write to it, through a descriptor that
/// was opened for reading.
fn seal(path: &Path) -> io::Result<()> {
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    rustix::fs::chown(path, Some(uid), Some(gid))?;
    fs::set_permissions(path, Permissions::from_mode(0o444))
}

/// Makes a directory with those above it, if it is not there, and its name durable: what is published in it would go with
/// it.
fn create_durably(dir: &Path) -> io::Result<()> {
    let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
    let Some(parent) = parent else { return fs::create_dir_all(dir) };
    if !dir.is_dir() {
        create_durably(parent)?;
        fs::create_dir_all(dir)?;
    }
    // Whoever made it need not have waited for the disk.
    File::open(parent)?.sync_all()
}

fn sync(path: &Path) -> Result<(), PublishError> {
    File::open(path).and_then(|file| file.sync_all()).map_err(io_error("syncing", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Such as by a disk that fails: its owner is told that there is nothing, and must not find it later.
    #[test]
    fn what_cannot_be_made_durable_is_not_there() {
        let root = tempfile::tempdir().unwrap();
        let layer = root.path().join("layer");
        let staging = Staging::new(&layer).unwrap();
        fs::write(staging.path().join("memory"), [7; 5000]).unwrap();
        let mut sealed = staging.seal(&[]).unwrap();
        sealed.staging.parent = root.path().join("missing");
        let error = sealed.publish().unwrap_err().to_string();
        assert!(error.starts_with("syncing"), "{error}");
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);
        // And nothing is in the way of the next attempt.
        Staging::new(&layer).unwrap().publish().unwrap();
    }

    #[test]
    fn a_published_layer_verifies_and_a_changed_one_does_not() {
        let root = tempfile::tempdir().unwrap();
        let layer = root.path().join("layer");
        let staging = Staging::new(&layer).unwrap();
        fs::write(staging.path().join("memory"), [7; 5000]).unwrap();
        fs::write(staging.path().join("device"), b"state").unwrap();
        let manifest = staging.publish().unwrap();
        assert_eq!(Manifest::verify(&layer).unwrap(), manifest);
        assert_eq!(manifest.files["memory"].size, 5000);
        assert_eq!(fs::metadata(layer.join("memory")).unwrap().permissions().mode() & 0o777, 0o444);

        fs::write(layer.join("device"), b"statf").unwrap();
        assert!(matches!(Manifest::verify(&layer), Err(ManifestError::Mismatch(_))));
        fs::write(layer.join("device"), b"state").unwrap();
        fs::write(layer.join("extra"), b"").unwrap();
        assert!(matches!(Manifest::verify(&layer), Err(ManifestError::Mismatch(_))));
    }

    #[test]
    fn a_flipped_bit_anywhere_in_a_layer_fails_closed() {
        let root = tempfile::tempdir().unwrap();
        let layer = root.path().join("layer");
        let staging = Staging::new(&layer).unwrap();
        fs::write(staging.path().join("memory"), [7; 300]).unwrap();
        fs::write(staging.path().join("snapshot.json"), br#"{"version":2}"#).unwrap();
        let manifest = staging.publish().unwrap();
        for name in ["memory", "snapshot.json", FILE_NAME] {
            let path = layer.join(name);
            fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
            let whole = fs::read(&path).unwrap();
            for at in 0..whole.len() {
                let mut broken = whole.clone();
                broken[at] ^= 1 << (at % 8);
                fs::write(&path, broken).unwrap();
                assert!(Manifest::verify(&layer).is_err(), "byte {at} of {name}");
            }
            fs::write(&path, whole).unwrap();
        }
        assert_eq!(Manifest::verify(&layer).unwrap().digest(), manifest.digest());
    }

    #[test]
    fn a_manifest_of_another_format_is_refused_as_such() {
        let layer = tempfile::tempdir().unwrap();
        fs::write(layer.path().join(FILE_NAME), br#"{"version":1,"files":{}}"#).unwrap();
        let refused = Manifest::verify(layer.path());
        assert!(matches!(refused, Err(ManifestError::Version { found: 1, .. })), "{refused:?}");
    }

    #[test]
    fn a_file_with_checksums_of_its_own_is_only_measured() {
        let root = tempfile::tempdir().unwrap();
        let layer = root.path().join("layer");
        let staging = Staging::new(&layer).unwrap();
        fs::write(staging.path().join("diff"), b"one").unwrap();
        staging.publish_with(&["diff"]).unwrap();
        fs::write(layer.join("diff"), b"two").unwrap();
        Manifest::verify(&layer).unwrap();
        fs::write(layer.join("diff"), b"three").unwrap();
        assert!(matches!(Manifest::verify(&layer), Err(ManifestError::Mismatch(_))));
    }

    #[test]
    fn nothing_appears_without_publishing_and_nothing_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let layer = root.path().join("layer");
        drop(Staging::new(&layer).unwrap());
        assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0);

        Staging::new(&layer).unwrap().publish().unwrap();
        assert!(matches!(Staging::new(&layer).unwrap().publish(), Err(PublishError::Io { .. })));
    }
}
