//! Versions of an image, and their builds.

use api::*;
use ids::{AccountId, ImageArn, ImageVersion};
use lifecycle::image::{self as rules, ImageRefused};
use node::now_ms;
use store::versions::DeleteError;
use store::{Tx, VersionRecord};

use super::failure::Failure;
use super::images::known_image;
use super::{Operations, render};

impl Operations {
    pub(super) async fn get_version(
        &self,
        _: AccountId,
        request: GetMicrovmImageVersionInput,
    ) -> Result<GetMicrovmImageVersionOutput, Failure> {
        let arn = request.image_arn()?;
        let number = request.version()?;
        self.store.read(|tx| Ok(render::version(known_version(tx, &arn, number)?)))
    }

    pub(super) async fn list_versions(
        &self,
        _: AccountId,
        request: ListMicrovmImageVersionsInput,
    ) -> Result<ListMicrovmImageVersionsOutput, Failure> {
        let arn = request.image_arn()?;
        let scope = [ListMicrovmImageVersionsInput::OPERATION.name(), &arn.to_string()];
        let listing = self.listing(&scope, request.max_results, request.next_token.as_deref())?;
        // Signed by us, so it is a version.
        let before = listing.after().and_then(|text| text.parse().ok());
        self.store.read(|tx| {
            known_image(tx, &arn)?;
            let found = tx.versions_before(&arn, before, listing.wanted())?;
            let (page, next_token) = listing.page(found, |version| version.version.to_string());
            Ok(ListMicrovmImageVersionsOutput {
                items: page.into_iter().map(render::version).collect(),
                next_token,
            })
        })
    }

    pub(super) async fn update_version(
        &self,
        _: AccountId,
        request: UpdateMicrovmImageVersionRequest,
    ) -> Result<UpdateMicrovmImageVersionResponse, Failure> {
        let (arn, number) = (request.image_arn()?, request.version()?);
        let wanted = match request.status {
            MicrovmImageVersionStatus::Active => rules::VersionStatus::Active,
            MicrovmImageVersionStatus::Inactive => rules::VersionStatus::Inactive,
        };
        let change = move |tx: &Tx<'_>| {
            let image = known_image(tx, &arn)?;
            let mut version = known_version(tx, &arn, number)?;
            let status = rules::set_status(image.state, version.state, wanted);
            let status = status.map_err(|error| refused(&arn, number, &error))?;
            if status != version.status {
                version.status = status;
                version.updated_at = now_ms();
                tx.put_version(&version)?;
            }
            Ok(render::version(version))
        };
        self.store.write::<_, Failure>(change).await
    }

    pub(super) async fn delete_version(
        &self,
        _: AccountId,
        request: DeleteMicrovmImageVersionInput,
    ) -> Result<DeleteMicrovmImageVersionOutput, Failure> {
        let (arn, number) = (request.image_arn()?, request.version()?);
        let image = arn.clone();
        let begin = move |tx: &Tx<'_>| {
            let (image, version) = (known_image(tx, &image)?, known_version(tx, &image, number)?);
            let arn = image.arn.clone();
            store::versions::begin_delete(tx, image, version, now_ms()).map_err(|error| match error {
                DeleteError::Refused(error) => Failure::from(refused(&arn, number, &error)),
                DeleteError::Store(error) => error.into(),
            })
        };
        if self.store.write::<_, Failure>(begin).await? {
            self.builds.remove_version(arn.clone(), number);
        }
        Ok(DeleteMicrovmImageVersionOutput {
            image_identifier: arn.to_string(),
            image_version: number.to_string(),
            state: MicrovmImageVersionState::Deleting,
        })
    }

    pub(super) async fn get_build(
        &self,
        _: AccountId,
        request: GetMicrovmImageBuildInput,
    ) -> Result<GetMicrovmImageBuildOutput, Failure> {
        let arn = request.image_arn()?;
        let number = request.version()?;
        let id = &request.build_id;
        let unknown = || Error::unknown_build(&arn.to_string(), &number.to_string(), id);
        let parsed = id.parse();
        self.store.read(|tx| {
            known_version(tx, &arn, number)?;
            let found = parsed.map_or(Ok(None), |id| tx.build(id))?;
            let build = found.filter(|build| build.image == arn && build.version == number);
            Ok(render::build(build.ok_or_else(unknown)?))
        })
    }

    pub(super) async fn list_builds(
        &self,
        _: AccountId,
        request: ListMicrovmImageBuildsInput,
    ) -> Result<ListMicrovmImageBuildsOutput, Failure> {
        let arn = request.image_arn()?;
        let number = request.version()?;
        let scope = [ListMicrovmImageBuildsInput::OPERATION.name(), &arn.to_string(), &number.to_string()];
        let listing = self.listing(&scope, request.max_results, request.next_token.as_deref())?;
        let (architecture, chipset, generation) = render::HOST;
        let asked_for = request.architecture.is_none_or(|asked| asked == architecture)
            && request.chipset.is_none_or(|asked| asked == chipset)
            && request.chipset_generation.as_deref().is_none_or(|asked| asked == generation);
        self.store.read(|tx| {
            known_version(tx, &arn, number)?;
            let mut found = tx.builds(&arn, number)?;
            let after = listing.after().unwrap_or_default();
            found.retain(|build| asked_for && build.id.to_string().as_str() > after);
            let (page, next_token) = listing.page(found, |build| build.id.to_string());
            let items = page.into_iter().map(render::build_summary).collect();
            Ok(ListMicrovmImageBuildsOutput { items, next_token })
        })
    }
}

/// What the state of the version, or of its image, does not allow.
fn refused(arn: &ImageArn, number: ImageVersion, error: &ImageRefused) -> Error {
    match error {
        ImageRefused::Busy(_) | ImageRefused::HasMicrovms => {
            Error::conflict("MicrovmImage", arn.to_string(), error.to_string())
        }
        _ => Error::conflict("MicrovmImageVersion", number.to_string(), error.to_string()),
    }
}

/// The version, or the error that says which of image and version there is not.
fn known_version(tx: &Tx<'_>, arn: &ImageArn, number: ImageVersion) -> Result<VersionRecord, Failure> {
    known_image(tx, arn)?;
    let unknown = || Error::unknown_version(&arn.to_string(), &number.to_string());
    Ok(tx.version(arn, number)?.ok_or_else(unknown)?)
}
