//! Samples, and what is told of them.

use std::time::Duration;

/// What was measured for one figure, in ascending order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Samples<T = Duration>(Vec<T>);

impl<T: Ord + Copy> Samples<T> {
    pub(crate) fn push(&mut self, sample: T) {
        let at = self.0.partition_point(|earlier| *earlier <= sample);
        self.0.insert(at, sample);
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    #[cfg(test)]
    pub(crate) fn min(&self) -> Option<T> {
        self.0.first().copied()
    }

    /// The smallest sample that so many hundredths of them do not exceed.
    pub(crate) fn percentile(&self, percent: usize) -> Option<T> {
        let rank = (self.0.len() * percent).div_ceil(100);
        rank.checked_sub(1).map(|at| self.0[at])
    }
}

impl Samples<Duration> {
    /// The mean of the middle two where their number is even.
    pub(crate) fn median(&self) -> Option<Duration> {
        let middle = self.0.len() / 2;
        if self.0.len().is_multiple_of(2) {
            let lower = middle.checked_sub(1)?;
            Some((self.0[lower] + self.0[middle]) / 2)
        } else {
            Some(self.0[middle])
        }
    }
}

impl<T: Ord + Copy> Extend<T> for Samples<T> {
    fn extend<I: IntoIterator<Item = T>>(&mut self, samples: I) {
        samples.into_iter().for_each(|sample| self.push(sample));
    }
}

impl<T: Ord> FromIterator<T> for Samples<T> {
    fn from_iter<I: IntoIterator<Item = T>>(samples: I) -> Self {
        let mut all = Self(samples.into_iter().collect());
        all.0.sort_unstable();
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn millis(values: impl IntoIterator<Item = u64>) -> Samples {
        values.into_iter().map(Duration::from_millis).collect()
    }

    #[test]
    fn an_odd_and_an_even_number_of_samples_have_their_median() {
        assert_eq!(millis([9, 1, 5]).median(), Some(Duration::from_millis(5)));
        assert_eq!(millis([8, 2, 4, 6]).median(), Some(Duration::from_millis(5)));
        assert_eq!(millis([]).median(), None);
    }

    #[test]
    fn nine_tenths_do_not_exceed_p90() {
        assert_eq!(millis(1..=10).percentile(90), Some(Duration::from_millis(9)));
        assert_eq!(millis(1..=20).percentile(90), Some(Duration::from_millis(18)));
        assert_eq!(millis(1..=200).percentile(99), Some(Duration::from_millis(198)));
        assert_eq!(millis([7]).percentile(90), Some(Duration::from_millis(7)));
        assert_eq!(millis([]).percentile(90), None);
    }

    #[test]
    fn a_pushed_sample_finds_its_place() {
        let mut samples = Samples::default();
        for value in [5, 1, 3] {
            samples.push(Duration::from_millis(value));
        }
        assert_eq!(
            (samples.min(), samples.median(), samples.len()),
            (Some(Duration::from_millis(1)), Some(Duration::from_millis(3)), 3)
        );
    }
}
