//! Whether a caller may do what a request asks for (SPEC §8): the action on its resource, and the roles and connectors
//! that it hands on.
//!
//! A MicroVM has no ARN of its own: what is done to it is done to its image. What no request names, such as a listing
//! of everything, is `*`.

use std::collections::BTreeMap;

use api::connectors::*;
use api::endpoints::*;
use api::identifiers::microvm_or_image;
use api::*;
use iam::{Access, Context};
use identity::{AccessDenied, Caller, Identity, Principal, Reason};
use ids::{AccountId, ConnectorArn, ImageArn, ImageName, MicrovmId, MicrovmOrImage};
use store::{Store, StoreError};

use super::failure::Failure;
use super::{base_images, tags};

/// The service that takes on the roles handed to it.
pub(crate) const LAMBDA: &str = "lambda.amazonaws.com";
const PASS_ROLE: &str = "iam:PassRole";
const PASS_CONNECTOR: &str = "lambda:PassNetworkConnector";

/// Where a request is made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place<'a> {
    pub(crate) region: &'a str,
    pub(crate) account: &'a AccountId,
    pub(crate) store: &'a Store,
}

/// What a request is about.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Resource {
    /// Nothing that it names.
    All,
    /// An image, or what belongs to one.
    Image(ImageArn),
    /// A managed base image.
    Base(String),
    /// A connector, by the ARN and the owner.
    Connector(String, AccountId),
}

/// What a request hands on to the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Pass {
    /// A role, by its ARN.
    Role(String),
    /// A connector, by its ARN.
    Connector(String),
}

/// What a request touches.
pub(crate) trait Touches: Request {
    /// What it is about. Where that is another account's, it is no more than a name.
    fn resource(&self, at: &Place<'_>) -> Result<Resource, Failure>;

    /// What it hands on, also where it only leaves that to the defaults.
    fn passes(&self, _: &Place<'_>) -> Result<Vec<Pass>, Failure> {
        Ok(vec![])
    }

    /// Tags that it sets.
    fn sets_tags(&self) -> Option<&Tags> {
        None
    }

    /// Keys of tags that it removes.
    fn removes_tags(&self) -> &[String] {
        &[]
    }
}

impl Resource {
    /// As policies and the audit log name it.
    pub(crate) fn arn(&self) -> String {
        match self {
            Self::All => "*".into(),
            Self::Image(arn) => arn.to_string(),
            Self::Base(arn) => arn.clone(),
            Self::Connector(arn, _) => arn.clone(),
        }
    }

    /// Whose it is, where it is anybody's.
    fn account(&self) -> Option<&AccountId> {
        match self {
            Self::All | Self::Base(_) => None,
            Self::Image(arn) => Some(&arn.account),
            Self::Connector(_, owner) => Some(owner),
        }
    }

    fn tags(&self, store: &Store) -> Result<BTreeMap<String, String>, StoreError> {
        match self {
            Self::Image(arn) => {
                store.read(|tx| Ok(tx.image(arn)?.map(|image| image.tags).unwrap_or_default()))
            }
            Self::Connector(arn, _) => store.read(|tx| {
                let id = arn.parse::<ConnectorArn>().ok().map(|arn| arn.id);
                let found = id.map_or(Ok(None), |id| tx.connector(id))?;
                Ok(found.map(|connector| connector.tags).unwrap_or_default())
            }),
            Self::All | Self::Base(_) => Ok(BTreeMap::new()),
        }
    }
}

/// What the actions of an operation's service begin with.
fn service(operation: Operation) -> &'static str {
    match operation.model().family {
        Family::Microvms | Family::Core | Family::Lambda => "lambda",
        Family::Endpoints => "rekindle",
    }
}

