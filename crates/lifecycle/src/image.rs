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

/// A change that an image's state, or its version's, does not allow now (SPEC §1.5).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageRefused {
    /// Something is under way.
    #[error("MicroVM Image is already in state: {0}")]
    Busy(&'static str),
    /// It has MicroVMs that are not terminated.
    #[error("Cannot delete MicroVM image with running MicroVMs")]
    HasMicrovms,
    /// The version is being built or deleted.
    #[error("MicroVM Image version is already in state: {0}")]
    VersionBusy(&'static str),
    /// The version has MicroVMs that are not terminated.
    #[error("Cannot delete MicroVM image version with running MicroVMs")]
    VersionHasMicrovms,
    /// An image without a version is none.
    #[error("Cannot delete the only version of a MicroVM image; delete the image instead")]
    OnlyVersion,
    /// A version that failed has nothing to launch from.
    #[error("Only a SUCCESSFUL version of a MicroVM image can be ACTIVE, and this one FAILED")]
    NotBuilt,
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

/// The states of image and version that an accepted DeleteMicrovmImageVersion leads to. Deleting again what is being
/// deleted is success. `only`: the image has no other version. `live_microvms`: those of this version.
///
/// # Errors
/// [`ImageRefused`] while something is under way, MicroVMs of the version live, or there is no other version.
pub fn begin_delete_version(
    image: ImageState,
    version: BuildState,
    only: bool,
    live_microvms: usize,
) -> Result<(ImageState, BuildState), ImageRefused> {
    if version == BuildState::Deleting {
        return Ok((image, version));
    }
    settled(image)?;
    if only {
        return Err(ImageRefused::OnlyVersion);
    }
    if live_microvms > 0 {
        return Err(ImageRefused::VersionHasMicrovms);
    }
    Ok((ImageState::Updating, BuildState::Deleting))
}

/// The image's state once the version that was being deleted is gone.
#[must_use]
pub fn finish_delete_version(state: ImageState) -> ImageState {
    if state == ImageState::Updating { ImageState::Updated } else { state }
}

/// The status that an accepted UpdateMicrovmImageVersion leads to. What is built or deleted beside the version does
/// not matter: taking a bad version out of use cannot wait for the next one.
///
/// # Errors
/// [`ImageRefused`] while the version is being built or deleted, and where there is nothing to launch from.
pub fn set_status(
    image: ImageState,
    version: BuildState,
    status: VersionStatus,
) -> Result<VersionStatus, ImageRefused> {
    match (image, version, status) {
        (ImageState::Deleting, ..) => Err(ImageRefused::Busy("DELETING")),
        (_, BuildState::Pending, _) => Err(ImageRefused::VersionBusy("PENDING")),
        (_, BuildState::InProgress, _) => Err(ImageRefused::VersionBusy("IN_PROGRESS")),
        (_, BuildState::Deleting, _) => Err(ImageRefused::VersionBusy("DELETING")),
        (_, BuildState::Failed, VersionStatus::Active) => Err(ImageRefused::NotBuilt),
        (_, BuildState::Successful | BuildState::Failed, status) => Ok(status),
    }
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
    #[test]
    fn a_version_is_deleted_while_its_image_is_updating() {
        let (image, version) =
            begin_delete_version(ImageState::UpdateFailed, BuildState::Failed, false, 0).unwrap();
        assert_eq!((image, version), (ImageState::Updating, BuildState::Deleting));
        assert_eq!(begin_delete_version(image, version, false, 0), Ok((image, version)));
        assert_eq!(finish_delete_version(image), ImageState::Updated);
        assert_eq!(finish_delete_version(ImageState::Deleting), ImageState::Deleting);
    }

    #[test]
    fn a_version_stays_that_something_needs() {
        let refusal =
            |image, version, only, live| begin_delete_version(image, version, only, live).unwrap_err();
        let busy = refusal(ImageState::Updating, BuildState::Successful, false, 0);
        assert_eq!(busy.to_string(), "MicroVM Image is already in state: UPDATING");
        assert_eq!(refusal(ImageState::Created, BuildState::Successful, true, 0), ImageRefused::OnlyVersion);
        assert_eq!(
            refusal(ImageState::Updated, BuildState::Successful, false, 1),
            ImageRefused::VersionHasMicrovms
        );
    }

    #[test]
    fn only_what_was_built_is_made_active() {
        use VersionStatus::{Active, Inactive};
        assert_eq!(set_status(ImageState::Updating, BuildState::Successful, Inactive), Ok(Inactive));
        assert_eq!(set_status(ImageState::Created, BuildState::Successful, Active), Ok(Active));
        assert_eq!(set_status(ImageState::Updated, BuildState::Failed, Inactive), Ok(Inactive));
        let failed = set_status(ImageState::Updated, BuildState::Failed, Active);
        assert_eq!(failed, Err(ImageRefused::NotBuilt));
        for state in [BuildState::Pending, BuildState::InProgress, BuildState::Deleting] {
            let refused = set_status(ImageState::Updating, state, Inactive);
            assert!(matches!(refused, Err(ImageRefused::VersionBusy(_))), "{state:?}");
        }
        let refused = set_status(ImageState::Deleting, BuildState::Successful, Active);
        assert_eq!(refused, Err(ImageRefused::Busy("DELETING")));
    }
}
