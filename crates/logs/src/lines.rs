//! A guest's bytes, cut into lines. No I/O, no clock.

/// The longest line; a longer one is split.
pub const MAX_LINE: usize = 256 << 10;
/// Bytes of the longest character.
const CHARACTER: usize = 4;

/// Cuts one output into lines, over the borders of the chunks it comes in.
#[derive(Debug, Default)]
pub struct Lines {
    begun: Vec<u8>,
}

impl Lines {
    /// Takes what was written next, and gives every line that is whole to `line`, without its end.
    pub fn push(&mut self, bytes: &[u8], mut line: impl FnMut(Vec<u8>)) {
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            match piece.strip_suffix(b"\n") {
                Some(end) => {
                    self.add(end, &mut line);
                    line(std::mem::take(&mut self.begun));
                }
                None => self.add(piece, &mut line),
            }
        }
    }

    /// What there is of a line whose end has not come.
    pub fn flush(&mut self) -> Option<Vec<u8>> {
        Some(std::mem::take(&mut self.begun)).filter(|begun| !begun.is_empty())
    }

    /// Whether a line's end has not come yet.
    #[must_use]
    pub fn is_begun(&self) -> bool {
        !self.begun.is_empty()
    }

    fn add(&mut self, mut bytes: &[u8], line: &mut impl FnMut(Vec<u8>)) {
        while self.begun.len() + bytes.len() > MAX_LINE {
            let (fits, rest) = bytes.split_at(MAX_LINE - self.begun.len());
            self.begun.extend_from_slice(fits);
            let cut = whole_characters(&self.begun);
            let begin = self.begun.split_off(cut);
            line(std::mem::replace(&mut self.begun, begin));
            bytes = rest;
        }
        self.begun.extend_from_slice(bytes);
    }
}

/// How many bytes are there before a character that is cut; all of them where the end is no text.
fn whole_characters(bytes: &[u8]) -> usize {
    let end = bytes.len().saturating_sub(CHARACTER - 1)..bytes.len();
    let start = end.rev().find(|at| bytes[*at] & 0xc0 != 0x80);
    match start {
        Some(at) if std::str::from_utf8(&bytes[at..]).is_err_and(|error| error.error_len().is_none()) => at,
        _ => bytes.len(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cut(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, Option<Vec<u8>>) {
        let (mut lines, mut found) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk, |line| found.push(line));
        }
        let rest = lines.flush();
        assert!(!lines.is_begun() && lines.flush().is_none());
        (found, rest)
    }

    #[test]
    fn lines_are_put_together_and_the_last_one_is_flushed() {
        let (lines, rest) = cut(&[b"a", b"b\n\nc\r\nd", b"e"]);
        assert_eq!(lines, [&b"ab"[..], b"", b"c\r"]);
        assert_eq!(rest.as_deref(), Some(&b"de"[..]));
        assert_eq!(cut(&[b"a\n"]), (vec![b"a".to_vec()], None));
    }

    #[test]
    fn a_line_of_the_limit_is_whole_and_a_longer_one_is_split_between_characters() {
        let limit = vec![b'x'; MAX_LINE];
        assert_eq!(cut(&[&limit, b"\n"]), (vec![limit.clone()], None));
        let long = format!("{}é✓", "x".repeat(MAX_LINE - 1));
        let (lines, rest) = cut(&[long.as_bytes()]);
        assert_eq!((lines[0].len(), rest.as_deref()), (MAX_LINE - 1, Some("é✓".as_bytes())));
        let broken = [vec![b'x'; MAX_LINE - 1], vec![0xff; 3]].concat();
        assert_eq!(cut(&[&broken]).0[0].len(), MAX_LINE);
    }

    proptest! {
        #[test]
        fn nothing_is_lost_wherever_chunks_end(
            text in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400),
            at in 0usize..400,
        ) {
            let (one, two) = text.split_at(at.min(text.len()));
            let (lines, rest) = cut(&[one, two]);
            let mut joined: Vec<u8> = lines.iter().flat_map(|line| [&line[..], b"\n"].concat()).collect();
            joined.extend(rest.unwrap_or_default());
            prop_assert_eq!(joined, text);
        }
    }
}
