//! How many MicroVMs are launched, or woken, at once: so many spares wait for the next time.

use std::time::Duration;

use tokio::time::Instant;

/// Uses no further apart belong together.
const TOGETHER: Duration = Duration::from_secs(1);
/// For so long the most that came together is expected again.
const EXPECTED: Duration = Duration::from_secs(600);

/// The uses of one layer for one purpose.
#[derive(Debug)]
pub(super) struct Demand {
    last: Instant,
    together: usize,
    most: usize,
    most_at: Instant,
}

impl Demand {
    /// With its first use.
    pub(super) fn begin(now: Instant) -> Self {
        Self { last: now, together: 1, most: 1, most_at: now }
    }

    /// Another use.
    pub(super) fn note(&mut self, now: Instant) {
        let goes_on = now.duration_since(self.last) <= TOGETHER;
        self.together = if goes_on { self.together + 1 } else { 1 };
        self.last = now;
        if self.together >= self.wanted(now) {
            (self.most, self.most_at) = (self.together, now);
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

    const MILLISECOND: Duration = Duration::from_millis(1);

    #[test]
    fn as_many_are_wanted_as_came_together() {
        let began = Instant::now();
        let mut demand = Demand::begin(began);
        assert_eq!(demand.wanted(began), 1);
        (1..20).for_each(|at| demand.note(began + MILLISECOND * at));
        assert_eq!(demand.wanted(began + MILLISECOND * 20), 20);
        // Fewer, or one after the other, do not count against them.
        (10..20).for_each(|seconds| demand.note(began + Duration::from_secs(seconds * 2)));
        assert_eq!(demand.wanted(began + Duration::from_secs(60)), 20);
    }

    #[test]
    fn what_has_not_come_again_for_long_is_not_expected() {
        let began = Instant::now();
        let mut demand = Demand::begin(began);
        (1..20).for_each(|at| demand.note(began + MILLISECOND * at));
        let later = began + EXPECTED + Duration::from_secs(1);
        assert_eq!(demand.wanted(later), 1);
        demand.note(later);
        demand.note(later + MILLISECOND);
        assert_eq!(demand.wanted(later + MILLISECOND), 2);
        assert_eq!(demand.wanted(later + EXPECTED / 2), 2);
    }
}
