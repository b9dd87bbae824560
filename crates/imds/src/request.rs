//! A request's head, out of a program's bytes.

/// Longest head; more is refused.
pub const MAX_HEAD: usize = 8 * 1024;
const MAX_HEADERS: usize = 64;

/// What bytes have turned out to be.
#[derive(Debug, PartialEq, Eq)]
pub enum Read<'a> {
    /// The beginning of a request.
    Unfinished,
    /// A request, and how many of the bytes it is.
    Request(Request<'a>, usize),
    /// Nothing that will become one.
    Malformed,
}

/// What is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// A document.
    Get,
    /// A token.
    Put,
    /// Something that is not to be had.
    Other,
}

/// A request; it has no body.
#[derive(Debug, PartialEq, Eq)]
pub struct Request<'a> {
    /// What for.
    pub method: Method,
    target: &'a str,
    /// The token that it shows.
    pub token: Option<&'a str>,
    /// Seconds that the token it wants is to last, as it says it.
    pub ttl: Option<&'a str>,
    /// Whether somebody passes it on for another.
    pub is_forwarded: bool,
    /// Whether another may follow on the connection.
    pub keeps_open: bool,
}

/// Reads a request from the beginning of `bytes`.
#[must_use]
pub fn read(bytes: &[u8]) -> Read<'_> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    match head.parse(&bytes[..bytes.len().min(MAX_HEAD)]) {
        Ok(httparse::Status::Complete(length)) => {
            understand(&head).map_or(Read::Malformed, |request| Read::Request(request, length))
        }
        Ok(httparse::Status::Partial) if bytes.len() < MAX_HEAD => Read::Unfinished,
        Ok(httparse::Status::Partial) | Err(_) => Read::Malformed,
    }
}

fn understand<'a>(head: &httparse::Request<'_, 'a>) -> Option<Request<'a>> {
    let method = match head.method? {
        "GET" => Method::Get,
        "PUT" => Method::Put,
        _ => Method::Other,
    };
    let keeps_open = head.version? == 1;
    let mut request =
        Request { method, target: head.path?, token: None, ttl: None, is_forwarded: false, keeps_open };
    for header in head.headers.iter() {
        let is = |names: &[&str]| names.iter().any(|name| header.name.eq_ignore_ascii_case(name));
        // A header of ours that is no text has no meaning, and none that we know of has to be looked at.
        let value = std::str::from_utf8(header.value).ok().map(str::trim);
        if is(&["X-metadata-token", "X-aws-ec2-metadata-token"]) {
            request.token = Some(value?);
        } else if is(&["X-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token-ttl-seconds"]) {
            request.ttl = Some(value?);
        } else if is(&["X-Forwarded-For"]) {
            request.is_forwarded = true;
        } else if is(&["Connection"]) {
            request.keeps_open &= !value?.eq_ignore_ascii_case("close");
        } else if is(&["Transfer-Encoding"]) || (is(&["Content-Length"]) && value? != "0") {
            // Where a body ended would have to be known for the next request to be found.
            return None;
        }
    }
    Some(request)
}

impl Request<'_> {
    /// The path, without a host before it or a query behind, each slash once and none at the end.
    #[must_use]
    pub fn path(&self) -> String {
        let path = match self.target.strip_prefix("http://") {
            Some(rest) => rest.find('/').map_or("", |at| &rest[at..]),
            None => self.target,
        };
        let path = path.split(['?', '#']).next().unwrap_or_default();
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        format!("/{}", parts.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn request(text: &str) -> Option<Request<'_>> {
        match read(text.as_bytes()) {
            Read::Request(request, _) => Some(request),
            Read::Unfinished | Read::Malformed => None,
        }
    }

    #[test]
    fn a_connection_is_kept_open_as_http_has_it() {
        let keeps = |text: &str| request(text).unwrap().keeps_open;
        assert!(keeps("GET / HTTP/1.1\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.1\r\nconnection: Close\r\n\r\n"));
        assert!(!keeps("GET / HTTP/1.0\r\n\r\n"));
    }

    #[test]
    fn a_request_is_cut_off_where_it_ends() {
        let text = "GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
        let Read::Request(first, length) = read(text.as_bytes()) else { panic!() };
        assert_eq!(first.path(), "/a");
        assert_eq!(request(&text[length..]).unwrap().path(), "/b");
        assert_eq!(read(b"GET / HTTP/1.1\r\nHost: x"), Read::Unfinished);
    }

    #[test]
    fn bodies_and_heads_without_end_are_refused() {
        assert_eq!(read(b"PUT / HTTP/1.1\r\nContent-Length: 3\r\n\r\nabc"), Read::Malformed);
        assert_eq!(read(b"PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"), Read::Malformed);
        assert!(request("PUT / HTTP/1.1\r\nContent-Length: 0\r\n\r\n").is_some());
        let endless = format!("GET / HTTP/1.1\r\nA: {}", "a".repeat(MAX_HEAD));
        assert_eq!(read(endless.as_bytes()), Read::Malformed);
        assert_eq!(read(b"\x16\x03\x01\x02\x00"), Read::Malformed);
    }

    proptest! {
        #[test]
        fn no_bytes_are_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Read::Request(request, length) = read(&bytes) {
                prop_assert!(length <= bytes.len() && request.path().starts_with('/'));
            }
        }
    }
}
