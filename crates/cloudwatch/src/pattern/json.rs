//! Patterns of fields: `{ $.level = "error" && ($.status >= 500 || $.retries NOT EXISTS) }`.
//!
//! A field that is not there equals nothing and differs from nothing.

use serde_json::Value;

use super::PatternError;
use super::condition::{Condition, Operand};
use super::reader::Reader;

/// What ends a value that stands without quotes.
const ENDS: &str = "()&|<>=!\"{}";

/// What the fields of a message of JSON must be.
#[derive(Debug, Clone)]
pub(super) struct Fields(Condition<(Vec<Step>, Test)>);

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
    Compared(Operand),
}

const WORDS: [(&str, Test); 4] = [
    ("IS NULL", Test::Null),
    ("IS TRUE", Test::Bool(true)),
    ("IS FALSE", Test::Bool(false)),
    ("NOT EXISTS", Test::Absent),
];

impl Fields {
    /// Reads a pattern in braces.
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let mut reader = Reader::new(text);
        reader.expect("{")?;
        let condition =
            Condition::read(&mut reader, &mut |reader: &mut Reader<'_>| Ok((path(reader)?, test(reader)?)))?;
        reader.expect("}")?;
        reader.finish().map(|()| Self(condition))
    }

    pub(super) fn matches(&self, message: &[u8]) -> bool {
        let holds = |message: &Value| self.0.holds(&|(path, test)| test.holds(find(message, path)));
        serde_json::from_slice(message).is_ok_and(|value: Value| value.is_object() && holds(&value))
    }
}

fn find<'a>(message: &'a Value, path: &[Step]) -> Option<&'a Value> {
    path.iter().try_fold(message, |value, step| match step {
        Step::Member(name) => value.get(name),
        Step::Element(at) => value.get(at),
    })
}

/// `$.a.b[0]`.
fn path(reader: &mut Reader<'_>) -> Result<Vec<Step>, PatternError> {
    reader.expect("$")?;
    let mut path = Vec::new();
    loop {
        if reader.take_here(".") {
            let name = reader.until(|c| !(c.is_alphanumeric() || "_-@".contains(c)))?;
            path.push(Step::Member(name.to_owned()));
        } else if reader.take_here("[") {
            let number = reader.until(|c| !c.is_ascii_digit())?;
            path.push(Step::Element(number.parse().map_err(|_| PatternError::Number(number.to_owned()))?));
            reader.expect("]")?;
        } else if path.is_empty() {
            return Err(reader.unexpected());
        } else {
            return Ok(path);
        }
    }
}

fn test(reader: &mut Reader<'_>) -> Result<Test, PatternError> {
    let word = WORDS.into_iter().find(|(word, _)| reader.take(word));
    word.map_or_else(|| reader.comparison(ENDS).map(Test::Compared), |(_, test)| Ok(test))
}

impl Test {
    fn holds(&self, value: Option<&Value>) -> bool {
        match (self, value) {
            (Self::Absent, value) => value.is_none(),
            (_, None) => false,
            (Self::Null, Some(value)) => value.is_null(),
            (Self::Bool(wanted), Some(value)) => value.as_bool() == Some(*wanted),
            (Self::Compared(operand), Some(value)) => compare(operand, value),
        }
    }
}

fn compare(operand: &Operand, value: &Value) -> bool {
    match (operand, value) {
        (Operand::Number(comparison, wanted), value) => {
            value.as_f64().is_some_and(|number| comparison.holds(number, *wanted))
        }
        (Operand::Text { equal, text, .. }, Value::String(value)) => {
            text.is_match(value.as_bytes()) == *equal
        }
        (Operand::Text { equal, text, quoted: false }, Value::Number(number)) => {
            text.is_match(number.to_string().as_bytes()) == *equal
        }
        (Operand::Text { equal, .. }, _) => !equal,
    }
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
            ("{ $.a = 1", "ends too early"),
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
