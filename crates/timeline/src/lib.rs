//! Where the time of a launch, a wake or a suspension goes: when each of its steps was reached.
//!
//! [`Timeline`] is noted into while the work is done, by whoever does a step of it: it is the running task's own
//! ([`Timeline::scope`]), so that nothing has to be handed through. A note costs less than a microsecond. [`Record`] is
//! what is kept of it, by [`file`](mod@file) with the MicroVM, and printed.

pub mod file;
mod record;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Instant, SystemTime};

pub use record::{Kind, Reached, Record, Step};

/// Most steps noted: a MicroVM's life has fewer.
const MAX_STEPS: usize = 32;

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
    reached: Mutex<Vec<Reached>>,
}

impl Timeline {
    /// Work that begins now.
    #[must_use]
    pub fn begin() -> Self {
        let (wall, began) = (SystemTime::now(), Instant::now());
        Self(Arc::new(Inner { wall, began, reached: Mutex::default() }))
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

    /// What has been noted so far.
    #[must_use]
    pub fn record(&self, kind: Kind) -> Record {
        let since = self.0.wall.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let steps = self.0.reached.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Record { kind, began_micros: u64::try_from(since.as_micros()).unwrap_or(u64::MAX), steps }
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
        let record = timeline.record(Kind::Launch);
        let steps: Vec<Step> = record.steps.iter().map(|reached| reached.step).collect();
        assert_eq!(steps, [Step::Slot, Step::Vmm]);
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
        let steps = timeline.record(Kind::Wake).steps;
        assert_eq!(steps.len(), MAX_STEPS);
        assert!(steps.is_sorted_by_key(|reached| reached.micros) && steps[0].micros == steps[1].micros);
    }
}
