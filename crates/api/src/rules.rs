//! The rules of SPEC §2.4 that the service models lack. They are checked one by one, after the models' own.

use crate::connectors::{
    CreateNetworkConnectorRequest, DeleteNetworkConnectorRequest, GetNetworkConnectorRequest,
    ListNetworkConnectorVersionsRequest, ListNetworkConnectorsRequest, UpdateNetworkConnectorRequest,
};
use crate::endpoints::{
    DeleteDomainRequest, GetEndpointAccessRequest, GetHostRequest, GetMicrovmUsageRequest,
    ListDomainsRequest, PutDomainRequest, PutEndpointAccessRequest,
};
use crate::size::{self, SizeClass};
use crate::{
    CodeArtifact, Connector, CreateMicrovmAuthTokenRequest, CreateMicrovmImageRequest,
    CreateMicrovmShellAuthTokenRequest, DeleteMicrovmImageInput, DeleteMicrovmImageVersionInput, Error,
    GetMicrovmImageBuildInput, GetMicrovmImageInput, GetMicrovmImageVersionInput, GetMicrovmRequest,
    HookState, Hooks, ImageConfig, ListManagedMicrovmImageVersionsInput, ListManagedMicrovmImagesInput,
    ListMicrovmImageBuildsInput, ListMicrovmImageVersionsInput, ListMicrovmImagesRequest,
    ListMicrovmsRequest, ListTagsRequest, ManagedConnector, MicrovmHooks, PortSpecification,
    ResumeMicrovmRequest, RunMicrovmRequest, SuspendMicrovmRequest, TagResourceRequest,
    TerminateMicrovmRequest, UntagResourceRequest, UpdateMicrovmImageRequest,
    UpdateMicrovmImageVersionRequest,
};

/// Longest life of a MicroVM, and its default.
pub const MAX_DURATION_SECONDS: i64 = 28_800;
/// Longest page of lambda-microvms' listings, and its default.
pub const MAX_RESULTS: i64 = 50;
/// Longest life of a token.
pub const MAX_TOKEN_MINUTES: i64 = 60;
/// The header that carries a token, and the key under which it is answered.
pub const AUTH_TOKEN_KEY: &str = "X-aws-proxy-auth";
/// Environment variables that we set ourselves.
pub const RESERVED_ENVIRONMENT: [&str; 4] = [
    "AWS_REGION",
    "AWS_LAMBDA_MICROVM_IMAGE_NAME",
    "AWS_LAMBDA_MICROVM_IMAGE_ARN",
    "AWS_LAMBDA_MICROVM_IMAGE_VERSION",
];

/// What a request must fulfil beyond its service's model.
pub trait Rules {
    /// Checks every such rule that needs no stored state, in the order in which AWS reports them.
    ///
    /// # Errors
    /// The first that is broken.
    fn rules(&self) -> Result<(), Error>;
}

macro_rules! no_more_than_the_model {
    ($($request:ident)+) => {$(
        impl Rules for $request {
            fn rules(&self) -> Result<(), Error> {
                Ok(())
            }
        }
    )+};
}
no_more_than_the_model!(GetMicrovmRequest SuspendMicrovmRequest ResumeMicrovmRequest TerminateMicrovmRequest
    ListMicrovmImagesRequest ListManagedMicrovmImagesInput ListManagedMicrovmImageVersionsInput
    TagResourceRequest UntagResourceRequest ListTagsRequest
    CreateNetworkConnectorRequest GetNetworkConnectorRequest ListNetworkConnectorsRequest
    ListNetworkConnectorVersionsRequest UpdateNetworkConnectorRequest DeleteNetworkConnectorRequest
    GetEndpointAccessRequest PutEndpointAccessRequest PutDomainRequest DeleteDomainRequest ListDomainsRequest
    GetMicrovmUsageRequest GetHostRequest);

macro_rules! names_an_image {
    ($($request:ident)+) => {$(
        impl Rules for $request {
            fn rules(&self) -> Result<(), Error> {
                self.image_arn().map(drop)
            }
        }
    )+};
}
names_an_image!(GetMicrovmImageInput DeleteMicrovmImageInput GetMicrovmImageVersionInput GetMicrovmImageBuildInput
    ListMicrovmImageVersionsInput ListMicrovmImageBuildsInput UpdateMicrovmImageVersionRequest
    DeleteMicrovmImageVersionInput ListMicrovmsRequest);

impl Rules for CreateMicrovmImageRequest {
    fn rules(&self) -> Result<(), Error> {
        image_config(&self.config)
    }
}

impl Rules for UpdateMicrovmImageRequest {
    fn rules(&self) -> Result<(), Error> {
        self.image_arn()?;
        image_config(&self.config)
    }
}

impl Rules for RunMicrovmRequest {
    fn rules(&self) -> Result<(), Error> {
        self.image_arn()?;
        no_kms(self.kms_key_identifier.as_deref())?;
        connectors(self.ingress_network_connectors.as_deref(), Connector::is_ingress)?;
        egress_connectors(self.egress_network_connectors.as_deref())
    }
}

