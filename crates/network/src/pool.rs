//! Slots kept ready, so that starting a MicroVM never waits for `ip` or `nft`.
//!
//! One thread makes and removes slots; callers only exchange them with it under a short lock. What nobody waits for
//! is put off until no slot has changed hands for a while: a MicroVM that is starting needs the CPU itself.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::command::CommandError;
use crate::config::NetworkConfig;
use crate::egress::Egress;
use crate::endpoint::{self, Endpoint};
use crate::gate::Gate;
use crate::host::{self, OpenError};
use crate::refused::{Counts, Refused};
use crate::resolver::Resolver;
use crate::slot::{self, Slot};

/// How long no slot must have changed hands before the pool tidies up and fills up.
const QUIET: Duration = Duration::from_secs(1);

/// Why no slot was handed out.
#[derive(Debug, thiserror::Error)]
pub enum AcquireError {
    /// All slots are in use.
    #[error("all {0} network slots are in use; raise the limit on slots or widen the slot range")]
    Exhausted(u32),
    /// Making one failed.
    #[error("cannot make a network slot: {0}")]
    Make(#[from] CommandError),
    /// The pool was closed meanwhile.
    #[error("no network slot is handed out any more: the pool is closed")]
    Closed,
}

/// Why a slot could not be taken over from an earlier server.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// Not a name this instance gives, or beyond its limits.
    #[error(
        "{0:?} is not a network slot of this server; check that the data directory and slot limits are unchanged"
    )]
    Foreign(String),
    /// Its namespace is gone.
    #[error("network slot {0} no longer exists; terminate the MicroVM that used it")]
    Gone(String),
    /// It is in use.
    #[error("network slot {0} is already in use by this server")]
    InUse(String),
}

/// Why a slot does not reach what it was to reach. It is of no use then, and may be given back.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The host's tools failed.
    #[error("cannot apply a network connector to a network slot: {0}")]
    Command(#[from] CommandError),
    /// The pool was closed meanwhile.
    #[error("no network connector is applied any more: the pool is closed")]
    Closed,
}

/// Why leftovers could not all be removed.
#[derive(Debug, thiserror::Error)]
pub enum ReapError {
    /// The host's tools failed.
    #[error("cannot remove left-over network slots: {0}")]
    Command(#[from] CommandError),
    /// The pool was closed meanwhile.
    #[error("left-over network slots were not removed: the pool is closed")]
    Closed,
}

/// What an index is taken by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Holder {
    /// A caller, or the thread on its way to making or removing it.
    Us,
    /// An earlier server: to be adopted or reaped.
    Found,
}

type Waiter = oneshot::Sender<Result<Slot, AcquireError>>;

#[derive(Debug)]
struct Bind {
    slot: Slot,
    egress: Egress,
    done: oneshot::Sender<Result<(), BindError>>,
}

#[derive(Debug)]
struct Reap {
    keep: BTreeSet<String>,
    done: oneshot::Sender<Result<Vec<String>, ReapError>>,
}

/// What the thread should do next.
#[derive(Debug)]
enum Next {
    Do(Job),
    /// Work that can wait, until then.
    Later(Instant),
    Nothing,
}

#[derive(Debug, Default)]
struct State {
    taken: BTreeMap<u32, Holder>,
    ready: VecDeque<Slot>,
    waiting: VecDeque<Waiter>,
    binds: VecDeque<Bind>,
    /// What slots are bound to, by their index; most are to nothing.
    bound: BTreeMap<u32, Egress>,
    /// Through which the guests of those resolve names.
    gates: BTreeMap<u32, Gate>,
    /// Adopted slots whose endpoint nobody answers yet.
    silent: VecDeque<Slot>,
    /// Those that are answered; whoever answers is told by the end of this.
    answered: BTreeMap<u32, oneshot::Sender<()>>,
    /// What had been refused to their guests when that was last asked.
    counted: BTreeMap<u32, Counts>,
    removals: VecDeque<Slot>,
    reaps: VecDeque<Reap>,
    /// Making a slot failed: only the next acquisition tries again.
    discouraged: bool,
    /// When a slot last changed hands.
    busy: Option<Instant>,
    closing: bool,
    /// The thread has ended.
    stopped: bool,
    closed: Option<oneshot::Sender<()>>,
}

#[derive(Debug)]
enum Job {
    Make(Slot),
    Bind(Bind),
    Listen(Slot),
    Remove(Slot),
    Reap(Reap),
    Stop,
}

