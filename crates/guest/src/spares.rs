//! Clones started ahead: each waits for a MicroVM of one image version to be launched, with a slot and a private disk of
//! its own, its agent greeted and its application as frozen as in the snapshot (invariant 5: its life begins when a
//! MicroVM takes it). Restoring and greeting a guest takes as long as everything else that a launch needs of the host.
//!
//! A spare is a guest of its own name until then; its directory and its disk get their new names with it.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use agent_proto::HookCall;
use capacity::{Kind, Reservation, Want};
use network::Egress;
use timeline::Step;
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::{Guest, GuestError, Host, ImageLayer};

/// Spares of all images together: each costs the memory of a clone that has done nothing yet.
const MAX_SPARES: usize = 4;
/// A port on which nothing listens.
const NO_PORT: u16 = 1;
/// For a rehearsal, which takes milliseconds.
const REHEARSAL_MS: u64 = 1000;
/// How long nothing must have been launched or woken before a spare is started: that needs the CPU itself.
const QUIET: Duration = Duration::from_millis(500);

/// What is kept ready.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    shelf: Mutex<Shelf>,
    /// One that was coming is there, or will not come.
    landed: Notify,
    /// Names are never used twice.
    count: AtomicU64,
}

#[derive(Debug, Default)]
struct Shelf {
    /// The longest kept first.
    ready: VecDeque<Spare>,
    /// Layers for which one is on its way.
    coming: HashSet<PathBuf>,
    busy: Option<Instant>,
}

#[derive(Debug)]
struct Spare {
    layer: PathBuf,
    guest: Guest,
    overlay: PathBuf,
    /// Until a MicroVM takes it, which has its own.
    _place: Reservation,
}

impl Spares {
    /// The shelf is whole between any two of its changes, so a panic elsewhere left it usable.
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is being launched or woken.
    pub(crate) fn touch(&self) {
        self.shelf().busy = Some(Instant::now());
    }

    fn take(&self, layer: &Path) -> Option<Spare> {
        self.touch();
        let mut shelf = self.shelf();
        let at = shelf.ready.iter().position(|spare| spare.layer == layer)?;
        shelf.ready.remove(at)
    }

    /// Whether one is wanted that is neither there nor coming; then it is coming.
    fn claim(&self, layer: &Path) -> bool {
        let mut shelf = self.shelf();
        !shelf.ready.iter().any(|spare| spare.layer == layer) && shelf.coming.insert(layer.to_owned())
    }

    /// Puts one on the shelf; the one that has to go for it is returned, which is itself where it is not wanted any
    /// more.
    fn put(&self, spare: Spare) -> Option<Spare> {
        let mut shelf = self.shelf();
        if !shelf.coming.remove(&spare.layer) {
            return Some(spare);
        }
        shelf.ready.push_back(spare);
        if shelf.ready.len() > MAX_SPARES { shelf.ready.pop_front() } else { None }
    }

    fn give_up(&self, layer: &Path) {
        self.shelf().coming.remove(layer);
        self.landed.notify_waiters();
    }

    /// Whether there are any that cannot be dropped yet.
    pub(crate) fn are_coming(&self) -> bool {
        !self.shelf().coming.is_empty()
    }

    /// Returns when the next of those has come or been given up.
    pub(crate) fn landed(&self) -> Notified<'_> {
        self.landed.notified()
    }

    async fn quiet(&self) {
        loop {
            let quiet = self.shelf().busy.map(|busy| busy + QUIET);
            match quiet {
                Some(quiet) if quiet > Instant::now() => tokio::time::sleep_until(quiet).await,
                _ => return,
            }
        }
    }
}

