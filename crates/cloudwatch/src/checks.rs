//! The constraints of the service's model, with AWS's words for what breaks them.

use std::fmt::Display;

use crate::Refusal;

const NAME: std::ops::RangeInclusive<usize> = 1..=512;
const IDENTIFIER: std::ops::RangeInclusive<usize> = 1..=2048;
const PATTERN: std::ops::RangeInclusive<usize> = 0..=1024;

/// What is wrong with a request, all at once.
#[derive(Debug, Default)]
pub(crate) struct Checks(Vec<String>);

impl Checks {
    pub(crate) fn finish(self) -> Result<(), Refusal> {
        let count = self.0.len();
        if count == 0 {
            return Ok(());
        }
        let plural = if count == 1 { "" } else { "s" };
        Err(Refusal::invalid(format!("{count} validation error{plural} detected: {}", self.0.join("; "))))
    }

    /// What must be there; nothing at all where it is not.
    pub(crate) fn required<T: Default>(&mut self, at: &str, value: Option<T>) -> T {
        value.unwrap_or_else(|| {
            self.0
                .push(format!("Value null at '{at}' failed to satisfy constraint: Member must not be null"));
            T::default()
        })
    }

    pub(crate) fn group(&mut self, at: &str, name: &str) {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b".-_/#".contains(&byte);
        self.length(at, name, NAME);
        self.rule(name.is_empty() || name.bytes().all(legal), at, name, "[\\.\\-_/#A-Za-z0-9]+");
    }

    pub(crate) fn stream(&mut self, at: &str, name: &str) {
        self.length(at, name, NAME);
        self.rule(!name.contains([':', '*']), at, name, "[^:*]*");
    }

    pub(crate) fn identifier(&mut self, at: &str, text: &str) {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"_#+=/:,.@-*".contains(&byte);
        self.length(at, text, IDENTIFIER);
        self.rule(text.bytes().all(legal), at, text, "[\\w#+=/:,.@-]*");
    }

    pub(crate) fn pattern(&mut self, at: &str, text: &str) {
        self.length(at, text, PATTERN);
    }

    pub(crate) fn at_least_one(&mut self, at: &str, text: &str) {
        self.length(at, text, 1..=usize::MAX);
    }

    pub(crate) fn count(&mut self, at: &str, count: usize, range: std::ops::RangeInclusive<usize>) {
        if count < *range.start() {
            self.broken(at, "[]", &format!("length greater than or equal to {}", range.start()));
        } else if count > *range.end() {
            self.broken(
                at,
                format!("[{count} members]"),
                &format!("length less than or equal to {}", range.end()),
            );
        }
    }

    /// A number within `1..=most`.
    pub(crate) fn limit(&mut self, at: &str, value: Option<i64>, most: i64) {
        match value {
            Some(value) if value < 1 => self.broken(at, value, "value greater than or equal to 1"),
            Some(value) if value > most => {
                self.broken(at, value, &format!("value less than or equal to {most}"));
            }
            _ => {}
        }
    }

    pub(crate) fn time(&mut self, at: &str, value: Option<i64>) -> Option<u64> {
        let time = value.map(u64::try_from)?;
        if time.is_err() {
            self.broken(at, value.unwrap_or_default(), "value greater than or equal to 0");
        }
        time.ok()
    }

    fn length(&mut self, at: &str, text: &str, range: std::ops::RangeInclusive<usize>) {
        let length = text.chars().count();
        if length < *range.start() {
            self.broken(at, text, &format!("length greater than or equal to {}", range.start()));
        } else if length > *range.end() {
            self.broken(at, text, &format!("length less than or equal to {}", range.end()));
        }
    }

    fn rule(&mut self, holds: bool, at: &str, value: &str, pattern: &str) {
        if !holds {
            let text = format!(
                "Value '{value}' at '{at}' failed to satisfy constraint: Member must satisfy regular expression pattern: {pattern}"
            );
            self.0.push(text);
        }
    }

    fn broken(&mut self, at: &str, value: impl Display, wanted: &str) {
        self.0.push(format!(
            "Value '{value}' at '{at}' failed to satisfy constraint: Member must have {wanted}"
        ));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(checks: Checks) -> String {
        checks.finish().unwrap_err().message
    }

    #[test]
    fn what_is_broken_is_told_together_in_awss_words() {
        let mut checks = Checks::default();
        checks.group("logGroupName", "a b");
        checks.limit("limit", Some(51), 50);
        assert_eq!(
            message(checks),
            "2 validation errors detected: Value 'a b' at 'logGroupName' failed to satisfy constraint: Member must \
             satisfy regular expression pattern: [\\.\\-_/#A-Za-z0-9]+; Value '51' at 'limit' failed to satisfy \
             constraint: Member must have value less than or equal to 50"
        );
        let mut checks = Checks::default();
        assert_eq!(checks.required::<String>("logGroupName", None), "");
        assert!(
            message(checks).starts_with("1 validation error detected: Value null at 'logGroupName' failed")
        );
    }

    #[test]
    fn every_bound_is_inclusive() {
        let fine = |check: &dyn Fn(&mut Checks)| {
            let mut checks = Checks::default();
            check(&mut checks);
            checks.finish().is_ok()
        };
        assert!(fine(&|checks| checks.group("n", &"x".repeat(512))));
        assert!(
            !fine(&|checks| checks.group("n", &"x".repeat(513))) && !fine(&|checks| checks.group("n", ""))
        );
        assert!(
            fine(&|checks| checks.stream("n", "2026/01/01[1.0]x é"))
                && !fine(&|checks| checks.stream("n", "a:b"))
        );
        assert!(
            fine(&|checks| checks.limit("n", Some(1), 50)) && !fine(&|checks| checks.limit("n", Some(0), 50))
        );
        assert!(
            fine(&|checks| assert_eq!(checks.time("n", Some(0)), Some(0)))
                && !fine(&|checks| assert_eq!(checks.time("n", Some(-1)), None))
        );
        assert!(
            fine(&|checks| checks.count("n", 10, 1..=10)) && !fine(&|checks| checks.count("n", 11, 1..=10))
        );
    }
}