#[derive(Debug)]
pub(crate) struct Shared {
    config: NetworkConfig,
    state: Mutex<State>,
    work: Condvar,
}

/// The network slots of one server.
#[derive(Debug)]
pub struct Pool {
    shared: Arc<Shared>,
}

impl Pool {
    /// Sets the host up and begins to make slots, inside the network namespace of the calling thread.
    ///
    /// Slots of an earlier server stay untouched until they are adopted or reaped.
    pub fn open(config: NetworkConfig) -> Result<Self, OpenError> {
        host::set_up(&config)?;
        let found = slot::list(&config.instance)?;
        let indices = found.iter().filter_map(|name| slot::index_of(&config.instance, name));
        let state =
            State { taken: indices.map(|index| (index, Holder::Found)).collect(), ..State::default() };
        let shared = Arc::new(Shared { config, state: Mutex::new(state), work: Condvar::new() });
        let worker = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("network-slots".to_owned())
            .spawn(move || worker.run())
            .map_err(OpenError::Thread)?;
        Ok(Self { shared })
    }

    /// Slots that can be in use at once.
    #[must_use]
    pub fn capacity(&self) -> u32 {
        self.shared.config.capacity()
    }

    /// Hands out a slot: one kept ready, or else the next to be made.
    pub async fn acquire(&self) -> Result<Slot, AcquireError> {
        let made = {
            let mut state = self.shared.lock();
            if state.closing {
                return Err(AcquireError::Closed);
            }
            state.discouraged = false;
            state.busy = Some(Instant::now());
            self.shared.work.notify_one();
            if let Some(slot) = state.ready.pop_front() {
                return Ok(slot);
            }
            let (waiter, made) = oneshot::channel();
            state.waiting.push_back(waiter);
            made
        };
        made.await.unwrap_or(Err(AcquireError::Closed))
    }

    /// Takes over the slot of a MicroVM which an earlier server started.
    pub fn adopt(&self, name: &str) -> Result<Slot, AdoptError> {
        let config = &self.shared.config;
        let index = slot::index_of(&config.instance, name)
            .filter(|index| *index < config.slot_cidr.slots())
            .ok_or_else(|| AdoptError::Foreign(name.to_owned()))?;
        let slot = Slot::new(config, index);
        let mut state = self.shared.lock();
        match state.taken.get(&index) {
            Some(Holder::Us) => return Err(AdoptError::InUse(slot.name)),
            Some(Holder::Found) if slot.netns.exists() => {}
            _ => return Err(AdoptError::Gone(slot.name)),
        }
        state.taken.insert(index, Holder::Us);
        if config.has_endpoints() {
            state.silent.push_back(slot.clone());
            self.shared.work.notify_one();
        }
        Ok(slot)
    }

