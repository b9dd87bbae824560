//! An image, its versions and their builds (SPEC §1.3, §1.5).

use serde::{Deserialize, Serialize};

/// An image's state. An image that is `Deleted` has no record any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum ImageState {
    /// The first version is being built.
    Creating,
    /// The first version was built.
    Created,
    /// The first version could not be built.
    CreateFailed,
    /// A later version is being built, or one is being deleted.
    Updating,
    /// The last change was made.
    Updated,
    /// The last version could not be built.
    UpdateFailed,
    /// Its files are being removed.
    Deleting,
}

impl ImageState {
    /// Whether a SUCCESSFUL, ACTIVE version of it may be run. An update in progress, or one that failed,
    /// does not stop the versions before it.
    #[must_use]
    pub fn can_run(self) -> bool {
        matches!(self, Self::Created | Self::Updated | Self::Updating | Self::UpdateFailed)
    }
}

/// The state of a version, and of a build of it (a build is never `Deleting`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum BuildState {
    /// Accepted.
    Pending,
    /// Under way.
    InProgress,
    /// Its snapshot is published.
    Successful,
    /// It failed; the build says why.
    Failed,
    /// Its files are being removed.
    Deleting,
}

impl BuildState {
    /// Whether nothing will be built any more.
    #[must_use]
    pub fn has_ended(self) -> bool {
        !matches!(self, Self::Pending | Self::InProgress)
    }
}

/// Whether a version may be launched from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum VersionStatus {
    /// It may.
    Active,
    /// It may not; what runs goes on.
    Inactive,
}

/// A change that an image's state does not allow now (SPEC §1.5).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageRefused {
    /// Something is under way.
    #[error("MicroVM Image is already in state: {0}")]
    Busy(&'static str),
    /// It has MicroVMs that are not terminated.
    #[error("Cannot delete MicroVM image with running MicroVMs")]
    HasMicrovms,
}

/// The state that an accepted UpdateMicrovmImage leads to.
///
/// # Errors
/// [`ImageRefused::Busy`] unless the image is settled.
pub fn begin_update(state: ImageState) -> Result<ImageState, ImageRefused> {
    settled(state).map(|()| ImageState::Updating)
}

/// The state that an accepted DeleteMicrovmImage leads to. Deleting again what is being deleted is success.
///
/// # Errors
/// [`ImageRefused`] while a build is under way or MicroVMs of the image live.
pub fn begin_delete(state: ImageState, live_microvms: usize) -> Result<ImageState, ImageRefused> {
    if state != ImageState::Deleting {
        settled(state)?;
        if live_microvms > 0 {
            return Err(ImageRefused::HasMicrovms);
        }
    }
    Ok(ImageState::Deleting)
}

/// The image's state once the version under way is built or has failed.
#[must_use]
pub fn finish_build(state: ImageState, successful: bool) -> ImageState {
    match (state, successful) {
        (ImageState::Creating, true) => ImageState::Created,
        (ImageState::Creating, false) => ImageState::CreateFailed,
        (ImageState::Updating, true) => ImageState::Updated,
        (ImageState::Updating, false) => ImageState::UpdateFailed,
        (settled, _) => settled,
    }
}

fn settled(state: ImageState) -> Result<(), ImageRefused> {
    match state {
        ImageState::Creating => Err(ImageRefused::Busy("CREATING")),
        ImageState::Updating => Err(ImageRefused::Busy("UPDATING")),
        ImageState::Deleting => Err(ImageRefused::Busy("DELETING")),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_image_is_left_alone() {
        let refused = begin_update(ImageState::Updating).unwrap_err();
        assert_eq!(refused.to_string(), "MicroVM Image is already in state: UPDATING");
        assert!(begin_delete(ImageState::Creating, 0).is_err());
        assert_eq!(begin_delete(ImageState::CreateFailed, 0), Ok(ImageState::Deleting));
        assert_eq!(begin_delete(ImageState::Deleting, 0), Ok(ImageState::Deleting));
    }

    #[test]
    fn an_image_with_microvms_stays() {
        let refused = begin_delete(ImageState::Created, 1).unwrap_err();
        assert_eq!(refused.to_string(), "Cannot delete MicroVM image with running MicroVMs");
    }

    #[test]
    fn builds_settle_their_image() {
        assert_eq!(finish_build(ImageState::Creating, true), ImageState::Created);
        assert_eq!(finish_build(ImageState::Creating, false), ImageState::CreateFailed);
        assert_eq!(finish_build(ImageState::Updating, true), ImageState::Updated);
        assert_eq!(finish_build(ImageState::Updating, false), ImageState::UpdateFailed);
        assert!(!ImageState::CreateFailed.can_run() && ImageState::UpdateFailed.can_run());
    }
}
