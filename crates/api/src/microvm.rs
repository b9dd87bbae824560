//! MicroVMs and their tokens.

use std::collections::BTreeMap;

use ids::{ImageArn, ImageVersion, MicrovmId};
use serde::{Deserialize, Serialize};

use crate::common::text_enum;
use crate::image::{list_request, path_request};
use crate::validate::{self, Constraints};
use crate::{Error, Logging, ManagedConnector, Page, Request, Sensitive, Timestamp, Unit};

/// Longest life of a MicroVM, and its default.
pub const MAX_DURATION_SECONDS: i64 = 28_800;
/// Longest `runHookPayload`, in characters.
pub const MAX_RUN_HOOK_PAYLOAD: usize = 4096;
/// Longest life of a token.
pub const MAX_TOKEN_MINUTES: i64 = 60;
/// Most connectors of one direction.
pub const MAX_CONNECTORS: usize = 10;
/// The header that carries a token, and the key under which it is answered.
pub const AUTH_TOKEN_KEY: &str = "X-aws-proxy-auth";

text_enum!(/// State of a MicroVM.
MicrovmState {
    /** Being started or woken. */ Pending = "PENDING",
    /** Runs. */ Running = "RUNNING",
    /** Being suspended. */ Suspending = "SUSPENDING",
    /** Sleeps. */ Suspended = "SUSPENDED",
    /** Being ended. */ Terminating = "TERMINATING",
    /** Over. */ Terminated = "TERMINATED",
});

/// When a MicroVM sleeps and wakes by itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct IdlePolicy {
    /// Without a request for that long, it sleeps.
    pub max_idle_duration_seconds: i64,
    /// Asleep for that long, it ends; 0 ends it at once.
    pub suspended_duration_seconds: i64,
    /// Whether a request wakes it.
    pub auto_resume_enabled: bool,
}

/// RunMicrovm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RunMicrovmRequest {
    /// What reaches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_network_connectors: Option<Vec<String>>,
    /// What it reaches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_network_connectors: Option<Vec<String>>,
    /// The image's ARN.
    pub image_identifier: String,
    /// The version; by default the newest that may be run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub image_version: Option<String>,
    /// Role of the application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_role_arn: Option<String>,
    /// When it sleeps and wakes by itself; by default never.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_policy: Option<IdlePolicy>,
    /// Where output goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub logging: Option<Logging>,
    /// Body of the run hook.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run_hook_payload: Option<Sensitive>,
    /// Key to encrypt with; refused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kms_key_identifier: Option<String>,
    /// It ends after that long, awake or asleep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maximum_duration_in_seconds: Option<i64>,
    /// Makes a repeated request harmless.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub client_token: Option<String>,
}

impl RunMicrovmRequest {
    /// The image named; the errors are those RunMicrovm answers.
    pub fn image_arn(&self) -> Result<ImageArn, Error> {
        if !self.image_identifier.starts_with("arn:") {
            return Err(Error::validation("Malformed ARN - doesn't start with 'arn:'"));
        }
        validate::image_arn(&self.image_identifier)
    }

    /// The version named, if any; no active version where it is not a number.
    pub fn version(&self) -> Result<Option<ImageVersion>, Error> {
        let Some(text) = &self.image_version else { return Ok(None) };
        text.parse().map(Some).map_err(|_| Error::no_active_version(&self.image_identifier, Some(text)))
    }
}

/// A MicroVM: the answer of RunMicrovm and GetMicrovm.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Microvm {
    /// Id.
    pub microvm_id: MicrovmId,
    /// State.
    pub state: MicrovmState,
    /// Host name, with a port where that is not 443.
    pub endpoint: String,
    /// Its image.
    pub image_arn: ImageArn,
    /// Its image's version.
    pub image_version: ImageVersion,
    /// Role of the application.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_role_arn: Option<String>,
    /// When it sleeps and wakes by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub idle_policy: Option<IdlePolicy>,
    /// It ends after that long.
    pub maximum_duration_in_seconds: i64,
    /// When it was asked for.
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub terminated_at: Option<Timestamp>,
    /// Why it is in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state_reason: Option<String>,
    /// What reaches it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ingress_network_connectors: Option<Vec<String>>,
    /// What it reaches.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub egress_network_connectors: Option<Vec<String>>,
}

/// A MicroVM as listings show it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MicrovmItem {
    /// Id.
    pub microvm_id: MicrovmId,
    /// State.
    pub state: MicrovmState,
    /// Its image.
    pub image_arn: ImageArn,
    /// Its image's version.
    pub image_version: ImageVersion,
    /// When it was asked for.
    pub started_at: Timestamp,
}

list_request!(/// ListMicrovms.
ListMicrovmsRequest {
    /// Only those of this image (its ARN).
    #[serde(skip_serializing_if = "Option::is_none")]
    image_identifier: Option<String>,
    /// Only those of this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    image_version: Option<String>,
});

impl ListMicrovmsRequest {
    /// The image asked for.
    pub fn image_arn(&self) -> Result<Option<ImageArn>, Error> {
        self.image_identifier.as_deref().map(validate::image_arn).transpose()
    }

    /// The version asked for.
    pub fn version(&self) -> Result<Option<ImageVersion>, Error> {
        let image = self.image_identifier.as_deref().unwrap_or_default();
        self.image_version.as_deref().map(|version| validate::image_version(image, version)).transpose()
    }
}

path_request!(/// GetMicrovm.
    GetMicrovmRequest { /** The MicroVM's id. */ microvm_identifier });
