//! The test VM: a clone of the new snapshot must come up and pass `/validate`. Nothing that it does is kept.

use std::path::Path;

use guest::{Guest, ImageLayer};
use logs::Output;
use network::Egress;
use store::VersionRecord;

use crate::builder::Workshop;
use crate::error::BuildError;
use crate::hooks::{self, BuildHook};

/// Starts a clone of `layer`, with its private disk in `dir`, and has the application validate itself.
pub(crate) async fn run(
    workshop: &Workshop,
    name: &str,
    dir: &Path,
    layer: &ImageLayer,
    version: &VersionRecord,
    egress: Option<Egress>,
    log: Output,
) -> Result<(), BuildError> {
    let disk = dir.join("trial-scratch");
    layer.make_disk(workshop.host.disks(), &disk)?;
    let shape = layer.clone_with(disk)?;
    let mut guest = workshop.host.restore(name, shape, layer.restore(), egress).await?;
    guest.describe(workshop.describer(name, version));
    let valid = validate(&mut guest, version, log).await;
    guest.end().await;
    valid
}

async fn validate(guest: &mut Guest, version: &VersionRecord, log: Output) -> Result<(), BuildError> {
    let mut exited = guest.listen(log);
    guest.live(None, None).await?;
    let Some(seconds) = version.hooks.validate else { return Ok(()) };
    let port = version.hooks.port.unwrap_or(guest::hooks::DEFAULT_PORT);
    let hook = BuildHook { path: "validate", title: "Validate", port, seconds };
    tokio::select! {
        biased;
        failure = hooks::exit(&mut exited) => Err(failure),
        valid = hooks::until_ready(guest, &hook) => valid,
    }
}