impl Host {
    /// Starts a clone of `layer` under `name`, with the new private disk `overlay`: from a spare, if there is one. It
    /// runs when this returns, but the application in it is frozen. `egress` as with [`Host::boot`].
    ///
    /// # Errors
    /// [`GuestError`]; nothing of the guest remains then but the disk.
    pub async fn launch(
        self: &Arc<Self>,
        name: &str,
        layer: &ImageLayer,
        overlay: PathBuf,
        egress: Option<Egress>,
    ) -> Result<Guest, GuestError> {
        if let Some(spare) = self.spares.take(layer.dir()) {
            let old_name = spare.guest.name().to_owned();
            match self.assign(spare, name, layer, &overlay, egress.clone()).await {
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
            let _ = fs::remove_file(&overlay);
        }
        layer.make_overlay(&overlay)?;
        self.restore(name, layer.clone_with(overlay)?, layer.restore(), egress).await
    }

    /// Returns once nothing has been launched or woken for a moment: for what needs the CPU and is not urgent.
    pub async fn quiet(&self) {
        self.spares.quiet().await;
    }

    /// Has a spare started for the next launch from `layer`, in the background and once it is quiet.
    pub fn keep_spare(self: &Arc<Self>, layer: &ImageLayer) {
        if !self.spares.claim(layer.dir()) {
            return;
        }
        let (host, layer) = (Arc::clone(self), layer.clone());
        tokio::spawn(async move {
            host.spares.quiet().await;
            match host.start_spare(&layer).await {
                Ok(spare) => {
                    if let Some(old) = host.spares.put(spare) {
                        host.drop_spare(old).await;
                    }
                    // Others may have been admitted meanwhile.
                    host.make_way().await;
                    host.spares.landed.notify_waiters();
                }
                Err(error) => {
                    host.spares.give_up(layer.dir());
                    match error {
                        GuestError::Full(why) => tracing::debug!(%why, "no room for a spare clone"),
                        error => tracing::warn!(%error, "cannot start a spare clone"),
                    }
                }
            }
        });
    }

    /// Discards the spares of the layers below `dir`, whose files are about to go; those on their way too, once they
    /// are there.
    pub async fn drop_spares(&self, dir: &Path) {
        let dropped: VecDeque<Spare> = {
            let mut shelf = self.spares.shelf();
            shelf.coming.retain(|layer| !layer.starts_with(dir));
            let (dropped, kept) =
                std::mem::take(&mut shelf.ready).into_iter().partition(|spare| spare.layer.starts_with(dir));
            shelf.ready = kept;
            dropped
        };
        for spare in dropped {
            self.drop_spare(spare).await;
        }
    }

    /// Discards spares until nothing that was admitted lacks its place; the longest kept first.
    pub async fn make_way(&self) {
        while self.capacity.is_crowded() {
            let Some(oldest) = self.spares.shelf().ready.pop_front() else { return };
            tracing::info!(spare = oldest.guest.name(), "discarding a spare clone: its place is needed");
            self.drop_spare(oldest).await;
        }
    }

    async fn start_spare(self: &Arc<Self>, layer: &ImageLayer) -> Result<Spare, GuestError> {
        let name = format!("spare-{}", self.spares.count.fetch_add(1, Ordering::Relaxed));
        let image = layer.dir().to_string_lossy().into_owned();
        let want = Want { guest: name.clone(), kind: Kind::Spare, image, at_least: 0 };
        let place = self.capacity.reserve(want)?;
        let overlay = self.dirs.spare(&name);
        match self.clone_ahead(&name, layer, &overlay).await {
            Ok(guest) => {
                rehearse(&guest).await;
                Ok(Spare { layer: layer.dir().to_owned(), guest, overlay, _place: place })
            }
            Err(error) => {
                remove(&overlay);
                Err(error)
            }
        }
    }

    async fn clone_ahead(
        self: &Arc<Self>,
        name: &str,
        layer: &ImageLayer,
        overlay: &Path,
    ) -> Result<Guest, GuestError> {
        layer.make_overlay(overlay)?;
        let shape = layer.clone_with(overlay.to_owned())?;
        // Last: from here on nothing fails that does not give it back.
        let slot = self.pool.acquire().await?;
        self.clone_in(slot, name, shape, layer.restore()).await
    }

    /// Gives a spare its MicroVM's names, and what it may reach.
    async fn assign(
        &self,
        spare: Spare,
        name: &str,
        layer: &ImageLayer,
        overlay: &Path,
        egress: Option<Egress>,
    ) -> Result<Guest, GuestError> {
        let mut guest = spare.guest;
        if let Some(egress) = egress {
            self.pool.bind(guest.slot(), egress).await?;
        }
        let (from, to) = (self.dir(guest.name()), self.dir(name));
        fs::rename(&from, &to).map_err(GuestError::file("renaming", &from))?;
        fs::rename(&spare.overlay, overlay).map_err(GuestError::file("renaming", &spare.overlay))?;
        let spec = self.spec(name, layer.clone_with(overlay.to_owned())?, guest.slot())?;
        guest.moved(name, spec)?;
        Ok(guest)
    }

    async fn drop_spare(&self, spare: Spare) {
        spare.guest.end().await;
        remove(&spare.overlay);
    }
}

/// Has the agent call a hook that nobody answers. Under software emulation, code costs most the first time that it
/// runs: so that is not when a client waits for it.
async fn rehearse(guest: &Guest) {
    let call = HookCall { hook: "ready".to_owned(), port: NO_PORT, timeout_ms: REHEARSAL_MS, body: None };
    // Whatever comes of it: a spare that is of no use is found out when it is taken.
    let _ = guest.hook(call).await;
    let _ = guest.channel().relay(NO_PORT).await;
}

fn remove(overlay: &Path) {
    match fs::remove_file(overlay) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            tracing::warn!(%error, "cannot remove a spare's disk; the next start does");
        }
        _ => {}
    }
}
