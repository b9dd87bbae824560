//! From records to what clients see (SPEC §2.7).

use api::*;
use ids::ImageVersion;
use lifecycle::image as built;
use lifecycle::microvm::State;
use serde_json::value::RawValue;
use store::{
    BuildRecord, HookSettings, ImageRecord, LogSettings, MicrovmRecord, MicrovmSummary, VersionRecord,
};

/// What this host's builds are for. AWS builds for two generations; a host has one.
#[cfg(target_arch = "aarch64")]
pub(crate) const HOST: (Architecture, Chipset, &str) = (Architecture::Arm64, Chipset::Graviton, "3");
/// What this host's builds are for. The generation is a constant: nothing is built for one but not another.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) const HOST: (Architecture, Chipset, &str) = (Architecture::X86_64, Chipset::Intel, "4");

/// Bytes of an answer, as most are.
const ANSWER_BYTES: usize = 1024;

/// The newest versions of an image, by how they ended.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Latest {
    pub(crate) active: Option<ImageVersion>,
    pub(crate) failed: Option<ImageVersion>,
}

/// An answer's body: none where the operation has no output.
pub(crate) fn json(operation: Operation, answer: &impl serde::Serialize) -> Result<Vec<u8>, Error> {
    if operation.model().output.is_none() {
        return Ok(vec![]);
    }
    let mut json = Vec::with_capacity(ANSWER_BYTES);
    serde_json::to_writer(&mut json, answer)
        .map(|()| json)
        .map_err(|error| Error::internal(format!("Rendering the answer: {error}; report this")))
}

/// The items of a page.
pub(crate) fn items<T: serde::Serialize>(items: impl Iterator<Item = T>) -> Result<Box<RawValue>, Error> {
    let items: Vec<T> = items.collect();
    serde_json::value::to_raw_value(&items)
        .map_err(|error| Error::internal(format!("Rendering the answer: {error}; report this")))
}

