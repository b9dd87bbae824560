//! Which spares there are and are wanted, and which of them goes first.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::Hash;

use tokio::time::Instant;

use super::demand::Demand;

/// Spares `S`, each for a use `U`.
#[derive(Debug)]
pub(super) struct Shelf<U, S> {
    /// Spares of all uses together.
    at_most: usize,
    /// The longest kept first.
    ready: VecDeque<(U, S)>,
    /// Of what one is on its way.
    coming: HashSet<U>,
    demand: HashMap<U, Demand>,
}

impl<U, S> Shelf<U, S> {
    pub(super) fn of(at_most: usize) -> Self {
        Self { at_most, ready: VecDeque::new(), coming: HashSet::new(), demand: HashMap::new() }
    }
}

impl<U: Clone + Eq + Hash, S> Shelf<U, S> {
    /// Takes the longest kept for a use that begins `now`, and counts the use.
    pub(super) fn take(&mut self, of: &U, now: Instant) -> Option<S> {
        let demand = self.demand.entry(of.clone());
        demand.and_modify(|demand| demand.note(now, self.at_most)).or_insert_with(|| Demand::begin(now));
        let at = self.ready.iter().position(|(its, _)| its == of)?;
        self.remove(at)
    }

    /// Whether another is wanted and none is coming; then one is. Only the first of a use may displace others.
    pub(super) fn claim(&mut self, of: &U, now: Instant) -> bool {
        let count = self.count(of);
        let has_place = count == 0 && self.at_most > 0 || self.ready.len() < self.at_most;
        has_place && count < self.wanted(of, now) && self.coming.insert(of.clone())
    }

    /// Whether the claimed one is still wanted, which then is on the shelf; and the one that has to go.
    pub(super) fn put(&mut self, of: U, spare: S) -> (bool, Option<S>) {
        if !self.coming.remove(&of) {
            return (false, Some(spare));
        }
        self.ready.push_back((of, spare));
        (true, if self.ready.len() > self.at_most { self.least_missed() } else { None })
    }

    /// The claimed one will not come.
    pub(super) fn give_up(&mut self, of: &U) {
        self.coming.remove(of);
    }

    /// Whether there are any that cannot be dropped yet.
    pub(super) fn are_coming(&self) -> bool {
        !self.coming.is_empty()
    }

    /// Takes out one that nothing is expected to use; or, of a `crowded` host, any.
    pub(super) fn superfluous(&mut self, crowded: bool, now: Instant) -> Option<S> {
        let at = self.ready.iter().position(|(of, _)| self.count(of) > self.wanted(of, now));
        match at {
            Some(at) => self.remove(at),
            None if crowded => self.least_missed(),
            None => None,
        }
    }

    /// Forgets the uses that are `gone`, and takes out what was ready for them. What is coming for them finds no place.
    pub(super) fn drop_all(&mut self, gone: impl Fn(&U) -> bool) -> Vec<S> {
        self.coming.retain(|of| !gone(of));
        self.demand.retain(|of, _| !gone(of));
        let (dropped, kept) = std::mem::take(&mut self.ready).into_iter().partition(|(of, _)| gone(of));
        self.ready = kept;
        VecDeque::into_iter(dropped).map(|(_, spare)| spare).collect()
    }

    fn count(&self, of: &U) -> usize {
        self.ready.iter().filter(|(its, _)| its == of).count()
    }

    fn wanted(&self, of: &U, now: Instant) -> usize {
        self.demand.get(of).map_or(1, |demand| demand.wanted(now))
    }

    /// Takes out the longest kept of what there is most of.
    fn least_missed(&mut self) -> Option<S> {
        let most = self.ready.iter().map(|(of, _)| self.count(of)).max()?;
        let at = self.ready.iter().position(|(of, _)| self.count(of) == most)?;
        self.remove(at)
    }

