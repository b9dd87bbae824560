//! Where a page ended, as clients are given it: `f/…/s` goes on to newer events, `b/…/s` back to older ones. No I/O.

use logs::{Key, Toward};

/// Digits of one number: as many as the greatest has.
const DIGITS: usize = 20;
const NUMBERS: usize = 4;

/// A place between two events, and a direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Where the next page goes.
    pub toward: Toward,
    /// The event beside it.
    pub key: Key,
}

impl Position {
    /// The token of this position.
    #[must_use]
    pub fn to_token(self) -> String {
        let letter = if self.toward == Toward::Newer { 'f' } else { 'b' };
        let Key { timestamp, ingested, stream, number } = self.key;
        format!("{letter}/{timestamp:020}{ingested:020}{stream:020}{number:020}/s")
    }

    /// The position of a token; none where it is no token.
    #[must_use]
    pub fn parse(token: &str) -> Option<Self> {
        let (letter, digits) = token.strip_suffix("/s")?.split_once('/')?;
        let toward = match letter {
            "f" => Toward::Newer,
            "b" => Toward::Older,
            _ => return None,
        };
        let fine = digits.len() == DIGITS * NUMBERS && digits.bytes().all(|digit| digit.is_ascii_digit());
        let number = |at: usize| digits.get(at * DIGITS..(at + 1) * DIGITS)?.parse().ok();
        let key = Key { timestamp: number(0)?, ingested: number(1)?, stream: number(2)?, number: number(3)? };
        fine.then_some(Self { toward, key })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_says_what_it_was_made_of(timestamp: u64, ingested: u64, stream: u64, number: u64, newer: bool) {
            let toward = if newer { Toward::Newer } else { Toward::Older };
            let position = Position { toward, key: Key { timestamp, ingested, stream, number } };
            prop_assert_eq!(Position::parse(&position.to_token()), Some(position));
        }

        #[test]
        fn anything_else_is_none(text: String) {
            prop_assert_eq!(Position::parse(&text), None);
        }
    }
}
