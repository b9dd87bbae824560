//! Each second, a look at what every MicroVM uses.
//!
//! The accounts are in memory, and now and then on the disk, in one transaction that no launch waits for. A server that is
//! killed loses nothing of what goes on: the next one takes the accounts up where they were written, and the counters of
//! the virtual machines have gone on counting.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use ids::MicrovmId;
use lifecycle::microvm::State;
use metering::{Baseline, Meter, Phase, Totals};
use store::{Store, StoreError, now_ms};

use crate::machines::Machines;
use crate::node::Node;

const LOOK_EVERY: Duration = Duration::from_secs(1);
const WRITE_EVERY: Duration = Duration::from_secs(60);
/// Of a size, MiB of memory for each baseline CPU (SPEC §3).
const MIB_PER_CPU: u64 = 2048;

/// The accounts of the MicroVMs that are not terminated.
#[derive(Clone, Default)]
pub(crate) struct Meters(Arc<Mutex<HashMap<MicrovmId, Account>>>);

struct Account {
    meter: Meter,
    /// By more than the passing of time, since it was written.
    has_changed: bool,
}

/// A MicroVM as it is looked at.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) id: MicrovmId,
    pub(crate) state: State,
    pub(crate) memory_mib: u32,
}

/// What is to be written.
pub(crate) struct Due {
    accounts: Vec<(MicrovmId, Meter)>,
    /// Those of them that will not change any more.
    ended: HashSet<MicrovmId>,
}

/// What a size with this memory includes.
#[must_use]
pub fn baseline(memory_mib: u32) -> Baseline {
    let mib = u64::from(memory_mib);
    Baseline { cpu_millis: mib * 1000 / MIB_PER_CPU, memory_bytes: mib << 20 }
}

impl Meters {
    fn lock(&self) -> MutexGuard<'_, HashMap<MicrovmId, Account>> {
        // An account is whole between any two of its changes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn totals(&self, id: MicrovmId) -> Option<Totals> {
        self.lock().get(&id).map(|account| account.meter.totals())
    }

    /// Looks at those that `seen` lists, which are all that there are; the accounts to be written now: those that have
    /// changed, and, with `all`, those of what runs. Blocks.
    pub(crate) fn look(
        &self,
        seen: impl FnOnce() -> Vec<Seen>,
        store: &Store,
        machines: &dyn Machines,
        all: bool,
    ) -> Result<Due, StoreError> {
        // Taken first: one that begins once they are listed has not ended.
        let mut ended: HashSet<MicrovmId> = self.lock().keys().copied().collect();
        for one in seen() {
            ended.remove(&one.id);
            self.look_at(&one, store, machines)?;
        }
        let mut accounts = Vec::new();
        for (id, account) in self.lock().iter_mut() {
            let has_ended = ended.contains(id);
            if has_ended {
                account.meter.look(now_ms(), Phase::Away);
            }
            let goes_on = all && matches!(account.meter.found(), Phase::Running { .. });
            if std::mem::take(&mut account.has_changed) || goes_on || has_ended {
                accounts.push((*id, account.meter.clone()));
            }
        }
        Ok(Due { accounts, ended })
    }

    /// Looks at one of them. Blocks.
    pub(crate) fn look_at(
        &self,
        one: &Seen,
        store: &Store,
        machines: &dyn Machines,
    ) -> Result<(), StoreError> {
        let known = self.lock().get(&one.id).map(|account| account.meter.clone());
        let mut meter = match known {
            Some(meter) => meter,
            None => store
                .read::<_, StoreError>(|tx| tx.usage(one.id))?
                .unwrap_or_else(|| Meter::new(baseline(one.memory_mib))),
        };
        let before = meter.found();
        // How much it sleeps with does not change, and would be measured in vain.
        let phase = match (before, one.state) {
            (Phase::Suspended { .. }, State::Suspended) => before,
            _ => machines.phase(one.id, one.state),
        };
        meter.look(now_ms(), phase);
        let has_changed = std::mem::discriminant(&before) != std::mem::discriminant(&phase);
        let mut accounts = self.lock();
        let is_unwritten = accounts.get(&one.id).is_some_and(|account| account.has_changed);
        accounts.insert(one.id, Account { meter, has_changed: has_changed || is_unwritten });
        Ok(())
    }

    /// Of MicroVMs that have ended, once their accounts are written: until then these are told.
    fn forget(&self, ended: &HashSet<MicrovmId>) {
        self.lock().retain(|id, _| !ended.contains(id));
    }
}