    fn remove(&mut self, at: usize) -> Option<S> {
        self.ready.remove(at).map(|(_, spare)| spare)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const AT_MOST: usize = 64;

    type Numbered = Shelf<&'static str, usize>;

    /// Uses so many at one moment.
    fn burst(shelf: &mut Numbered, of: &'static str, uses: usize, now: Instant) {
        for _ in 0..uses {
            shelf.take(&of, now);
        }
    }

    /// Claims and puts as many as are wanted, numbered from `first` on; those that had to go.
    fn fill(shelf: &mut Numbered, of: &'static str, first: usize, now: Instant) -> Vec<usize> {
        let mut gone = Vec::new();
        for number in first.. {
            if !shelf.claim(&of, now) {
                break;
            }
            let (is_wanted, old) = shelf.put(of, number);
            assert!(is_wanted);
            gone.extend(old);
        }
        gone
    }

    #[test]
    fn one_waits_of_a_use_and_as_many_as_came_together_after_a_burst() {
        let (mut shelf, now) = (Numbered::of(AT_MOST), Instant::now());
        fill(&mut shelf, "a", 0, now);
        assert_eq!(shelf.count(&"a"), 1);
        burst(&mut shelf, "a", 5, now);
        fill(&mut shelf, "a", 10, now);
        assert_eq!(shelf.count(&"a"), 5);
        assert_eq!(shelf.take(&"a", now), Some(10), "the longest kept");
        assert_eq!(shelf.take(&"b", now), None);
    }

    #[test]
    fn one_is_on_its_way_at_a_time() {
        let (mut shelf, now) = (Numbered::of(AT_MOST), Instant::now());
        burst(&mut shelf, "a", 5, now);
        assert!(shelf.claim(&"a", now) && shelf.are_coming());
        assert!(!shelf.claim(&"a", now));
        assert!(shelf.claim(&"b", now), "of each use");
        shelf.give_up(&"a");
        shelf.give_up(&"b");
        assert!(!shelf.are_coming() && shelf.claim(&"a", now));
    }

    #[test]
    fn where_there_may_be_none_there_is_none() {
        let (mut shelf, now) = (Numbered::of(0), Instant::now());
        burst(&mut shelf, "a", 5, now);
        assert!(!shelf.claim(&"a", now) && !shelf.are_coming());
    }

    #[test]
    fn no_burst_takes_more_than_there_may_be_but_each_use_may_have_one() {
        let (mut shelf, now) = (Numbered::of(AT_MOST), Instant::now());
        fill(&mut shelf, "b", 1000, now);
        burst(&mut shelf, "a", 100, now);
        assert_eq!(fill(&mut shelf, "a", 0, now), [] as [usize; 0]);
        assert_eq!((shelf.count(&"a"), shelf.count(&"b")), (AT_MOST - 1, 1));
        burst(&mut shelf, "b", 10, now);
        fill(&mut shelf, "b", 2000, now);
        assert_eq!(shelf.count(&"b"), 1, "a second one displaces none: one was used, and one has its place");
        assert_eq!(fill(&mut shelf, "c", 3000, now), [0], "the longest kept of what there is most of goes");
        assert_eq!((shelf.count(&"a"), shelf.count(&"b"), shelf.count(&"c")), (AT_MOST - 2, 1, 1));
    }

    #[test]
    fn the_surplus_goes_when_the_burst_is_long_over_and_everything_from_a_crowded_host() {
        let (mut shelf, now) = (Numbered::of(AT_MOST), Instant::now());
        burst(&mut shelf, "a", 3, now);
        fill(&mut shelf, "a", 0, now);
        fill(&mut shelf, "b", 10, now);
        assert_eq!(shelf.superfluous(false, now), None);
        let later = now + Duration::from_secs(3600);
        assert_eq!(shelf.superfluous(false, later), Some(0));
        assert_eq!(shelf.superfluous(false, later), Some(1));
        assert_eq!(shelf.superfluous(false, later), None);
        assert_eq!(shelf.superfluous(true, later), Some(2));
        assert_eq!(shelf.superfluous(true, later), Some(10));
        assert_eq!(shelf.superfluous(true, later), None);
    }

    #[test]
    fn what_is_dropped_has_no_place_for_what_was_coming() {
        let (mut shelf, now) = (Numbered::of(AT_MOST), Instant::now());
        fill(&mut shelf, "a", 0, now);
        fill(&mut shelf, "b", 10, now);
        burst(&mut shelf, "a", 4, now);
        assert!(shelf.claim(&"a", now));
        assert_eq!(shelf.drop_all(|of| *of == "a"), [] as [usize; 0], "it was used");
        assert_eq!(shelf.put("a", 1), (false, Some(1)));
        assert_eq!(fill(&mut shelf, "a", 2, now), [] as [usize; 0]);
        assert_eq!((shelf.count(&"a"), shelf.count(&"b")), (1, 1), "its bursts are forgotten too");
        assert_eq!(shelf.drop_all(|_| true), [10, 2]);
    }
}
