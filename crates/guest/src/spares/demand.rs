//! How many MicroVMs are launched, or woken, at once: so many spares wait for the next time.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Uses within so long of one another belong together: in less no spare is made in place of one that was taken.
const TOGETHER: Duration = Duration::from_secs(1);
/// For so long the most that came together is expected again.
const EXPECTED: Duration = Duration::from_secs(600);

/// The uses of one layer for one purpose.
#[derive(Debug)]
pub(super) struct Demand {
    /// The last uses, as far as they belong together and there can be spares for them.
    recent: VecDeque<Instant>,
    most: usize,
    most_at: Instant,
}

impl Demand {
    /// With its first use.
    pub(super) fn begin(now: Instant) -> Self {
        Self { recent: [now].into(), most: 1, most_at: now }
    }

    /// Another use; no more than `at_most` are counted as one burst.
    pub(super) fn note(&mut self, now: Instant, at_most: usize) {
        self.recent.push_back(now);
        while self.recent.len() > at_most.max(1)
            || self.recent.front().is_some_and(|first| now.duration_since(*first) > TOGETHER)
        {
            self.recent.pop_front();
        }
        if self.recent.len() >= self.wanted(now) {
            (self.most, self.most_at) = (self.recent.len(), now);
        }
    }

    /// Spares that the next time would use.
    pub(super) fn wanted(&self, now: Instant) -> usize {
        if now.duration_since(self.most_at) <= EXPECTED { self.most } else { 1 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_MOST: usize = 64;
    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn as_many_are_wanted_as_came_together() {
        let began = Instant::now();
        let mut demand = Demand::begin(began);
        assert_eq!(demand.wanted(began), 1);
        (1..20).for_each(|at| demand.note(began + MILLISECOND * at, AT_MOST));
        assert_eq!(demand.wanted(began + MILLISECOND * 20), 20);
        // Fewer, or one after the other, do not count against them.
        (10..20).for_each(|seconds| demand.note(began + Duration::from_secs(seconds * 2), AT_MOST));
        assert_eq!(demand.wanted(began + Duration::from_secs(60)), 20);
    }

    /// Such as one after the other, each once the last has answered: most find a spare that was made meanwhile.
    #[test]
    fn a_steady_stream_is_no_burst() {
        let began = Instant::now();
        let mut demand = Demand::begin(began);
        (1..100).for_each(|at| demand.note(began + Duration::from_millis(400) * at, AT_MOST));
        assert_eq!(demand.wanted(began + Duration::from_secs(40)), 3);
    }

    #[test]
    fn no_more_are_counted_than_can_wait() {
        let now = Instant::now();
        let mut demand = Demand::begin(now);
        (0..10 * AT_MOST).for_each(|_| demand.note(now, AT_MOST));
        assert_eq!((demand.wanted(now), demand.recent.len()), (AT_MOST, AT_MOST));
    }

    #[test]
    fn what_has_not_come_again_for_long_is_not_expected() {
        let began = Instant::now();
        let mut demand = Demand::begin(began);
        (1..20).for_each(|at| demand.note(began + MILLISECOND * at, AT_MOST));
        let later = began + EXPECTED + Duration::from_secs(1);
        assert_eq!(demand.wanted(later), 1);
        demand.note(later, AT_MOST);
        demand.note(later + MILLISECOND, AT_MOST);
        assert_eq!(demand.wanted(later + MILLISECOND), 2);
        assert_eq!(demand.wanted(later + EXPECTED / 2), 2);
    }
}