/// Whether `caller` may have `request` carried out on `resource`.
pub(crate) fn check<R: Touches>(
    identity: &Identity,
    caller: &Caller,
    request: &R,
    resource: &Resource,
    at: &Place<'_>,
) -> Result<(), Failure> {
    let action = || format!("{}:{}", service(R::OPERATION), R::OPERATION.name());
    if resource.account().is_some_and(|owner| *owner != caller.account) {
        return Err(denied(&foreign(caller, &action(), &resource.arn())).into());
    }
    let passes = request.passes(at)?;
    // The root of an account may do everything in it, and most calls are its.
    if caller.principal != Principal::Root {
        let context = context(request, &resource.tags(at.store)?);
        allow(identity, caller, &action(), &resource.arn(), &context)?;
    }
    passes.iter().try_for_each(|pass| hand_on(identity, caller, pass, resource))
}

fn allow(
    identity: &Identity,
    caller: &Caller,
    action: &str,
    resource: &str,
    context: &Context,
) -> Result<(), Error> {
    identity.authorize(caller, &Access { action, resource, context }).map_err(|error| denied(&error))
}

fn hand_on(identity: &Identity, caller: &Caller, pass: &Pass, resource: &Resource) -> Result<(), Failure> {
    match pass {
        Pass::Role(role) => {
            let context = Context::new().with("iam:PassedToService", LAMBDA);
            allow(identity, caller, PASS_ROLE, role, &context)?;
            let context = Context::new()
                .with("aws:SourceAccount", caller.account.to_string())
                .with("aws:SourceArn", resource.arn());
            identity.assume_for_service(role, LAMBDA, &context).map_err(|error| {
                Error::validation(format!("We were unable to assume the role provided. {error}"))
            })?;
        }
        Pass::Connector(connector) => {
            let owner = connector.parse::<ConnectorArn>().ok().map(|arn| arn.account);
            if owner.is_some_and(|owner| owner != caller.account) {
                return Err(denied(&foreign(caller, PASS_CONNECTOR, connector)).into());
            }
            allow(identity, caller, PASS_CONNECTOR, connector, &Context::new())?;
        }
    }
    Ok(())
}

/// What conditions may ask about.
fn context<R: Touches>(request: &R, tags: &BTreeMap<String, String>) -> Context {
    let mut context = Context::new();
    for (key, value) in tags {
        context.set(&format!("aws:ResourceTag/{key}"), value);
    }
    let set = request.sets_tags();
    for (key, value) in set.into_iter().flatten() {
        context.set(&format!("aws:RequestTag/{key}"), value);
    }
    let keys: Vec<&String> = set.into_iter().flat_map(BTreeMap::keys).chain(request.removes_tags()).collect();
    context.set_all("aws:TagKeys", keys);
    context
}

fn foreign(caller: &Caller, action: &str, resource: &str) -> AccessDenied {
    AccessDenied {
        caller: caller.arn(),
        action: action.to_owned(),
        resource: resource.to_owned(),
        reason: Reason::Foreign(action.to_owned()),
    }
}

fn denied(error: &AccessDenied) -> Error {
    Error::new(ErrorKind::AccessDenied, error.to_string())
}

macro_rules! touches_nothing_named {
    ($($request:ident)+) => {$(
        impl Touches for $request {
            fn resource(&self, _: &Place<'_>) -> Result<Resource, Failure> {
                Ok(Resource::All)
            }
        }
    )+};
}
touches_nothing_named!(ListMicrovmImagesRequest ListManagedMicrovmImagesInput ListNetworkConnectorsRequest
    ListDomainsRequest DeleteDomainRequest GetHostRequest);

macro_rules! touches_its_image {
    ($($request:ident)+) => {$(
        impl Touches for $request {
            fn resource(&self, _: &Place<'_>) -> Result<Resource, Failure> {
                Ok(Resource::Image(self.image_arn()?))
            }
        }
    )+};
}
touches_its_image!(GetMicrovmImageInput DeleteMicrovmImageInput GetMicrovmImageVersionInput GetMicrovmImageBuildInput
    ListMicrovmImageVersionsInput ListMicrovmImageBuildsInput UpdateMicrovmImageVersionRequest
    DeleteMicrovmImageVersionInput);

fn image_of(id: MicrovmId, at: &Place<'_>) -> Result<Resource, Failure> {
    let owned = at.store.microvm(id)?.filter(|microvm| microvm.account == *at.account);
    let owned = owned.ok_or_else(|| Error::unknown_microvm(&id.to_string()))?;
    Ok(Resource::Image(owned.image.clone()))
}

