//! What one PutLogEvents takes (limits of the service's API). No I/O.

use logs::Event;

/// Most events of a batch.
pub(crate) const MAX_EVENTS: usize = 10_000;
/// Most bytes of a batch, and of an event in it.
const MAX_BYTES: usize = 1 << 20;
/// What each event counts besides its message.
const OVERHEAD: usize = 26;
/// The longest message.
const MAX_MESSAGE: usize = MAX_BYTES - OVERHEAD;
/// From the first event of a batch to its last.
const MAX_SPAN_MS: u64 = 24 * 60 * 60 * 1000;
/// Bytes of messages that always fit, however many events they are of.
pub(crate) const SURE_BYTES: usize = MAX_BYTES - MAX_EVENTS * OVERHEAD;

/// An event as the service takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Milliseconds of Unix time.
    pub(crate) timestamp: u64,
    /// One character at least.
    pub(crate) message: String,
}

/// The events in as few batches as may be, by their timestamps, each of which the service takes.
pub(crate) fn batches(events: &[Event]) -> Vec<Vec<Entry>> {
    let mut entries: Vec<Entry> = events.iter().flat_map(entries).collect();
    entries.sort_by_key(|entry| entry.timestamp);
    let mut batches: Vec<Vec<Entry>> = Vec::new();
    let mut bytes = 0;
    for entry in entries {
        let size = entry.message.len() + OVERHEAD;
        let fits = batches.last().is_some_and(|batch| {
            batch.len() < MAX_EVENTS
                && bytes + size <= MAX_BYTES
                && batch.first().is_none_or(|first| entry.timestamp - first.timestamp <= MAX_SPAN_MS)
        });
        if !fits {
            batches.push(Vec::new());
            bytes = 0;
        }
        bytes += size;
        batches.last_mut().into_iter().for_each(|batch| batch.push(entry.clone()));
    }
    batches
}

/// One event, in pieces where it is too long as text. An empty line is a space: the service takes none that are empty.
fn entries(event: &Event) -> Vec<Entry> {
    let text = String::from_utf8_lossy(&event.message);
    let mut rest = if text.is_empty() { " " } else { &*text };
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        let (piece, left) = rest.split_at(rest.floor_char_boundary(MAX_MESSAGE));
        pieces.push(Entry { timestamp: event.timestamp, message: piece.to_owned() });
        rest = left;
    }
    pieces
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(timestamp: u64, message: &[u8]) -> Event {
        Event { timestamp, ingested: 0, source: 0, message: message.to_vec() }
    }

    fn is_taken(batch: &[Entry]) -> bool {
        let bytes: usize = batch.iter().map(|entry| entry.message.len() + OVERHEAD).sum();
        let span = batch.last().unwrap().timestamp - batch[0].timestamp;
        bytes <= MAX_BYTES
            && batch.len() <= MAX_EVENTS
            && span <= MAX_SPAN_MS
            && batch.is_sorted_by_key(|entry| entry.timestamp)
            && batch.iter().all(|entry| !entry.message.is_empty())
    }

    #[test]
    fn a_batch_ends_where_the_service_would_refuse_more() {
        let sizes = |events: &[Event]| -> Vec<usize> {
            let batches = batches(events);
            assert!(batches.iter().all(|batch| is_taken(batch)));
            batches.iter().map(Vec::len).collect()
        };
        assert_eq!(sizes(&vec![event(1, b"x"); MAX_EVENTS + 1]), [MAX_EVENTS, 1]);
        assert_eq!(sizes(&[event(0, b"x"), event(MAX_SPAN_MS, b"x"), event(MAX_SPAN_MS + 1, b"x")]), [2, 1]);
        let half = vec![b'x'; MAX_BYTES / 2 - OVERHEAD];
        assert_eq!(sizes(&[event(1, &half), event(1, &half), event(1, b"")]), [2, 1]);
        assert_eq!(sizes(&vec![event(1, &[b'x'; SURE_BYTES / MAX_EVENTS]); MAX_EVENTS]), [MAX_EVENTS]);
        assert!(batches(&[]).is_empty());
    }

    #[test]
    fn what_is_no_text_or_too_long_is_sent_all_the_same() {
        let message = vec![0xff; MAX_BYTES];
        let batches = batches(&[event(1, &message)]);
        assert!(batches.iter().all(|batch| is_taken(batch)));
        let text: String = batches.concat().into_iter().map(|entry| entry.message).collect();
        assert_eq!(text, String::from_utf8_lossy(&message));
        assert_eq!(super::batches(&[event(1, b"")])[0][0].message, " ");
    }

    proptest! {
        #[test]
        fn batches_are_all_events_in_order_and_are_taken(
            events in prop::collection::vec((0..3 * MAX_SPAN_MS, "[a-z]{1,3}"), 0..50),
        ) {
            let events: Vec<Event> = events.iter().map(|(at, text)| event(*at, text.as_bytes())).collect();
            let batches = batches(&events);
            prop_assert!(batches.iter().all(|batch| is_taken(batch)));
            let mut wanted: Vec<Entry> = events.iter().flat_map(entries).collect();
            wanted.sort_by_key(|entry| entry.timestamp);
            prop_assert_eq!(batches.concat(), wanted);
        }
    }
}
