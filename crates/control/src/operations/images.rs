//! Images: making, changing, showing and deleting them.

use api::*;
use capacity::Capacity;
use ids::{AccountId, BuildId, ImageArn};
use lifecycle::image::{self as rules, BuildState, ImageRefused};
use node::now_ms;
use store::{BuildRecord, ImageRecord, StoreError, TokenRecord, Tx, VersionRecord};

use super::connectors::resolve_egress;
use super::failure::Failure;
use super::idempotency::Claim;
use super::render::{Latest, Made};
use super::{Operations, Quotas, config, render, retention};

/// AWS's codes of the quotas (SPEC §9).
const IMAGES_QUOTA: &str = "L-942E56BE";
const VERSIONS_QUOTA: &str = "L-F8BECE9C";
const BUILDS_QUOTA: &str = "L-72E0D058";

/// What a write made: the answer, and the build to start where it was not made before.
type Written = (Made, Option<BuildId>);

impl Operations {
    pub(super) async fn create_image(
        &self,
        account: AccountId,
        request: CreateMicrovmImageRequest,
    ) -> Result<CreateMicrovmImageResponse, Failure> {
        let claim = Claim::of(&account, &request)?;
        let name = request.name.parse().map_err(|error| Error::validation(format!("{error}")))?;
        let arn = ImageArn { region: self.settings.region.clone(), account, name };
        let now = now_ms();
        let version = config::version(&arn, request.config, self.settings.other_architectures, now)?;
        let tags = request.tags.unwrap_or_default();
        let quotas = self.settings.quotas;
        let capacity = self.capacity.clone();
        self.make(move |tx| {
            retention::tidy(tx, now)?;
            if let Some(made) = made_before(tx, &claim, &arn, now)? {
                return Ok((made, None));
            }
            if tx.image(&arn)?.is_some() {
                return Err(Error::duplicate_image(arn.name.as_str()).into());
            }
            if tx.count_images(&arn.account)? >= quotas.images {
                let message =
                    format!("The account has the maximum number of MicroVM images, {}", quotas.images);
                return Err(Error::quota(IMAGES_QUOTA, message).into());
            }
            let image = ImageRecord {
                arn,
                state: rules::ImageState::Creating,
                created_at: now,
                updated_at: now,
                last_version: version.version,
                tags,
            };
            room_for_build(&capacity)?;
            add_version(tx, &image, version, claim, quotas)
        })
        .await
    }

    pub(super) async fn update_image(
        &self,
        account: AccountId,
        request: UpdateMicrovmImageRequest,
    ) -> Result<UpdateMicrovmImageResponse, Failure> {
        let claim = Claim::of(&account, &request)?;
        let arn = request.image_arn()?;
        let now = now_ms();
        let mut version = config::version(&arn, request.config, self.settings.other_architectures, now)?;
        let quotas = self.settings.quotas;
        let capacity = self.capacity.clone();
        self.make(move |tx| {
            retention::tidy(tx, now)?;
            if let Some(made) = made_before(tx, &claim, &arn, now)? {
                return Ok((made, None));
            }
            let mut image = known_image(tx, &arn)?;
            image.state = rules::begin_update(image.state).map_err(|error| refused(&arn, &error))?;
            if tx.count_versions(&arn)? >= quotas.versions_per_image {
                let message = format!(
                    "MicroVM image {arn} has the maximum number of versions, {}",
                    quotas.versions_per_image
                );
                return Err(Error::quota(VERSIONS_QUOTA, message).into());
            }
            image.updated_at = now;
            image.last_version = image.last_version.next();
            version.version = image.last_version;
            room_for_build(&capacity)?;
            add_version(tx, &image, version, claim, quotas)
        })
        .await
    }

    pub(super) async fn get_image(
        &self,
        _: AccountId,
        request: GetMicrovmImageInput,
    ) -> Result<GetMicrovmImageOutput, Failure> {
        let arn = request.image_arn()?;
        self.store.read(|tx| Ok(render::image(&known_image(tx, &arn)?, latest(tx, &arn)?)))
    }

    pub(super) async fn list_images(
        &self,
        account: AccountId,
        request: ListMicrovmImagesRequest,
    ) -> Result<ListMicrovmImagesResponse, Failure> {
        let filter = request.name_filter.unwrap_or_default();
        let scope = [ListMicrovmImagesRequest::OPERATION.name(), &account.to_string(), &filter];
        let listing = self.listing(&scope, request.max_results, request.next_token.as_deref())?;
        self.store.read(|tx| {
            let found = tx.images(&account, listing.after().unwrap_or_default(), listing.wanted())?;
            let (page, next_token) = listing.page(found, |image| image.arn.to_string());
            // A page is cut before it is filtered (SPEC §2.6), so that it costs the same whatever the filter.
            let shown = page.iter().filter(|image| image.arn.name.as_str().contains(&filter));
            let items = shown.map(|image| Ok(render::image_summary(image, latest(tx, &image.arn)?)));
            Ok(ListMicrovmImagesResponse { items: items.collect::<Result<_, StoreError>>()?, next_token })
        })
    }

