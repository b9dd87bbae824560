//! Whether a port speaks HTTP in the clear or over TLS (SPEC §5.5). Pure.
//!
//! The rule: the first request to a port in a life goes in the clear, and any proper answer settles that. So plain
//! applications are never asked anything. A server of TLS takes the request for a broken handshake: it breaks off, with or
//! without an alert, or says so in an answer of status 400, after which it closes. Only then a handshake is tried, on a
//! connection of its own; if it succeeds the port speaks TLS for the rest of the life, and the request is sent again,
//! because such a server cannot have understood it.

use http::header::CONNECTION;
use http::{Response, StatusCode, Version};

use crate::upstream::SendError;

/// What HTTP is spoken over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    Plain,
    Tls,
}

/// Whether a request in the clear met what a server of TLS does with it.
pub(crate) fn means_tls<B>(outcome: &Result<Response<B>, SendError>) -> bool {
    match outcome {
        Ok(answer) => is_bad_request(answer),
        Err(error) => error.connect().is_none(),
    }
}

/// nginx, Apache and Go say what is wrong, each in its words, and close.
fn is_bad_request<B>(answer: &Response<B>) -> bool {
    let closes =
        answer.headers().get(CONNECTION).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"close"));
    answer.status() == StatusCode::BAD_REQUEST && (closes || answer.version() == Version::HTTP_10)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(status: u16, version: Version, connection: Option<&str>) -> Response<()> {
        let mut response = Response::builder().status(status).version(version);
        if let Some(connection) = connection {
            response = response.header(CONNECTION, connection);
        }
        response.body(()).unwrap()
    }

    #[test]
    fn only_a_bad_request_that_closes_may_come_from_tls() {
        assert!(means_tls(&Ok(answer(400, Version::HTTP_11, Some("close")))));
        assert!(means_tls(&Ok(answer(400, Version::HTTP_10, None))));
        for (status, version, connection) in [
            (400, Version::HTTP_11, None),
            (400, Version::HTTP_2, None),
            (404, Version::HTTP_10, None),
            (200, Version::HTTP_11, Some("close")),
        ] {
            assert!(!means_tls(&Ok(answer(status, version, connection))), "{status} {version:?}");
        }
    }
}