macro_rules! touches_its_microvms_image {
    ($($request:ident)+) => {$(
        impl Touches for $request {
            fn resource(&self, at: &Place<'_>) -> Result<Resource, Failure> {
                image_of(self.microvm_id()?, at)
            }
        }
    )+};
}

macro_rules! touches_an_image_or_a_microvms {
    ($($request:ident)+) => {$(
        impl Touches for $request {
            fn resource(&self, at: &Place<'_>) -> Result<Resource, Failure> {
                match microvm_or_image(&self.resource)? {
                    MicrovmOrImage::Microvm(id) => image_of(id, at),
                    MicrovmOrImage::Image(arn) => Ok(Resource::Image(arn)),
                }
            }
        }
    )+};
}
touches_an_image_or_a_microvms!(GetEndpointAccessRequest PutEndpointAccessRequest PutDomainRequest);
touches_its_microvms_image!(GetMicrovmRequest SuspendMicrovmRequest ResumeMicrovmRequest TerminateMicrovmRequest
    CreateMicrovmAuthTokenRequest CreateMicrovmShellAuthTokenRequest GetMicrovmUsageRequest);

macro_rules! touches_its_connector {
    ($($request:ident)+) => {$(
        impl Touches for $request {
            fn resource(&self, at: &Place<'_>) -> Result<Resource, Failure> {
                Ok(connector(at, &self.identifier)?)
            }
        }
    )+};
}
touches_its_connector!(GetNetworkConnectorRequest DeleteNetworkConnectorRequest
    ListNetworkConnectorVersionsRequest);

impl Touches for CreateMicrovmImageRequest {
    fn resource(&self, at: &Place<'_>) -> Result<Resource, Failure> {
        let name: ImageName = self.name.parse().map_err(|error| Error::validation(format!("{error}")))?;
        Ok(Resource::Image(ImageArn { region: at.region.into(), account: at.account.clone(), name }))
    }

    fn passes(&self, at: &Place<'_>) -> Result<Vec<Pass>, Failure> {
        Ok(passes_of_version(&self.config, at))
    }

    fn sets_tags(&self) -> Option<&Tags> {
        self.tags.as_ref()
    }
}

impl Touches for UpdateMicrovmImageRequest {
    fn resource(&self, _: &Place<'_>) -> Result<Resource, Failure> {
        Ok(Resource::Image(self.image_arn()?))
    }

    fn passes(&self, at: &Place<'_>) -> Result<Vec<Pass>, Failure> {
        Ok(passes_of_version(&self.config, at))
    }
}

impl Touches for RunMicrovmRequest {
    fn resource(&self, _: &Place<'_>) -> Result<Resource, Failure> {
        Ok(Resource::Image(self.image_arn()?))
    }

    fn passes(&self, at: &Place<'_>) -> Result<Vec<Pass>, Failure> {
        let role = self.execution_role_arn.iter().cloned().map(Pass::Role);
        let ingress = or_else(self.ingress_network_connectors.as_deref(), || {
            vec![ManagedConnector::HttpIngress.arn(at.region)]
        });
        let egress = match self.egress_network_connectors.as_deref().filter(|given| !given.is_empty()) {
            Some(given) => given.to_vec(),
            None => egress_of_version(self, at)?,
        };
        Ok(role.chain(ingress.into_iter().chain(egress).map(Pass::Connector)).collect())
    }
}

impl Touches for ListMicrovmsRequest {
    fn resource(&self, _: &Place<'_>) -> Result<Resource, Failure> {
        Ok(self.image_arn()?.map_or(Resource::All, Resource::Image))
    }
}

impl Touches for ListManagedMicrovmImageVersionsInput {
    fn resource(&self, _: &Place<'_>) -> Result<Resource, Failure> {
        Ok(Resource::Base(base_images::named(&self.image_identifier)?))
    }
}

impl Touches for TagResourceRequest {
    fn resource(&self, _: &Place<'_>) -> Result<Resource, Failure> {
        taggable(&self.resource)
    }

