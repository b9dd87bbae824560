//! What is started ahead, for the next MicroVM of an image version that is launched or woken: as much of it as any of them
//! needs, with a slot of its own.
//!
//! For a launch that is a clone with a private disk, its agent greeted and its application as frozen as in the snapshot
//! (invariant 5: its life begins when a MicroVM takes it). For a wake it is a VMM which holds nothing yet. A spare is a
//! guest of its own name until then; its directory gets its new name with it.

mod demand;
mod launch;
mod shelf;
mod wake;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use capacity::{Kind, Reservation, Want};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::{GuestError, Host, ImageLayer};
use launch::SpareClone;
use shelf::Shelf;
use wake::SpareVmm;

/// How long nothing must have been launched or woken before a spare is started: that needs the CPU itself.
const QUIET: Duration = Duration::from_millis(500);

/// What a spare is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// A clone, for a MicroVM to be launched.
    Launch,
    /// A VMM, for a MicroVM that sleeps.
    Wake,
}

/// What is kept ready.
#[derive(Debug)]
pub(crate) struct Spares {
    shelf: Mutex<Shelf<Use, Spare>>,
    /// When something was launched or woken last.
    busy: Mutex<Option<Instant>>,
    /// One that was coming is there, or will not come.
    landed: Notify,
    /// Names are never used twice.
    count: AtomicU64,
}

/// Of which layer, and for what.
type Use = (PathBuf, Purpose);

#[derive(Debug)]
struct Spare {
    what: What,
    /// Until a MicroVM takes it, which has its own.
    _place: Reservation,
}

#[derive(Debug)]
enum What {
    Clone(SpareClone),
    Vmm(SpareVmm),
}

impl Spare {
    fn name(&self) -> &str {
        match &self.what {
            What::Clone(clone) => clone.guest.name(),
            What::Vmm(vmm) => &vmm.name,
        }
    }
}

impl Spares {
    /// None yet, and never more than so many.
    pub(crate) fn at_most(number: usize) -> Self {
        Self {
            shelf: Mutex::new(Shelf::of(number)),
            busy: Mutex::default(),
            landed: Notify::new(),
            count: AtomicU64::new(0),
        }
    }

    /// Something is being launched or woken.
    pub(crate) fn touch(&self) {
        *whole(&self.busy) = Some(Instant::now());
    }

    fn take(&self, layer: &Path, purpose: Purpose) -> Option<What> {
        self.touch();
        let spare = whole(&self.shelf).take(&(layer.to_owned(), purpose), Instant::now())?;
        Some(spare.what)
    }

    fn claim(&self, of: &Use) -> bool {
        whole(&self.shelf).claim(of, Instant::now())
    }

    fn give_up(&self, of: &Use) {
        whole(&self.shelf).give_up(of);
        self.landed.notify_waiters();
    }

    /// Whether there are any that cannot be dropped yet.
    pub(crate) fn are_coming(&self) -> bool {
        whole(&self.shelf).are_coming()
    }

    /// Returns when the next of those has come or been given up.
    pub(crate) fn landed(&self) -> Notified<'_> {
        self.landed.notified()
    }

    async fn quiet(&self) {
        loop {
            let quiet = whole(&self.busy).map(|busy| busy + QUIET);
            match quiet {
                Some(quiet) if quiet > Instant::now() => tokio::time::sleep_until(quiet).await,
                _ => return,
            }
        }
    }
}

/// What is whole between any two of its changes, so that a panic elsewhere left it usable.
fn whole<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Host {
    /// Returns once nothing has been launched or woken for a moment: for what needs the CPU and is not urgent.
    pub async fn quiet(&self) {
        self.spares.quiet().await;
    }

    /// Has as many spares started as the next uses of `layer` will want, in the background and once it is quiet.
    pub fn keep_spares(self: &Arc<Self>, layer: &ImageLayer, purpose: Purpose) {
        let of = (layer.dir().to_owned(), purpose);
        if !self.spares.claim(&of) {
            return;
        }
        let (host, layer) = (Arc::clone(self), layer.clone());
        tokio::spawn(async move { while host.add_spare(&layer, &of).await && host.spares.claim(&of) {} });
    }

    /// Whether a claimed spare has come.
    async fn add_spare(self: &Arc<Self>, layer: &ImageLayer, of: &Use) -> bool {
        self.spares.quiet().await;
        match self.start_spare(layer, of.1).await {
            Ok(spare) => {
                let name = spare.name().to_owned();
                let (is_wanted, old) = whole(&self.spares.shelf).put(of.clone(), spare);
                if let Some(old) = old {
                    self.drop_spare(old).await;
                }
                tracing::debug!(name, is_wanted, "a spare is ready");
                // Others may have been admitted meanwhile.
                self.make_way().await;
                self.spares.landed.notify_waiters();
                is_wanted
            }
            Err(error) => {
                self.spares.give_up(of);
                match error {
                    GuestError::Full(why) => tracing::debug!(%why, "no room for a spare"),
                    error => tracing::warn!(%error, "cannot start a spare"),
                }
                false
            }
        }
    }

    /// Discards the spares of the layers below `dir`, whose files are about to go; those on their way too, once they
    /// are there.
    pub async fn drop_spares(&self, dir: &Path) {
        let dropped = whole(&self.spares.shelf).drop_all(|(layer, _)| layer.starts_with(dir));
        for spare in dropped {
            self.drop_spare(spare).await;
        }
    }

    /// Discards spares that are not expected to be used any more, and others until nothing that was admitted lacks its
    /// place.
    pub async fn make_way(&self) {
        while let Some(spare) = self.superfluous() {
            self.drop_spare(spare).await;
        }
    }

    fn superfluous(&self) -> Option<Spare> {
        let crowded = self.capacity.is_crowded();
        let spare = whole(&self.spares.shelf).superfluous(crowded, Instant::now())?;
        tracing::info!(spare = spare.name(), crowded, "discarding a spare");
        Some(spare)
    }

    async fn start_spare(
        self: &Arc<Self>,
        layer: &ImageLayer,
        purpose: Purpose,
    ) -> Result<Spare, GuestError> {
        let name = format!("spare-{}", self.spares.count.fetch_add(1, Ordering::Relaxed));
        let image = layer.dir().to_string_lossy().into_owned();
        let want = Want { guest: name.clone(), kind: Kind::Spare, image, at_least: 0, cpu_millis: 0 };
        let place = self.capacity.reserve(want)?;
        let what = match purpose {
            Purpose::Launch => What::Clone(self.start_clone(&name, layer).await?),
            Purpose::Wake => What::Vmm(self.park(name, layer).await?),
        };
        Ok(Spare { what, _place: place })
    }

    async fn drop_spare(&self, spare: Spare) {
        match spare.what {
            What::Clone(clone) => self.end_clone(clone).await,
            What::Vmm(vmm) => self.end_vmm(vmm).await,
        }
    }
}