    /// Has a slot that was handed out reach what `egress` says in place of public addresses, until it is given back. A
    /// slot that was adopted has to be bound again.
    pub async fn bind(&self, slot: &Slot, egress: Egress) -> Result<(), BindError> {
        let (done, bound) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if state.closing {
                return Err(BindError::Closed);
            }
            state.busy = Some(Instant::now());
            state.binds.push_back(Bind { slot: slot.clone(), egress, done });
            self.shared.work.notify_one();
        }
        bound.await.unwrap_or(Err(BindError::Closed))
    }

    /// What answers the DNS queries of a slot's guest, by asking `upstreams`. It follows what the slot is bound to.
    #[must_use]
    pub fn resolver(&self, slot: &Slot, upstreams: Arc<[SocketAddr]>) -> Resolver {
        Resolver { shared: Arc::clone(&self.shared), slot: slot.index, upstreams }
    }

    /// What the slot of this name refused since this was last asked, by what it is bound to. `None` where it is bound to
    /// nothing. Blocks for a moment.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn refused(&self, name: &str) -> io::Result<Option<Refused>> {
        let config = &self.shared.config;
        let Some(index) = slot::index_of(&config.instance, name) else { return Ok(None) };
        if !self.shared.lock().bound.contains_key(&index) {
            return Ok(None);
        }
        let now = Counts::read(&Slot::new(config, index).netns)?;
        let before = self.shared.lock().counted.insert(index, now.clone());
        Ok(Some(now.since(&before.unwrap_or_default())))
    }

    /// Gives a slot back. It is removed in the background, never used again; nothing may run in it any more.
    pub fn release(&self, slot: Slot) {
        let mut state = self.shared.lock();
        if state.taken.get(&slot.index) == Some(&Holder::Us) && !state.removals.contains(&slot) {
            state.answered.remove(&slot.index);
            state.removals.push_back(slot);
            state.busy = Some(Instant::now());
            self.shared.work.notify_one();
        }
    }

    /// Gives back, by its name, a slot that this or an earlier server handed out; another's name means nothing here.
    pub fn release_named(&self, name: &str) {
        let config = &self.shared.config;
        let Some(index) =
            slot::index_of(&config.instance, name).filter(|index| *index < config.slot_cidr.slots())
        else {
            return;
        };
        let claimed = {
            let mut state = self.shared.lock();
            let ready = state.ready.iter().any(|slot| slot.index == index);
            if !ready && state.taken.contains_key(&index) {
                state.taken.insert(index, Holder::Us);
            }
            !ready
        };
        if claimed {
            self.release(Slot::new(config, index));
        }
    }

    /// Removes every slot of this instance that is neither in `keep` nor handed out or kept ready by this pool,
    /// after the slots already released; returns the names of those it removed.
    pub async fn reap(&self, keep: BTreeSet<String>) -> Result<Vec<String>, ReapError> {
        let (done, result) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if state.closing {
                return Err(ReapError::Closed);
            }
            state.reaps.push_back(Reap { keep, done });
            self.shared.work.notify_one();
        }
        result.await.unwrap_or(Err(ReapError::Closed))
    }

    /// Removes the slots kept ready and those released; the host's table as well, unless MicroVMs still use slots.
    /// Nothing is handed out afterwards.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        {
            let mut state = self.shared.lock();
            if state.stopped {
                return;
            }
            state.closed = Some(done);
            state.begin_closing();
            self.shared.work.notify_one();
        }
        // An error only says that the thread is gone, which is what is waited for.
        let _ = closed.await;
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.lock().begin_closing();
        self.shared.work.notify_one();
    }
}

impl State {
    fn begin_closing(&mut self) {
        self.closing = true;
        self.waiting.clear();
        self.binds.clear();
        self.silent.clear();
        self.removals.extend(self.ready.drain(..));
    }

    /// What the thread should do next. Whoever waits comes first; removals precede the reaps asked for after them.
    fn next(&mut self, config: &NetworkConfig, now: Instant) -> Next {
        let urgent = self.closing
            || !(self.waiting.is_empty()
                && self.binds.is_empty()
                && self.silent.is_empty()
                && self.reaps.is_empty());
        let short = !self.discouraged && self.ready.len() < config.ready;
        match self.busy.map(|busy| busy + QUIET) {
            Some(quiet) if quiet > now && !urgent => {
                if short || !self.removals.is_empty() {
                    Next::Later(quiet)
                } else {
                    Next::Nothing
                }
            }
            _ => self.next_job(config).map_or(Next::Nothing, Next::Do),
        }
    }

    fn next_job(&mut self, config: &NetworkConfig) -> Option<Job> {
        // Shorter than anything else, and somebody waits for it.
        if let Some(bind) = self.binds.pop_front() {
            return Some(Job::Bind(bind));
        }
        if let Some(slot) = self.silent.pop_front() {
            return Some(Job::Listen(slot));
        }
        let wanted = !self.waiting.is_empty() || (!self.discouraged && self.ready.len() < config.ready);
        if wanted && !self.closing {
            if let Some(index) = (0..config.capacity()).find(|index| !self.taken.contains_key(index)) {
                self.taken.insert(index, Holder::Us);
                return Some(Job::Make(Slot::new(config, index)));
            }
            if self.removals.is_empty() {
                self.refuse_all(config.capacity());
            }
        }
        let removal = self.removals.pop_front().map(Job::Remove);
        let job = removal.or_else(|| self.reaps.pop_front().map(Job::Reap));
        job.or_else(|| self.closing.then_some(Job::Stop))
    }

    fn refuse_all(&mut self, capacity: u32) {
        for waiter in self.waiting.drain(..) {
            // Whoever no longer waits needs no answer.
            let _ = waiter.send(Err(AcquireError::Exhausted(capacity)));
        }
    }

