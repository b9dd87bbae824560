//! One build, from its record to its published layer.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use api::SizeClass;
use guest::{CODE, ImageLayer, Layout};
use snapshot::files::missing_is_fine;
use snapshot::publish::Staging;
use store::{BuildRecord, SnapshotSizes, VersionRecord};
use tokio::task::spawn_blocking;

use crate::builder::Workshop;
use crate::compile::compile;
use crate::container::Container;
use crate::error::BuildError;
use crate::files::bytes_on_disk;
use crate::output::Step;
use crate::role::BuildRole;
use crate::{capture, trial};

/// Carries the build out. `made` is told what there is so far, for a build that fails later.
pub(crate) async fn run(
    workshop: &Workshop,
    build: &BuildRecord,
    version: &VersionRecord,
    made: &mut Option<SnapshotSizes>,
) -> Result<SnapshotSizes, BuildError> {
    let published = workshop.dirs.version(&build.image, build.version);
    if published.is_dir() {
        // A restart came between publishing and recording.
        return sizes(&reopen(workshop, &published).await?);
    }
    let dir = workshop.dirs.build(build.id);
    empty(&dir)?;
    let staging = Staging::new(&published)?;
    let role = BuildRole::assume(workshop, version)?;
    let image = &build.image;
    let egress =
        workshop.connectors.egress_of(&image.region, &image.account, &version.egress_network_connectors)?;
    let log = |step| role.output(&workshop.logs, build, version, step);
    let container =
        compile(workshop, build, version, &dir, role.clone(), egress.clone(), log(Step::Container)).await?;
    *made = Some(SnapshotSizes { code_install: Some(container.code_bytes), ..SnapshotSizes::default() });
    fs::rename(&container.code, staging.path().join(CODE))
        .map_err(BuildError::file("moving", &container.code))?;

    let layer = lay_out(workshop, staging.path(), version, &container)?;
    let name = |step: &str| format!("{step}-{}", build.id);
    let snapshot = name("snapshot");
    capture::capture(workshop, &snapshot, &layer, version, container, egress.clone(), log(Step::Snapshot))
        .await?;
    trial::run(workshop, &name("trial"), &dir, &layer, version, egress, log(Step::Trial)).await?;
    let sizes = sizes(&layer)?;
    spawn_blocking(move || staging.publish()).await??;
    Ok(sizes)
}

fn lay_out(
    workshop: &Workshop,
    dir: &Path,
    version: &VersionRecord,
    container: &Container,
) -> Result<ImageLayer, BuildError> {
    let size = SizeClass::for_memory(version.minimum_memory_mib.into()).unwrap_or(api::size::DEFAULT);
    let made_with = workshop.host.compatibility().clone();
    let bases = !container.base_layers.is_empty();
    let layout =
        Layout::new(&workshop.platform, bases, made_with, size.peak_memory_mib, size.vcpus, size.disk_bytes);
    Ok(ImageLayer::create(dir, workshop.host.disks(), layout, workshop.platform.clone())?)
}

async fn reopen(workshop: &Workshop, dir: &Path) -> Result<ImageLayer, BuildError> {
    let (dir, dirs, host) = (dir.to_owned(), workshop.dirs.clone(), Arc::clone(&workshop.host));
    Ok(spawn_blocking(move || ImageLayer::open(&dir, &dirs, host.compatibility())).await??)
}

/// What the snapshot takes on the disk (SPEC §2.7).
fn sizes(layer: &ImageLayer) -> Result<SnapshotSizes, BuildError> {
    let on_disk = |path: &Path| {
        let metadata = fs::metadata(path).map_err(BuildError::file("measuring", path))?;
        Ok::<_, BuildError>(bytes_on_disk(&metadata))
    };
    let code = layer.code();
    let code_install = fs::metadata(&code).map_err(BuildError::file("measuring", &code))?.len();
    Ok(SnapshotSizes {
        memory: Some(on_disk(&layer.memory())?),
        code_install: Some(code_install),
        disk: Some(on_disk(&layer.scratch())?),
    })
}

/// What an attempt before a restart left is of no use.
fn empty(dir: &Path) -> Result<(), BuildError> {
    missing_is_fine(fs::remove_dir_all(dir)).map_err(BuildError::file("emptying", dir))?;
    fs::create_dir_all(dir).map_err(BuildError::file("creating", dir))
}
