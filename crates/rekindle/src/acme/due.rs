//! When a certificate is to be had issued. Pure.

use std::time::{Duration, SystemTime};

/// Until the second attempt; each further one waits twice as long. Authorities refuse more than five failures an hour.
const FIRST_WAIT: Duration = Duration::from_secs(5 * 60);
const LONGEST_WAIT: Duration = Duration::from_secs(12 * 3600);

/// From when until when a certificate is valid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Validity {
    pub(crate) from: SystemTime,
    pub(crate) until: SystemTime,
}

impl Validity {
    /// After two thirds of its life, which leaves authorities a third to be out of order.
    fn renew_at(self) -> SystemTime {
        self.from + self.until.duration_since(self.from).unwrap_or_default() * 2 / 3
    }
}

/// Attempts that failed, one after the other.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Attempts {
    failures: u32,
    next: Option<SystemTime>,
}

impl Attempts {
    /// One more failed; how long to wait.
    pub(crate) fn failed(&mut self, now: SystemTime) -> Duration {
        let wait = FIRST_WAIT.saturating_mul(1 << self.failures.min(10)).min(LONGEST_WAIT);
        self.failures += 1;
        self.next = Some(now + wait);
        wait
    }
}

/// Whether to try now. `validity`: of the certificate that there is.
pub(crate) fn is_due(validity: Option<Validity>, attempts: Option<&Attempts>, now: SystemTime) -> bool {
    let wanted = validity.is_none_or(|validity| now >= validity.renew_at());
    let rested = attempts.and_then(|attempts| attempts.next).is_none_or(|next| now >= next);
    wanted && rested
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(24 * 3600);

    #[test]
    fn a_certificate_is_renewed_after_two_thirds_of_its_life() {
        let from = SystemTime::now();
        let validity = Some(Validity { from, until: from + 90 * DAY });
        assert!(is_due(None, None, from));
        assert!(!is_due(validity, None, from + 59 * DAY) && is_due(validity, None, from + 60 * DAY));
        assert!(is_due(validity, None, from + 100 * DAY));
    }

    #[test]
    fn each_failure_is_waited_for_twice_as_long_up_to_half_a_day() {
        let (mut attempts, now) = (Attempts::default(), SystemTime::now());
        let waits: Vec<u64> = (0..12).map(|_| attempts.failed(now).as_secs() / 60).collect();
        assert_eq!(waits, [5, 10, 20, 40, 80, 160, 320, 640, 720, 720, 720, 720]);
        assert!(
            !is_due(None, Some(&attempts), now + DAY / 4) && is_due(None, Some(&attempts), now + DAY / 2)
        );
    }
}
