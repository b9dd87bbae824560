//! The tasks that own builds: one each, so many at once, taken up again after a restart.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use agent_proto::host::Describer;
use capacity::{Capacity, Kind, Want};
use connectors::Connectors;
use guest::{Dirs, Host, MetadataService, Persona};
use ids::{BuildId, ImageArn, ImageVersion};
use logs::Logs;
use objects::ObjectStore;
use platform::{Assets, Platform};
use store::{BuildRecord, SnapshotSizes, Store, StoreError, VersionRecord, builds, now_ms};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cache::Cache;
use crate::error::BuildError;
use crate::{pipeline, removal};

/// Between two tries to write down how a build ended, which must not be lost to a full disk.
const RETRY: Duration = Duration::from_secs(1);

/// For a build to wait for room on the host.
const ROOM: Duration = Duration::from_secs(600);

/// How builds are carried out.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Builds at once; more wait as PENDING.
    pub at_once: usize,
    /// vCPUs of a build VM.
    pub vcpus: u32,
    /// Memory of a build VM, in MiB.
    pub memory_mib: u32,
    /// Names that `FROM` may say, and the catalogue's image that answers for each.
    pub aliases: BTreeMap<String, String>,
    /// Bytes on the disk that builds may leave for later ones; without any each begins from nothing.
    pub cache_bytes: u64,
    /// Where programs of the images find the API, if there is such a place inside their MicroVMs.
    pub endpoint_url: Option<String>,
}

/// What builds are made with.
#[derive(Debug)]
pub struct Workshop {
    /// Starts the VMs.
    pub host: Arc<Host>,
    /// What they need room in.
    pub capacity: Capacity,
    /// The records.
    pub store: Store,
    /// The artifacts.
    pub objects: ObjectStore,
    /// What build roles may do.
    pub roles: Arc<dyn iam::ServiceRoles>,
    /// What the VMs that run the application are told of themselves.
    pub metadata: Arc<MetadataService>,
    /// What the VMs of builds with network connectors reach.
    pub connectors: Connectors,
    /// The build logs.
    pub logs: Logs,
    /// Where things go.
    pub dirs: Dirs,
    /// The build tools and base images.
    pub assets: Assets,
    /// Kernel, agent and empty disks of new snapshots.
    pub platform: Platform,
    /// How many, how large.
    pub settings: Settings,
}

/// Carries builds out and removes images. Clones share the same workshop.
#[derive(Debug, Clone)]
pub struct Builder {
    workshop: Arc<Workshop>,
    slots: Arc<Semaphore>,
    stopping: CancellationToken,
    tasks: TaskTracker,
}

impl Builder {
    /// A builder that has not begun anything yet.
    #[must_use]
    pub fn new(workshop: Workshop) -> Self {
        let slots = Arc::new(Semaphore::new(workshop.settings.at_once));
        let (stopping, tasks) = (CancellationToken::new(), TaskTracker::new());
        Self { workshop: Arc::new(workshop), slots, stopping, tasks }
    }

    /// Takes up what a restart interrupted: builds begin anew, images and versions go on being removed.
    ///
    /// # Errors
    /// [`StoreError`] where the records cannot be read.
    pub fn recover(&self) -> Result<(), StoreError> {
        let (unfinished, images, versions) = self.workshop.store.read::<_, StoreError>(|tx| {
            Ok((tx.unfinished_builds()?, tx.deleting_images()?, tx.deleting_versions()?))
        })?;
        unfinished.into_iter().for_each(|build| self.start(build.id));
        images.into_iter().for_each(|image| self.remove(image.arn));
        versions.into_iter().for_each(|version| self.remove_version(version.image, version.version));
        let workshop = Arc::clone(&self.workshop);
        self.tasks.spawn(async move { workshop.sweep_cache().await });
        Ok(())
    }

    /// Carries out a build whose PENDING record is on the disk. Returns at once.
    pub fn start(&self, id: BuildId) {
        let (workshop, slots) = (Arc::clone(&self.workshop), Arc::clone(&self.slots));
        let build = async move {
            // The semaphore is never closed.
            let _slot = slots.acquire_owned().await;
            workshop.carry_out(id).await;
        };
        self.tasks.spawn(self.stopping.clone().run_until_cancelled_owned(build));
    }