impl Rules for CreateMicrovmAuthTokenRequest {
    fn rules(&self) -> Result<(), Error> {
        token_life(self.expiration_in_minutes)?;
        self.allowed_ports.iter().try_for_each(|ports| match ports {
            PortSpecification::Range(range) if range.end_port < range.start_port => Err(Error::validation(
                format!("The range of ports {}-{} ends before it starts", range.start_port, range.end_port),
            )),
            _ => Ok(()),
        })
    }
}

impl Rules for CreateMicrovmShellAuthTokenRequest {
    fn rules(&self) -> Result<(), Error> {
        token_life(self.expiration_in_minutes)
    }
}

fn token_life(minutes: i64) -> Result<(), Error> {
    if minutes <= MAX_TOKEN_MINUTES {
        return Ok(());
    }
    Err(Error::validation(format!(
        "ExpirationMinutes {minutes} exceeded max allowed of {MAX_TOKEN_MINUTES}."
    )))
}

fn connectors(list: Option<&[String]>, allowed: impl Fn(&Connector) -> bool) -> Result<(), Error> {
    list.into_iter().flatten().try_for_each(|arn| {
        if allowed(&Connector::from_arn(arn)?) {
            return Ok(());
        }
        Err(Error::validation(format!("Network connector {arn} is for the other direction")))
    })
}

/// One that lets nothing out says nothing beside one that does.
fn egress_connectors(list: Option<&[String]>) -> Result<(), Error> {
    connectors(list, |connector| !connector.is_ingress())?;
    let is_none = |arn: &String| ManagedConnector::from_arn(arn) == Ok(ManagedConnector::NoEgress);
    let list = list.unwrap_or_default();
    if list.iter().any(is_none) && !list.iter().all(is_none) {
        let message = "NO_EGRESS cannot be combined with other egress network connectors";
        return Err(Error::validation(message));
    }
    Ok(())
}

fn image_config(config: &ImageConfig) -> Result<(), Error> {
    no_kms(config.kms_key_identifier.as_deref())?;
    config.code_artifact.location()?;
    config.size()?;
    if let Some(hooks) = &config.hooks {
        ready_hook(hooks)?;
    }
    egress_connectors(config.egress_network_connectors.as_deref())?;
    let mut keys = config.environment_variables.iter().flat_map(|variables| variables.keys());
    match keys.find(|key| RESERVED_ENVIRONMENT.contains(&key.as_str())) {
        Some(key) => Err(Error::validation(format!("Environment variable key '{key}' is reserved"))),
        None => Ok(()),
    }
}

/// No key may be named: silence would let a client believe that its snapshots are encrypted with it.
fn no_kms(key: Option<&str>) -> Result<(), Error> {
    key.map_or(Ok(()), |_| Err(Error::no_kms()))
}

fn ready_hook(hooks: &Hooks) -> Result<(), Error> {
    let ready = hooks.microvm_image_hooks.as_ref().and_then(|hooks| hooks.ready);
    let life = hooks.microvm_hooks.as_ref().is_some_and(MicrovmHooks::any_enabled);
    if !life || ready == Some(HookState::Enabled) {
        return Ok(());
    }
    Err(Error::validation(
        "The ready (/ready) MicroVM image hook must be enabled when any MicroVM lifecycle hook (run, resume, \
         suspend, or terminate) is enabled. The ready hook signals when the application has finished initializing \
         so the snapshot is taken in a ready state.",
    ))
}

impl MicrovmHooks {
    /// Whether any of them is called.
    #[must_use]
    pub fn any_enabled(&self) -> bool {
        [self.run, self.resume, self.suspend, self.terminate].contains(&Some(HookState::Enabled))
    }
}

impl CodeArtifact {
    /// Bucket and key.
    ///
    /// # Errors
    /// A ValidationException where it is no S3 URI.
    pub fn location(&self) -> Result<(&str, &str), Error> {
        let Self::Uri(uri) = self;
        uri.strip_prefix("s3://")
            .and_then(|place| place.split_once('/'))
            .filter(|(bucket, key)| !bucket.is_empty() && !key.is_empty())
            .ok_or_else(|| {
                Error::validation(
                    "CodeArtifact URI must be a valid S3 URI in the format: s3://<bucket>/<key>",
                )
            })
    }
}

impl ImageConfig {
    /// The size asked for, or the default.
    ///
    /// # Errors
    /// The one that Create and Update answer.
    pub fn size(&self) -> Result<SizeClass, Error> {
        let Some(asked) = self.resources.iter().flatten().next() else { return Ok(size::DEFAULT) };
        SizeClass::for_memory(asked.minimum_memory_in_mib).ok_or_else(|| {
            let sizes: Vec<u32> = size::ALL.iter().map(|size| size.memory_mib).collect();
            Error::validation(format!(
                "The requested memory size of {} MiB is not supported by base MicroVM image {}. \
                 Supported memory sizes in MiB are: {sizes:?}.",
                asked.minimum_memory_in_mib, self.base_image_arn
            ))
        })
    }
}
