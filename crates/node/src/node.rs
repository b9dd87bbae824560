//! The table of the MicroVMs that this host owns.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use ids::{EndpointId, MicrovmId};
use lifecycle::microvm::{Event, Refused, State};
use proxy::{Life, WakeError};
use store::{MicrovmRecord, Store, StoreError};
use timeline::Timeline;
use tokio::sync::{mpsc, oneshot, watch};

use crate::machines::Machines;
use crate::owner::{Command, CommandError, Owner, View};

/// Wishes of clients that wait for one MicroVM's owner; more wait in their callers.
const COMMAND_QUEUE: usize = 64;

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
}

struct Entry {
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<View>,
}

#[derive(Default)]
struct Table {
    owners: HashMap<MicrovmId, Entry>,
    endpoints: HashMap<EndpointId, MicrovmId>,
}

/// Owns every MicroVM of this host that is not terminated; clones share the same table.
#[derive(Clone)]
pub struct Node {
    store: Store,
    machines: Arc<dyn Machines>,
    table: Arc<RwLock<Table>>,
}

impl std::fmt::Debug for Node {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Node").finish_non_exhaustive()
    }
}

impl Node {
    /// A node that takes up everything that the store says was alive before (invariant 3).
    ///
    /// # Errors
    /// [`StoreError`] where the records cannot be read.
    pub fn start(store: Store, machines: Arc<dyn Machines>) -> Result<Self, StoreError> {
        let living = store.read(|tx| tx.live_microvms())?;
        let node = Self { store, machines, table: Arc::default() };
        for record in living {
            node.own(record, true);
        }
        Ok(node)
    }

    /// Launches a MicroVM whose PENDING record is on the disk already.
    pub fn launch(&self, record: MicrovmRecord) {
        self.own(record, false);
    }

    /// Applies a client's wish; returns once its transition is durable, before the work that follows from it.
    ///
    /// # Errors
    /// [`NodeError`]; [`NodeError::Unknown`] also where the MicroVM is terminated.
    pub async fn ask(&self, id: MicrovmId, event: Event) -> Result<(), NodeError> {
        let commands = self.entry(id, |entry| entry.commands.clone()).ok_or(NodeError::Unknown(id))?;
        let (reply, answer) = oneshot::channel();
        let gone = || NodeError::Unknown(id);
        let timeline = Timeline::current().unwrap_or_else(Timeline::begin);
        commands.send(Command { event, timeline, reply }).await.map_err(|_| gone())?;
        match answer.await.map_err(|_| gone())? {
            Ok(()) => Ok(()),
            Err(CommandError::Refused(refused)) => Err(refused.into()),
            Err(CommandError::Store(error)) => Err(error.into()),
        }
    }

    fn own(&self, record: MicrovmRecord, adopt: bool) {
        let (id, endpoint, http_ingress) = (record.id, record.endpoint, record.http_ingress);
        let (commands, wishes) = mpsc::channel(COMMAND_QUEUE);
        let (owner, view) = Owner::new(record, self.store.clone(), Arc::clone(&self.machines), wishes);
        {
            let mut table = self.table.write().unwrap_or_else(PoisonError::into_inner);
            table.owners.insert(id, Entry { commands, view });
            if http_ingress {
                table.endpoints.insert(endpoint, id);
            }
        }
        let table = Arc::clone(&self.table);
        let timeline = Timeline::current().unwrap_or_else(Timeline::begin);
        tokio::spawn(async move {
            owner.run(adopt, timeline).await;
            let mut table = table.write().unwrap_or_else(PoisonError::into_inner);
            table.owners.remove(&id);
            table.endpoints.remove(&endpoint);
        });
    }

    fn entry<T>(&self, id: MicrovmId, pick: impl FnOnce(&Entry) -> T) -> Option<T> {
        // The table is whole between any two of its changes, so a panic elsewhere left it usable.
        self.table.read().unwrap_or_else(PoisonError::into_inner).owners.get(&id).map(pick)
    }
}

#[async_trait]
impl proxy::Backend for Node {
    fn resolve(&self, endpoint: EndpointId) -> Option<MicrovmId> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        if let Some(id) = table.endpoints.get(&endpoint) {
            return Some(*id);
        }
        drop(table);
        // Those that ended: whoever holds a token for one is to learn that it is gone (SPEC §5.4).
        let record = self.store.read::<_, StoreError>(|tx| tx.microvm_at(endpoint)).ok().flatten()?;
        record.http_ingress.then_some(record.id)
    }

    async fn wake(&self, microvm: MicrovmId) -> Result<Arc<Life>, WakeError> {
        let mut view = self.entry(microvm, |entry| entry.view.clone()).ok_or(WakeError::Gone)?;
        loop {
            let seen = view.borrow_and_update().clone();
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
                    self.ask(microvm, Event::RequestArrived).await.map_err(|_| WakeError::Failed)?;
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
mod tests;
