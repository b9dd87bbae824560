//! The snapshot VM: starts the application, waits until it is ready, and saves it.

use std::collections::BTreeMap;
use std::time::Duration;

use agent_proto::{AppSpec, ImageConfig, Request};
use guest::{Guest, ImageLayer};
use logs::Output;
use network::Egress;
use store::VersionRecord;

use crate::builder::Workshop;
use crate::container::Container;
use crate::error::BuildError;
use crate::hooks::{self, BuildHook};

/// For the agent to mount the disks and start the container.
const START_TIME: Duration = Duration::from_secs(120);
/// Where AWS's SDKs and CLI send their requests.
const ENDPOINT_URL: &str = "AWS_ENDPOINT_URL";
/// The host name of every MicroVM (SPEC §4.3).
const HOSTNAME: &str = "localhost";

/// Fills `layer` with memory, device state and scratch disk of the started application.
pub(crate) async fn capture(
    workshop: &Workshop,
    name: &str,
    layer: &ImageLayer,
    version: &VersionRecord,
    container: Container,
    egress: Option<Egress>,
    log: Output,
) -> Result<(), BuildError> {
    let mut guest = workshop.host.boot(name, layer.source()?, layer.memory(), egress).await?;
    guest.describe(workshop.describer(name, version));
    let Container { base_layers, config, .. } = container;
    let env = environment(version, &config, workshop.settings.endpoint_url.as_deref());
    let app = AppSpec {
        config,
        base_layers,
        env,
        hostname: HOSTNAME.to_owned(),
        all_capabilities: version.all_capabilities,
    };
    let captured = bring_up(&mut guest, layer, version, app, log).await;
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
    app: AppSpec,
    log: Output,
) -> Result<(), BuildError> {
    let mut exited = guest.listen(log);
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
        hooks::until_listening(guest.channel()).await;
        return Ok(());
    };
    let port = version.hooks.port.unwrap_or(guest::hooks::DEFAULT_PORT);
    hooks::until_ready(guest, &BuildHook { path: "ready", title: "Ready", port, seconds }).await
}

/// The image's variables and those that every MicroVM has (SPEC §3, environment): `AWS_ENDPOINT_URL` too, where there is an
/// `endpoint_url` and neither the image's settings nor its Dockerfile say otherwise.
fn environment(version: &VersionRecord, config: &ImageConfig, endpoint_url: Option<&str>) -> Vec<String> {
    let image = &version.image;
    let mut variables: BTreeMap<&str, String> =
        version.environment_variables.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    if let Some(url) = endpoint_url
        && !config.env.iter().any(|pair| pair.split_once('=').is_some_and(|(name, _)| name == ENDPOINT_URL))
    {
        variables.entry(ENDPOINT_URL).or_insert_with(|| url.to_owned());
    }
    variables.insert("AWS_REGION", image.region.clone());
    variables.insert("AWS_LAMBDA_MICROVM_IMAGE_NAME", image.name.to_string());
    variables.insert("AWS_LAMBDA_MICROVM_IMAGE_ARN", image.to_string());
    variables.insert("AWS_LAMBDA_MICROVM_IMAGE_VERSION", version.version.to_string());
    variables.into_iter().map(|(name, value)| format!("{name}={value}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::removal::tests::record;

    const URL: Option<&str> = Some("http://api");

    #[test]
    fn what_an_image_says_of_its_endpoint_counts() {
        let mut version = record("1.0".parse().unwrap());
        let mut config = ImageConfig { env: vec!["AWS_ENDPOINT_URL_S3=x".into()], ..ImageConfig::default() };
        let found = |version: &VersionRecord, config: &ImageConfig, url| -> Vec<String> {
            let of_endpoint = |pair: &String| pair.starts_with("AWS_ENDPOINT_URL");
            environment(version, config, url).into_iter().filter(of_endpoint).collect()
        };
        assert_eq!(found(&version, &config, None), [""; 0]);
        assert_eq!(found(&version, &config, URL), ["AWS_ENDPOINT_URL=http://api"]);
        config.env.push("AWS_ENDPOINT_URL=".into());
        assert_eq!(found(&version, &config, URL), [""; 0], "the Dockerfile's counts, an empty one too");
        version.environment_variables.insert(ENDPOINT_URL.to_owned(), "http://mine".into());
        assert_eq!(found(&version, &config, URL), ["AWS_ENDPOINT_URL=http://mine"]);
    }
}
