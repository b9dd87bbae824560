//! How fast the host's time stamp counter runs, which is also the counter of an emulated guest.
//!
//! A guest measures it against an emulated timer while it boots. On a busy host that fails now and then, and the
//! kernel, left without a clock, then waits forever: so it is told.

use std::arch::x86_64::_rdtsc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Long enough for an error of some parts per million.
const MEASURED: Duration = Duration::from_millis(20);
/// The best of so many readings is one that nothing interrupted.
const READINGS: usize = 16;

/// The host's counter in kHz; measured once.
pub(crate) fn host_khz() -> u64 {
    static KHZ: OnceLock<u64> = OnceLock::new();
    *KHZ.get_or_init(measure)
}

fn measure() -> u64 {
    let (start, first) = reading();
    std::thread::sleep(MEASURED);
    let (end, last) = reading();
    let nanoseconds = end.duration_since(start).as_nanos().max(1);
    let ticks = u128::from(last.saturating_sub(first));
    u64::try_from(ticks * 1_000_000 / nanoseconds).unwrap_or(u64::MAX)
}

/// Clock and counter at the same moment: of several tries the one that took the fewest ticks.
fn reading() -> (Instant, u64) {
    let mut best = (u64::MAX, Instant::now(), 0);
    for _ in 0..READINGS {
        let before = ticks();
        let now = Instant::now();
        let after = ticks();
        if after.saturating_sub(before) < best.0 {
            best = (after.saturating_sub(before), now, before.midpoint(after));
        }
    }
    (best.1, best.2)
}

fn ticks() -> u64 {
    // SAFETY: every x86-64 processor has the instruction, and it touches no memory.
    unsafe { _rdtsc() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_measurements_agree() {
        let (one, two) = (measure(), measure());
        assert!(one > 100_000, "{one} kHz");
        assert!(one.abs_diff(two) < one / 1000, "{one} and {two} kHz");
    }
}
