//! How much of its endpoint one MicroVM may have: requests in a second, requests at once, bytes in a second (SPEC §5.6).

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::time::Sleep;

/// What may be spent ahead: so much of a second's requests come at once after a rest.
const REQUEST_BURST: Duration = Duration::from_secs(1);
/// The same for bytes: a small answer never waits, and a large one begins at once.
const BYTE_BURST: Duration = Duration::from_millis(250);

/// The limits of one MicroVM; `None` is no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Allowance {
    /// Requests and handshakes begun; more are answered 429.
    pub requests_per_second: Option<f64>,
    /// Requests and streams open at once; more are answered 429.
    pub open_requests: Option<usize>,
    /// Bytes to and from the application together; more wait.
    pub bytes_per_second: Option<f64>,
}

impl Allowance {
    /// So many times as much.
    #[must_use]
    pub fn times(self, times: u32) -> Self {
        let much = |rate: f64| rate * f64::from(times);
        Self {
            requests_per_second: self.requests_per_second.map(much),
            open_requests: self.open_requests.map(|most| most.saturating_mul(times as usize)),
            bytes_per_second: self.bytes_per_second.map(much),
        }
    }
}

/// What is left of one MicroVM's allowance.
#[derive(Debug, Default)]
pub(crate) struct Account {
    open_requests: Option<usize>,
    requests: Option<Meter>,
    bytes: Option<Arc<Meter>>,
}

impl Account {
    pub(crate) fn of(allowance: Allowance) -> Self {
        Self {
            open_requests: allowance.open_requests,
            requests: allowance.requests_per_second.map(|rate| Meter::new(rate, REQUEST_BURST)),
            bytes: allowance.bytes_per_second.map(|rate| Arc::new(Meter::new(rate, BYTE_BURST))),
        }
    }

    /// Whether one more request may begin, `open` being the requests that are open with it. It is spent then.
    pub(crate) fn admit(&self, open: usize, now: Instant) -> bool {
        self.open_requests.is_none_or(|most| open <= most)
            && self.requests.as_ref().is_none_or(|requests| requests.try_spend(1.0, now))
    }

    /// For one connection, whose bytes are to be spent.
    pub(crate) fn pace(&self) -> Option<Pace> {
        self.bytes.clone().map(|bytes| Pace { bytes, waiting: None })
    }
}

/// A rate at which something may be spent. What is spent beyond it is a debt, paid off with time.
#[derive(Debug)]
struct Meter {
    per_second: f64,
    burst: Duration,
    /// When all that was spent is paid.
    paid_at: Mutex<Option<Instant>>,
}

impl Meter {
    fn new(per_second: f64, burst: Duration) -> Self {
        Self { per_second, burst, paid_at: Mutex::default() }
    }

    fn try_spend(&self, amount: f64, now: Instant) -> bool {
        let free = self.owed(now).is_zero();
        if free {
            self.spend(amount, now);
        }
        free
    }

    fn spend(&self, amount: f64, now: Instant) {
        // A rate of next to nothing is a debt of centuries, not a panic.
        let takes = Duration::try_from_secs_f64(amount / self.per_second).unwrap_or(Duration::MAX);
        let mut paid_at = self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        let from = paid_at.map_or(now, |paid_at| paid_at.max(now));
        *paid_at = Some(from.checked_add(takes).unwrap_or(from));
    }

    /// How long until something may be spent again.
    fn owed(&self, now: Instant) -> Duration {
        let paid_at = *self.paid_at.lock().unwrap_or_else(PoisonError::into_inner);
        paid_at.map_or(Duration::ZERO, |paid_at| paid_at.saturating_duration_since(now + self.burst))
    }
}

/// Holds one connection back while its MicroVM's bytes are in debt: the peer's window fills, and it waits.
#[derive(Debug)]
pub(crate) struct Pace {
    bytes: Arc<Meter>,
    waiting: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// Ready once bytes may pass.
    pub(crate) fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if let Some(waiting) = &mut self.waiting {
                ready!(waiting.as_mut().poll(cx));
                self.waiting = None;
            }
            match self.bytes.owed(Instant::now()) {
                Duration::ZERO => return Poll::Ready(()),
                owed => self.waiting = Some(Box::pin(tokio::time::sleep(owed))),
            }
        }
    }

    /// Bytes have passed.
    pub(crate) fn spend(&self, bytes: usize) {
        // Exact: no buffer has 2^52 bytes.
        #[allow(clippy::cast_precision_loss)]
        self.bytes.spend(bytes as f64, Instant::now());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn without_limits_everything_is_let_in() {
        let account = Account::of(Allowance::default());
        let now = Instant::now();
        assert!((1..10_000).all(|open| account.admit(open, now)));
        assert!(account.pace().is_none());
    }

    #[test]
    fn more_requests_at_once_than_allowed_are_refused_and_cost_nothing() {
        let limits =
            Allowance { open_requests: Some(2), requests_per_second: Some(1.0), bytes_per_second: None };
        let account = Account::of(limits);
        let now = Instant::now();
        assert!(!account.admit(3, now));
        assert!(account.admit(2, now));
    }

    #[test]
    fn a_debt_is_paid_off_with_time() {
        let meter = Meter::new(1000.0, BYTE_BURST);
        let now = Instant::now();
        meter.spend(1250.0, now);
        assert_eq!(meter.owed(now), Duration::from_secs(1));
        assert_eq!(meter.owed(now + Duration::from_secs(1)), Duration::ZERO);
        meter.spend(1.0, now + Duration::from_secs(10));
        assert_eq!(meter.owed(now + Duration::from_secs(10)), Duration::ZERO);
    }

    proptest! {
        #[test]
        fn over_any_time_no_more_is_let_in_than_the_rate_and_the_burst(
            gaps in proptest::collection::vec(0u64..400, 1..200), rate in 1.0f64..100.0,
        ) {
            let account = Account::of(Allowance { requests_per_second: Some(rate), ..Allowance::default() });
            let start = Instant::now();
            let (mut now, mut admitted) = (start, 0u32);
            for gap in gaps {
                now += Duration::from_millis(gap);
                admitted += u32::from(account.admit(1, now));
            }
            let most = rate * ((now - start).as_secs_f64() + REQUEST_BURST.as_secs_f64()) + 1.001;
            prop_assert!(f64::from(admitted) <= most, "{} of {}", admitted, most);
        }
    }
}
