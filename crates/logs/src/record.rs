//! An event as its bytes in a segment: length and checksum, then times, source and message. No I/O.

/// The longest message, as of PutLogEvents (1 MiB with AWS's 26 bytes for the event itself).
pub const MAX_MESSAGE: usize = 1 << 20;
/// Source of what the store says itself.
pub const STORE: u128 = u128::MAX;

/// Length and checksum.
const HEAD: usize = 8;
/// Both times and the source.
const FIXED: usize = 8 + 8 + 16;

/// What is to be added to a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When it happened, in milliseconds of Unix time; none: when it is added.
    pub timestamp: Option<u64>,
    /// Which build or MicroVM printed it, by the number of its id; 0 is a client, [`STORE`] the store.
    pub source: u128,
    /// The bytes, at most [`MAX_MESSAGE`].
    pub message: Vec<u8>,
}

/// What is in a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// When it happened, in milliseconds of Unix time.
    pub timestamp: u64,
    /// When it was added.
    pub ingested: u64,
    /// Which build or MicroVM printed it.
    pub source: u128,
    /// The bytes.
    pub message: Vec<u8>,
}

/// An event where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Raw<'a> {
    pub(crate) timestamp: u64,
    pub(crate) ingested: u64,
    pub(crate) source: u128,
    pub(crate) message: &'a [u8],
}

impl From<Raw<'_>> for Event {
    fn from(raw: Raw<'_>) -> Self {
        let Raw { timestamp, ingested, source, message } = raw;
        Self { timestamp, ingested, source, message: message.to_vec() }
    }
}

/// Appends an event's bytes.
pub(crate) fn encode(event: Raw<'_>, to: &mut Vec<u8>) {
    let start = to.len();
    // At most MAX_MESSAGE and a few.
    let length = u32::try_from(FIXED + event.message.len()).unwrap_or(u32::MAX);
    to.extend(length.to_le_bytes());
    to.extend([0; 4]);
    to.extend(event.timestamp.to_le_bytes());
    to.extend(event.ingested.to_le_bytes());
    to.extend(event.source.to_le_bytes());
    to.extend(event.message);
    let checksum = crc32fast::hash(&to[start + HEAD..]);
    to[start + 4..start + HEAD].copy_from_slice(&checksum.to_le_bytes());
}

/// The event at the beginning of `bytes`, and how long it is there; `None` where it is not whole.
pub(crate) fn decode(bytes: &[u8]) -> Option<(Raw<'_>, usize)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let (checksum, rest) = rest.split_first_chunk::<4>()?;
    let length = usize::try_from(u32::from_le_bytes(*length)).ok()?;
    let body = rest.get(..length)?;
    if crc32fast::hash(body) != u32::from_le_bytes(*checksum) {
        return None;
    }
    let (timestamp, body) = body.split_first_chunk::<8>()?;
    let (ingested, body) = body.split_first_chunk::<8>()?;
    let (source, message) = body.split_first_chunk::<16>()?;
    let raw = Raw {
        timestamp: u64::from_le_bytes(*timestamp),
        ingested: u64::from_le_bytes(*ingested),
        source: u128::from_le_bytes(*source),
        message,
    };
    Some((raw, HEAD + length))
}

/// The whole events at the beginning of `bytes`, each with where it ends.
pub(crate) fn events(bytes: &[u8]) -> impl Iterator<Item = (Raw<'_>, usize)> {
    let mut at = 0;
    std::iter::from_fn(move || {
        let (raw, length) = decode(&bytes[at..])?;
        at += length;
        Some((raw, at))
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn event(message: &[u8]) -> Raw<'_> {
        Raw { timestamp: 1, ingested: 2, source: 3, message }
    }

    #[test]
    fn what_is_torn_or_changed_is_no_event() {
        let mut bytes = Vec::new();
        encode(event(b"first"), &mut bytes);
        let whole = bytes.len();
        encode(event(b"second"), &mut bytes);
        for end in whole..bytes.len() {
            let read: Vec<_> = events(&bytes[..end]).collect();
            assert_eq!(read, [(event(b"first"), whole)]);
        }
        for at in 0..whole {
            let mut changed = bytes[..whole].to_vec();
            changed[at] ^= 1;
            assert_eq!(decode(&changed), None, "{at}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(timestamp: u64, ingested: u64, source: u128, message: Vec<u8>) {
            let event = Raw { timestamp, ingested, source, message: &message };
            let mut bytes = Vec::new();
            encode(event, &mut bytes);
            prop_assert_eq!(decode(&bytes), Some((event, bytes.len())));
        }

        #[test]
        fn any_bytes_are_read_as_something(bytes: Vec<u8>) {
            prop_assert!(events(&bytes).all(|(_, end)| end <= bytes.len()));
        }
    }
}