impl Node {
    /// Looks at what MicroVMs use, for as long as the server runs.
    pub async fn meter(self) {
        let mut clock = tokio::time::interval(LOOK_EVERY);
        clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut written_at = Instant::now();
        let mut unwritten: HashMap<MicrovmId, Meter> = HashMap::new();
        loop {
            clock.tick().await;
            let all = written_at.elapsed() >= WRITE_EVERY;
            let node = self.clone();
            let look = move || node.meters.look(|| node.seen(), &node.store, &*node.machines, all);
            let ended = match tokio::task::spawn_blocking(look).await {
                Ok(Ok(due)) => {
                    unwritten.extend(due.accounts);
                    due.ended
                }
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot read what MicroVMs have used; trying again");
                    continue;
                }
                Err(error) => {
                    tracing::error!(%error, "looking at what MicroVMs use failed");
                    continue;
                }
            };
            if unwritten.is_empty() {
                continue;
            }
            match write(&self.store, unwritten.clone()).await {
                Ok(()) => {
                    unwritten.clear();
                    self.meters.forget(&ended);
                    if all {
                        written_at = Instant::now();
                    }
                }
                Err(error) => tracing::warn!(%error, "cannot write what MicroVMs have used; trying again"),
            }
        }
    }

    /// What a MicroVM has used, to the second while it is there.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn usage(&self, id: MicrovmId) -> Result<Totals, StoreError> {
        if let Some(totals) = self.meters.totals(id) {
            return Ok(totals);
        }
        let kept = self.store.read::<_, StoreError>(|tx| tx.usage(id))?;
        Ok(kept.map(|meter| meter.totals()).unwrap_or_default())
    }
}

async fn write(store: &Store, due: HashMap<MicrovmId, Meter>) -> Result<(), StoreError> {
    store.write(move |tx| due.iter().try_for_each(|(id, meter)| tx.put_usage(*id, meter))).await
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use async_trait::async_trait;
    use store::MicrovmRecord;
    use tokio_util::sync::CancellationToken;

    use super::*;
    use crate::machines::{Instance, NotResumed, Suspended};

    /// Whose CPU is as much as was said last.
    #[derive(Default)]
    struct Counted(AtomicU64);

    #[async_trait]
    impl Machines for Counted {
        fn phase(&self, _: MicrovmId, state: State) -> Phase {
            match state {
                State::Running => {
                    Phase::Running { cpu_nanos: self.0.load(Ordering::Relaxed), memory_bytes: 0 }
                }
                State::Suspended => Phase::Suspended { saved_bytes: 7 },
                _ => Phase::Away,
            }
        }
        async fn launch(&self, _: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
            Err("never".into())
        }
        async fn adopt(&self, _: &MicrovmRecord) -> Result<Box<dyn Instance>, String> {
            Err("never".into())
        }
        async fn resume(&self, _: &MicrovmRecord) -> Result<Box<dyn Instance>, NotResumed> {
            Err(NotResumed::ThisTime)
        }
        fn saved_bytes(&self, _: &MicrovmRecord) -> u64 {
            0
        }
        async fn finish_suspend(&self, _: &MicrovmRecord, _: CancellationToken) -> Result<Suspended, String> {
            Err("never".into())
        }
        async fn discard(&self, _: &MicrovmRecord) {}
    }

    /// What is due is written at once.
    async fn look(meters: &Meters, seen: &[Seen], store: &Store, machines: &Counted, all: bool) -> usize {
        let due = meters.look(|| seen.to_vec(), store, machines, all).unwrap();
        let count = due.accounts.len();
        write(store, due.accounts.into_iter().collect()).await.unwrap();
        meters.forget(&due.ended);
        count
    }

    #[tokio::test]
    async fn accounts_are_written_as_they_change_and_taken_up_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        let machines = Counted::default();
        let id = MicrovmId::random();
        let seen = |state| [Seen { id, state, memory_mib: 512 }];
        let kept = || store.read::<_, StoreError>(|tx| tx.usage(id)).unwrap().unwrap().totals();

        let meters = Meters::default();
        assert_eq!(look(&meters, &seen(State::Running), &store, &machines, false).await, 1);
        machines.0.store(5, Ordering::Relaxed);
        assert_eq!(look(&meters, &seen(State::Running), &store, &machines, false).await, 0);
        assert_eq!((meters.totals(id).unwrap().cpu_nanos, kept().cpu_nanos), (5, 0));

        // Killed before it was written: the counter tells it all the same.
        let meters = Meters::default();
        machines.0.store(8, Ordering::Relaxed);
        assert_eq!(look(&meters, &seen(State::Running), &store, &machines, true).await, 1);
        assert_eq!(kept().cpu_nanos, 8);

        assert_eq!(look(&meters, &seen(State::Suspended), &store, &machines, true).await, 1);
        assert_eq!(look(&meters, &seen(State::Suspended), &store, &machines, true).await, 0);
        assert_eq!(look(&meters, &[], &store, &machines, false).await, 1, "it has ended");
        assert_eq!((meters.totals(id), kept().cpu_nanos), (None, 8));
    }

    #[test]
    fn one_that_begins_as_the_others_are_listed_has_not_ended() {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        let (meters, machines) = (Meters::default(), Counted::default());
        let one = Seen { id: MicrovmId::random(), state: State::Running, memory_mib: 512 };
        let listed_without_it = || {
            meters.look_at(&one, &store, &machines).unwrap();
            vec![]
        };
        let due = meters.look(listed_without_it, &store, &machines, false).unwrap();
        assert!(due.ended.is_empty() && due.accounts.len() == 1);
    }

    #[test]
    fn baselines_are_those_of_the_documentation() {
        for (memory_mib, cpu_millis) in [(512, 250), (1024, 500), (2048, 1000), (4096, 2000), (8192, 4000)] {
            let expected = Baseline { cpu_millis, memory_bytes: u64::from(memory_mib) << 20 };
            assert_eq!(baseline(memory_mib), expected);
        }
    }
}
