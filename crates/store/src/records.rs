//! What is kept of each thing. Times are milliseconds since the Unix epoch.

use std::collections::BTreeMap;

use ids::{AccountId, BuildId, ConnectorArn, EndpointId, ImageArn, ImageVersion, MicrovmId};
use lifecycle::image::{BuildState, ImageState, VersionStatus};
use lifecycle::microvm::{Microvm, State};
use serde::{Deserialize, Serialize};

/// An image.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ImageRecord {
    /// Its ARN, which names account, region and image.
    pub arn: ImageArn,
    /// Where it stands.
    pub state: ImageState,
    /// When it was created.
    pub created_at: u64,
    /// When it last changed.
    pub updated_at: u64,
    /// The highest number given to a version; numbers are not given twice.
    pub last_version: ImageVersion,
    /// Tags by key.
    pub tags: BTreeMap<String, String>,
}

/// Where the application's source is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CodeArtifact {
    /// `s3://bucket/key`, as the client gave it.
    pub uri: String,
}

/// Where output goes, as the client asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum LogSettings {
    /// Nowhere.
    Disabled,
    /// To a log group and stream; what is absent has a default.
    CloudWatch {
        /// The group's name.
        group: Option<String>,
        /// The stream's name.
        stream: Option<String>,
    },
}

/// Which hooks the application answers, and how long each may take, in seconds (SPEC §4.1). None: disabled.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct HookSettings {
    /// TCP port that all of them are called on.
    pub port: Option<u16>,
    /// `/ready`.
    pub ready: Option<u32>,
    /// `/validate`.
    pub validate: Option<u32>,
    /// `/run`.
    pub run: Option<u32>,
    /// `/resume`.
    pub resume: Option<u32>,
    /// `/suspend`.
    pub suspend: Option<u32>,
    /// `/terminate`.
    pub terminate: Option<u32>,
}

/// One version of an image: what it is built from, and how that went.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionRecord {
    /// The image it belongs to.
    pub image: ImageArn,
    /// Its number.
    pub version: ImageVersion,
    /// Where its build stands.
    pub state: BuildState,
    /// Whether it may be launched from.
    pub status: VersionStatus,
    /// When it was asked for.
    pub created_at: u64,
    /// When it last changed.
    pub updated_at: u64,
    /// Free text.
    pub description: Option<String>,
    /// ARN of the managed base image.
    pub base_image_arn: String,
    /// Version of the base image, as responses show it (`1.0`).
    pub base_image_version: String,
    /// Role of the build.
    pub build_role_arn: String,
    /// The source.
    pub code_artifact: CodeArtifact,
    /// The application's hooks.
    pub hooks: HookSettings,
    /// Variables of the application.
    pub environment_variables: BTreeMap<String, String>,
    /// The size class, by its baseline memory.
    pub minimum_memory_mib: u32,
    /// Whether the application holds every capability (`additionalOsCapabilities: ["ALL"]`).
    pub all_capabilities: bool,
    /// ARNs of the egress connectors.
    pub egress_network_connectors: Vec<String>,
    /// Where the build's output goes. None: the default place.
    #[serde(default)]
    pub logging: Option<LogSettings>,
    /// Why its snapshot, once built, could not be used when it was last wanted.
    #[serde(default)]
    pub unusable: Option<String>,
}

impl VersionRecord {
    /// Whether it may be launched from: SUCCESSFUL and ACTIVE.
    #[must_use]
    pub fn is_runnable(&self) -> bool {
        self.state == BuildState::Successful && self.status == VersionStatus::Active
    }
}

/// The three sizes of a build's snapshot, in bytes; those are absent that a failed build did not come to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SnapshotSizes {
    /// What the memory file takes on the disk.
    pub memory: Option<u64>,
    /// The read-only layer with the container's files.
    pub code_install: Option<u64>,
    /// What was written to the scratch disk before the snapshot.
    pub disk: Option<u64>,
}

/// One build of one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// Its id.
    pub id: BuildId,
    /// The image.
    pub image: ImageArn,
    /// The version.
    pub version: ImageVersion,
    /// Where it stands.
    pub state: BuildState,
    /// Why it failed, in words for the user.
    pub state_reason: Option<String>,
    /// When it was asked for.
    pub created_at: u64,
    /// Sizes of what it made, once there is something.
    pub snapshot: Option<SnapshotSizes>,
}

/// A MicroVM.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MicrovmRecord {
    /// Its id.
    pub id: MicrovmId,
    /// First label of its endpoint's host name.
    pub endpoint: EndpointId,
    /// Owner.
    pub account: AccountId,
    /// The image it was cloned from.
    pub image: ImageArn,
    /// The version it was cloned from.
    pub version: ImageVersion,
    /// Baseline memory of its size, which its account's quota counts.
    #[serde(default)]
    pub memory_mib: u32,
    /// Role of the application.
    pub execution_role_arn: Option<String>,
    /// Given to the `/run` hook as it is.
    pub run_hook_payload: Option<String>,
    /// ARNs of the ingress connectors.
    pub ingress_network_connectors: Vec<String>,
    /// Whether those let requests to its endpoint in: without, the proxy refuses every one, and only hooks
    /// are called.
    #[serde(default)]
    pub http_ingress: bool,
    /// ARNs of the egress connectors, as clients see them.
    pub egress_network_connectors: Vec<String>,
    /// What those are for as long as it lives. None: the internet.
    #[serde(default)]
    pub egress_binding: Option<EgressBinding>,
    /// Where the application's output goes. None: the default place, if there is a role to write it.
    #[serde(default)]
    pub logging: Option<LogSettings>,
    /// Where its life stands.
    pub life: Microvm,
}

/// The connectors that what goes out of a MicroVM may take, fixed when it is run. Without any, nothing goes out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EgressBinding {
    /// Whether the managed network, which leads to the internet, is one of them.
    pub internet: bool,
    /// The account's own, each with the version that was in force.
    pub connectors: Vec<ConnectorArn>,
}

/// What a listing shows of a MicroVM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MicrovmSummary {
    /// Its id.
    pub id: MicrovmId,
    /// The image it was cloned from.
    pub image: ImageArn,
    /// The version it was cloned from.
    pub version: ImageVersion,
    /// Where its life stands.
    pub state: State,
    /// When it was asked for.
    pub started_at: u64,
}

/// What a `clientToken` was first used for (SPEC §1.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenRecord {
    /// Hash of the parameters: the same token with others is a conflict.
    pub fingerprint: String,
    /// Id or ARN of what was made, or changed.
    pub result: String,
    /// The version that was made, where it was one of an image.
    #[serde(default)]
    pub version: Option<ImageVersion>,
    /// When.
    pub created_at: u64,
}
