//! The two compound writes of a build's life, which change build, version and image together.
//!
//! A version has one build. Both writes can be repeated after a crash.

use ids::BuildId;
use lifecycle::image::{self, BuildState, VersionStatus};

use crate::{BuildRecord, SnapshotSizes, StoreError, Tx, VersionRecord};

/// Marks a build and its version as under way, and returns both. None: no such build, or it has ended
/// already.
///
/// # Errors
/// [`StoreError`].
pub fn begin(tx: &Tx<'_>, id: BuildId, now: u64) -> Result<Option<(BuildRecord, VersionRecord)>, StoreError> {
    let Some((mut build, mut version)) = unfinished(tx, id)? else { return Ok(None) };
    build.state = BuildState::InProgress;
    tx.put_build(&build)?;
    version.state = BuildState::InProgress;
    version.updated_at = now;
    tx.put_version(&version)?;
    Ok(Some((build, version)))
}

/// Ends a build: its version may be run from now on, or never, and its image settles. `Err` holds the reason
/// for the user, and `partial` the sizes of what a failed build made before. Changes nothing where the build
/// has ended.
///
/// # Errors
/// [`StoreError`].
pub fn finish(
    tx: &Tx<'_>,
    id: BuildId,
    outcome: Result<SnapshotSizes, String>,
    partial: Option<SnapshotSizes>,
    now: u64,
) -> Result<(), StoreError> {
    let Some((mut build, mut version)) = unfinished(tx, id)? else { return Ok(()) };
    let successful = outcome.is_ok();
    match outcome {
        Ok(sizes) => {
            build.state = BuildState::Successful;
            build.snapshot = Some(sizes);
            version.status = VersionStatus::Active;
        }
        Err(reason) => {
            build.state = BuildState::Failed;
            build.state_reason = Some(reason);
            build.snapshot = partial;
            version.status = VersionStatus::Inactive;
        }
    }
    tx.put_build(&build)?;
    version.state = build.state;
    version.updated_at = now;
    tx.put_version(&version)?;
    if let Some(mut image) = tx.image(&build.image)? {
        image.state = image::finish_build(image.state, successful);
        image.updated_at = now;
        tx.put_image(&image)?;
    }
    Ok(())
}

fn unfinished(tx: &Tx<'_>, id: BuildId) -> Result<Option<(BuildRecord, VersionRecord)>, StoreError> {
    let Some(build) = tx.build(id)?.filter(|build| !build.state.has_ended()) else { return Ok(None) };
    let version = tx.version(&build.image, build.version)?;
    Ok(version.map(|version| (build, version)))
}
