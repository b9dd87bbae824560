//! Patterns of fields: `{ $.level = "error" && ($.status >= 500 || $.retries NOT EXISTS) }`.
//!
//! A field that is not there equals nothing and differs from nothing.

use regex::bytes::Regex;
use serde_json::Value;

use super::terms::{compile, expression, quoted};
use super::{MAX_EXPRESSIONS, PatternError};

/// Brackets within brackets at most.
const MAX_DEPTH: usize = 16;
/// What ends a value that stands without quotes.
const ENDS: &str = "()&|<>=!\"{}";

/// A condition on a message of JSON.
#[derive(Debug, Clone)]
pub(super) enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Field(Vec<Step>, Test),
}

/// One step from a value to one within it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Step {
    Member(String),
    Element(usize),
}

#[derive(Debug, Clone)]
pub(super) enum Test {
    Null,
    Bool(bool),
    Absent,
    Number(Comparison, f64),
    /// Of text, or of a number's digits where it stands without quotes.
    Text {
        equal: bool,
        text: Regex,
        quoted: bool,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    Unequal,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

const COMPARISONS: [(&str, Comparison); 6] = [
    ("!=", Comparison::Unequal),
    ("<=", Comparison::AtMost),
    (">=", Comparison::AtLeast),
    ("=", Comparison::Equal),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];
const WORDS: [(&str, Test); 4] = [
    ("IS NULL", Test::Null),
    ("IS TRUE", Test::Bool(true)),
    ("IS FALSE", Test::Bool(false)),
    ("NOT EXISTS", Test::Absent),
];

impl Condition {
    /// Reads a pattern in braces.
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let mut reader = Reader { rest: text, expressions: 0 };
        reader.expect("{")?;
        let condition = reader.any(0)?;
        reader.expect("}")?;
        if reader.expressions > MAX_EXPRESSIONS {
            return Err(PatternError::TooMany);
        }
        if reader.rest.is_empty() { Ok(condition) } else { Err(reader.unexpected()) }
    }

    pub(super) fn matches(&self, message: &[u8]) -> bool {
        serde_json::from_slice(message).is_ok_and(|value: Value| value.is_object() && self.holds(&value))
    }

    fn holds(&self, message: &Value) -> bool {
        match self {
            Self::All(all) => all.iter().all(|one| one.holds(message)),
            Self::Any(any) => any.iter().any(|one| one.holds(message)),
            Self::Field(path, test) => test.holds(find(message, path)),
        }
    }
}

fn find<'a>(message: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(message, |value, step| match step {
        Step::Member(name) => value.get(name),
        Step::Element(at) => value.get(at),
    })
}

impl Test {
    fn holds(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Absent, value) => value.is_none(),
            (_, None) => false,
            (Self::Null, Some(value)) => value.is_null(),
            (Self::Bool(wanted), Some(value)) => value.as_bool() == Some(*wanted),
            (Self::Number(comparison, wanted), Some(value)) => {
                value.as_f64().is_some_and(|number| comparison.holds(number, *wanted))
            }
            (Self::Text { equal, text, .. }, Some(Value::String(value))) => {
                text.is_match(value.as_bytes()) == *equal
            }
            (Self::Text { equal, text, quoted: false }, Some(Value::Number(number))) => {
                text.is_match(number.to_string().as_bytes()) == *equal
            }
            (Self::Text { equal, .. }, Some(_)) => !equal,
        }
    }
}

impl Comparison {
    // Numbers of logs are compared as they are written.
    #[allow(clippy::float_cmp)]
    fn holds(self, number: f64, wanted: f64) -> bool {
        match self {
            Self::Equal => number == wanted,
            Self::Unequal => number != wanted,
            Self::Less => number < wanted,
            Self::AtMost => number <= wanted,
            Self::Greater => number > wanted,
            Self::AtLeast => number >= wanted,
        }
    }
}

struct Reader<'a> {
    rest: &'a str,
    expressions: usize,
}

impl<'a> Reader<'a> {
    fn any(&mut self, depth: usize) -> Result<Condition, PatternError> {
        let mut any = vec![self.all(depth)?];
        while self.take("||") {
            any.push(self.all(depth)?);
        }
        Ok(if any.len() == 1 { any.remove(0) } else { Condition::Any(any) })
    }

