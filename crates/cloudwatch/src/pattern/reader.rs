//! What reads the patterns that have a grammar.

use std::iter::Peekable;
use std::str::Chars;

use regex::bytes::Regex;

use super::condition::{Comparison, Operand};
use super::terms::{compile, expression, quoted};
use super::{MAX_EXPRESSIONS, PatternError};

pub(super) struct Reader<'a> {
    rest: &'a str,
    expressions: usize,
}

impl<'a> Reader<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { rest: text, expressions: 0 }
    }

    /// That nothing is left, and that there were not too many expressions.
    pub(super) fn finish(self) -> Result<(), PatternError> {
        if self.expressions > MAX_EXPRESSIONS {
            return Err(PatternError::TooMany);
        }
        if self.rest.is_empty() { Ok(()) } else { Err(self.unexpected()) }
    }

    /// A sign and what is to be compared with; without quotes it ends at a space and at `ends`.
    pub(super) fn comparison(&mut self, ends: &str) -> Result<Operand, PatternError> {
        let found = Comparison::SIGNS.into_iter().find(|(sign, _)| self.take(sign));
        let (_, comparison) = found.ok_or_else(|| self.unexpected())?;
        self.skip();
        let is_equality = matches!(comparison, Comparison::Equal | Comparison::Unequal);
        let equal = comparison == Comparison::Equal;
        match self.peek() {
            Some('"') if is_equality => {
                let text = like(&self.with_chars(quoted)?)?;
                Ok(Operand::Text { equal, text, quoted: true })
            }
            Some('%') if is_equality => {
                self.expressions += 1;
                let text = self.with_chars(expression)?;
                Ok(Operand::Text { equal, text, quoted: true })
            }
            _ => {
                let value = self.until(|c| c.is_whitespace() || ends.contains(c))?;
                match value.parse::<f64>() {
                    Ok(number) if number.is_finite() => Ok(Operand::Number(comparison, number)),
                    _ if is_equality => Ok(Operand::Text { equal, text: like(value)?, quoted: false }),
                    _ => Err(PatternError::Number(value.to_owned())),
                }
            }
        }
    }

    /// What stands before the first character that `ends` is true of; there must be something.
    pub(super) fn until(&mut self, ends: impl Fn(char) -> bool) -> Result<&'a str, PatternError> {
        let (value, rest) = self.rest.split_at(self.rest.find(ends).unwrap_or(self.rest.len()));
        if value.is_empty() {
            return Err(self.unexpected());
        }
        self.rest = rest;
        Ok(value)
    }

    /// Reads with what terms are read with.
    fn with_chars<T>(
        &mut self,
        read: impl Fn(&mut Peekable<Chars<'_>>) -> Result<T, PatternError>,
    ) -> Result<T, PatternError> {
        let mut chars = self.rest.chars().peekable();
        let value = read(&mut chars)?;
        let left: usize = chars.map(char::len_utf8).sum();
        self.rest = &self.rest[self.rest.len() - left..];
        Ok(value)
    }

    pub(super) fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    pub(super) fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// Takes the token if it comes next, after spaces.
    pub(super) fn take(&mut self, token: &str) -> bool {
        self.skip();
        self.take_here(token)
    }

    /// Takes the token if it comes next.
    pub(super) fn take_here(&mut self, token: &str) -> bool {
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    pub(super) fn expect(&mut self, token: &'static str) -> Result<(), PatternError> {
        if self.take(token) { Ok(()) } else { Err(self.unexpected()) }
    }

    /// That what comes next should not.
    pub(super) fn unexpected(&self) -> PatternError {
        match self.rest.trim_start().chars().next() {
            Some(c) => PatternError::Character(c),
            None => PatternError::End,
        }
    }
}

/// The whole of a text, in which `*` stands for anything.
fn like(text: &str) -> Result<Regex, PatternError> {
    let parts: Vec<String> = text.split('*').map(regex::escape).collect();
    compile(&format!("(?s)^{}$", parts.join(".*")))
}
