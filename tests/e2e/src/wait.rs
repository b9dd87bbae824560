//! Waiting for what another process does.

use std::time::{Duration, Instant};

/// Between two looks: short beside what is waited for, long enough to leave the machine to it.
const PAUSE: Duration = Duration::from_millis(100);

/// Looks until there is something to see.
///
/// # Panics
/// Where `limit` passes first.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(seen) = look() {
            return seen;
        }
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        std::thread::sleep(PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn returns_what_is_seen_at_last() {
        let mut looks = 0;
        let seen = until("the third look", Duration::from_secs(10), || {
            looks += 1;
            (looks == 3).then_some(looks)
        });
        assert_eq!(seen, 3);
    }

    #[test]
    #[should_panic(expected = "the impossible: not within 0ns")]
    fn gives_up_at_the_limit() {
        until("the impossible", Duration::ZERO, || None::<()>);
    }
}
