//! Removing images and versions: files first, then records. A record that is still there after a crash says what is
//! left to do, and every step may have been done before.

use std::fs::{self, File};
use std::path::PathBuf;

use guest::Dirs;
use ids::{ImageArn, ImageVersion};
use store::{Store, StoreError, versions};
use tokio::task::spawn_blocking;

use crate::error::BuildError;
use snapshot::files::missing_is_fine;

/// Removes an image that is DELETING.
pub(crate) async fn image(store: &Store, dirs: &Dirs, image: &ImageArn) -> Result<(), BuildError> {
    remove(dirs.image(image)).await?;
    let image = image.clone();
    Ok(store.write::<_, StoreError>(move |tx| tx.delete_image(&image)).await?)
}

/// Removes a version that is DELETING at `now`; its image settles with that.
pub(crate) async fn version(
    store: &Store,
    dirs: &Dirs,
    image: &ImageArn,
    version: ImageVersion,
    now: u64,
) -> Result<(), BuildError> {
    remove(dirs.version(image, version)).await?;
    let image = image.clone();
    Ok(store.write::<_, StoreError>(move |tx| versions::finish_delete(tx, &image, version, now)).await?)
}

/// Durably: a version that came back with a power cut would be taken for the one built next under its name.
async fn remove(dir: PathBuf) -> Result<(), BuildError> {
    let path = dir.clone();
    let removed = spawn_blocking(move || {
        missing_is_fine(fs::remove_dir_all(&path))?;
        let parent = path.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all());
        missing_is_fine(parent)
    });
    removed.await?.map_err(BuildError::file("removing", &dir))
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use ids::BuildId;
    use lifecycle::image::{BuildState, ImageState, VersionStatus};
    use store::{BuildRecord, CodeArtifact, HookSettings, ImageRecord, VersionRecord};

    use super::*;

    const FIRST: ImageVersion = ImageVersion::FIRST;

    fn arn() -> ImageArn {
        "arn:aws:lambda:us-east-1:123456789012:microvm-image:a".parse().unwrap()
    }

    pub(crate) fn record(version: ImageVersion) -> VersionRecord {
        VersionRecord {
            image: arn(),
            version,
            state: BuildState::Successful,
            status: VersionStatus::Active,
            created_at: 1,
            updated_at: 1,
            description: None,
            base_image_arn: "base".into(),
            base_image_version: "1.0".into(),
            build_role_arn: "role".into(),
            code_artifact: CodeArtifact { uri: "s3://a/b".into() },
            hooks: HookSettings::default(),
            environment_variables: BTreeMap::new(),
            minimum_memory_mib: 2048,
            all_capabilities: false,
            egress_network_connectors: vec![],
            logging: None,
            unusable: None,
        }
    }

    struct Bed {
        dir: tempfile::TempDir,
        dirs: Dirs,
        store: Store,
    }

    /// An image with two published versions, the first of which is being deleted.
    async fn bed() -> Bed {
        let dir = tempfile::tempdir().unwrap();
        let dirs = Dirs::new(dir.path(), &"ab".parse().unwrap());
        for version in [FIRST, FIRST.next()] {
            fs::create_dir_all(dirs.version(&arn(), version)).unwrap();
            fs::write(dirs.version(&arn(), version).join("memory"), "of the clone").unwrap();
        }
        let store = Store::open(&dir.path().join("db")).unwrap();
        store
            .write::<_, StoreError>(|tx| {
                let image = ImageRecord {
                    arn: arn(),
                    state: ImageState::Updated,
                    created_at: 1,
                    updated_at: 1,
                    last_version: FIRST.next(),
                    tags: BTreeMap::new(),
                };
                tx.put_image(&image)?;
                for version in [FIRST, FIRST.next()].map(record) {
                    tx.put_version(&version)?;
                    tx.put_build(&BuildRecord {
                        id: BuildId::random(),
                        image: arn(),
                        version: version.version,
                        state: BuildState::Successful,
                        state_reason: None,
                        created_at: 1,
                        snapshot: None,
                    })?;
                }
                assert!(versions::begin_delete(tx, image, record(FIRST), 2).unwrap());
                Ok(())
            })
            .await
            .unwrap();
        Bed { dir, dirs, store }
    }

    impl Bed {
        async fn remove(&self) {
            version(&self.store, &self.dirs, &arn(), FIRST, 3).await.unwrap();
        }

        fn check(&self) {
            assert!(!self.dirs.version(&arn(), FIRST).exists());
            assert!(self.dirs.version(&arn(), FIRST.next()).join("memory").exists(), "the other stays");
            self.store
                .read::<_, StoreError>(|tx| {
                    assert_eq!(tx.image(&arn())?.unwrap().state, ImageState::Updated);
                    assert_eq!(tx.versions(&arn())?, [record(FIRST.next())]);
                    assert!(tx.builds(&arn(), FIRST)?.is_empty() && tx.deleting_versions()?.is_empty());
                    assert_eq!(tx.builds(&arn(), FIRST.next())?.len(), 1);
                    Ok(())
                })
                .unwrap();
        }
    }

    #[tokio::test]
    async fn a_version_goes_with_its_files_wherever_a_crash_came() {
        // After the wish was recorded.
        let mut bed = bed().await;
        let reopened = |bed: &Bed| Store::open(&bed.dir.path().join("db")).unwrap();
        bed.store = reopened(&bed);
        assert_eq!(bed.store.read(|tx| tx.deleting_versions()).unwrap().len(), 1, "found again");
        bed.remove().await;
        bed.check();
        // After everything.
        bed.store = reopened(&bed);
        bed.remove().await;
        bed.check();

        // After some of the files were removed, and after all of them.
        for left in ["device", ""] {
            let bed = self::bed().await;
            let files = bed.dirs.version(&arn(), FIRST);
            fs::remove_dir_all(&files).unwrap();
            if !left.is_empty() {
                fs::create_dir_all(&files).unwrap();
                fs::write(files.join(left), "left").unwrap();
            }
            bed.remove().await;
            bed.check();
        }
    }

    #[tokio::test]
    async fn an_image_goes_with_all_of_its_versions() {
        let bed = bed().await;
        for _ in 0..2 {
            image(&bed.store, &bed.dirs, &arn()).await.unwrap();
            assert!(!bed.dirs.image(&arn()).exists());
            assert_eq!(bed.store.read(|tx| tx.image(&arn())).unwrap(), None);
        }
    }
}
