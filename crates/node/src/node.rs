//! The table of the MicroVMs that this host owns.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use async_trait::async_trait;
use capacity::{Capacity, Reservation, Shortage};
use ids::{EndpointId, ImageArn, MicrovmId, MicrovmOrImage};
use lifecycle::microvm::{Event, Refused, State};
use proxy::{Life, Site, Target, WakeError};
use store::{Exposure, MicrovmRecord, Store, StoreError};
use timeline::Timeline;
use tokio::sync::{mpsc, oneshot, watch};

use crate::machines::Machines;
use crate::metering::{Meters, Seen};
use crate::owner::{Command, CommandError, Owner, View, want};

/// Wishes of clients that wait for one MicroVM's owner; more wait in their callers.
const COMMAND_QUEUE: usize = 64;

/// What has been used more recently is not put to sleep early.
const REST_AFTER: Duration = Duration::from_secs(5);

/// Why a MicroVM did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum NodeError {
    /// No such MicroVM lives here.
    #[error("Unable to find microvmIdentifier {0}")]
    Unknown(MicrovmId),
    /// Its state does not allow it.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// It could not be recorded.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The host has no room to resume it.
    #[error(transparent)]
    Full(#[from] Shortage),
}

struct Entry {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<View>,
    image: ImageArn,
    memory_mib: u32,
    http_ingress: bool,
}

impl Entry {
    /// Whether its application has run, and will again.
    fn has_come_up(&self) -> bool {
        matches!(self.view.borrow().state, State::Running | State::Suspending | State::Suspended)
    }
}

#[derive(Default)]
struct Table {
    owners: HashMap<MicrovmId, Entry>,
    endpoints: HashMap<EndpointId, MicrovmId>,
    /// Those of an image are in the order of their launches, as their ids are.
    images: BTreeSet<(ImageArn, MicrovmId)>,
}

impl Table {
    /// The MicroVM of an image that was launched last, of those that have come up; of the others, if there are no such.
    fn newest_of(&self, image: &ImageArn) -> Option<MicrovmId> {
        let first = (image.clone(), MicrovmId::MIN);
        let of_image = self.images.range(first..).take_while(|(of, _)| of == image);
        let mut newest = None;
        for (_, id) in of_image {
            let up = self.owners.get(id).is_some_and(Entry::has_come_up);
            newest = newest.max(Some((up, *id)));
        }
        newest.map(|(_, id)| id)
    }
}

/// Owns every MicroVM of this host that is not terminated; clones share the same table.
#[derive(Clone)]
pub struct Node {
    pub(crate) store: Store,
    pub(crate) machines: Arc<dyn Machines>,
    capacity: Capacity,
    table: Arc<RwLock<Table>>,
    pub(crate) meters: Meters,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

impl Node {
    /// A node that takes up everything that the store says was alive before (invariant 3), and starts nothing beyond
    /// `capacity`.
    ///
    /// # Errors
    /// [`StoreError`] where the records cannot be read.
    pub fn start(store: Store, machines: Arc<dyn Machines>, capacity: Capacity) -> Result<Self, StoreError> {
        let living = store.read(|tx| tx.live_microvms())?;
        let node = Self { store, machines, capacity, table: Arc::default(), meters: Meters::default() };
        for record in living {
            let place = has_vmm(&record).then(|| node.capacity.take_over(want(&record, 0)));
            node.own(record, place, true);
        }
        Ok(node)
    }

    /// Launches a MicroVM whose PENDING record is on the disk already, in the place that was reserved for it.
    pub fn launch(&self, record: MicrovmRecord, place: Reservation) {
        self.own(record, Some(place), false);
    }

    /// Applies a client's wish; returns once its transition is durable, before the work that follows from it.
    ///
    /// # Errors
    /// [`NodeError`]; [`NodeError::Unknown`] also where the MicroVM is terminated.
    pub async fn ask(&self, id: MicrovmId, event: Event) -> Result<(), NodeError> {
        self.ask_timed(id, event, Timeline::current().unwrap_or_else(Timeline::begin)).await
    }

    async fn ask_timed(&self, id: MicrovmId, event: Event, timeline: Timeline) -> Result<(), NodeError> {
        let commands = self.entry(id, |entry| entry.commands.clone()).ok_or(NodeError::Unknown(id))?;
        let (reply, answer) = oneshot::channel();
        let gone = || NodeError::Unknown(id);
        commands.send(Command { event, timeline, reply }).await.map_err(|_| gone())?;
        match answer.await.map_err(|_| gone())? {
            Ok(()) => Ok(()),
            Err(CommandError::Refused(refused)) => Err(refused.into()),
            Err(CommandError::Store(error)) => Err(error.into()),
            Err(CommandError::Full(shortage)) => Err(shortage.into()),
        }
    }

