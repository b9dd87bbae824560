//! Where the time of a launch, a wake, a suspension or a termination goes: when each of its steps was reached.
//!
//! [`Timeline`] is noted into while the work is done, by whoever does a step of it: it is the running task's own
//! ([`Timeline::scope`]), so that nothing has to be handed through. A note costs less than a microsecond. [`Record`] is
//! what is kept of it, by [`file`](mod@file) with the MicroVM, and printed or exported.

pub mod file;
mod record;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

pub use record::{Kind, Reached, Record, Step};

/// The header in which a client says which trace its request belongs to (W3C Trace Context).
pub const TRACE_PARENT: &str = "traceparent";

/// Most steps noted: a MicroVM's life has fewer.
const MAX_STEPS: usize = 32;
/// The longest [`TRACE_PARENT`] that is noted; today's have 55 bytes.
const MAX_PARENT: usize = 128;

tokio::task_local! {
    static CURRENT: Timeline;
}

/// The steps of one piece of work, each noted when it is done; clones share them.
#[derive(Debug, Clone)]
pub struct Timeline(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    wall: SystemTime,
    began: Instant,
    parent: Option<String>,
    reached: Mutex<Vec<Reached>>,
}

impl Timeline {
    /// Work that begins now.
    #[must_use]
    pub fn begin() -> Self {
        Self::begin_for(None)
    }

    /// Work that begins now, for a request with this [`TRACE_PARENT`].
    #[must_use]
    pub fn begin_for(parent: Option<&str>) -> Self {
        let (wall, began) = (SystemTime::now(), Instant::now());
        let parent = parent.filter(|parent| parent.len() <= MAX_PARENT).map(str::to_owned);
        Self(Arc::new(Inner { wall, began, parent, reached: Mutex::default() }))
    }

    /// The running task's.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }

    /// Does work whose steps are noted here.
    pub async fn scope<F: Future>(self, work: F) -> F::Output {
        CURRENT.scope(self, work).await
    }

    /// A step is done.
    pub fn reached(&self, step: Step) {
        self.reached_at(step, Instant::now());
    }

    /// A step was done then; one before the last that was noted counts as done with that one.
    pub fn reached_at(&self, step: Step, at: Instant) {
        let micros = at.saturating_duration_since(self.0.began).as_micros();
        let micros = u64::try_from(micros).unwrap_or(u64::MAX);
        // The list is whole between any two of its changes.
        let mut reached = self.0.reached.lock().unwrap_or_else(PoisonError::into_inner);
        if reached.len() < MAX_STEPS {
            let micros = reached.last().map_or(micros, |last| last.micros.max(micros));
            reached.push(Reached { step, micros });
        }
    }

    /// What has been noted so far; `failed`: why, where it came to nothing.
    #[must_use]
    pub fn record(&self, kind: Kind, failed: Option<String>) -> Record {
        let since = self.0.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let steps = self.0.reached.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let began_micros = u64::try_from(since.as_micros()).unwrap_or(u64::MAX);
        Record { kind, began_micros, parent: self.0.parent.clone(), failed, steps }
    }
}

/// A step of the running task's work is done; nothing where nobody asked for its timeline.
pub fn reached(step: Step) {
    let _ = CURRENT.try_with(|timeline| timeline.reached(step));
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn steps_are_noted_where_they_are_done() {
        reached(Step::Slot);
        let timeline = Timeline::begin();
        let deep = async {
            reached(Step::Slot);
            tokio::task::yield_now().await;
            reached(Step::Vmm);
        };
        timeline.clone().scope(deep).await;
        let record = timeline.record(Kind::Launch, None);
        let steps: Vec<Step> = record.steps.iter().map(|reached| reached.step).collect();
        assert_eq!(steps, [Step::Slot, Step::Vmm]);
    }

    #[test]
    fn whose_trace_it_belongs_to_is_noted_if_it_is_short() {
        let parent = |text: &str| Timeline::begin_for(Some(text)).record(Kind::Wake, None).parent;
        assert_eq!(parent("00-1").as_deref(), Some("00-1"));
        assert_eq!(parent(&"0".repeat(MAX_PARENT + 1)), None);
        assert_eq!(Timeline::begin().record(Kind::Wake, None).parent, None);
    }

    #[test]
    fn time_never_runs_backwards_and_steps_are_bounded() {
        let timeline = Timeline::begin();
        let later = Instant::now() + Duration::from_secs(1);
        timeline.reached_at(Step::Agent, later);
        timeline.reached_at(Step::Request, later.checked_sub(Duration::from_millis(500)).unwrap());
        for _ in 0..MAX_STEPS {
            timeline.reached(Step::Answer);
        }
        let steps = timeline.record(Kind::Wake, None).steps;
        assert_eq!(steps.len(), MAX_STEPS);
        assert!(steps.is_sorted_by_key(|reached| reached.micros) && steps[0].micros == steps[1].micros);
    }
}
