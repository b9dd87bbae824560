//! Patterns of terms.

use std::iter::Peekable;
use std::str::Chars;

use regex::bytes::{Regex, RegexBuilder};

use super::{MAX_EXPRESSIONS, PatternError};

const QUOTE: char = '"';
const EXPRESSION: char = '%';
/// What a regular expression may have besides letters and digits of ASCII.
const SYMBOLS: &str = ":_#=@/;,-^$?[]{}|\\*+.";
/// Bytes that an expression may take once it is compiled.
const COMPILED: usize = 1 << 20;

/// What a message must have and must not have.
#[derive(Debug, Clone, Default)]
pub(super) struct Terms {
    all: Vec<Regex>,
    any: Vec<Regex>,
    none: Vec<Regex>,
}

impl Terms {
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let (mut terms, mut expressions) = (Self::default(), 0);
        let mut rest = text.chars().peekable();
        loop {
            while rest.next_if(|c| c.is_whitespace()).is_some() {}
            let Some(&first) = rest.peek() else { return Ok(terms) };
            let sign = rest.next_if(|c| matches!(c, '-' | '?'));
            let to = match sign {
                Some('-') => &mut terms.none,
                Some(_) => &mut terms.any,
                None => &mut terms.all,
            };
            let term = match rest.peek() {
                Some(&QUOTE) => literal(&quoted(&mut rest)?)?,
                Some(&EXPRESSION) => {
                    expressions += 1;
                    expression(&mut rest)?
                }
                Some(c) if !c.is_whitespace() => literal(&word(&mut rest)?)?,
                _ => return Err(PatternError::NoTerm(first)),
            };
            to.push(term);
            if expressions > MAX_EXPRESSIONS {
                return Err(PatternError::TooMany);
            }
        }
    }

    pub(super) fn matches(&self, message: &[u8]) -> bool {
        let found = |term: &Regex| term.is_match(message);
        let only_any = self.all.is_empty() && self.none.is_empty() && !self.any.is_empty();
        let any = !only_any || self.any.iter().any(found);
        any && self.all.iter().all(found) && !self.none.iter().any(found)
    }
}

/// Letters, digits and underscores; anything else must be quoted.
fn word(rest: &mut Peekable<Chars<'_>>) -> Result<String, PatternError> {
    let mut word = String::new();
    while let Some(c) = rest.next_if(|c| !c.is_whitespace()) {
        if !(c.is_alphanumeric() || c == '_') {
            return Err(PatternError::Character(c));
        }
        word.push(c);
    }
    Ok(word)
}

/// From quote to quote; `\` takes the next character as it is.
pub(super) fn quoted(rest: &mut Peekable<Chars<'_>>) -> Result<String, PatternError> {
    rest.next();
    let mut phrase = String::new();
    while let Some(c) = rest.next() {
        match c {
            QUOTE => return Ok(phrase),
            '\\' => phrase.extend(rest.next()),
            c => phrase.push(c),
        }
    }
    Err(PatternError::Unclosed(QUOTE))
}

pub(super) fn expression(rest: &mut Peekable<Chars<'_>>) -> Result<Regex, PatternError> {
    rest.next();
    let mut text = String::new();
    loop {
        match rest.next() {
            Some(EXPRESSION) => return compile(&text),
            Some(c) if c.is_ascii_alphanumeric() || SYMBOLS.contains(c) => text.push(c),
            Some(c) => return Err(PatternError::Character(c)),
            None => return Err(PatternError::Unclosed(EXPRESSION)),
        }
    }
}

fn literal(text: &str) -> Result<Regex, PatternError> {
    compile(&regex::escape(text))
}

pub(super) fn compile(text: &str) -> Result<Regex, PatternError> {
    let built = RegexBuilder::new(text).size_limit(COMPILED).dfa_size_limit(COMPILED).build();
    built.map_err(|error| PatternError::Expression(error.to_string()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Pattern;

    const LINES: [&str; 4] =
        ["[INFO] request failed", "[WARN] unauthorized request", "[ERROR 400] bad request", "a \"quoted\" é"];

    fn found(pattern: &str) -> Vec<usize> {
        let pattern = Pattern::parse(pattern).unwrap();
        (0..LINES.len()).filter(|at| pattern.matches(LINES[*at].as_bytes())).collect()
    }

    #[test]
    fn terms_are_all_any_or_none() {
        for (pattern, wanted) in [
            ("", &[0, 1, 2, 3][..]),
            ("  ", &[0, 1, 2, 3]),
            ("request", &[0, 1, 2]),
            ("authorized", &[1]),
            ("Request", &[]),
            ("request ERROR", &[2]),
            ("?ERROR ?WARN", &[1, 2]),
            ("request -ERROR", &[0, 1]),
            ("-request", &[3]),
            ("-ERROR -WARN", &[0, 3]),
            ("?INFO -400", &[0, 1, 3]),
            ("?INFO request", &[0, 1, 2]),
            ("\"ERROR 400\"", &[2]),
            ("-\"bad request\"", &[0, 1, 3]),
            ("\"\\\"quoted\\\"\"", &[3]),
            ("é", &[3]),
            ("%4[0-9]{2}%", &[2]),
            ("%^a% -%zzz%", &[3]),
            ("?%WARN|INFO% ?quoted", &[0, 1, 3]),
        ] {
            assert_eq!(found(pattern), wanted, "{pattern}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_so_in_awss_words() {
        for (pattern, why) in [
            ("a:b", "Invalid character(s) in term ':'"),
            ("foo-bar", "Invalid character(s) in term '-'"),
            ("(", "Invalid character(s) in term '('"),
            ("%a(b)%", "Invalid character(s) in term '('"),
            ("%a b%", "Invalid character(s) in term ' '"),
            ("%[%", "Invalid regular expression in filter pattern"),
            ("%a{1000}{1000}%", "Invalid regular expression in filter pattern"),
            ("\"open", "a term that begins with \" has no end"),
            ("%open", "a term that begins with % has no end"),
            ("a - b", "- stands without a term"),
            ("?", "? stands without a term"),
            ("%a% %b% %c%", "more than 2 regular expressions"),
        ] {
            let error = Pattern::parse(pattern).unwrap_err().to_string();
            assert!(error.contains(why), "{pattern}: {error}");
        }
    }

    #[test]
    fn bytes_that_are_no_text_are_searched_too() {
        assert!(Pattern::parse("ERROR").unwrap().matches(b"\xff ERROR \xfe"));
    }

    proptest! {
        #[test]
        fn a_quoted_phrase_is_found_where_it_is(before: String, phrase: String, after: String) {
            let quoted = phrase.replace('\\', "\\\\").replace('"', "\\\"");
            let pattern = Pattern::parse(&format!("\"{quoted}\"")).unwrap();
            let message = [before, phrase, after].concat();
            prop_assert!(pattern.matches(message.as_bytes()));
        }

        #[test]
        fn any_pattern_is_read_or_refused(pattern: String, message: Vec<u8>) {
            if let Ok(pattern) = Pattern::parse(&pattern) {
                let _ = pattern.matches(&message);
            }
        }
    }
}
