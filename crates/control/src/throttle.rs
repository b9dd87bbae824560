//! How often an account may call an operation (SPEC §9): a bucket of tokens for each, filled at a rate.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use api::{Error, ErrorKind, Operation};
use ids::AccountId;

/// Buckets kept at most; beyond it, full ones are forgotten, which changes nothing for their owners.
const MAX_BUCKETS: usize = 10_000;

/// A rate of calls.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Calls per second.
    pub per_second: f64,
    /// Calls at once after a rest.
    pub burst: f64,
    /// AWS's code of the quota, where it has one.
    pub quota_code: &'static str,
}

/// The operations that have a rate, and which.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Rates(BTreeMap<&'static str, Rate>);

/// AWS's own: operation, calls per second, calls at once, quota code.
const AWS: [(Operation, f64, f64, &str); 7] = [
    (Operation::RunMicrovm, 5.0, 5.0, "L-535CA9B6"),
    (Operation::ResumeMicrovm, 5.0, 5.0, "L-118C44B3"),
    (Operation::SuspendMicrovm, 2.0, 2.0, "L-90045317"),
    (Operation::TerminateMicrovm, 10.0, 10.0, "L-74787B8A"),
    (Operation::GetMicrovm, 100.0, 100.0, ""),
    (Operation::CreateMicrovmAuthToken, 50.0, 50.0, "L-7712260B"),
    (Operation::CreateMicrovmShellAuthToken, 5.0, 5.0, ""),
];
/// Calls at once, in multiples of AWS's: twenty launches at once were never throttled there (SPEC §9).
const BURST: f64 = 10.0;

impl Rates {
    /// No operation has one.
    #[must_use]
    pub fn unlimited() -> Self {
        Self::default()
    }

    /// AWS's rates for each of the host's processors, with room for bursts.
    #[must_use]
    pub fn of_host(processors: usize) -> Self {
        // Exact: a host has fewer than 2^52 processors.
        #[allow(clippy::cast_precision_loss)]
        let scale = processors.max(1) as f64;
        let scaled = AWS.map(|(operation, per_second, burst, quota_code)| {
            let rate = Rate { per_second: per_second * scale, burst: burst * scale * BURST, quota_code };
            (operation.name(), rate)
        });
        Self(scaled.into())
    }

    /// The same with another rate for one operation.
    #[must_use]
    pub fn with(mut self, operation: Operation, per_second: f64, burst: f64) -> Self {
        let quota_code = AWS.iter().find(|(of, ..)| *of == operation).map_or("", |(.., code)| code);
        self.0.insert(operation.name(), Rate { per_second, burst, quota_code });
        self
    }
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    filled_at: Instant,
}

/// The buckets of every account.
#[derive(Debug)]
pub struct Throttle {
    rates: Rates,
    buckets: Mutex<HashMap<(AccountId, Operation), Bucket>>,
}

impl Throttle {
    /// Full buckets.
    #[must_use]
    pub fn new(rates: Rates) -> Self {
        Self { rates, buckets: Mutex::default() }
    }

    /// Takes a token for a call at `now`.
    ///
    /// # Errors
    /// A ThrottlingException that says when to come again.
    pub fn admit(&self, account: &AccountId, operation: Operation, now: Instant) -> Result<(), Error> {
        let Some(rate) = self.rates.0.get(operation.name()) else { return Ok(()) };
        // Whoever panicked left whole buckets.
        let mut buckets = self.buckets.lock().unwrap_or_else(PoisonError::into_inner);
        if buckets.len() >= MAX_BUCKETS {
            buckets.retain(|(_, of), bucket| {
                self.rates.0.get(of.name()).is_some_and(|rate| bucket.at(now, *rate).tokens < rate.burst)
            });
        }
        let full = Bucket { tokens: rate.burst, filled_at: now };
        let bucket = buckets.entry((account.clone(), operation)).or_insert(full);
        *bucket = bucket.at(now, *rate);
        if bucket.tokens < 1.0 {
            return Err(refused(operation, *rate, bucket.tokens));
        }
        bucket.tokens -= 1.0;
        Ok(())
    }
}

impl Bucket {
    fn at(self, now: Instant, rate: Rate) -> Self {
        let rested = now.saturating_duration_since(self.filled_at).as_secs_f64();
        Self { tokens: (self.tokens + rested * rate.per_second).min(rate.burst), filled_at: now }
    }
}

fn refused(operation: Operation, rate: Rate, tokens: f64) -> Error {
    let mut error = Error::new(
        ErrorKind::Throttling,
        format!("Rate exceeded: {} may be called {} times a second", operation.name(), rate.per_second),
    );
    error.details.service_code = Some("lambda".into());
    error.details.quota_code = Some(rate.quota_code.to_owned()).filter(|code| !code.is_empty());
    // A float-to-integer `as` saturates, and the wait is a few seconds.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let wait = ((1.0 - tokens) / rate.per_second).ceil().max(1.0) as u32;
    error.retry_after_seconds = Some(wait);
    error
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    const RUN: Operation = Operation::RunMicrovm;

    fn account() -> AccountId {
        "123456789012".parse().unwrap()
    }

    #[test]
    fn a_burst_is_let_in_and_then_the_rate() {
        let throttle = Throttle::new(Rates::unlimited().with(RUN, 2.0, 3.0));
        let start = Instant::now();
        let admit = |after: u64| throttle.admit(&account(), RUN, start + Duration::from_millis(after));
        assert!((0..3).all(|_| admit(0).is_ok()));
        let refused = admit(0).unwrap_err();
        assert_eq!((refused.kind, refused.retry_after_seconds), (ErrorKind::Throttling, Some(1)));
        assert_eq!(refused.details.quota_code.as_deref(), Some("L-535CA9B6"));
        assert!(admit(499).is_err() && admit(500).is_ok() && admit(501).is_err());
        assert!((0..3).all(|_| admit(60_000).is_ok()) && admit(60_000).is_err());
    }

    #[test]
    fn accounts_and_operations_do_not_share_a_bucket() {
        let throttle = Throttle::new(Rates::unlimited().with(RUN, 1.0, 1.0));
        let now = Instant::now();
        assert!(throttle.admit(&account(), RUN, now).is_ok());
        assert!(throttle.admit(&account(), RUN, now).is_err());
        assert!(throttle.admit(&"210987654321".parse().unwrap(), RUN, now).is_ok());
        assert!((0..1000).all(|_| throttle.admit(&account(), Operation::ListMicrovms, now).is_ok()));
    }

    proptest! {
        #[test]
        fn no_more_than_burst_and_rate_are_let_in(calls in prop::collection::vec(0u64..300, 1..200)) {
            let throttle = Throttle::new(Rates::unlimited().with(RUN, 5.0, 4.0));
            let start = Instant::now();
            let (mut at, mut admitted) = (0, 0);
            for pause in calls {
                at += pause;
                admitted += u64::from(throttle.admit(&account(), RUN, start + Duration::from_millis(at)).is_ok());
                prop_assert!(admitted <= 4 + at * 5 / 1000 + 1);
            }
        }
    }
}
