//! An answer, and how it is written.

/// Of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// 200.
    Ok,
    /// 400.
    BadRequest,
    /// 401.
    Unauthorized,
    /// 404.
    NotFound,
    /// 405.
    MethodNotAllowed,
    /// 503.
    Unavailable,
}

impl Status {
    /// As a number.
    #[must_use]
    pub fn code(self) -> u16 {
        match self {
            Self::Ok => 200,
            Self::BadRequest => 400,
            Self::Unauthorized => 401,
            Self::NotFound => 404,
            Self::MethodNotAllowed => 405,
            Self::Unavailable => 503,
        }
    }

    fn phrase(self) -> &'static str {
        match self {
            Self::Ok => "OK",
            Self::BadRequest => "Bad Request",
            Self::Unauthorized => "Unauthorized",
            Self::NotFound => "Not Found",
            Self::MethodNotAllowed => "Method Not Allowed",
            Self::Unavailable => "Service Unavailable",
        }
    }
}

/// What a program is answered.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// How it went.
    pub status: Status,
    /// Text, also where it is a document.
    pub body: String,
    /// Seconds that the token in the body lasts.
    ttl: Option<u32>,
}

impl Answer {
    pub(crate) fn text(status: Status, body: impl Into<String>) -> Self {
        Self { status, body: body.into(), ttl: None }
    }

    pub(crate) fn token(token: String, seconds: u32) -> Self {
        Self { status: Status::Ok, body: token, ttl: Some(seconds) }
    }

    pub(crate) fn missing(path: &str) -> Self {
        Self::text(Status::NotFound, format!("Resource not found: {path}."))
    }

    /// To a request that is none; the connection is of no use any more.
    #[must_use]
    pub fn refusal() -> Self {
        Self::text(Status::BadRequest, "Invalid request.")
    }

    /// While the host that knows is away.
    #[must_use]
    pub fn unavailable() -> Self {
        Self::text(Status::Unavailable, "The metadata cannot be had now. Try again.")
    }

    /// As it goes over the wire; `keeps_open`: another request may follow on the connection.
    #[must_use]
    pub fn render(&self, keeps_open: bool) -> Vec<u8> {
        let mut text = format!("HTTP/1.1 {} {}\r\n", self.status.code(), self.status.phrase());
        if let Some(seconds) = self.ttl {
            text += &format!("X-aws-ec2-metadata-token-ttl-seconds: {seconds}\r\n");
        }
        if self.status == Status::MethodNotAllowed {
            text += "Allow: GET, PUT\r\n";
        }
        if !keeps_open {
            text += "Connection: close\r\n";
        }
        text +=
            &format!("Content-Type: text/plain\r\nContent-Length: {}\r\n\r\n{}", self.body.len(), self.body);
        text.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_clients_look_for() {
        let text = String::from_utf8(Answer::token("abc".into(), 60).render(true)).unwrap();
        assert_eq!(
            text,
            "HTTP/1.1 200 OK\r\nX-aws-ec2-metadata-token-ttl-seconds: 60\r\nContent-Type: text/plain\r\n\
             Content-Length: 3\r\n\r\nabc"
        );
        let text = String::from_utf8(Answer::refusal().render(false)).unwrap();
        assert!(text.starts_with("HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"), "{text}");
    }
}