    fn sets_tags(&self) -> Option<&Tags> {
        Some(&self.tags)
    }
}

impl Touches for UntagResourceRequest {
    fn resource(&self, _: &Place<'_>) -> Result<Resource, Failure> {
        taggable(&self.resource)
    }

    fn removes_tags(&self) -> &[String] {
        &self.tag_keys
    }
}

impl Touches for ListTagsRequest {
    fn resource(&self, _: &Place<'_>) -> Result<Resource, Failure> {
        taggable(&self.resource)
    }
}

impl Touches for CreateNetworkConnectorRequest {
    fn resource(&self, at: &Place<'_>) -> Result<Resource, Failure> {
        // AWS gives it its id only then, so that policies cannot name it.
        Ok(Resource::Connector(connector_arn(at, "*"), at.account.clone()))
    }

    fn passes(&self, _: &Place<'_>) -> Result<Vec<Pass>, Failure> {
        Ok(self.operator_role.iter().cloned().map(Pass::Role).collect())
    }

    fn sets_tags(&self) -> Option<&Tags> {
        self.tags.as_ref()
    }
}

impl Touches for UpdateNetworkConnectorRequest {
    fn resource(&self, at: &Place<'_>) -> Result<Resource, Failure> {
        Ok(connector(at, &self.identifier)?)
    }

    fn passes(&self, _: &Place<'_>) -> Result<Vec<Pass>, Failure> {
        Ok(self.operator_role.iter().cloned().map(Pass::Role).collect())
    }
}

/// What the version to run reaches; nothing where there is no such version, which is refused later.
fn egress_of_version(request: &RunMicrovmRequest, at: &Place<'_>) -> Result<Vec<String>, Failure> {
    let (arn, wanted) = (request.image_arn()?, request.version()?);
    let found = at.store.read::<_, StoreError>(|tx| match wanted {
        Some(number) => tx.version(&arn, number),
        None => tx.latest_runnable_version(&arn),
    })?;
    Ok(found.map(|version| version.egress_network_connectors).unwrap_or_default())
}

fn passes_of_version(config: &ImageConfig, at: &Place<'_>) -> Vec<Pass> {
    let egress = or_else(config.egress_network_connectors.as_deref(), || {
        vec![ManagedConnector::InternetEgress.arn(at.region)]
    });
    let connectors = egress.into_iter().map(Pass::Connector);
    std::iter::once(Pass::Role(config.build_role_arn.clone())).chain(connectors).collect()
}

/// An empty list is the same as none (SPEC §2.5).
fn or_else(given: Option<&[String]>, default: impl FnOnce() -> Vec<String>) -> Vec<String> {
    given.filter(|given| !given.is_empty()).map_or_else(default, <[String]>::to_vec)
}

/// The connector that an id, a name or an ARN names: by its id where there is one, as policies name it.
fn connector(at: &Place<'_>, identifier: &str) -> Result<Resource, StoreError> {
    if let Ok(arn) = identifier.parse::<ConnectorArn>() {
        return Ok(whole_connector(arn));
    }
    let found = at.store.read::<_, StoreError>(|tx| tx.connector_named(at.account, at.region, identifier))?;
    Ok(match found {
        Some(connector) => whole_connector(connector.arn),
        None => Resource::Connector(connector_arn(at, identifier), at.account.clone()),
    })
}

fn connector_arn(at: &Place<'_>, id: &str) -> String {
    format!("arn:aws:lambda:{}:{}:network-connector:{id}", at.region, at.account)
}

fn whole_connector(arn: ConnectorArn) -> Resource {
    let whole = ConnectorArn { version: None, ..arn };
    Resource::Connector(whole.to_string(), whole.account)
}

fn taggable(arn: &str) -> Result<Resource, Failure> {
    if let Ok(connector) = arn.parse::<ConnectorArn>() {
        return Ok(whole_connector(connector));
    }
    // What the model takes for taggable besides are Lambda's functions and their like, of which there are none here.
    let image = arn.parse().map_err(|_| tags::unknown(arn))?;
    Ok(Resource::Image(image))
}