    fn own(&self, record: MicrovmRecord, place: Option<Reservation>, adopt: bool) {
        let (id, endpoint, image) = (record.id, record.endpoint, record.image.clone());
        let (http_ingress, memory_mib) = (record.http_ingress, record.memory_mib);
        let (commands, wishes) = mpsc::channel(COMMAND_QUEUE);
        let machines = Arc::clone(&self.machines);
        let meters = self.meters.clone();
        let (owner, view) =
            Owner::new(record, self.store.clone(), machines, meters, self.capacity.clone(), place, wishes);
        {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            table.owners.insert(id, Entry { commands, view, image: image.clone(), memory_mib, http_ingress });
            table.endpoints.insert(endpoint, id);
            table.images.insert((image.clone(), id));
        }
        let table = Arc::clone(&self.table);
        let timeline = Timeline::current().unwrap_or_else(Timeline::begin);
        tokio::spawn(async move {
            owner.run(adopt, timeline).await;
            let mut table = table.write().unwrap_or_else(PoisonError::into_inner);
            table.owners.remove(&id);
            table.endpoints.remove(&endpoint);
            table.images.remove(&(image, id));
        });
    }

    /// Puts the MicroVM to sleep that has been idle for the longest, of those that may sleep and wake by a request: for
    /// a host that runs out of memory. Whether there was one.
    pub async fn rest_the_idlest(&self) -> bool {
        let idlest = {
            let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
            let idle = table.owners.iter().filter_map(|(id, entry)| {
                let view = entry.view.borrow();
                let activity = &view.life.as_ref().filter(|_| view.wakes_on_request)?.activity;
                let idle = activity.idle_for();
                (idle >= REST_AFTER && activity.open_requests() == 0).then_some((idle, *id))
            });
            idle.max()
        };
        let Some((idle, id)) = idlest else { return false };
        tracing::warn!(microvm = %id, ?idle, "suspending an idle MicroVM early: the host is out of memory");
        self.ask(id, Event::IdleExpired).await.is_ok()
    }

    /// Every MicroVM, as it is now.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let seen = |(id, entry): (&MicrovmId, &Entry)| Seen {
            id: *id,
            state: entry.view.borrow().state,
            memory_mib: entry.memory_mib,
        };
        table.owners.iter().map(seen).collect()
    }

    /// Nothing where it cannot be read: then everything needs a token.
    fn exposure(&self) -> Arc<Exposure> {
        self.store.exposure().unwrap_or_else(|error| {
            tracing::error!(%error, "cannot read what is public; nothing is taken for it");
            Arc::default()
        })
    }

    fn entry<T>(&self, id: MicrovmId, pick: impl FnOnce(&Entry) -> T) -> Option<T> {
        // The table is whole between any two of its changes, so a panic elsewhere left it usable.
        self.table.read().unwrap_or_else(PoisonError::into_inner).owners.get(&id).map(pick)
    }
}

/// Whether a VMM may have been started for it.
fn has_vmm(record: &MicrovmRecord) -> bool {
    match record.life.state {
        State::Pending | State::Running | State::Suspending | State::Terminating => true,
        State::Suspended => record.life.resuming,
        State::Terminated => false,
    }
}

#[async_trait]
impl proxy::Backend for Node {
    fn resolve(&self, site: &Site) -> Option<Target> {
        let exposure = self.exposure();
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        let id = match site {
            Site::Endpoint(endpoint) => table.endpoints.get(endpoint).copied(),
            Site::Domain(name) => match exposure.domain(name)? {
                MicrovmOrImage::Microvm(id) => Some(*id),
                MicrovmOrImage::Image(image) => table.newest_of(image),
            },
        };
        if let Some((microvm, entry)) = id.and_then(|id| Some((id, table.owners.get(&id)?))) {
            let public_ports = exposure.public_ports(microvm, &entry.image);
            return Some(Target { microvm, http_ingress: entry.http_ingress, public_ports });
        }
        drop(table);
        // Those that ended: whoever holds a token for one is to learn that it is gone (SPEC §5.4).
        let Site::Endpoint(endpoint) = site else { return None };
        let record = self.store.read::<_, StoreError>(|tx| tx.microvm_at(*endpoint)).ok().flatten()?;
        let (microvm, http_ingress) = (record.id, record.http_ingress);
        Some(Target { microvm, http_ingress, public_ports: Arc::default() })
    }

    fn is_domain(&self, name: &str) -> bool {
        self.exposure().domain(name).is_some()
    }

    async fn wake(&self, microvm: MicrovmId, trace_parent: Option<&str>) -> Result<Arc<Life>, WakeError> {
        let mut view = self.entry(microvm, |entry| entry.view.clone()).ok_or(WakeError::Gone)?;
        let failed_before = view.borrow().failed_resumes;
        loop {
            let seen = view.borrow_and_update().clone();
            if seen.failed_resumes > failed_before {
                return Err(WakeError::Failed);
            }
            match seen.state {
                State::Running => {
                    if let Some(life) = seen.life {
                        return Ok(life);
                    }
                }
                State::Terminating | State::Terminated => return Err(WakeError::Gone),
                State::Suspending | State::Suspended if !seen.resuming => {
                    if !seen.wakes_on_request {
                        return Err(WakeError::NoAutoResume);
                    }
                    // One resume, however many ask: the second wish finds it under way and changes nothing.
                    let timeline = Timeline::begin_for(trace_parent);
                    let asked = self.ask_timed(microvm, Event::RequestArrived, timeline).await;
                    asked.map_err(|error| match error {
                        NodeError::Full(_) => WakeError::NoRoom,
                        _ => WakeError::Failed,
                    })?;
                }
                State::Pending | State::Suspending | State::Suspended => {}
            }
            if view.changed().await.is_err() {
                return Err(WakeError::Gone);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