path_request!(/// SuspendMicrovm.
    SuspendMicrovmRequest { /** The MicroVM's id. */ microvm_identifier });
path_request!(/// ResumeMicrovm.
    ResumeMicrovmRequest { /** The MicroVM's id. */ microvm_identifier });
path_request!(/// TerminateMicrovm.
    TerminateMicrovmRequest { /** The MicroVM's id. */ microvm_identifier });

/// Ports that a token opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum PortSpecification {
    /// One.
    Port(i64),
    /// From one to another.
    Range(PortRange),
    /// Every port.
    AllPorts(Unit),
}

/// Ports from the first to the last, both included.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PortRange {
    /// First.
    pub start_port: i64,
    /// Last.
    pub end_port: i64,
}

/// CreateMicrovmAuthToken.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CreateMicrovmAuthTokenRequest {
    /// The MicroVM's id.
    pub microvm_identifier: String,
    /// Life of the token, 1 to 60.
    pub expiration_in_minutes: i64,
    /// What it opens.
    pub allowed_ports: Vec<PortSpecification>,
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct AuthTokenResponse {
    /// Headers to send.
    pub auth_token: BTreeMap<String, Sensitive>,
}

impl AuthTokenResponse {
    /// The answer that carries one token.
    #[must_use]
    pub fn new(token: String) -> Self {
        Self { auth_token: BTreeMap::from([(AUTH_TOKEN_KEY.to_owned(), Sensitive(token))]) }
    }
}

impl Request for RunMicrovmRequest {
    type Response = Microvm;
    const OPERATION: &'static str = "RunMicrovm";

    fn validate(&self) -> Result<(), Error> {
        let mut constraints = Constraints::default();
        constraints.connectors(
            "ingressNetworkConnectors",
            self.ingress_network_connectors.as_deref(),
            MAX_CONNECTORS,
        );
        constraints.connectors(
            "egressNetworkConnectors",
            self.egress_network_connectors.as_deref(),
            MAX_CONNECTORS,
        );
        constraints.identifier("imageIdentifier", &self.image_identifier);
        constraints.optional_version("imageVersion", self.image_version.as_deref());
        if let Some(role) = &self.execution_role_arn {
            constraints.role("executionRoleArn", role);
        }
        constraints.idle_policy(self.idle_policy.as_ref());
        constraints.logging(self.logging.as_ref());
        if let Some(payload) = &self.run_hook_payload {
            constraints.length("runHookPayload", &payload.0, 0, MAX_RUN_HOOK_PAYLOAD);
        }
        constraints.range(
            "maximumDurationInSeconds",
            self.maximum_duration_in_seconds,
            1,
            MAX_DURATION_SECONDS,
        );
        constraints.client_token(self.client_token.as_deref());
        constraints.finish()?;
        self.image_arn()?;
        validate::no_kms(self.kms_key_identifier.as_deref())?;
        validate::connectors(self.ingress_network_connectors.as_deref(), ManagedConnector::is_ingress)?;
        validate::connectors(self.egress_network_connectors.as_deref(), |connector| !connector.is_ingress())
    }
}

impl Request for ListMicrovmsRequest {
    type Response = Page<MicrovmItem>;
    const OPERATION: &'static str = "ListMicrovms";

    fn validate(&self) -> Result<(), Error> {
        let mut constraints = Constraints::default();
        constraints.max_results(self.max_results);
        if let Some(image) = &self.image_identifier {
            constraints.identifier("imageIdentifier", image);
        }
        constraints.finish()?;
        self.image_arn().map(drop)
    }
}

impl Request for CreateMicrovmAuthTokenRequest {
    type Response = AuthTokenResponse;
    const OPERATION: &'static str = "CreateMicrovmAuthToken";

    fn validate(&self) -> Result<(), Error> {
        let mut constraints = Constraints::default();
        constraints.identifier("microvmIdentifier", &self.microvm_identifier);
        constraints.at_least("expirationInMinutes", self.expiration_in_minutes, 1);
        constraints.ports("allowedPorts", &self.allowed_ports);
        constraints.finish()?;
        validate::token_life(self.expiration_in_minutes)
    }
}

macro_rules! microvm_request {
    ($($request:ident $response:ty, $operation:literal;)+) => {$(
        impl Request for $request {
            type Response = $response;
            const OPERATION: &'static str = $operation;

            fn validate(&self) -> Result<(), Error> {
                let mut constraints = Constraints::default();
                constraints.identifier("microvmIdentifier", &self.microvm_identifier);
                constraints.finish()
            }
        }
    )+};
}
microvm_request! {
    GetMicrovmRequest Microvm, "GetMicrovm";
    SuspendMicrovmRequest Unit, "SuspendMicrovm";
    ResumeMicrovmRequest Unit, "ResumeMicrovm";
    TerminateMicrovmRequest Unit, "TerminateMicrovm";
}

macro_rules! names_microvm {
    ($($request:ident)+) => {$(
        impl $request {
            /// The MicroVM named; no such MicroVM where it is not an id of ours.
            pub fn microvm_id(&self) -> Result<MicrovmId, Error> {
                let text = &self.microvm_identifier;
                text.parse().map_err(|_| Error::unknown_microvm(text))
            }
        }
    )+};
}
names_microvm!(GetMicrovmRequest SuspendMicrovmRequest ResumeMicrovmRequest TerminateMicrovmRequest
    CreateMicrovmAuthTokenRequest);
