//! Tenants' bytes on the operator's terminal: shown, never obeyed.

use std::fmt::Write;

/// Makes bytes safe to print, over the borders of the chunks they come in.
#[derive(Debug, Default)]
pub(crate) struct Escaper {
    /// The begin of a character whose rest has not come.
    begun: Vec<u8>,
}

impl Escaper {
    /// `bytes` with everything but text, tabs and line ends in escaped form.
    pub(crate) fn escape(&mut self, bytes: &[u8]) -> String {
        let mut rest = std::mem::take(&mut self.begun);
        rest.extend_from_slice(bytes);
        let whole = rest.len() - begun(&rest);
        self.begun = rest.split_off(whole);
        show(&rest)
    }

    /// What is left at the end.
    pub(crate) fn finish(&mut self) -> String {
        show(&std::mem::take(&mut self.begun))
    }
}

/// How many bytes at the end are the begin of a character.
fn begun(bytes: &[u8]) -> usize {
    let last = bytes.utf8_chunks().last().map_or(&[][..], |chunk| chunk.invalid());
    let cut = std::str::from_utf8(last).is_err_and(|error| error.error_len().is_none());
    if cut { last.len() } else { 0 }
}

fn show(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() && !matches!(character, '\n' | '\t') {
                text.extend(character.escape_default());
            } else {
                text.push(character);
            }
        }
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(chunks: &[&[u8]]) -> String {
        let mut escaper = Escaper::default();
        let text: String = chunks.iter().map(|chunk| escaper.escape(chunk)).collect();
        text + &escaper.finish()
    }

    #[test]
    fn text_stays_and_control_sequences_are_shown() {
        assert_eq!(all(&["naïve\t✓\n".as_bytes()]), "naïve\t✓\n");
        assert_eq!(all(&[b"\x1b]0;title\x07\r\n\x7f"]), "\\u{1b}]0;title\\u{7}\\r\n\\u{7f}");
        assert_eq!(all(&["\u{9b}31m".as_bytes()]), "\\u{9b}31m");
        assert_eq!(all(&[b"a\xff\xc3(b"]), "a\\xff\\xc3(b");
    }

    #[test]
    fn characters_may_be_cut_anywhere() {
        let text = "é✓🙂".as_bytes();
        for cut in 0..=text.len() {
            assert_eq!(all(&[&text[..cut], &text[cut..]]), "é✓🙂", "cut at {cut}");
        }
        assert_eq!(all(&["✓".as_bytes(), b"\xe2\x9c"]), "✓\\xe2\\x9c");
    }
}
