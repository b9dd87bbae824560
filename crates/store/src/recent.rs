//! What was read last, until it is written: clients ask again and again for the same, and a read of the database costs
//! more than all the rest of a call.
//!
//! Coherent, as there is one writer, which forgets what a transaction wrote before it commits; and what was read before
//! a commit is not kept after it. Other processes write accounts and what belongs to them, of which nothing is kept.

use std::any::Any;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashlink::LruCache;
use ids::MicrovmId;

use crate::tx::Written;
use crate::{Exposure, MicrovmRecord};

/// MicroVMs kept: some 5 MB, as their records usually are.
const MAX_MICROVMS: usize = 4096;
/// Looks kept: some 4 MB, where each is a page of a listing.
const MAX_LOOKS: usize = 256;

/// What was kept, or else the moment of a read whose result may be kept.
pub(crate) type Found<T> = Result<T, Moment>;

/// How many commits had been begun or ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Moment(u64);

#[derive(Debug)]
pub(crate) struct Recent(Mutex<Kept>);

#[derive(Debug)]
struct Kept {
    /// Commits begun and commits ended, so that it is odd while one is made.
    commits: u64,
    microvms: LruCache<MicrovmId, Arc<MicrovmRecord>>,
    looks: LruCache<String, Arc<dyn Any + Send + Sync>>,
    exposure: Option<Arc<Exposure>>,
}

impl Default for Recent {
    fn default() -> Self {
        let (microvms, looks) = (LruCache::new(MAX_MICROVMS), LruCache::new(MAX_LOOKS));
        Self(Mutex::new(Kept { commits: 0, microvms, looks, exposure: None }))
    }
}

impl Recent {
    pub(crate) fn microvm(&self, id: MicrovmId) -> Found<Arc<MicrovmRecord>> {
        let mut kept = self.lock();
        kept.microvms.get(&id).map(Arc::clone).ok_or(Moment(kept.commits))
    }

    pub(crate) fn exposure(&self) -> Found<Arc<Exposure>> {
        let kept = self.lock();
        kept.exposure.as_ref().map(Arc::clone).ok_or(Moment(kept.commits))
    }

    /// What was found for `key`; of another type than it was kept as, nothing.
    pub(crate) fn look<T: Send + Sync + 'static>(&self, key: &str) -> Found<Arc<T>> {
        let mut kept = self.lock();
        let found = kept.looks.get(key).and_then(|found| Arc::clone(found).downcast().ok());
        found.ok_or(Moment(kept.commits))
    }

    /// Keeps what was read since `moment`, unless a commit was under way or came between.
    pub(crate) fn keep_microvm(&self, moment: Moment, microvm: &Arc<MicrovmRecord>) {
        let mut kept = self.lock();
        if kept.still(moment) {
            kept.microvms.insert(microvm.id, Arc::clone(microvm));
        }
    }

    /// The same of the exposure.
    pub(crate) fn keep_exposure(&self, moment: Moment, exposure: &Arc<Exposure>) {
        let mut kept = self.lock();
        if kept.still(moment) {
            kept.exposure = Some(Arc::clone(exposure));
        }
    }

    /// The same of a look.
    pub(crate) fn keep_look(&self, moment: Moment, key: &str, found: Arc<dyn Any + Send + Sync>) {
        let mut kept = self.lock();
        if kept.still(moment) {
            kept.looks.insert(key.to_owned(), found);
        }
    }

    /// Forgets what a transaction wrote that is about to be committed, and whatever any look found.
    pub(crate) fn committing(&self, written: &Written) {
        let mut kept = self.lock();
        kept.commits += 1;
        kept.looks.clear();
        for id in &written.microvms {
            kept.microvms.remove(id);
        }
        if written.exposure {
            kept.exposure = None;
        }
    }

    /// Once it is committed, or has failed to be.
    pub(crate) fn committed(&self) {
        self.lock().commits += 1;
    }

    /// Whoever panicked left it whole.
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn still(&self, moment: Moment) -> bool {
        self.commits.is_multiple_of(2) && moment == Moment(self.commits)
    }
}

#[cfg(test)]
mod tests;
