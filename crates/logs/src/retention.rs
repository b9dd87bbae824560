//! How long events are kept. No I/O, no clock.

use crate::segment::Summary;

/// Days that a group may keep its events.
pub const DAYS: [u32; 22] =
    [1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653];
const DAY_MS: u64 = 24 * 60 * 60 * 1000;

/// The time, in milliseconds, before which a group's events are no longer shown; 0 where they are kept for ever.
#[must_use]
pub fn cutoff(days: Option<u32>, now_ms: u64) -> u64 {
    days.map_or(0, |days| now_ms.saturating_sub(u64::from(days) * DAY_MS))
}

/// Whether nothing in a segment is to be kept.
pub(crate) fn is_over(segment: &Summary, cutoff: u64) -> bool {
    segment.newest < cutoff && segment.ingested < cutoff
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_over_with_its_newest_event() {
        let now = 10 * DAY_MS;
        assert_eq!((cutoff(None, now), cutoff(Some(3), now), cutoff(Some(30), now)), (0, 7 * DAY_MS, 0));
        let segment = |newest, ingested| Summary { newest, ingested, ..Summary::open(0) };
        let cut = cutoff(Some(3), now);
        assert!(is_over(&segment(cut - 1, cut - 1), cut));
        assert!(!is_over(&segment(cut, cut - 1), cut) && !is_over(&segment(cut - 1, cut), cut));
        assert!(!is_over(&segment(0, 0), cutoff(None, now)));
    }
}
