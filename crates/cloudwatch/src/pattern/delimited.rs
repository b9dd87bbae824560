//! Space-delimited patterns: `[ip, user, ..., status = 4* || status = 500, bytes > 1000]`.
//!
//! A message is fields between spaces, and what stands in double quotes or square brackets is one of them, without them.
//! Where there is no `...`, which stands for any number of fields, the last field is all that is left of the message.
//! SPEC has no section for this; it is as the user guide of CloudWatch Logs has it, and where that is silent as what
//! `TestMetricFilter` and well-known patterns show: `[w1=ERROR, w2]` is found in messages of two words and more.

use std::str;

use super::PatternError;
use super::condition::{Comparison, Condition, Operand};
use super::reader::Reader;

const ELLIPSIS: &str = "...";
/// What ends a value that stands without quotes.
const ENDS: &str = ",[]()&|<>=!\"";

/// What the fields of a message must be.
#[derive(Debug, Clone)]
pub(super) struct Fields {
    /// Of the first fields, in order.
    first: Vec<Wanted>,
    /// Of the last ones, where there is an ellipsis before them.
    last: Option<Vec<Wanted>>,
}

/// What one field must be, if anything.
type Wanted = Option<Condition<Operand>>;

impl Fields {
    /// Reads a pattern in square brackets.
    pub(super) fn parse(text: &str) -> Result<Self, PatternError> {
        let mut reader = Reader::new(text);
        reader.expect("[")?;
        let mut fields = Self { first: Vec::new(), last: None };
        // `[]` is a pattern of no fields, `[,]` one of two that have no name.
        let mut ended = reader.take("]");
        while !ended {
            if reader.take(ELLIPSIS) {
                if fields.last.replace(Vec::new()).is_some() {
                    return Err(PatternError::Ellipsis);
                }
            } else {
                let wanted = field(&mut reader)?;
                fields.last.as_mut().unwrap_or(&mut fields.first).push(wanted);
            }
            ended = reader.take("]");
            if !ended {
                reader.expect(",")?;
            }
        }
        reader.finish().map(|()| fields)
    }

    pub(super) fn matches(&self, message: &[u8]) -> bool {
        let mut split = Split::new(message);
        let mut meets_next = |wanted| split.next().is_some_and(|field| meets(wanted, field));
        let Some(last) = &self.last else {
            let Some((last, before)) = self.first.split_last() else { return true };
            return before.iter().all(meets_next)
                && split.remainder().is_some_and(|field| meets(last, field));
        };
        if !self.first.iter().all(&mut meets_next) {
            return false;
        }
        let fields: Vec<&[u8]> = split.collect();
        let tail = fields.len().checked_sub(last.len()).map(|start| &fields[start..]);
        tail.is_some_and(|tail| last.iter().zip(tail).all(|(wanted, field)| meets(wanted, field)))
    }
}

/// A name, or comparisons of it, or nothing.
fn field(reader: &mut Reader<'_>) -> Result<Wanted, PatternError> {
    reader.skip();
    if matches!(reader.peek(), Some(',' | ']')) {
        return Ok(None);
    }
    let mut name = None;
    if reader.peek() != Some('(') {
        name = Some(reader.until(|c| !is_of_name(c))?);
        reader.skip();
        if matches!(reader.peek(), Some(',' | ']') | None) {
            return Ok(None);
        }
    }
    let mut given = name;
    let condition = Condition::read(reader, &mut |reader: &mut Reader<'_>| {
        let found = match given.take() {
            Some(found) => found,
            None => {
                reader.skip();
                reader.until(|c| !is_of_name(c))?
            }
        };
        match name.get_or_insert(found) {
            field if *field == found => reader.comparison(ENDS),
            field => Err(PatternError::Name { found: found.to_owned(), field: (*field).to_owned() }),
        }
    })?;
    Ok(Some(condition))
}

