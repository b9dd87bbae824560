//! Tags of images and connectors (SPEC §2.8). What a resource is changed by does not show in its times.

use std::collections::BTreeMap;

use api::*;
use ids::{AccountId, ConnectorArn, ImageArn};
use lifecycle::connector::ConnectorState;
use lifecycle::image::ImageState;
use store::{ConnectorRecord, ImageRecord, StoreError, Tx};

use super::Operations;
use super::failure::Failure;
use super::images::known_image;

/// Most tags of one resource.
const MAX_TAGS: usize = 50;
/// What begins so is AWS's own.
const RESERVED: &str = "aws:";

impl Operations {
    pub(super) async fn tag(&self, _: AccountId, request: TagResourceRequest) -> Result<(), Failure> {
        if let Some(key) = request.tags.keys().find(|key| key.to_lowercase().starts_with(RESERVED)) {
            let message = format!("The tag key {key} begins with {RESERVED}, which is reserved");
            return Err(Error::validation(message).into());
        }
        self.change_tags(request.resource, |tags| tags.extend(request.tags)).await
    }

    pub(super) async fn untag(&self, _: AccountId, request: UntagResourceRequest) -> Result<(), Failure> {
        self.change_tags(request.resource, move |tags| tags.retain(|key, _| !request.tag_keys.contains(key)))
            .await
    }

    pub(super) async fn list_tags(
        &self,
        _: AccountId,
        request: ListTagsRequest,
    ) -> Result<ListTagsResponse, Failure> {
        let tags = self.store.read::<_, Failure>(|tx| Ok(Tagged::find(tx, &request.resource)?.tags()))?;
        Ok(ListTagsResponse { tags: Some(tags) })
    }

    async fn change_tags(
        &self,
        resource: String,
        change: impl FnOnce(&mut BTreeMap<String, String>) + Send + 'static,
    ) -> Result<(), Failure> {
        let write = move |tx: &Tx<'_>| {
            let tagged = Tagged::find(tx, &resource)?;
            tagged.check_lasts(&resource)?;
            let mut tags = tagged.tags();
            change(&mut tags);
            if tags.len() > MAX_TAGS {
                let message = format!("{resource} would have {} tags, more than {MAX_TAGS}", tags.len());
                return Err(Error::validation(message).into());
            }
            Ok(tagged.put(tx, tags)?)
        };
        self.store.write::<_, Failure>(write).await
    }
}

/// Nothing has this ARN.
pub(crate) fn unknown(arn: &str) -> Error {
    match route::family_of(arn) {
        Family::Core | Family::Lambda => {
            Error::not_found("NetworkConnector", arn, format!("Network connector not found: {arn}"))
        }
        Family::Microvms | Family::Endpoints => Error::unknown_image(arn),
    }
}

/// What has tags.
enum Tagged {
    Image(ImageRecord),
    Connector(ConnectorRecord),
}

impl Tagged {
    fn find(tx: &Tx<'_>, arn: &str) -> Result<Self, Failure> {
        if let Ok(connector) = arn.parse::<ConnectorArn>() {
            let found = tx.connector(connector.id)?.filter(|found| found.arn.account == connector.account);
            return Ok(Self::Connector(found.ok_or_else(|| unknown(arn))?));
        }
        let image: ImageArn = arn.parse().map_err(|_| unknown(arn))?;
        Ok(Self::Image(known_image(tx, &image)?))
    }

    fn tags(&self) -> BTreeMap<String, String> {
        match self {
            Self::Image(image) => image.tags.clone(),
            Self::Connector(connector) => connector.tags.clone(),
        }
    }

    /// Whether there is somebody to keep them.
    fn check_lasts(&self, arn: &str) -> Result<(), Error> {
        let leaving = match self {
            Self::Image(image) => image.state == ImageState::Deleting,
            Self::Connector(connector) => connector.life.state == ConnectorState::Deleting,
        };
        if !leaving {
            return Ok(());
        }
        // The older operations on tags know no other conflict.
        Err(Error::conflict("Resource", arn, format!("{arn} is being deleted")).of(Family::Lambda))
    }

    fn put(self, tx: &Tx<'_>, tags: BTreeMap<String, String>) -> Result<(), StoreError> {
        match self {
            Self::Image(image) => tx.put_image(&ImageRecord { tags, ..image }),
            Self::Connector(connector) => tx.put_connector(&ConnectorRecord { tags, ..connector }),
        }
    }
}
