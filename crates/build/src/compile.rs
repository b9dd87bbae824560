//! The container of a build: that of an earlier build from the same, or one that is built now.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use ids::ImageArn;
use logs::Output;
use network::Egress;
use store::{BuildRecord, VersionRecord};
use tokio::task::spawn_blocking;

use crate::builder::Workshop;
use crate::cache::{Cache, CacheError, ContainerKey, Kept, Toolset};
use crate::container::{self, Container, Reader, Source, WorkDisk};
use crate::error::BuildError;
use crate::role::BuildRole;

/// Tells whoever reads the build's log why no step is in it.
const REUSED: &str = "Using the container that a build of the last 24 hours made from the same artifact.";

/// The container, its files in `dir`, which is the build's own.
pub(crate) async fn compile(
    workshop: &Workshop,
    build: &BuildRecord,
    version: &VersionRecord,
    dir: &Path,
    role: BuildRole,
    egress: Option<Egress>,
    log: Output,
) -> Result<Container, BuildError> {
    let uri = api::CodeArtifact::Uri(version.code_artifact.uri.clone());
    // The client was told so when it asked for the build.
    let (bucket, key) = uri.location().map_err(|error| BuildError::Container(error.message))?;
    let (source, reader) = (Source { bucket, key }, Reader { account: build.image.account.clone(), role });
    let artifact = container::fetch(workshop, &source, &reader, dir).await?;
    let shelf = Shelf::find(workshop, version, &artifact.path).await;
    if let Some(shelf) = &shelf
        && let Some(container) = shelf.container(dir).await
    {
        if let Err(error) = log.write(vec![REUSED.into()]) {
            tracing::warn!(%error, "output of a build is lost");
        }
        return Ok(container);
    }
    let disk = WorkDisk::new(dir);
    if let Some(shelf) = &shelf {
        shelf.take_steps(&disk).await;
    }
    let name = format!("build-{}", build.id);
    let built = container::build(workshop, &name, &artifact, &disk, egress, Arc::new(log)).await;
    if let Some(shelf) = shelf {
        // Of a build that failed at one of its steps the others are of use.
        if built.as_ref().map_or_else(BuildError::is_of_the_dockerfile, |_| true) {
            shelf.keep_steps(disk).await;
        }
        if let Ok(container) = &built {
            shelf.keep(container).await;
        }
    }
    built
}

/// What earlier builds may have left for one, and it for later ones. What goes wrong here costs time only, so it is told in
/// the server's log and nowhere else.
#[derive(Debug, Clone)]
struct Shelf {
    cache: Cache,
    image: ImageArn,
    tools: Toolset,
    key: ContainerKey,
}

impl Shelf {
    /// `None` where nothing is kept.
    async fn find(workshop: &Workshop, version: &VersionRecord, artifact: &Path) -> Option<Self> {
        if workshop.settings.cache_bytes == 0 {
            return None;
        }
        let cache = workshop.cache();
        let (image, artifact) = (version.image.clone(), artifact.to_owned());
        let disks = [workshop.assets.tools(), workshop.platform.bases()];
        let format = workshop.host.disks().format();
        let (aliases, connectors) =
            (workshop.settings.aliases.clone(), version.egress_network_connectors.clone());
        off_thread(move || {
            let tools = Toolset::of(&disks, format)?;
            let key = ContainerKey::of(&artifact, &tools, &aliases, &connectors)?;
            Ok(Self { cache, image, tools, key })
        })
        .await
    }

    async fn container(&self, dir: &Path) -> Option<Container> {
        let (shelf, code) = (self.clone(), container::code(dir));
        let to = code.clone();
        let found = off_thread(move || shelf.cache.container(&shelf.image.account, &shelf.key, &to)).await;
        let Kept { code_bytes, base_layers, config } = found.flatten()?;
        Some(Container { code, code_bytes, base_layers, config })
    }

    async fn keep(self, container: &Container) {
        let Container { code, code_bytes, base_layers, config } = container.clone();
        let kept = Kept { code_bytes, base_layers, config };
        off_thread(move || self.cache.keep_container(&self.image.account, &self.key, &code, &kept)).await;
    }

    async fn take_steps(&self, disk: &WorkDisk) {
        let (shelf, to) = (self.clone(), disk.path().to_owned());
        off_thread(move || shelf.cache.take_steps(&shelf.image, &shelf.tools, &to)).await;
    }

    async fn keep_steps(&self, disk: WorkDisk) {
        let (shelf, from): (_, PathBuf) = (self.clone(), disk.path().to_owned());
        off_thread(move || shelf.cache.keep_steps(&shelf.image, &shelf.tools, &from)).await;
    }
}

async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CacheError> + Send + 'static,
) -> Option<T> {
    match spawn_blocking(work).await {
        Ok(Ok(done)) => Some(done),
        Ok(Err(error)) => {
            tracing::warn!(%error, "a build goes on without what another left, or leaves nothing");
            None
        }
        // It panicked, which is told already, or the server stops.
        Err(_) => None,
    }
}
