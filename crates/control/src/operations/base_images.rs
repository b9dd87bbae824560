//! The managed base images: one, whose name clients know from AWS.

use api::*;
use ids::{AccountId, ImageVersion};

use super::failure::Failure;
use super::{Operations, render};

const NAME: &str = "al2023-1";
/// The only version; asked for as `1`, shown as `1.0` (SPEC §1.2).
const VERSION: ImageVersion = ImageVersion::FIRST;

fn arn(region: &str) -> String {
    format!("arn:aws:lambda:{region}:aws:microvm-image:{NAME}")
}

/// The managed base image that an identifier names; whether there is one, its operation says.
pub(crate) fn named(identifier: &str) -> Result<String, Error> {
    if identifier.starts_with("arn:") {
        return Ok(identifier.to_owned());
    }
    Err(Error::validation(format!("Invalid ARN format: {identifier}")))
}

/// The version that is built upon: the one asked for, or the latest.
pub(crate) fn resolve(region: &str, wanted: &str, version: Option<&str>) -> Result<ImageVersion, Error> {
    let known = wanted == arn(region) && version.is_none_or(|text| text.parse() == Ok(VERSION));
    if known { Ok(VERSION) } else { Err(Error::no_base_image(wanted, version)) }
}

impl Operations {
    pub(super) async fn list_managed_images(
        &self,
        account: AccountId,
        request: ListManagedMicrovmImagesInput,
    ) -> Result<ListManagedMicrovmImagesOutput, Failure> {
        let scope = [ListManagedMicrovmImagesInput::OPERATION.name(), &account.to_string()];
        let listing = self.listing(&scope, request.max_results, request.next_token.as_deref())?;
        let image = ManagedMicrovmImageSummary {
            image_arn: arn(&self.settings.region),
            created_at: render::time(self.settings.base_image_created_at),
            updated_at: None,
        };
        let (items, next_token) = listing.page(vec![image], |image| image.image_arn.clone());
        Ok(ListManagedMicrovmImagesOutput { items, next_token })
    }

    /// Versions of base images are listed as bare numbers (SPEC §1.2).
    pub(super) async fn list_managed_versions(
        &self,
        account: AccountId,
        request: ListManagedMicrovmImageVersionsInput,
    ) -> Result<ListManagedMicrovmImageVersionsOutput, Failure> {
        let asked = named(&request.image_identifier)?;
        if asked != arn(&self.settings.region) {
            return Err(Error::unknown_image(&asked).into());
        }
        let operation = ListManagedMicrovmImageVersionsInput::OPERATION.name();
        let scope = [operation, &account.to_string(), &asked];
        let listing = self.listing(&scope, request.max_results, request.next_token.as_deref())?;
        let version = ManagedMicrovmImageVersion {
            image_arn: asked,
            image_version: VERSION.major().to_string(),
            status: Some(ManagedMicrovmImageVersionStatus::Available),
            supported_cpu_configurations: Some(vec![CpuConfiguration { architecture: render::HOST.0 }]),
            created_at: render::time(self.settings.base_image_created_at),
            updated_at: None,
        };
        let (items, next_token) = listing.page(vec![version], |version| version.image_version.clone());
        Ok(ListManagedMicrovmImageVersionsOutput { items, next_token })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_there_is_can_be_built_upon() {
        let ours = "arn:aws:lambda:us-east-1:aws:microvm-image:al2023-1";
        let resolve = |arn, version| resolve("us-east-1", arn, version);
        for version in [None, Some("1"), Some("1.0")] {
            assert_eq!(resolve(ours, version).unwrap().to_string(), "1.0");
        }
        let message = |arn, version| resolve(arn, version).unwrap_err().message;
        assert_eq!(
            message(ours, Some("999")),
            format!("No managed MicroVM Image with arn {ours} and version 999 is available")
        );
        let other = "arn:aws:lambda:eu-west-1:aws:microvm-image:al2023-1";
        assert_eq!(message(other, None), format!("No managed MicroVM Image with arn {other} is available"));
    }
}
