//! VMMs started ahead: each waits, with a slot and an empty private disk, for a MicroVM of one image version to be
//! launched. Starting a VMM takes as long as everything else that a launch needs of the host.
//!
//! A spare is a guest of its own name until a MicroVM takes it: then its directory and its disk get their new names.

use std::collections::{HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use engine::Parked;
use network::Slot;
use tokio::time::Instant;

use crate::{Guest, GuestError, Host, ImageLayer};

/// Spares of all images together: each costs the memory of a VMM that has not begun.
const MAX_SPARES: usize = 4;
/// How long nothing must have been launched before a spare is started: a launch needs the CPU itself.
const QUIET: Duration = Duration::from_millis(500);

/// What is kept ready.
#[derive(Debug, Default)]
pub(crate) struct Spares {
    shelf: Mutex<Shelf>,
    /// Names are never used twice.
    count: AtomicU64,
}

#[derive(Debug, Default)]
struct Shelf {
    /// The longest kept first.
    ready: VecDeque<Spare>,
    /// Layers for which one is on its way.
    coming: HashSet<PathBuf>,
    launched: Option<Instant>,
}

#[derive(Debug)]
struct Spare {
    layer: PathBuf,
    name: String,
    slot: Slot,
    overlay: PathBuf,
    parked: Box<dyn Parked>,
}

impl Spares {
    /// The shelf is whole between any two of its changes, so a panic elsewhere left it usable.
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self, layer: &Path) -> Option<Spare> {
        let mut shelf = self.shelf();
        shelf.launched = Some(Instant::now());
        let at = shelf.ready.iter().position(|spare| spare.layer == layer)?;
        shelf.ready.remove(at)
    }

    /// Whether one is wanted that is neither there nor coming; then it is coming.
    fn claim(&self, layer: &Path) -> bool {
        let mut shelf = self.shelf();
        !shelf.ready.iter().any(|spare| spare.layer == layer) && shelf.coming.insert(layer.to_owned())
    }

    /// Puts one on the shelf; the one that has to go for it is returned.
    fn put(&self, spare: Spare) -> Option<Spare> {
        let mut shelf = self.shelf();
        shelf.coming.remove(&spare.layer);
        shelf.ready.push_back(spare);
        if shelf.ready.len() > MAX_SPARES { shelf.ready.pop_front() } else { None }
    }

    fn give_up(&self, layer: &Path) {
        self.shelf().coming.remove(layer);
    }

    async fn quiet(&self) {
        loop {
            let quiet = self.shelf().launched.map(|launched| launched + QUIET);
            match quiet {
                Some(quiet) if quiet > Instant::now() => tokio::time::sleep_until(quiet).await,
                _ => return,
            }
        }
    }
}

impl Host {
    /// Starts a clone of `layer` under `name`, with the new private disk `overlay`: from a spare, if there is one. It
    /// runs when this returns, but the application in it is frozen.
    ///
    /// # Errors
    /// [`GuestError`]; nothing of the guest remains then but the disk.
    pub async fn launch(
        self: &Arc<Self>,
        name: &str,
        layer: &ImageLayer,
        overlay: PathBuf,
    ) -> Result<Guest, GuestError> {
        if let Some(spare) = self.spares.take(layer.dir()) {
            let left = spare.name.clone();
            match self.assign(spare, name, layer, overlay.clone()).await {
                Ok(guest) => return Ok(guest),
                Err(error) => tracing::warn!(name, %error, "a spare VMM was of no use; starting another"),
            }
            self.discard(&left).await;
            self.discard(name).await;
            // It may or may not have been renamed already.
            let _ = fs::remove_file(&overlay);
        }
        layer.make_overlay(&overlay)?;
        self.restore(name, layer.clone_with(overlay)?, layer.restore()).await
    }

    /// Has a spare started for the next launch from `layer`, in the background and once it is quiet.
    pub fn keep_spare(self: &Arc<Self>, layer: &ImageLayer) {
        if !self.spares.claim(layer.dir()) {
            return;
        }
        let (host, layer) = (Arc::clone(self), layer.clone());
        tokio::spawn(async move {
            host.spares.quiet().await;
            match host.park(&layer).await {
                Ok(spare) => {
                    if let Some(old) = host.spares.put(spare) {
                        host.drop_spare(old).await;
                    }
                }
                Err(error) => {
                    host.spares.give_up(layer.dir());
                    tracing::warn!(%error, "cannot start a spare VMM");
                }
            }
        });
    }

    /// Discards the spares of the layers below `dir`, whose files are about to go.
    pub async fn drop_spares(&self, dir: &Path) {
        let dropped: VecDeque<Spare> = {
            let mut shelf = self.spares.shelf();
            let (dropped, kept) =
                std::mem::take(&mut shelf.ready).into_iter().partition(|spare| spare.layer.starts_with(dir));
            shelf.ready = kept;
            dropped
        };
        for spare in dropped {
            self.drop_spare(spare).await;
        }
    }

    async fn park(&self, layer: &ImageLayer) -> Result<Spare, GuestError> {
        let name = format!("spare-{}", self.spares.count.fetch_add(1, Ordering::Relaxed));
        let overlay = self.dirs.spare(&name);
        let slot = self.pool.acquire().await?;
        let parked = async {
            layer.make_overlay(&overlay)?;
            let spec = self.prepare(&name, layer.clone_with(overlay.clone())?, &slot)?;
            Ok::<_, GuestError>(self.engine.park(spec, layer.restore()).await?)
        };
        match parked.await {
            Ok(parked) => Ok(Spare { layer: layer.dir().to_owned(), name, slot, overlay, parked }),
            Err(error) => {
                self.release(&name, &slot.name);
                let _ = fs::remove_file(&overlay);
                Err(error)
            }
        }
    }

    /// Gives a spare its MicroVM's names, and lets it run.
    async fn assign(
        self: &Arc<Self>,
        spare: Spare,
        name: &str,
        layer: &ImageLayer,
        overlay: PathBuf,
    ) -> Result<Guest, GuestError> {
        let (from, to) = (self.dir(&spare.name), self.dir(name));
        fs::rename(&spare.overlay, &overlay).map_err(GuestError::file("renaming", &spare.overlay))?;
        fs::rename(&from, &to).map_err(GuestError::file("renaming", &from))?;
        let spec = self.spec(name, layer.clone_with(overlay)?, &spare.slot)?;
        let started = spare.parked.start(spec).await.map_err(GuestError::from);
        self.greet(name, spare.slot, started, Guest::RESTORE_TIME).await
    }

    async fn drop_spare(&self, spare: Spare) {
        self.discard(&spare.name).await;
        if let Err(error) = fs::remove_file(&spare.overlay) {
            tracing::warn!(%error, "cannot remove a spare's disk; the next start does");
        }
    }
}