    /// For the end of a server: leaves builds where they are, for [`Builder::recover`] to begin anew. Their VMs are
    /// the host's to discard.
    pub async fn stop(&self) {
        self.stopping.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Removes an image whose DELETING record is on the disk: its files, then its records. Returns at once.
    pub fn remove(&self, image: ImageArn) {
        let workshop = Arc::clone(&self.workshop);
        tokio::spawn(async move {
            while let Err(error) = workshop.remove(&image).await {
                tracing::error!(%image, %error, "cannot remove an image, trying again");
                tokio::time::sleep(RETRY).await;
            }
        });
    }

    /// Removes a version whose DELETING record is on the disk: its files, then its records, with which its image
    /// settles. Returns at once.
    pub fn remove_version(&self, image: ImageArn, version: ImageVersion) {
        let workshop = Arc::clone(&self.workshop);
        tokio::spawn(async move {
            while let Err(error) = workshop.remove_version(&image, version).await {
                tracing::error!(%image, %version, %error, "cannot remove a version, trying again");
                tokio::time::sleep(RETRY).await;
            }
        });
    }
}

impl Workshop {
    /// Describes a VM that runs the application of `version` under `name`: it acts as the build role (SPEC §3).
    pub(crate) fn describer(&self, name: &str, version: &VersionRecord) -> Describer {
        let role = Some(version.build_role_arn.clone());
        self.metadata.describer(Persona { name: name.to_owned(), image: version.image.clone(), role })
    }

    async fn carry_out(&self, id: BuildId) {
        let begun = self.store.write::<_, StoreError>(move |tx| builds::begin(tx, id, now_ms())).await;
        let (build, version) = match begun {
            Ok(Some(begun)) => begun,
            Ok(None) => return,
            Err(error) => {
                return tracing::error!(build = %id, %error, "cannot begin a build; a restart tries again");
            }
        };
        tracing::info!(build = %id, image = %build.image, version = %build.version, "build begins");
        let mut made = None;
        let outcome = self.build(&build, &version, &mut made).await;
        match &outcome {
            Ok(_) => tracing::info!(build = %id, "build successful"),
            Err(error) => tracing::warn!(build = %id, %error, "build failed"),
        }
        clear(self.dirs.build(id)).await;
        self.finish(id, outcome, made).await;
        self.sweep_cache().await;
    }

    async fn build(
        &self,
        build: &BuildRecord,
        version: &VersionRecord,
        made: &mut Option<SnapshotSizes>,
    ) -> Result<SnapshotSizes, BuildError> {
        let want = Want {
            guest: build.id.to_string(),
            kind: Kind::Build,
            image: String::new(),
            at_least: 0,
            cpu_millis: 0,
        };
        let _place = self.capacity.reserve_within(want, ROOM).await?;
        pipeline::run(self, build, version, made).await
    }

    async fn finish(
        &self,
        id: BuildId,
        outcome: Result<SnapshotSizes, BuildError>,
        made: Option<SnapshotSizes>,
    ) {
        let outcome = outcome.map_err(|error| error.reason());
        loop {
            let outcome = outcome.clone();
            let write = move |tx: &store::Tx<'_>| builds::finish(tx, id, outcome, made, now_ms());
            match self.store.write::<_, StoreError>(write).await {
                Ok(()) => return,
                Err(error) => {
                    tracing::error!(build = %id, %error, "cannot record a build's end, trying again");
                }
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// What builds left.
    pub(crate) fn cache(&self) -> Cache {
        Cache::new(&self.dirs, self.settings.cache_bytes)
    }

    async fn sweep_cache(&self) {
        let cache = self.cache();
        // What stays goes with the next sweep.
        let _ = spawn_blocking(move || cache.sweep()).await;
    }

    async fn remove(&self, image: &ImageArn) -> Result<(), BuildError> {
        self.host.drop_spares(&self.dirs.image(image)).await;
        if let Err(error) = self.cache().forget(image) {
            tracing::warn!(%image, %error, "what an image's builds left stays until it is old");
        }
        removal::image(&self.store, &self.dirs, image).await
    }

    async fn remove_version(&self, image: &ImageArn, version: ImageVersion) -> Result<(), BuildError> {
        self.host.drop_spares(&self.dirs.version(image, version)).await;
        removal::version(&self.store, &self.dirs, image, version, now_ms()).await
    }
}

async fn clear(dir: PathBuf) {
    let path = dir.clone();
    if let Ok(Err(error)) = spawn_blocking(move || fs::remove_dir_all(path)).await {
        tracing::warn!(dir = %dir.display(), %error, "cannot remove a build's directory");
    }
}
