//! The two compound writes of a version's deletion, which change version and image together.
//!
//! The version's files go between the two. Both writes can be repeated after a crash.

use ids::{ImageArn, ImageVersion};
use lifecycle::image::{self, ImageRefused};

use crate::{ImageRecord, StoreError, Tx, VersionRecord};

/// Why the deletion of a version does not begin.
#[derive(Debug, thiserror::Error)]
pub enum DeleteError {
    /// Its state, or its image's, does not allow it.
    #[error(transparent)]
    Refused(#[from] ImageRefused),
    /// The records failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Marks a version as DELETING and its image as UPDATING. Returns whether the deletion begins with this: it is under
/// way already where it does not.
///
/// # Errors
/// [`DeleteError`].
pub fn begin_delete(
    tx: &Tx<'_>,
    mut image: ImageRecord,
    mut version: VersionRecord,
    now: u64,
) -> Result<bool, DeleteError> {
    let only = tx.count_versions(&image.arn)? <= 1;
    let live = tx.live_microvms_of_version(&image.arn, version.version)?;
    let before = version.state;
    (image.state, version.state) = image::begin_delete_version(image.state, before, only, live)?;
    if version.state == before {
        return Ok(false);
    }
    image.updated_at = now;
    version.updated_at = now;
    tx.put_image(&image)?;
    tx.put_version(&version)?;
    Ok(true)
}

/// Removes the records of a version that is being deleted, and settles its image. Changes nothing where the version
/// is gone already.
///
/// # Errors
/// [`StoreError`].
pub fn finish_delete(tx: &Tx<'_>, arn: &ImageArn, version: ImageVersion, now: u64) -> Result<(), StoreError> {
    if tx.version(arn, version)?.is_none() {
        return Ok(());
    }
    tx.delete_version(arn, version)?;
    if let Some(mut image) = tx.image(arn)? {
        image.state = image::finish_delete_version(image.state);
        image.updated_at = now;
        tx.put_image(&image)?;
    }
    Ok(())
}
