//! The snapshot VM: starts the application, waits until it is ready, and saves it.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_proto::{AppSpec, ImageConfig, Request};
use guest::{Guest, ImageLayer};
use logs::Output;
use network::Egress;
use store::VersionRecord;

use crate::builder::Workshop;
use crate::error::BuildError;
use crate::hooks::{self, BuildHook};

/// For the agent to mount the disks and start the container.
const START_TIME: Duration = Duration::from_secs(120);
/// The host name of every MicroVM (SPEC §4.3).
const HOSTNAME: &str = "localhost";

/// Fills `layer` with memory, device state and scratch disk of the started application.
pub(crate) async fn capture(
    workshop: &Workshop,
    name: &str,
    layer: &ImageLayer,
    version: &VersionRecord,
    config: ImageConfig,
    egress: Option<Egress>,
    log: Output,
) -> Result<(), BuildError> {
    let mut guest = workshop.host.boot(name, layer.source()?, layer.memory(), egress).await?;
    guest.describe(workshop.describer(name, version));
    let captured = bring_up(&mut guest, layer, version, config, log).await;
    guest.end().await;
    captured?;
    let memory = layer.memory();
    let punched = {
        let memory = memory.clone();
        tokio::task::spawn_blocking(move || snapshot::sparse::punch_zeros(&memory)).await?
    };
    punched.map_err(BuildError::file("emptying the zero pages of", &memory))
}

async fn bring_up(
    guest: &mut Guest,
    layer: &ImageLayer,
    version: &VersionRecord,
    config: ImageConfig,
    log: Output,
) -> Result<(), BuildError> {
    let mut exited = guest.listen(log);
    let app = AppSpec {
        config,
        env: environment(version),
        hostname: HOSTNAME.to_owned(),
        all_capabilities: version.all_capabilities,
    };
    guest.call("starting the application", &Request::StartApp(app), START_TIME).await?;
    tokio::select! {
        biased;
        failure = hooks::exit(&mut exited) => return Err(failure),
        ready = ready(guest, version) => ready?,
    }
    guest.freeze().await?;
    Ok(guest.save_full(&layer.device()).await?)
}

async fn ready(guest: &Guest, version: &VersionRecord) -> Result<(), BuildError> {
    let Some(seconds) = version.hooks.ready else {
        hooks::until_listening(guest).await;
        return Ok(());
    };
    let port = version.hooks.port.unwrap_or(guest::hooks::DEFAULT_PORT);
    hooks::until_ready(guest, &BuildHook { path: "ready", title: "Ready", port, seconds }).await
}

/// The image's variables and those that every MicroVM has (SPEC §3, environment).
fn environment(version: &VersionRecord) -> Vec<String> {
    let image = &version.image;
    let mut variables: BTreeMap<&str, String> =
        version.environment_variables.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    variables.insert("AWS_REGION", image.region.clone());
    variables.insert("AWS_LAMBDA_MICROVM_IMAGE_NAME", image.name.to_string());
    variables.insert("AWS_LAMBDA_MICROVM_IMAGE_ARN", image.to_string());
    variables.insert("AWS_LAMBDA_MICROVM_IMAGE_VERSION", version.version.to_string());
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}
