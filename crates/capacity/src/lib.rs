//! What the host has room for: every guest reserves its memory, disk and network slot here before it is started.
//!
//! [`ledger`] is pure accounting over what was last measured; [`Capacity`] shares it. Nothing here reads the host:
//! whoever measures it says so by [`Capacity::observe`], so that a decision costs no I/O and two of them never count
//! the same room twice.

mod ledger;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use ledger::{Id, Ledger};
pub use ledger::{Kind, Limits, Measured, Shortage, Want};

/// The capacity of one host; clones share it.
#[derive(Debug, Clone)]
pub struct Capacity {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    ledger: Mutex<Ledger>,
    /// Something was given back or measured.
    changed: Notify,
}

impl Capacity {
    /// Of a host that has not been measured yet: until then memory and disk are not short.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { shared: Arc::new(Shared { ledger: Mutex::new(Ledger::new(limits)), changed: Notify::new() }) }
    }

    /// Reserves what a guest needs, at once or not at all.
    ///
    /// # Errors
    /// [`Shortage`]; nothing is reserved then.
    pub fn reserve(&self, want: Want) -> Result<Reservation, Shortage> {
        let id = self.shared.ledger().admit(want)?;
        Ok(self.reservation(id))
    }

    /// Reserves for what runs already, after a restart: whether there is room is not the question any more.
    #[must_use]
    pub fn take_over(&self, want: Want) -> Reservation {
        let id = self.shared.ledger().enter(want);
        self.reservation(id)
    }

    /// [`Capacity::reserve`] for what can wait so long.
    ///
    /// # Errors
    /// [`Shortage`], the last one met.
    pub async fn reserve_within(&self, want: Want, limit: Duration) -> Result<Reservation, Shortage> {
        let deadline = Instant::now() + limit;
        loop {
            // Before looking, so that no change in between is missed.
            let changed = self.shared.changed.notified();
            match self.reserve(want.clone()) {
                Err(shortage) if tokio::time::timeout_at(deadline, changed).await.is_err() => {
                    return Err(shortage);
                }
                Err(_) => {}
                reserved => return reserved,
            }
        }
    }

    /// Whether a build could be carried out once those under way have ended.
    ///
    /// # Errors
    /// [`Shortage`].
    pub fn has_room_for_a_build(&self) -> Result<(), Shortage> {
        self.shared.ledger().has_room_for_a_build()
    }

    /// Takes note of what the host has left, and of the private memory of guests, by their names.
    pub fn observe(&self, measured: Measured, guests: &BTreeMap<String, u64>) {
        self.shared.ledger().observe(measured, guests);
        self.shared.changed.notify_waiters();
    }

    /// The names of the guests that have a reservation.
    #[must_use]
    pub fn guests(&self) -> Vec<String> {
        self.shared.ledger().guests()
    }

    /// Whether spares have to go for what was admitted.
    #[must_use]
    pub fn is_crowded(&self) -> bool {
        self.shared.ledger().is_crowded()
    }

    /// Whether so little memory is left that what runs is in danger.
    #[must_use]
    pub fn is_in_need(&self) -> bool {
        self.shared.ledger().is_in_need()
    }

    fn reservation(&self, id: Id) -> Reservation {
        Reservation { id, shared: Arc::clone(&self.shared) }
    }
}

impl Shared {
    /// The ledger is whole between any two of its changes, so a panic elsewhere left it usable.
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What one guest has reserved, until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    id: Id,
    shared: Arc<Shared>,
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shared.ledger().release(self.id);
        self.shared.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn want(name: &str) -> Want {
        Want { guest: name.into(), kind: Kind::Clone, image: "a".into(), at_least: 0, cpu_millis: 0 }
    }

    #[test]
    fn launches_at_once_do_not_overshoot() {
        let capacity = Capacity::new(Limits { slots: 7, ..Limits::default() });
        let admitted: Vec<Reservation> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..32)
                .map(|n| {
                    let capacity = &capacity;
                    scope.spawn(move || capacity.reserve(want(&n.to_string())).ok())
                })
                .collect();
            threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(admitted.len(), 7);
        assert!(capacity.reserve(want("x")).is_err());
        drop(admitted);
        assert!(capacity.reserve(want("x")).is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_can_wait_gets_its_turn_or_hears_why_not() {
        let capacity = Capacity::new(Limits { slots: 1, ..Limits::default() });
        let first = capacity.reserve(want("a")).unwrap();
        let late = capacity.reserve_within(want("b"), Duration::from_secs(5)).await;
        assert!(matches!(late, Err(Shortage::Slots { .. })));
        let waiting = capacity.reserve_within(want("b"), Duration::from_secs(5));
        let giving_back = async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            drop(first);
        };
        let (waited, ()) = tokio::join!(waiting, giving_back);
        assert!(waited.is_ok());
    }
}