    fn all(&mut self, depth: usize) -> Result<Condition, PatternError> {
        let mut all = vec![self.one(depth)?];
        while self.take("&&") {
            all.push(self.one(depth)?);
        }
        Ok(if all.len() == 1 { all.remove(0) } else { Condition::All(all) })
    }

    fn one(&mut self, depth: usize) -> Result<Condition, PatternError> {
        if !self.take("(") {
            let path = self.path()?;
            return Ok(Condition::Field(path, self.test()?));
        }
        if depth >= MAX_DEPTH {
            return Err(PatternError::Depth);
        }
        let inner = self.any(depth + 1)?;
        self.expect(")").map(|()| inner)
    }

    /// `$.a.b[0]`.
    fn path(&mut self) -> Result<Vec<Step>, PatternError> {
        self.expect("$")?;
        let mut path = Vec::new();
        loop {
            if let Some(rest) = self.rest.strip_prefix('.') {
                let legal = |c: char| c.is_alphanumeric() || "_-@".contains(c);
                let end = rest.find(|c| !legal(c)).unwrap_or(rest.len());
                let (name, rest) = rest.split_at(end);
                self.rest = rest;
                if name.is_empty() {
                    return Err(self.unexpected());
                }
                path.push(Step::Member(name.to_owned()));
            } else if let Some(rest) = self.rest.strip_prefix('[') {
                self.rest = rest;
                let (number, rest) = rest.split_once(']').ok_or_else(|| self.unexpected())?;
                path.push(Step::Element(number.parse().map_err(|_| self.unexpected())?));
                self.rest = rest;
            } else if path.is_empty() {
                return Err(self.unexpected());
            } else {
                return Ok(path);
            }
        }
    }

    fn test(&mut self) -> Result<Test, PatternError> {
        for (word, test) in WORDS {
            if self.take(word) {
                return Ok(test);
            }
        }
        let found = COMPARISONS.into_iter().find(|(sign, _)| self.take(sign));
        let (_, comparison) = found.ok_or_else(|| self.unexpected())?;
        self.skip();
        let is_equality = matches!(comparison, Comparison::Equal | Comparison::Unequal);
        let equal = comparison == Comparison::Equal;
        match self.rest.chars().next() {
            Some('"') if is_equality => {
                let text = like(&self.with_chars(quoted)?)?;
                Ok(Test::Text { equal, text, quoted: true })
            }
            Some('%') if is_equality => {
                self.expressions += 1;
                let text = self.with_chars(expression)?;
                Ok(Test::Text { equal, text, quoted: true })
            }
            _ => {
                let value = self.bare()?;
                match value.parse::<f64>() {
                    Ok(number) if number.is_finite() => Ok(Test::Number(comparison, number)),
                    _ if is_equality => Ok(Test::Text { equal, text: like(value)?, quoted: false }),
                    _ => Err(PatternError::Number(value.to_owned())),
                }
            }
        }
    }

