//! Messages of `application/vnd.amazon.eventstream`, written. No I/O.

/// Lengths and their checksum.
const PRELUDE: usize = 12;
const CHECKSUM: usize = 4;
/// Type of a header's value.
const STRING: u8 = 7;

/// An event with a payload of JSON.
pub(crate) fn event(kind: &str, json: &[u8]) -> Vec<u8> {
    message(&[(":message-type", "event"), (":event-type", kind), (":content-type", "application/json")], json)
}

/// An exception, which ends the stream.
pub(crate) fn exception(kind: &str, json: &[u8]) -> Vec<u8> {
    let kind = (":exception-type", kind);
    message(&[(":message-type", "exception"), kind, (":content-type", "application/json")], json)
}

fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
    let mut head = Vec::new();
    for (name, value) in headers {
        // Names and values are this crate's, and short.
        head.push(u8::try_from(name.len()).unwrap_or(u8::MAX));
        head.extend(name.as_bytes());
        head.push(STRING);
        head.extend(u16::try_from(value.len()).unwrap_or(u16::MAX).to_be_bytes());
        head.extend(value.as_bytes());
    }
    // Payloads are bounded far below 4 GiB.
    let length = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX).to_be_bytes();
    let mut message = Vec::new();
    message.extend(length(PRELUDE + head.len() + payload.len() + CHECKSUM));
    message.extend(length(head.len()));
    message.extend(crc32fast::hash(&message).to_be_bytes());
    message.extend(head);
    message.extend(payload);
    message.extend(crc32fast::hash(&message).to_be_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_and_checksums_are_where_they_belong() {
        let message = event("sessionUpdate", b"{}");
        let number = |at: usize| u32::from_be_bytes(message[at..at + 4].try_into().unwrap());
        let end = message.len() - CHECKSUM;
        assert_eq!(number(0) as usize, message.len());
        assert_eq!(number(4) as usize, end - 2 - PRELUDE);
        assert_eq!(number(8), crc32fast::hash(&message[..8]));
        assert_eq!(number(end), crc32fast::hash(&message[..end]));
        assert_eq!(&message[end - 2..end], b"{}");
        assert_eq!(&message[PRELUDE..PRELUDE + 15], b"\x0d:message-type\x07");
    }
}
