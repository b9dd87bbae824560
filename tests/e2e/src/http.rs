//! Requests by curl, and its answers taken apart.

use std::process::Command;

use crate::Json;
use crate::command::{self, Environment};

/// The longest that any answer may take: a wake may hold a request for as long as its hook does.
const TIMEOUT_SECONDS: &str = "120";

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Such as `HTTP/2`.
    pub version: String,
    /// Status.
    pub status: u16,
    /// Headers, names in lower case, in the order they came.
    pub headers: Vec<(String, String)>,
    /// Body.
    pub body: String,
}

impl Answer {
    /// A header's value.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// Where it is not.
    #[must_use]
    pub fn json(&self) -> Json {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// This answer, which must have the status.
    ///
    /// # Panics
    /// Where it has another.
    #[allow(clippy::must_use_candidate, reason = "it asserts, with or without using the answer")]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        self
    }
}

/// What curl gets. An error is curl's own words: no answer came.
pub fn curl(environment: &Environment, url: &str, options: &[&str]) -> Result<Answer, String> {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--include", "--noproxy", "*", "--max-time", TIMEOUT_SECONDS]);
    command.args(options).arg(url).envs(environment);
    let output = command::run(&mut command);
    if output.status.success() {
        parse(&command::text(&output.stdout)).ok_or_else(|| format!("{url}: not an HTTP answer"))
    } else {
        Err(command::text(&output.stderr))
    }
}

/// Reads the last head, because interim answers come before it, and the body.
fn parse(output: &str) -> Option<Answer> {
    let (head, body) = output.split_once("\r\n\r\n")?;
    let mut lines = head.split("\r\n");
    let mut first = lines.next()?.split(' ');
    let version = first.next()?.to_owned();
    let status: u16 = first.next()?.parse().ok()?;
    if (100..200).contains(&status) && status != 101 {
        return parse(body);
    }
    let header = |line: &str| {
        line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
    };
    Some(Answer { version, status, headers: lines.filter_map(header).collect(), body: body.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read_past_the_interim_ones() {
        let answer =
            parse("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 403 Forbidden\r\nX-A: b: c\r\n\r\nno\r\n\r\n")
                .unwrap();
        assert_eq!((answer.version.as_str(), answer.status), ("HTTP/1.1", 403));
        assert_eq!(answer.header("x-a"), Some("b: c"));
        assert_eq!(answer.body, "no\r\n\r\n");
        assert_eq!(parse("HTTP/2 200 \r\n\r\n").unwrap().status, 200);
        assert_eq!(parse("nothing"), None);
    }
}