    /// Gives a new slot to whoever waits longest, or keeps it.
    fn hand_out(&mut self, mut slot: Slot) {
        while let Some(waiter) = self.waiting.pop_front() {
            match waiter.send(Ok(slot)) {
                Err(Ok(unclaimed)) => slot = unclaimed,
                _ => return,
            }
        }
        if self.closing { self.removals.push_back(slot) } else { self.ready.push_back(slot) }
    }

    /// The slot was removed: its index is free for another, which begins without what this one was bound to.
    fn gone(&mut self, index: u32) {
        self.gates.remove(&index);
        self.answered.remove(&index);
        self.taken.remove(&index);
    }

    fn making_failed(&mut self, slot: &Slot, error: CommandError) {
        tracing::warn!(slot = slot.name, %error, "cannot make a network slot");
        self.taken.remove(&slot.index);
        self.discouraged = true;
        if let Some(waiter) = self.waiting.pop_front() {
            // Whoever no longer waits needs no answer.
            let _ = waiter.send(Err(error.into()));
        }
    }
}

impl Shared {
    /// The state is consistent between any two statements that change it, so a panicked holder spoils nothing.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Through which the guest of this slot resolves names. None: the slot is bound to nothing, and names are free.
    pub(crate) fn gate(&self, slot: u32) -> Option<Gate> {
        self.lock().gates.get(&slot).cloned()
    }

    fn run(&self) {
        loop {
            match self.wait_for_job() {
                Job::Make(slot) => self.make(slot),
                Job::Bind(bind) => {
                    let result = self.bind(&bind.slot, bind.egress);
                    // Whoever no longer waits needs no answer.
                    let _ = bind.done.send(result);
                }
                Job::Listen(slot) => self.listen(&slot),
                Job::Remove(slot) => self.remove(&slot),
                Job::Reap(reap) => {
                    let result = self.reap(&reap.keep);
                    // Whoever no longer waits needs no answer.
                    let _ = reap.done.send(result);
                }
                Job::Stop => return self.stop(),
            }
        }
    }