    fn bare(&mut self) -> Result<&'a str, PatternError> {
        let end = self.rest.find(|c: char| c.is_whitespace() || ENDS.contains(c)).unwrap_or(self.rest.len());
        let (value, rest) = self.rest.split_at(end);
        if value.is_empty() {
            return Err(self.unexpected());
        }
        self.rest = rest;
        Ok(value)
    }

    /// Reads with what terms are read with.
    fn with_chars<T>(
        &mut self,
        read: impl Fn(&mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<T, PatternError>,
    ) -> Result<T, PatternError> {
        let mut chars = self.rest.chars().peekable();
        let value = read(&mut chars)?;
        let left: usize = chars.map(char::len_utf8).sum();
        self.rest = &self.rest[self.rest.len() - left..];
        Ok(value)
    }

    fn skip(&mut self) {
        self.rest = self.rest.trim_start();
    }

    fn take(&mut self, token: &str) -> bool {
        self.skip();
        let rest = self.rest.strip_prefix(token);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn expect(&mut self, token: &'static str) -> Result<(), PatternError> {
        if self.take(token) { Ok(()) } else { Err(self.unexpected()) }
    }

    fn unexpected(&self) -> PatternError {
        match self.rest.trim_start().chars().next() {
            Some(c) => PatternError::Character(c),
            None => PatternError::Unclosed('{'),
        }
    }
}

/// The whole of a text, in which `*` stands for anything.
fn like(text: &str) -> Result<Regex, PatternError> {
    let parts: Vec<String> = text.split('*').map(regex::escape).collect();
    compile(&format!("(?s)^{}$", parts.join(".*")))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Pattern;

    const MESSAGE: &str = r#"{"level": "error", "ip": "10.1.2.3", "status": 503, "took": 1.5e-2, "ok": false,
        "detail-type": "x", "none": null, "list": [{"id": 7}, "b"], "text": "two\nlines"}"#;

    fn matches(pattern: &str, message: &str) -> bool {
        Pattern::parse(pattern)
            .unwrap_or_else(|error| panic!("{pattern}: {error}"))
            .matches(message.as_bytes())
    }

    #[test]
    fn fields_are_compared() {
        for (pattern, wanted) in [
            (r#"{ $.level = "error" }"#, true),
            (r#"{$.level="err*"}"#, true),
            (r#"{ $.level = "*rror" }"#, true),
            (r#"{ $.level = "rro" }"#, false),
            (r#"{ $.level != "error" }"#, false),
            (r#"{ $.level != "info" }"#, true),
            (r#"{ $.absent != "info" }"#, false),
            ("{ $.level = error }", true),
            ("{ $.ip = 10.1.* }", true),
            ("{ $.ip = 10.2.* }", false),
            ("{ $.text = two* }", true),
            ("{ $.status = 503 }", true),
            ("{ $.status = 5* }", true),
            (r#"{ $.status = "503" }"#, false),
            ("{ $.status >= 500 }", true),
            ("{ $.status < 500 }", false),
            ("{ $.took > 0.01 }", true),
            ("{ $.took = 0.015 }", true),
            ("{ $.detail-type = x }", true),
            ("{ $.list[0].id = 7 }", true),
            ("{ $.list[1] = b }", true),
            ("{ $.list[2] = b }", false),
            ("{ $.ok IS FALSE }", true),
            ("{ $.ok IS TRUE }", false),
            ("{ $.none IS NULL }", true),
            ("{ $.none NOT EXISTS }", false),
            ("{ $.absent NOT EXISTS }", true),
            ("{ $.level = %^err% }", true),
            ("{ $.level != %warn% }", true),
            ("{ $.status = 1 || $.level = error && $.ok IS FALSE }", true),
            ("{ ($.status = 1 || $.level = error) && $.ok IS TRUE }", false),
        ] {
            assert_eq!(matches(pattern, MESSAGE), wanted, "{pattern}");
        }
        for other in ["", "plain text", "[1]", "3", "{"] {
            assert!(!matches("{ $.absent NOT EXISTS }", other), "{other}");
        }
    }

    #[test]
    fn what_cannot_be_read_says_so() {
        let nested = format!("{{ {}$.a = 1{} }}", "(".repeat(20), ")".repeat(20));
        for (pattern, why) in [
            ("{ }", "Invalid character(s) in term '}'"),
            ("{ $.a }", "Invalid character(s) in term '}'"),
            ("{ $.a = 1", "a term that begins with { has no end"),
            ("{ $.a = 1 } x", "Invalid character(s) in term 'x'"),
            (r#"{ $."a" = 1 }"#, "Invalid character(s) in term '\"'"),
            ("{ $.a = \"x }", "a term that begins with \" has no end"),
            ("{ $.a > x }", "x is no number"),
            ("{ $.a[x] = 1 }", "Invalid character(s)"),
            ("{ level = 1 }", "Invalid character(s) in term 'l'"),
            (nested.as_str(), "brackets within brackets"),
            ("{ $.a = %x% && $.a = %y% && $.a = %z% }", "more than 2 regular expressions"),
        ] {
            let error = Pattern::parse(pattern).unwrap_err().to_string();
            assert!(error.contains(why), "{pattern}: {error}");
        }
    }

    proptest! {
        #[test]
        fn any_pattern_in_braces_is_read_or_refused(text in "\\{( |\\$|\\.|a|=|!|>|\"|%|\\(|\\)|&|\\||\\[|0|\\*|é){0,20}\\}") {
            if let Ok(pattern) = Pattern::parse(&text) {
                let _ = pattern.matches(MESSAGE.as_bytes());
            }
        }
    }
}
