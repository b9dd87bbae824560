//! Filter patterns: which messages FilterLogEvents and StartLiveTail give. No I/O.
//!
//! `ERROR timeout` both terms; `?ERROR ?WARN` either; `-DEBUG` not this one; `"with spaces"` a phrase; `%5\d\d%` a regular
//! expression. Terms are looked for anywhere in a message, in upper and lower case as they are written. Where others
//! stand beside them, terms with `?` are ignored, as on AWS. `{ $.level = "error" }` looks at the fields of JSON,
//! `[ip, ..., status = 4*, bytes]` at those between spaces.

mod condition;
mod delimited;
mod json;
mod reader;
mod terms;

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
    /// A pattern that ends where more must come.
    #[error("Invalid filter pattern: it ends too early")]
    End,
    /// More than one `...`, so that nothing says which fields stand between them.
    #[error("Invalid filter pattern: it has more than one ellipsis")]
    Ellipsis,
    /// What is said of one field of a space-delimited pattern is about another.
    #[error(
        "Invalid filter pattern: {found} stands with what is said of {field}; separate fields with commas"
    )]
    Name {
        /// The name that stands there.
        found: String,
        /// The name of the field.
        field: String,
    },
}

/// A pattern, read.
#[derive(Debug, Clone)]
pub struct Pattern(Kind);

#[derive(Debug, Clone)]
enum Kind {
    Terms(Terms),
    Json(json::Fields),
    Delimited(delimited::Fields),
}

impl Pattern {
    /// Reads one; of nothing but spaces it is one that matches everything.
    ///
    /// # Errors
    /// [`PatternError`], whose text is the answer to the client.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let text = text.trim();
        match text.chars().next() {
            Some('{') => json::Fields::parse(text).map(|fields| Self(Kind::Json(fields))),
            Some('[') => delimited::Fields::parse(text).map(|fields| Self(Kind::Delimited(fields))),
            _ => Terms::parse(text).map(|terms| Self(Kind::Terms(terms))),
        }
    }

    /// Whether a message is given.
    #[must_use]
    pub fn matches(&self, message: &[u8]) -> bool {
        match &self.0 {
            Kind::Terms(terms) => terms.matches(message),
            Kind::Json(fields) => fields.matches(message),
            Kind::Delimited(fields) => fields.matches(message),
        }
    }
}
