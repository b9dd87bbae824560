//! Clones started ahead, and launches from them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use agent_proto::host::Channel;
use agent_proto::{HookCall, Request};
use network::Egress;
use timeline::Step;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use super::{Purpose, What};
use crate::{Guest, GuestError, Host, ImageLayer};

/// A port on which nothing listens.
const NO_PORT: u16 = 1;
/// For the hook of a rehearsal.
const HOOK_MS: u64 = 1000;
/// For a rehearsal, which takes milliseconds.
const REHEARSAL_TIME: Duration = Duration::from_secs(10);

/// A clone that waits for its MicroVM.
#[derive(Debug)]
pub(super) struct SpareClone {
    pub(super) guest: Guest,
    disk: PathBuf,
}

impl Host {
    /// Starts a clone of `layer` under `name`, with the new private disk `disk`: from a spare, if there is one. It
    /// runs when this returns, but the application in it is frozen. `egress` as with [`Host::boot`].
    ///
    /// # Errors
    /// [`GuestError`]; nothing of the guest remains then but the disk.
    pub async fn launch(
        self: &Arc<Self>,
        name: &str,
        layer: &ImageLayer,
        disk: PathBuf,
        egress: Option<Egress>,
    ) -> Result<Guest, GuestError> {
        if let Some(What::Clone(spare)) = self.spares.take(layer.dir(), Purpose::Launch) {
            let old_name = spare.guest.name().to_owned();
            match self.assign(spare, name, layer, &disk, egress.clone()).await {
                Ok(guest) if guest.is_well() => {
                    timeline::reached(Step::Spare);
                    return Ok(guest);
                }
                Ok(_) => tracing::warn!(name, "a spare clone had ended; starting another"),
                Err(error) => tracing::warn!(name, %error, "a spare clone was of no use; starting another"),
            }
            self.discard(&old_name).await;
            self.discard(name).await;
            // It may or may not have been renamed already.
            let _ = fs::remove_file(&disk);
        }
        self.make_disk(layer, &disk).await?;
        self.restore(name, layer.clone_with(disk)?, layer.restore(), egress).await
    }

    pub(super) async fn start_clone(
        self: &Arc<Self>,
        name: &str,
        layer: &ImageLayer,
    ) -> Result<SpareClone, GuestError> {
        let disk = self.dirs.spare(name);
        match self.clone_ahead(name, layer, &disk).await {
            Ok(guest) => {
                rehearse(guest.channel()).await;
                Ok(SpareClone { guest, disk })
            }
            Err(error) => {
                remove(&disk);
                Err(error)
            }
        }
    }

    async fn clone_ahead(
        self: &Arc<Self>,
        name: &str,
        layer: &ImageLayer,
        disk: &Path,
    ) -> Result<Guest, GuestError> {
        self.make_disk(layer, disk).await?;
        let shape = layer.clone_with(disk.to_owned())?;
        // Last: from here on nothing fails that does not give it back.
        let slot = self.pool.acquire().await?;
        self.clone_in(slot, name, shape, layer.restore()).await
    }

    async fn make_disk(self: &Arc<Self>, layer: &ImageLayer, path: &Path) -> Result<(), GuestError> {
        let (host, layer, path) = (Arc::clone(self), layer.clone(), path.to_owned());
        let making = spawn_blocking(move || layer.make_disk(host.disks(), &path));
        Ok(making.await.map_err(|error| GuestError::file("making", Path::new("a disk"))(error.into()))??)
    }

    /// Gives a spare its MicroVM's names, and what it may reach.
    async fn assign(
        &self,
        spare: SpareClone,
        name: &str,
        layer: &ImageLayer,
        disk: &Path,
        egress: Option<Egress>,
    ) -> Result<Guest, GuestError> {
        let mut guest = spare.guest;
        if let Some(egress) = egress {
            self.pool.bind(guest.slot(), egress).await?;
        }
        let (from, to) = (self.dir(guest.name()), self.dir(name));
        fs::rename(&from, &to).map_err(GuestError::file("renaming", &from))?;
        fs::rename(&spare.disk, disk).map_err(GuestError::file("renaming", &spare.disk))?;
        let spec = self.spec(name, layer.clone_with(disk.to_owned())?, guest.slot())?;
        guest.moved(name, spec)?;
        Ok(guest)
    }

    pub(super) async fn end_clone(&self, spare: SpareClone) {
        spare.guest.end().await;
        remove(&spare.disk);
    }
}

/// Has the agent do what harms nothing: calling a hook and a port that nobody answers, flushing no output. Under
/// software emulation, code costs most the first time that it runs: so that is not when a client waits for it.
async fn rehearse(channel: &Channel) {
    let hook = HookCall { hook: "ready".to_owned(), port: NO_PORT, timeout_ms: HOOK_MS, body: None };
    let rehearsal = async {
        // Whatever comes of it: a spare that is of no use is found out when it is taken.
        let _ = channel.call(&Request::Hook(hook)).await;
        let _ = channel.relay(NO_PORT).await;
        let _ = channel.call(&Request::Flush).await;
    };
    let _ = timeout(REHEARSAL_TIME, rehearsal).await;
}

fn remove(disk: &Path) {
    match fs::remove_file(disk) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "cannot remove a spare's disk; the next start does");
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use agent_proto::guest;
    use agent_proto::host::Answers;
    use tokio::time::Instant;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_guest_that_answers_nothing_is_rehearsed_no_longer_than_that_may_take() {
        let (ours, theirs) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let (_host, mut calls) = guest::accept(theirs).await.unwrap();
            let mut kept = Vec::new();
            while let Some(call) = calls.next().await {
                kept.push(call);
            }
        });
        let channel = Channel::establish(ours, Answers::none()).await.unwrap().0;
        let begun = Instant::now();
        rehearse(&channel).await;
        assert_eq!(begun.elapsed().as_secs(), REHEARSAL_TIME.as_secs());
    }
}
