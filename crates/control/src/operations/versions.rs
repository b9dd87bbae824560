//! Versions of an image, and their builds.

use api::*;
use ids::{AccountId, ImageArn, ImageVersion};
use store::{Tx, VersionRecord};

use super::failure::Failure;
use super::images::known_image;
use super::{Operations, check_owner, render};

impl Operations {
    pub(super) async fn get_version(
        &self,
        account: AccountId,
        request: GetMicrovmImageVersionInput,
    ) -> Result<GetMicrovmImageVersionOutput, Failure> {
        let arn = request.image_arn()?;
        check_owner(&account, &arn, GetMicrovmImageVersionInput::OPERATION)?;
        let number = request.version()?;
        self.store.read(|tx| Ok(render::version(known_version(tx, &arn, number)?)))
    }

    pub(super) async fn list_versions(
        &self,
        account: AccountId,
        request: ListMicrovmImageVersionsInput,
    ) -> Result<ListMicrovmImageVersionsOutput, Failure> {
        let arn = request.image_arn()?;
        check_owner(&account, &arn, ListMicrovmImageVersionsInput::OPERATION)?;
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

    pub(super) async fn get_build(
        &self,
        account: AccountId,
        request: GetMicrovmImageBuildInput,
    ) -> Result<GetMicrovmImageBuildOutput, Failure> {
        let arn = request.image_arn()?;
        check_owner(&account, &arn, GetMicrovmImageBuildInput::OPERATION)?;
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
        account: AccountId,
        request: ListMicrovmImageBuildsInput,
    ) -> Result<ListMicrovmImageBuildsOutput, Failure> {
        let arn = request.image_arn()?;
        check_owner(&account, &arn, ListMicrovmImageBuildsInput::OPERATION)?;
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

/// The version, or the error that says which of image and version there is not.
fn known_version(tx: &Tx<'_>, arn: &ImageArn, number: ImageVersion) -> Result<VersionRecord, Failure> {
    known_image(tx, arn)?;
    let unknown = || Error::unknown_version(&arn.to_string(), &number.to_string());
    Ok(tx.version(arn, number)?.ok_or_else(unknown)?)
}