pub(crate) fn time(millis: u64) -> Timestamp {
    Timestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

pub(crate) fn iso_time(millis: u64) -> IsoTimestamp {
    IsoTimestamp::from_millis(i64::try_from(millis).unwrap_or(i64::MAX))
}

pub(crate) fn image_summary(record: &ImageRecord, latest: Latest) -> MicrovmImageSummary {
    MicrovmImageSummary {
        image_arn: record.arn.to_string(),
        name: record.arn.name.to_string(),
        state: image_state(record.state),
        latest_active_image_version: latest.active.map(|version| version.to_string()),
        latest_failed_image_version: latest.failed.map(|version| version.to_string()),
        created_at: time(record.created_at),
    }
}

pub(crate) fn image(record: &ImageRecord, latest: Latest) -> GetMicrovmImageOutput {
    GetMicrovmImageOutput {
        summary: image_summary(record, latest),
        tags: Some(record.tags.clone()).filter(|tags| !tags.is_empty()),
        updated_at: Some(time(record.updated_at)),
    }
}

/// A version that Create or Update has made, with its image.
pub(crate) struct Made {
    pub(crate) image: GetMicrovmImageOutput,
    pub(crate) version: VersionRecord,
}

impl From<Made> for CreateMicrovmImageResponse {
    fn from(Made { image, version }: Made) -> Self {
        Self {
            summary: image.summary,
            tags: image.tags,
            updated_at: image.updated_at,
            image_version: version.version.to_string(),
            config: config(version),
        }
    }
}

impl From<Made> for UpdateMicrovmImageResponse {
    fn from(Made { image, version }: Made) -> Self {
        Self {
            updated_at: time(version.updated_at),
            summary: image.summary,
            image_version: version.version.to_string(),
            config: config(version),
        }
    }
}

pub(crate) fn version(record: VersionRecord) -> GetMicrovmImageVersionOutput {
    GetMicrovmImageVersionOutput {
        image_arn: record.image.to_string(),
        image_version: record.version.to_string(),
        state: version_state(record.state),
        status: match record.status {
            built::VersionStatus::Active => MicrovmImageVersionStatus::Active,
            built::VersionStatus::Inactive => MicrovmImageVersionStatus::Inactive,
        },
        created_at: time(record.created_at),
        updated_at: Some(time(record.updated_at)),
        // Why a build failed, clients find on the build alone, as with AWS.
        state_reason: record.unusable.clone(),
        tags: None,
        config: config(record),
    }
}

pub(crate) fn config(record: VersionRecord) -> ImageConfig {
    let variables = record.environment_variables;
    ImageConfig {
        base_image_arn: record.base_image_arn,
        base_image_version: Some(record.base_image_version),
        build_role_arn: record.build_role_arn,
        description: record.description,
        code_artifact: CodeArtifact::Uri(record.code_artifact.uri),
        logging: record.logging.map(logging),
        egress_network_connectors: Some(record.egress_network_connectors),
        cpu_configurations: Some(vec![CpuConfiguration { architecture: HOST.0 }]),
        resources: Some(vec![Resources { minimum_memory_in_mib: record.minimum_memory_mib.into() }]),
        additional_os_capabilities: record.all_capabilities.then(|| vec![Capability::All]),
        hooks: Some(hooks(&record.hooks)),
        environment_variables: (!variables.is_empty())
            .then(|| variables.into_iter().map(|(key, value)| (key, Sensitive(value))).collect()),
        kms_key_identifier: None,
    }
}

pub(crate) fn build_summary(record: BuildRecord) -> MicrovmImageBuildSummary {
    let (architecture, chipset, generation) = HOST;
    MicrovmImageBuildSummary {
        image_arn: record.image.to_string(),
        image_version: record.version.to_string(),
        build_id: record.id.to_string(),
        build_state: build_state(record.state),
        architecture,
        chipset,
        chipset_generation: generation.to_owned(),
        state_reason: record.state_reason,
        created_at: time(record.created_at),
    }
}

pub(crate) fn build(record: BuildRecord) -> GetMicrovmImageBuildOutput {
    let bytes = |size: Option<u64>| size.map(|bytes| i64::try_from(bytes).unwrap_or(i64::MAX));
    let snapshot_build = record.snapshot.map(|sizes| SnapshotBuild {
        memory_snapshot_size_in_bytes: bytes(sizes.memory),
        code_install_size_in_bytes: bytes(sizes.code_install),
        disk_snapshot_size_in_bytes: bytes(sizes.disk),
    });
    GetMicrovmImageBuildOutput { summary: build_summary(record), snapshot_build }
}

/// A MicroVM whose endpoint is reached at `endpoint`. Its payload, logging and size are never shown.
pub(crate) fn microvm(record: &MicrovmRecord, endpoint: String) -> GetMicrovmResponse {
    let policy = record.life.policy;
    GetMicrovmResponse {
        microvm_id: record.id.to_string(),
        state: microvm_state(record.life.state),
        endpoint,
        image_arn: record.image.to_string(),
        image_version: record.version.to_string(),
        execution_role_arn: record.execution_role_arn.clone(),
        idle_policy: policy.idle.map(|idle| IdlePolicy {
            max_idle_duration_seconds: idle.max_idle_duration_seconds.into(),
            suspended_duration_seconds: idle.suspended_duration_seconds.into(),
            auto_resume_enabled: idle.auto_resume_enabled,
        }),
        maximum_duration_in_seconds: policy.maximum_duration_seconds.into(),
        started_at: time(record.life.started_at),
        terminated_at: record.life.terminated_at.map(time),
        state_reason: record.life.reason.clone(),
        kms_key_identifier: None,
        ingress_network_connectors: Some(record.ingress_network_connectors.clone()),
        egress_network_connectors: Some(record.egress_network_connectors.clone()),
    }
}

pub(crate) fn microvm_item(summary: &MicrovmSummary) -> MicrovmItem {
    MicrovmItem {
        microvm_id: summary.id.to_string(),
        state: microvm_state(summary.state),
        image_arn: summary.image.to_string(),
        image_version: summary.version.to_string(),
        started_at: time(summary.started_at),
    }
}

pub(crate) fn image_state(state: built::ImageState) -> MicrovmImageState {
    match state {
        built::ImageState::Creating => MicrovmImageState::Creating,
        built::ImageState::Created => MicrovmImageState::Created,
        built::ImageState::CreateFailed => MicrovmImageState::CreateFailed,
        built::ImageState::Updating => MicrovmImageState::Updating,
        built::ImageState::Updated => MicrovmImageState::Updated,
        built::ImageState::UpdateFailed => MicrovmImageState::UpdateFailed,
        built::ImageState::Deleting => MicrovmImageState::Deleting,
    }
}

fn version_state(state: built::BuildState) -> MicrovmImageVersionState {
    match state {
        built::BuildState::Pending => MicrovmImageVersionState::Pending,
        built::BuildState::InProgress => MicrovmImageVersionState::InProgress,
        built::BuildState::Successful => MicrovmImageVersionState::Successful,
        built::BuildState::Failed => MicrovmImageVersionState::Failed,
        built::BuildState::Deleting => MicrovmImageVersionState::Deleting,
    }
}

fn build_state(state: built::BuildState) -> BuildState {
    match state {
        built::BuildState::Pending => BuildState::Pending,
        built::BuildState::InProgress => BuildState::InProgress,
        // A build is removed with its version, and has no state of its own for that.
        built::BuildState::Successful | built::BuildState::Deleting => BuildState::Successful,
        built::BuildState::Failed => BuildState::Failed,
    }
}

fn microvm_state(state: State) -> MicrovmState {
    match state {
        State::Pending => MicrovmState::Pending,
        State::Running => MicrovmState::Running,
        State::Suspending => MicrovmState::Suspending,
        State::Suspended => MicrovmState::Suspended,
        State::Terminating => MicrovmState::Terminating,
        State::Terminated => MicrovmState::Terminated,
    }
}

fn logging(settings: LogSettings) -> Logging {
    match settings {
        LogSettings::Disabled => Logging::Disabled(Empty {}),
        LogSettings::CloudWatch { group, stream } => {
            Logging::CloudWatch(CloudWatchLogging { log_group: group, log_stream: stream })
        }
    }
}

fn hooks(settings: &HookSettings) -> Hooks {
    let state =
        |hook: Option<u32>| Some(if hook.is_some() { HookState::Enabled } else { HookState::Disabled });
    let timeout = |hook: Option<u32>| hook.map(i64::from);
    Hooks {
        port: settings.port.map(i64::from),
        microvm_hooks: Some(MicrovmHooks {
            run: state(settings.run),
            run_timeout_in_seconds: timeout(settings.run),
            resume: state(settings.resume),
            resume_timeout_in_seconds: timeout(settings.resume),
            suspend: state(settings.suspend),
            suspend_timeout_in_seconds: timeout(settings.suspend),
            terminate: state(settings.terminate),
            terminate_timeout_in_seconds: timeout(settings.terminate),
        }),
        microvm_image_hooks: Some(MicrovmImageHooks {
            ready: state(settings.ready),
            ready_timeout_in_seconds: timeout(settings.ready),
            validate: state(settings.validate),
            validate_timeout_in_seconds: timeout(settings.validate),
        }),
    }
}

#[cfg(test)]
mod tests;
