//! Filter patterns: which messages FilterLogEvents and StartLiveTail give. No I/O.
//!
//! `ERROR timeout` both terms; `?ERROR ?WARN` either; `-DEBUG` not this one; `"with spaces"` a phrase; `%5\d\d%` a regular
//! expression. Terms are looked for anywhere in a message, in upper and lower case as they are written. Where others
//! stand beside them, terms with `?` are ignored, as on AWS. `{ $.level = "error" }` looks at the fields of JSON.

mod json;
mod terms;

use json::Condition;
use terms::Terms;

/// Expressions of a pattern at most, as on AWS.
const MAX_EXPRESSIONS: usize = 2;

/// Why a pattern cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// What must stand in quotes.
    #[error("Invalid character(s) in term '{0}'")]
    Character(char),
    /// A quote or an expression that does not end.
    #[error("Invalid filter pattern: a term that begins with {0} has no end")]
    Unclosed(char),
    /// A `-` or `?` with nothing behind it.
    #[error("Invalid filter pattern: {0} stands without a term")]
    NoTerm(char),
    /// What CloudWatch does not allow between two `%`, or is no expression.
    #[error("Invalid regular expression in filter pattern: {0}")]
    Expression(String),
    /// Too many expressions.
    #[error("Invalid filter pattern: it has more than {MAX_EXPRESSIONS} regular expressions")]
    TooMany,
    /// What is to be more or less than something must be a number.
    #[error("Invalid filter pattern: {0} is no number to compare with")]
    Number(String),
    /// Too many brackets.
    #[error("Invalid filter pattern: it has too many brackets within brackets")]
    Depth,
    /// A kind of pattern that is not known here.
    #[error(
        "Space-delimited filter patterns are not supported by this server; use terms, {{ $.field = value }} or %regular expressions%"
    )]
    SpaceDelimited,
}

/// A pattern, read.
#[derive(Debug, Clone)]
pub struct Pattern(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Terms(Terms),
    Json(Condition),
}

impl Pattern {
    /// Reads one; of nothing but spaces it is one that matches everything.
    ///
    /// # Errors
    /// [`PatternError`], whose text is the answer to the client.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let text = text.trim();
        match text.chars().next() {
            Some('{') => Condition::parse(text).map(|condition| Self(Kind::Json(condition))),
            Some('[') => Err(PatternError::SpaceDelimited),
            _ => Terms::parse(text).map(|terms| Self(Kind::Terms(terms))),
        }
    }

    /// Whether a message is given.
    #[must_use]
    pub fn matches(&self, message: &[u8]) -> bool {
        match &self.0 {
            Kind::Terms(terms) => terms.matches(message),
            Kind::Json(condition) => condition.matches(message),
        }
    }
}
