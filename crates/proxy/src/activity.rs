//! What idleness is judged by: when the last byte passed, and how many requests are open.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Set in the counter once the life no longer takes requests.
const CLOSED: usize = 1 << (usize::BITS - 1);

/// Traffic of one life of a MicroVM. Bytes either way count; an open but silent stream does not.
#[derive(Debug)]
pub struct Activity {
    epoch: Instant,
    last_byte_nanos: AtomicU64,
    open: AtomicUsize,
}

impl Default for Activity {
    fn default() -> Self {
        Self::new()
    }
}

impl Activity {
    /// A life that begins now: it counts as active at its beginning.
    #[must_use]
    pub fn new() -> Self {
        Self { epoch: Instant::now(), last_byte_nanos: AtomicU64::new(0), open: AtomicUsize::new(0) }
    }

    /// Bytes passed just now.
    pub fn touch(&self) {
        let nanos = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.last_byte_nanos.fetch_max(nanos, Ordering::Relaxed);
    }

    /// When the last byte passed (monotonic time).
    #[must_use]
    pub fn last_byte(&self) -> Instant {
        self.epoch + Duration::from_nanos(self.last_byte_nanos.load(Ordering::Relaxed))
    }

    /// How long no byte has passed.
    #[must_use]
    pub fn idle_for(&self) -> Duration {
        self.last_byte().elapsed()
    }

    /// Requests that have begun and whose response has not ended.
    #[must_use]
    pub fn open_requests(&self) -> usize {
        self.open.load(Ordering::Acquire) & !CLOSED
    }

    /// Counts a request in until the guard is dropped; `None` if the life was closed.
    #[must_use]
    pub fn begin(self: &Arc<Self>) -> Option<OpenRequest> {
        let admit = |count: usize| (count & CLOSED == 0).then_some(count + 1);
        self.open.fetch_update(Ordering::AcqRel, Ordering::Acquire, admit).ok()?;
        self.touch();
        Some(OpenRequest(Arc::clone(self)))
    }

    /// Refuses further requests: they ask [`crate::Backend::wake`] again. The owner calls this before it
    /// suspends, so that no request slips into a life that is about to end. Those open go on.
    pub fn close(&self) {
        self.open.fetch_or(CLOSED, Ordering::AcqRel);
    }

    /// Takes requests again, for when the suspension did not happen.
    pub fn reopen(&self) {
        self.open.fetch_and(!CLOSED, Ordering::AcqRel);
    }
}

/// One open request; counted until dropped.
#[derive(Debug)]
pub struct OpenRequest(Arc<Activity>);

impl Drop for OpenRequest {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_open_requests_and_refuses_when_closed() {
        let activity = Arc::new(Activity::new());
        let first = activity.begin().unwrap();
        activity.close();
        assert!(activity.begin().is_none());
        assert_eq!(activity.open_requests(), 1);
        drop(first);
        assert_eq!(activity.open_requests(), 0);
        activity.reopen();
        assert!(activity.begin().is_some());
    }

    #[test]
    fn touching_moves_the_last_byte_forward() {
        let activity = Activity::new();
        let before = activity.last_byte();
        activity.touch();
        assert!(activity.last_byte() > before);
    }
}