fn is_of_name(c: char) -> bool {
    c.is_alphanumeric() || "_-".contains(c)
}

fn meets(wanted: &Wanted, field: &[u8]) -> bool {
    wanted.as_ref().is_none_or(|condition| condition.holds(&|operand| compare(operand, field)))
}

/// Whether a field is as it is wanted. What is no number differs from each, and is not less or more than any.
fn compare(operand: &Operand, field: &[u8]) -> bool {
    match operand {
        Operand::Text { equal, text, .. } => text.is_match(field) == *equal,
        Operand::Number(comparison, wanted) => {
            let number = str::from_utf8(field).ok().and_then(|text| text.parse::<f64>().ok());
            let number = number.filter(|number| number.is_finite());
            number.map_or(*comparison == Comparison::Unequal, |number| comparison.holds(number, *wanted))
        }
    }
}

/// The fields of a message, one after the other.
struct Split<'a> {
    rest: &'a [u8],
    /// What was looked for up to the end and not found, so that a message is not searched once for each field.
    absent: Vec<u8>,
}

impl<'a> Split<'a> {
    fn new(message: &'a [u8]) -> Self {
        Self { rest: message.trim_ascii(), absent: Vec::new() }
    }

    /// All that is left: one field, or several with the spaces between them.
    fn remainder(mut self) -> Option<&'a [u8]> {
        let rest = self.rest;
        let field = self.next()?;
        Some(if self.rest.is_empty() { field } else { rest })
    }

    /// Where the field ends whose first byte is closed by `close`, if it is; `\` takes the next byte as it is.
    fn closed_at(&mut self, close: u8) -> Option<usize> {
        if self.absent.contains(&close) {
            return None;
        }
        let mut at = 1;
        while let Some(byte) = self.rest.get(at) {
            match byte {
                b'\\' => at += 2,
                byte if *byte == close => return Some(at),
                _ => at += 1,
            }
        }
        self.absent.push(close);
        None
    }
}