    pub(super) async fn delete_image(
        &self,
        _: AccountId,
        request: DeleteMicrovmImageInput,
    ) -> Result<DeleteMicrovmImageOutput, Failure> {
        let arn = request.image_arn()?;
        let deleted = arn.clone();
        let begun = self.store.write(move |tx| begin_delete(tx, &deleted, now_ms())).await?;
        if begun {
            self.builds.remove(arn.clone());
        }
        Ok(DeleteMicrovmImageOutput { image_identifier: arn.to_string(), state: MicrovmImageState::Deleting })
    }

    /// Writes, and starts the build that came of it.
    async fn make<T: From<Made>>(
        &self,
        write: impl FnOnce(&Tx<'_>) -> Result<Written, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let (made, build) = self.store.write(write).await?;
        if let Some(build) = build {
            self.builds.start(build);
        }
        Ok(made.into())
    }
}

/// The image, or the error that image operations answer.
pub(super) fn known_image(tx: &Tx<'_>, arn: &ImageArn) -> Result<ImageRecord, Failure> {
    tx.image(arn)?.ok_or_else(|| Error::unknown_image(&arn.to_string()).into())
}

fn latest(tx: &Tx<'_>, arn: &ImageArn) -> Result<Latest, StoreError> {
    let number = |version: Option<VersionRecord>| version.map(|version| version.version);
    let (active, failed) = (tx.latest_runnable_version(arn)?, tx.latest_failed_version(arn)?);
    Ok(Latest { active: number(active), failed: number(failed) })
}

/// What the claim's token made of this image before, as it is now. None where it is gone: then the token is
/// free.
fn made_before(tx: &Tx<'_>, claim: &Claim, arn: &ImageArn, now: u64) -> Result<Option<Made>, Failure> {
    let Some(TokenRecord { version: Some(number), .. }) = claim.earlier(tx, now)? else { return Ok(None) };
    let (Some(image), Some(version)) = (tx.image(arn)?, tx.version(arn, number)?) else { return Ok(None) };
    Ok(Some(with_version(tx, &image, version)?))
}

fn with_version(tx: &Tx<'_>, image: &ImageRecord, version: VersionRecord) -> Result<Made, StoreError> {
    Ok(Made { image: render::image(image, latest(tx, &image.arn)?), version })
}

/// Writes a new version of `image` with the build that it waits for.
/// A build waits for others to end, but not for MicroVMs.
fn room_for_build(capacity: &Capacity) -> Result<(), Error> {
    capacity.has_room_for_a_build().map_err(|shortage| Error::quota(BUILDS_QUOTA, shortage.to_string()))
}

fn add_version(
    tx: &Tx<'_>,
    image: &ImageRecord,
    version: VersionRecord,
    claim: Claim,
    quotas: Quotas,
) -> Result<Written, Failure> {
    if tx.count_unfinished_builds(&image.arn.account)? >= quotas.concurrent_builds {
        let message = format!(
            "The account has reached the maximum number of concurrent builds, {}; wait for one to end",
            quotas.concurrent_builds
        );
        return Err(Error::quota(BUILDS_QUOTA, message).into());
    }
    resolve_egress(tx, &image.arn.region, &image.arn.account, &version.egress_network_connectors)?;
    let build = new_build(&version);
    tx.put_image(image)?;
    tx.put_version(&version)?;
    tx.put_build(&build)?;
    claim.remember(tx, image.arn.to_string(), Some(version.version), version.created_at)?;
    Ok((with_version(tx, image, version)?, Some(build.id)))
}

fn new_build(version: &VersionRecord) -> BuildRecord {
    BuildRecord {
        id: BuildId::random(),
        image: version.image.clone(),
        version: version.version,
        state: BuildState::Pending,
        state_reason: None,
        created_at: version.created_at,
        snapshot: None,
    }
}

/// Whether the deletion begins with this: it is under way already where it does not.
fn begin_delete(tx: &Tx<'_>, arn: &ImageArn, now: u64) -> Result<bool, Failure> {
    let mut image = known_image(tx, arn)?;
    let before = image.state;
    image.state =
        rules::begin_delete(before, tx.live_microvms_of(arn)?).map_err(|error| refused(arn, &error))?;
    if image.state == before {
        return Ok(false);
    }
    image.updated_at = now;
    tx.put_image(&image)?;
    Ok(true)
}

fn refused(arn: &ImageArn, error: &ImageRefused) -> Error {
    Error::conflict("MicrovmImage", arn.to_string(), error.to_string())
}
