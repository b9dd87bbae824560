//! What is started ahead, for the next MicroVM of an image version that is launched or woken: as much of it as any of them
//! needs, with a slot of its own.
//!
//! For a launch that is a clone with a private disk, its agent greeted and its application as frozen as in the snapshot
//! (invariant 5: its life begins when a MicroVM takes it). For a wake it is a VMM which holds nothing yet. A spare is a
//! guest of its own name until then; its directory gets its new name with it.

mod demand;
mod launch;
mod wake;

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use capacity::{Kind, Reservation, Want};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;
use tokio::time::Instant;

use crate::{GuestError, Host, ImageLayer};
use demand::Demand;
use launch::SpareClone;
use wake::SpareVmm;

/// Spares of all images together: each costs the memory of a clone that has done nothing yet, or less.
const MAX_SPARES: usize = 32;
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
#[derive(Debug, Default)]
pub(crate) struct Spares {
    shelf: Mutex<Shelf>,
    /// One that was coming is there, or will not come.
    landed: Notify,
    /// Names are never used twice.
    count: AtomicU64,
}

/// Of which layer, and for what.
type Use = (PathBuf, Purpose);

#[derive(Debug, Default)]
struct Shelf {
    /// The longest kept first.
    ready: VecDeque<Spare>,
    /// Of what one is on its way.
    coming: HashSet<Use>,
    demand: HashMap<Use, Demand>,
    busy: Option<Instant>,
}

impl Shelf {
    fn count(&self, of: &Use) -> usize {
        self.ready.iter().filter(|spare| spare.of == *of).count()
    }

    fn wanted(&self, of: &Use) -> usize {
        self.demand.get(of).map_or(1, |demand| demand.wanted(Instant::now()).min(MAX_SPARES))
    }

    /// Takes out the longest kept of what there is most of.
    fn least_missed(&mut self) -> Option<Spare> {
        let most = self.ready.iter().map(|spare| self.count(&spare.of)).max()?;
        let at = self.ready.iter().position(|spare| self.count(&spare.of) == most)?;
        self.ready.remove(at)
    }

    /// Takes out one that nothing is expected to use.
    fn surplus(&mut self) -> Option<Spare> {
        let at = self.ready.iter().position(|spare| self.count(&spare.of) > self.wanted(&spare.of))?;
        self.ready.remove(at)
    }
}

#[derive(Debug)]
struct Spare {
    of: Use,
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
    /// The shelf is whole between any two of its changes, so a panic elsewhere left it usable.
    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Something is being launched or woken.
    pub(crate) fn touch(&self) {
        self.shelf().busy = Some(Instant::now());
    }

    fn take(&self, layer: &Path, purpose: Purpose) -> Option<What> {
        self.touch();
        let mut shelf = self.shelf();
        let (of, now) = ((layer.to_owned(), purpose), Instant::now());
        let demand = shelf.demand.entry(of.clone());
        demand.and_modify(|demand| demand.note(now)).or_insert_with(|| Demand::begin(now));
        let at = shelf.ready.iter().position(|spare| spare.of == of)?;
        shelf.ready.remove(at).map(|spare| spare.what)
    }

    /// Whether another is wanted and none is coming; then one is. Only the first of a use may displace others.
    fn claim(&self, of: &Use) -> bool {
        let mut shelf = self.shelf();
        let count = shelf.count(of);
        let has_place = count == 0 || shelf.ready.len() < MAX_SPARES;
        has_place && count < shelf.wanted(of) && shelf.coming.insert(of.clone())
    }

    /// Whether one is still wanted, which then is on the shelf; and the one that has to go.
    fn put(&self, spare: Spare) -> (bool, Option<Spare>) {
        let mut shelf = self.shelf();
        if !shelf.coming.remove(&spare.of) {
            return (false, Some(spare));
        }
        shelf.ready.push_back(spare);
        (true, if shelf.ready.len() > MAX_SPARES { shelf.least_missed() } else { None })
    }

    fn give_up(&self, of: &Use) {
        self.shelf().coming.remove(of);
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
                let (is_wanted, old) = self.spares.put(spare);
                if let Some(old) = old {
                    self.drop_spare(old).await;
                }
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
        let dropped: VecDeque<Spare> = {
            let mut shelf = self.spares.shelf();
            shelf.coming.retain(|(layer, _)| !layer.starts_with(dir));
            shelf.demand.retain(|(layer, _), _| !layer.starts_with(dir));
            let (dropped, kept) =
                std::mem::take(&mut shelf.ready).into_iter().partition(|spare| spare.of.0.starts_with(dir));
            shelf.ready = kept;
            dropped
        };
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
        let mut shelf = self.spares.shelf();
        let spare = shelf.surplus().or_else(|| crowded.then(|| shelf.least_missed()).flatten())?;
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
        let want = Want { guest: name.clone(), kind: Kind::Spare, image, at_least: 0 };
        let place = self.capacity.reserve(want)?;
        let what = match purpose {
            Purpose::Launch => What::Clone(self.start_clone(&name, layer).await?),
            Purpose::Wake => What::Vmm(self.park(name, layer).await?),
        };
        Ok(Spare { of: (layer.dir().to_owned(), purpose), what, _place: place })
    }

    async fn drop_spare(&self, spare: Spare) {
        match spare.what {
            What::Clone(clone) => self.end_clone(clone).await,
            What::Vmm(vmm) => self.end_vmm(vmm).await,
        }
    }
}