impl<'a> Iterator for Split<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let close = match self.rest.first()? {
            b'"' => self.closed_at(b'"'),
            b'[' => self.closed_at(b']'),
            _ => None,
        };
        let from = close.unwrap_or(0);
        let space = self.rest[from..].iter().position(u8::is_ascii_whitespace);
        let (field, rest) = self.rest.split_at(space.map_or(self.rest.len(), |space| from + space));
        self.rest = rest.trim_ascii_start();
        // With something right behind it, it is no field by itself: the quotes or brackets are part of the field.
        Some(if close == Some(field.len() - 1) { &field[1..field.len() - 1] } else { field })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Pattern;
    use super::Split;

    const ACCESS: &str =
        r#"127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534"#;
    const REPORT: &str = "REPORT RequestId: 3897a7c2\tDuration: 4.64 ms\tBilled Duration: 5 ms\t";

    fn matches(pattern: &str, message: &str) -> bool {
        Pattern::parse(pattern)
            .unwrap_or_else(|error| panic!("{pattern}: {error}"))
            .matches(message.as_bytes())
    }

    #[test]
    fn a_message_is_fields() {
        let fields = |message: &'static str| -> Vec<&str> {
            Split::new(message.as_bytes()).map(|field| std::str::from_utf8(field).unwrap()).collect()
        };
        assert_eq!(
            fields(ACCESS),
            [
                "127.0.0.1",
                "Prod",
                "frank",
                "10/Oct/2000:13:25:15 -0700",
                "GET /index.html HTTP/1.0",
                "404",
                "1534"
            ]
        );
        assert_eq!(fields("  a \t b\r\nc "), ["a", "b", "c"]);
        assert_eq!(fields(r#""" [] "a \" b" x"#), ["", "", r#"a \" b"#, "x"]);
        assert_eq!(fields(r#"a"b c" "d e"f [g h]i j"#), ["a\"b", "c\"", "\"d e\"f", "[g h]i", "j"]);
        assert_eq!(fields(r#"[a b "c d"#), ["[a", "b", "\"c", "d"]);
        assert!(fields("").is_empty());
    }

    /// The examples of the user guide of CloudWatch Logs.
    #[test]
    fn the_guides_patterns_find_what_it_says() {
        for (pattern, wanted) in [
            ("[ip, user, username, timestamp, request, status_code, bytes]", true),
            (
                r"[ip=%127\.0\.0\.[1-9]%, user, username, timestamp, request =*.html*, status_code = 4*, bytes]",
                true,
            ),
            ("[..., request =*.html*, status_code = 4*, bytes]", true),
            (
                "[ip, user, username, timestamp, request =*.html*, status_code = 404 || status_code = 410, bytes]",
                true,
            ),
            ("[ip, user, username, timestamp, request =*.jpg*, status_code = 4*, bytes]", false),
        ] {
            assert_eq!(matches(pattern, ACCESS), wanted, "{pattern}");
        }
        let lines = [
            "INFO 09/25/2014 12:00:00 GET /service/resource/67 1200",
            "INFO 09/25/2014 12:00:01 POST /service/resource/67/part/111 1310",
            "WARNING 09/25/2014 12:00:02 Invalid user request",
            "ERROR 09/25/2014 12:00:02 Failed to process request",
        ];
        for (pattern, wanted) in [
            ("[w1=ERROR, w2]", &[3][..]),
            ("[w1=ERROR || w1=WARNING, w2]", &[2, 3]),
            ("[w1!=ERROR && w1!=WARNING, w2]", &[0, 1]),
            ("[w1=ERROR || w1=%WARN%, w2]", &[2, 3]),
            ("[logLevel, date, time, method, url=%/service/resource/[0-9]+$%, response_time]", &[0]),
            (
                "[logLevel, date, time, method, url=%/service/resource/[0-9]+/part/[0-9]+$%, response_time]",
                &[1],
            ),
        ] {
            let found: Vec<usize> = (0..lines.len()).filter(|at| matches(pattern, lines[*at])).collect();
            assert_eq!(found, wanted, "{pattern}");
        }
    }

    #[test]
    fn fields_are_counted() {
        for (pattern, message, wanted) in [
            ("[]", "", true),
            ("[ ]", "a b", true),
            ("[a]", "", false),
            ("[a]", "x y z", true),
            ("[a = x]", "x", true),
            ("[a = x]", "x y", false),
            (r#"[a = "x y"]"#, "x y", true),
            (r#"[a = "x y"]"#, r#" "x y" "#, true),
            (r#"[a, rest = "y z"]"#, "x y z ", true),
            ("[a, b]", "x", false),
            ("[,]", "x y", true),
            ("[, b = y,]", "x y z", true),
            ("[...]", "", true),
            ("[..., a]", "", false),
            ("[a, ...]", "x", true),
            ("[a = x, ...]", "x y z", true),
            ("[a = x, ..., c = z]", "x z", true),
            ("[a = x, ..., c = z]", "x 1 2 3 z", true),
            ("[a = x, ..., c = z]", "x", false),
            ("[..., b = y, c = z]", "x y z z", false),
            (r#"[timestamp = *Z, request_id = "*-*", event]"#, "2015-01-01T00:00:00.000Z 1-2 {} x", true),
            (
                r#"[report = REPORT, label = "RequestId:", id, d = "Duration:", ms > 4, unit = ms, ...]"#,
                REPORT,
                true,
            ),
        ] {
            assert_eq!(matches(pattern, message), wanted, "{pattern} on {message}");
        }
    }

    #[test]
    fn fields_are_compared() {
        for (condition, wanted) in [
            ("s = 404", true),
            ("s=404", true),
            ("s = 404.0", true),
            ("s != 404", false),
            ("s >= 400 && s < 500", true),
            ("s > 404 || s <= 403", false),
            ("(s = 404 || s = 500) && s != 404", false),
            ("s = 4*", true),
            (r#"s = "404""#, true),
            (r#"s = "40*""#, true),
            ("s = %^4%", true),
            ("s != %^5%", true),
        ] {
            assert_eq!(matches(&format!("[..., {condition}]"), "x 404"), wanted, "{condition}");
        }
        // What is no number is different from each, and in no order with any.
        for message in ["x -", "x inf", "x NaN"] {
            for (condition, wanted) in
                [("b != 0", true), ("b = 0", false), ("b > 0", false), ("b <= 0", false)]
            {
                assert_eq!(
                    matches(&format!("[a, {condition}]"), message),
                    wanted,
                    "{condition} on {message}"
                );
            }
        }
    }

    #[test]
    fn what_cannot_be_read_says_so() {
        for (pattern, why) in [
            ("[a", "ends too early"),
            ("[a,", "ends too early"),
            ("[a = ", "ends too early"),
            ("[a = ]", "Invalid character(s) in term ']'"),
            ("[a b]", "Invalid character(s) in term 'b'"),
            ("[a] b", "Invalid character(s) in term 'b'"),
            ("[a = 1 ||]", "Invalid character(s) in term ']'"),
            ("[a == 1]", "Invalid character(s) in term '='"),
            ("[a > x]", "x is no number"),
            ("[a = \"x]", "a term that begins with \" has no end"),
            ("[a, ..., b, ...]", "more than one ellipsis"),
            ("[a = 1 || b = 2]", "b stands with what is said of a"),
            ("[a = %x%, b = %y%, c = %z%]", "more than 2 regular expressions"),
        ] {
            let error = Pattern::parse(pattern).unwrap_err().to_string();
            assert!(error.contains(why), "{pattern}: {error}");
        }
    }

    /// A quarter of a mebibyte of openings that nothing closes is split in one pass for each kind.
    #[test]
    fn a_message_of_openings_takes_no_more_than_its_length() {
        let message = "[ \" ".repeat(1 << 16);
        let began = std::time::Instant::now();
        assert!(matches("[..., last = \"*\"]", &message));
        assert!(began.elapsed() < std::time::Duration::from_secs(5), "{:?}", began.elapsed());
    }

    proptest! {
        #[test]
        fn words_are_found_where_they_are(words in prop::collection::vec("[a-z]{1,5}", 1..8), at: prop::sample::Index) {
            let at = at.index(words.len());
            let columns = |value: &str| -> String {
                let names: Vec<String> =
                    (0..words.len()).map(|i| if i == at { format!("w{i} = {value}") } else { format!("w{i}") }).collect();
                format!("[{}]", names.join(", "))
            };
            let message = words.join(" ");
            prop_assert!(matches(&columns(&words[at]), &message));
            let starred = columns(&format!("{}*", &words[at][..1]));
            prop_assert!(matches(&starred, &message));
            prop_assert!(!matches(&columns("A"), &message));
            let last = format!("[..., w = {}{}]", words[at], ", x".repeat(words.len() - at - 1));
            prop_assert!(matches(&last, &message));
        }

        #[test]
        fn any_pattern_in_brackets_is_read_or_refused(
            text in "\\[( |a|b|,|\\.\\.\\.|=|!|>|\"|%|\\(|\\)|&&|\\|\\||1|\\*|é){0,20}\\]",
            message: Vec<u8>,
        ) {
            if let Ok(pattern) = Pattern::parse(&text) {
                let _ = pattern.matches(&message);
            }
        }

        #[test]
        fn fields_are_all_that_is_no_space(message in "[a \"\\[\\]]{0,30}") {
            let fields: usize = Split::new(message.as_bytes()).map(|field| field.len()).sum();
            prop_assert!(fields <= message.len());
            prop_assert_eq!(Split::new(message.as_bytes()).next().is_none(), message.trim().is_empty());
        }
    }
}
