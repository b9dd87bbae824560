//! What PutLogEvents takes of a batch of events. No I/O, no clock.

use std::ops::Range;

use crate::Refusal;

/// Most events of a batch.
pub(crate) const MAX_EVENTS: usize = 10_000;
/// Most bytes of a batch, and of an event.
const MAX_BYTES: usize = 1_048_576;
/// What an event counts besides its message.
const OVERHEAD: usize = 26;
const HOUR_MS: u64 = 60 * 60 * 1000;
const MAX_AHEAD_MS: u64 = 2 * HOUR_MS;
const MAX_AGE_MS: u64 = 14 * 24 * HOUR_MS;
const MAX_SPAN_MS: u64 = 24 * HOUR_MS;

/// What came of looking at a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Taken {
    /// The events that are kept.
    pub(crate) kept: Range<usize>,
    /// How many of the first are older than any may be.
    pub(crate) too_old: usize,
    /// How many of the first are older than the group keeps them.
    pub(crate) expired: usize,
}

/// Which of the events, by timestamp and length, are kept; `cutoff` is where the group's retention ends.
pub(crate) fn take(events: &[(u64, usize)], now: u64, cutoff: u64) -> Result<Taken, Refusal> {
    let bytes: usize = events.iter().map(|(_, length)| length + OVERHEAD).sum();
    if let Some((_, length)) = events.iter().find(|(_, length)| length + OVERHEAD > MAX_BYTES) {
        let size = length + OVERHEAD;
        return Err(Refusal::invalid(format!(
            "Log event too large: {size} bytes exceeds limit of {MAX_BYTES}"
        )));
    }
    if bytes > MAX_BYTES {
        return Err(Refusal::invalid(format!(
            "Upload too large: {bytes} bytes exceeds limit of {MAX_BYTES}"
        )));
    }
    if !events.is_sorted_by_key(|(timestamp, _)| *timestamp) {
        let message = "Log events in a single PutLogEvents request must be in chronological order.";
        return Err(Refusal::invalid(message));
    }
    let before = |limit: u64| events.partition_point(|(timestamp, _)| *timestamp < limit);
    let (too_old, expired) = (before(now.saturating_sub(MAX_AGE_MS)), before(cutoff));
    let (first, end) = (too_old.max(expired), before(now.saturating_add(MAX_AHEAD_MS + 1)));
    let kept = first..end.max(first);
    if let [(oldest, _), .., (newest, _)] = events[kept.clone()]
        && newest - oldest > MAX_SPAN_MS
    {
        let message =
            "The batch of log events in a single PutLogEvents request cannot span more than 24 hours.";
        return Err(Refusal::invalid(message));
    }
    Ok(Taken { kept, too_old, expired })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;

    fn taken(timestamps: &[u64], cutoff: u64) -> Result<Taken, String> {
        let events: Vec<(u64, usize)> = timestamps.iter().map(|timestamp| (*timestamp, 10)).collect();
        take(&events, NOW, cutoff).map_err(|refusal| refusal.message)
    }

    #[test]
    fn too_old_expired_and_too_new_events_are_left_out() {
        let (old, edge) = (NOW - MAX_AGE_MS - 1, NOW - MAX_AGE_MS);
        assert_eq!(taken(&[old, edge], 0), Ok(Taken { kept: 1..2, too_old: 1, expired: 0 }));
        let (ahead, far) = (NOW + MAX_AHEAD_MS, NOW + MAX_AHEAD_MS + 1);
        assert_eq!(taken(&[NOW, ahead, far], 0), Ok(Taken { kept: 0..2, too_old: 0, expired: 0 }));
        assert_eq!(taken(&[NOW - 2, NOW], NOW - 1), Ok(Taken { kept: 1..2, too_old: 0, expired: 1 }));
        assert_eq!(taken(&[far], 0), Ok(Taken { kept: 0..0, too_old: 0, expired: 0 }));
        assert_eq!(taken(&[old], 0), Ok(Taken { kept: 1..1, too_old: 1, expired: 0 }));
    }

    #[test]
    fn order_span_and_size_are_checked() {
        assert!(taken(&[NOW, NOW - 1], 0).unwrap_err().contains("chronological order"));
        assert!(taken(&[NOW - MAX_SPAN_MS, NOW], 0).is_ok());
        assert!(taken(&[NOW - MAX_SPAN_MS - 1, NOW], 0).unwrap_err().contains("24 hours"));
        let fits = MAX_BYTES - OVERHEAD;
        assert!(take(&[(NOW, fits)], NOW, 0).is_ok());
        assert!(
            take(&[(NOW, fits + 1)], NOW, 0).unwrap_err().message.starts_with("Log event too large: 1048577")
        );
        let many = vec![(NOW, 100); MAX_BYTES / (100 + OVERHEAD) + 1];
        assert!(take(&many, NOW, 0).unwrap_err().message.starts_with("Upload too large"));
    }
}
