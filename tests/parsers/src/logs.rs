//! What guests print, and what clients ask of it.

use cloudwatch::{Pattern, Position};
use logs::{Lines, MAX_LINE};

/// Characters of a pattern in a request.
const MAX_PATTERN: usize = 1024;

/// The first byte says how long the chunks are that the rest comes in.
pub(crate) fn lines(bytes: &[u8]) {
    let Some((length, text)) = bytes.split_first() else { return };
    let (mut lines, mut joined) = (Lines::default(), Vec::new());
    for chunk in text.chunks(usize::from(*length).max(1)) {
        lines.push(chunk, |line| {
            assert!(line.len() <= MAX_LINE && !line.contains(&b'\n'));
            joined.extend(line);
            joined.push(b'\n');
        });
    }
    joined.extend(lines.flush().unwrap_or_default());
    // No input is as long as a line that is split.
    assert!(text.len() > MAX_LINE || joined == text, "a byte is lost, or came to it");
}

pub(crate) fn page(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Some(position) = Position::parse(text) {
        assert_eq!(position.to_token(), text);
    }
}

pub(crate) fn pattern(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(pattern) = Pattern::parse(text) {
        for message in
            [&b"ERROR [a b] \"c d\" 500"[..], br#"{"level":"error","n":4,"a":[{"b":null}]}"#, bytes]
        {
            let _ = pattern.matches(message);
        }
    }
    if text.len() <= MAX_PATTERN {
        let phrase = format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
        assert!(Pattern::parse(&phrase).unwrap().matches(bytes), "a phrase that is not found in itself");
    }
}
