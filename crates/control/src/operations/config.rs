//! From what a request says of a version, or of a launch, to what is kept of it: defaults (SPEC §2.5) filled
//! in.

use api::{Capability, Error, HookState, Hooks, ImageConfig, Logging, ManagedConnector};
use ids::{ImageArn, ImageVersion};
use lifecycle::image::{BuildState, VersionStatus};
use store::{CodeArtifact, HookSettings, LogSettings, VersionRecord};

use super::architecture::OtherArchitectures;
use super::base_images;

/// What the ready and validate hooks may take where a request does not say, in seconds.
const DEFAULT_IMAGE_HOOK_SECONDS: u32 = 30;
/// The same for the hooks of a MicroVM's life.
const DEFAULT_MICROVM_HOOK_SECONDS: u32 = 1;

/// The version that `config` asks for, not built yet. Its number is the caller's to set.
pub(crate) fn version(
    image: &ImageArn,
    config: ImageConfig,
    others: OtherArchitectures,
    now: u64,
) -> Result<VersionRecord, Error> {
    others.check(config.cpu_configurations.as_deref().unwrap_or_default())?;
    let size = config.size()?;
    let base =
        base_images::resolve(&image.region, &config.base_image_arn, config.base_image_version.as_deref())?;
    let capabilities = config.additional_os_capabilities.unwrap_or_default();
    let variables = config.environment_variables.unwrap_or_default();
    let egress = connectors(
        &image.region,
        config.egress_network_connectors,
        vec![ManagedConnector::InternetEgress.arn(&image.region)],
    )?;
    let api::CodeArtifact::Uri(uri) = config.code_artifact;
    Ok(VersionRecord {
        image: image.clone(),
        version: ImageVersion::FIRST,
        state: BuildState::Pending,
        status: VersionStatus::Inactive,
        created_at: now,
        updated_at: now,
        description: config.description,
        base_image_arn: config.base_image_arn,
        base_image_version: base.to_string(),
        build_role_arn: config.build_role_arn,
        code_artifact: CodeArtifact { uri },
        hooks: hooks(config.hooks.unwrap_or_default()),
        environment_variables: variables.into_iter().map(|(key, value)| (key, value.0)).collect(),
        minimum_memory_mib: size.memory_mib,
        all_capabilities: capabilities.contains(&Capability::All),
        egress_network_connectors: egress,
        logging: config.logging.map(logging),
        unusable: None,
    })
}

/// The connectors asked for, the managed ones of this region; whether there are those of an account, the records say.
/// An empty list is the same as none (SPEC §2.5).
pub(crate) fn connectors(
    region: &str,
    asked: Option<Vec<String>>,
    default: Vec<String>,
) -> Result<Vec<String>, Error> {
    let Some(asked) = asked.filter(|asked| !asked.is_empty()) else { return Ok(default) };
    for arn in &asked {
        if arn.parse::<ids::ConnectorArn>().is_ok() {
            continue;
        }
        if *arn != ManagedConnector::from_arn(arn)?.arn(region) {
            return Err(Error::validation(format!("Unrecognized managed network connector ARN: {arn}")));
        }
    }
    Ok(asked)
}

/// Where output goes.
pub(crate) fn logging(logging: Logging) -> LogSettings {
    match logging {
        Logging::Disabled(_) => LogSettings::Disabled,
        Logging::CloudWatch(logs) => {
            LogSettings::CloudWatch { group: logs.log_group, stream: logs.log_stream }
        }
    }
}

fn hooks(hooks: Hooks) -> HookSettings {
    let life = hooks.microvm_hooks.unwrap_or_default();
    let image = hooks.microvm_image_hooks.unwrap_or_default();
    let of_life = |state, timeout| enabled(state, timeout, DEFAULT_MICROVM_HOOK_SECONDS);
    let of_image = |state, timeout| enabled(state, timeout, DEFAULT_IMAGE_HOOK_SECONDS);
    HookSettings {
        // Validated: a port or a timeout that does not fit was refused.
        port: hooks.port.and_then(|port| u16::try_from(port).ok()),
        ready: of_image(image.ready, image.ready_timeout_in_seconds),
        validate: of_image(image.validate, image.validate_timeout_in_seconds),
        run: of_life(life.run, life.run_timeout_in_seconds),
        resume: of_life(life.resume, life.resume_timeout_in_seconds),
        suspend: of_life(life.suspend, life.suspend_timeout_in_seconds),
        terminate: of_life(life.terminate, life.terminate_timeout_in_seconds),
    }
}

fn enabled(state: Option<HookState>, timeout: Option<i64>, default: u32) -> Option<u32> {
    (state == Some(HookState::Enabled))
        .then(|| timeout.and_then(|seconds| u32::try_from(seconds).ok()).unwrap_or(default))
}