    fn wait_for_job(&self) -> Job {
        let mut state = self.lock();
        loop {
            let now = Instant::now();
            state = match state.next(&self.config, now) {
                Next::Do(job) => return job,
                Next::Later(then) => {
                    self.work.wait_timeout(state, then - now).unwrap_or_else(PoisonError::into_inner).0
                }
                Next::Nothing => self.work.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn make(&self, slot: Slot) {
        let made = slot::make(&self.config, &slot);
        match made {
            Ok(listener) => {
                self.hand_over(&slot, listener);
                self.lock().hand_out(slot);
            }
            Err(error) => self.lock().making_failed(&slot, error),
        }
    }

    /// A guest that goes on is none the worse where this fails: only a later life has an endpoint then.
    fn listen(&self, slot: &Slot) {
        match endpoint::listen_in(slot) {
            Ok(listener) => self.hand_over(slot, Some(listener)),
            Err(error) => {
                tracing::warn!(slot = slot.name, %error, "a guest does not find the API until it has slept");
            }
        }
    }

    /// Hands a slot's listener to whoever answers guests.
    fn hand_over(&self, slot: &Slot, listener: Option<TcpListener>) {
        let (Some(endpoints), Some(listener)) = (&self.config.endpoints, listener) else { return };
        let (open, closed) = oneshot::channel();
        self.lock().answered.insert(slot.index, open);
        // Where nobody answers any more, as at the end of a server, the listener closes.
        let _ = endpoints.send(Endpoint { listener, closed });
    }

    fn bind(&self, slot: &Slot, egress: Egress) -> Result<(), BindError> {
        // First: from here on there is no moment in which names are free that should not be.
        let gate = Gate::new(&self.config, slot, &egress)?;
        self.lock().gates.insert(slot.index, gate);
        self.unbind(slot)?;
        slot::bind(&self.config, slot, &egress)?;
        self.lock().bound.insert(slot.index, egress);
        Ok(())
    }

    /// Takes back what the slot is bound to, if it is.
    fn unbind(&self, slot: &Slot) -> Result<(), CommandError> {
        let bound = self.lock().bound.get(&slot.index).cloned();
        if let Some(egress) = bound {
            slot::unbind(&self.config, slot, &egress)?;
            let mut state = self.lock();
            state.bound.remove(&slot.index);
            state.counted.remove(&slot.index);
        }
        Ok(())
    }

    fn remove(&self, slot: &Slot) {
        let removed = self.unbind(slot).and_then(|()| slot::remove(&slot.name));
        let mut state = self.lock();
        match removed {
            Ok(()) => state.gone(slot.index),
            Err(error) => {
                tracing::warn!(slot = slot.name, %error, "cannot remove a network slot; the next reap tries again");
                state.taken.insert(slot.index, Holder::Found);
            }
        }
    }

    fn reap(&self, keep: &BTreeSet<String>) -> Result<Vec<String>, ReapError> {
        let mut removed = Vec::new();
        for name in slot::list(&self.config.instance)? {
            if !keep.contains(&name) && self.claim_left_over(&name) {
                self.remove_left_over(&name)?;
                removed.push(name);
            }
        }
        Ok(removed)
    }

    /// Takes a slot nobody holds, so that it cannot be adopted while it is being removed.
    fn claim_left_over(&self, name: &str) -> bool {
        let Some(index) = slot::index_of(&self.config.instance, name) else { return false };
        let mut state = self.lock();
        if state.taken.get(&index) == Some(&Holder::Us) {
            return false;
        }
        state.taken.insert(index, Holder::Us);
        true
    }

    fn remove_left_over(&self, name: &str) -> Result<(), CommandError> {
        let Some(index) = slot::index_of(&self.config.instance, name) else { return Ok(()) };
        let removed = self.unbind(&Slot::new(&self.config, index)).and_then(|()| slot::remove(name));
        let mut state = self.lock();
        match removed {
            Ok(()) => state.gone(index),
            Err(_) => drop(state.taken.insert(index, Holder::Found)),
        }
        removed
    }

    fn stop(&self) {
        let unused = slot::list(&self.config.instance).map(|slots| slots.is_empty());
        let removed =
            unused.and_then(|unused| if unused { host::remove_table(&self.config.instance) } else { Ok(()) });
        if let Err(error) = removed {
            tracing::warn!(%error, "cannot remove the network rules of this server");
        }
        let mut state = self.lock();
        state.stopped = true;
        if let Some(closed) = state.closed.take() {
            // Whoever no longer waits needs no answer.
            let _ = closed.send(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(max_slots: u32) -> NetworkConfig {
        NetworkConfig { max_slots, ready: 1, ..NetworkConfig::new("ab".parse().unwrap(), 0) }
    }

    fn slot(index: u32) -> Slot {
        Slot::new(&config(1), index)
    }

    #[test]
    fn a_slot_nobody_waits_for_any_more_is_kept() {
        let mut state = State::default();
        let (waiter, gone) = oneshot::channel();
        drop(gone);
        state.waiting.push_back(waiter);
        state.hand_out(slot(0));
        assert_eq!(state.ready, [slot(0)]);
    }

    #[test]
    fn whoever_waits_with_every_slot_in_use_is_refused() {
        let mut state = State::default();
        state.taken.insert(0, Holder::Us);
        let (waiter, mut answer) = oneshot::channel();
        state.waiting.push_back(waiter);
        assert!(state.next_job(&config(1)).is_none());
        assert!(matches!(answer.try_recv(), Ok(Err(AcquireError::Exhausted(1)))));
    }

    #[test]
    fn whoever_waits_gets_a_slot_being_removed() {
        let mut state = State::default();
        state.taken.insert(0, Holder::Us);
        state.removals.push_back(slot(0));
        let (waiter, mut answer) = oneshot::channel();
        state.waiting.push_back(waiter);
        assert!(matches!(state.next_job(&config(1)), Some(Job::Remove(_))));
        assert!(answer.try_recv().is_err());
    }

    #[test]
    fn what_nobody_waits_for_waits_for_quiet() {
        let now = Instant::now();
        let mut state = State { busy: Some(now), ..State::default() };
        state.taken.insert(0, Holder::Us);
        state.removals.push_back(slot(0));
        assert!(matches!(state.next(&config(4), now), Next::Later(then) if then == now + QUIET));
        assert!(matches!(state.next(&config(4), now + QUIET), Next::Do(Job::Make(_))));
        let (waiter, _answer) = oneshot::channel();
        state.waiting.push_back(waiter);
        assert!(matches!(state.next(&config(4), now), Next::Do(Job::Make(_))));
    }

    #[test]
    fn a_failure_is_not_retried_until_someone_asks() {
        let mut state = State { discouraged: true, ..State::default() };
        assert!(state.next_job(&config(4)).is_none());
        state.discouraged = false;
        assert!(matches!(state.next_job(&config(4)), Some(Job::Make(_))));
    }
}
