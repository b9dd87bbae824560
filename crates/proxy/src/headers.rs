//! Header rules of the data plane (SPEC §5.3). Pure.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, HeaderMap, HeaderName, HeaderValue, TE, TRANSFER_ENCODING, UPGRADE,
};

pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
/// What went wrong, in an answer of the proxy's own.
pub const PROXY_ERROR: HeaderName = HeaderName::from_static("x-aws-proxy-error");
/// The token of a request.
pub const PROXY_AUTH: HeaderName = HeaderName::from_static("x-aws-proxy-auth");
/// The port that a request is for.
pub const PROXY_PORT: HeaderName = HeaderName::from_static("x-aws-proxy-port");
/// The [`PROXY_ERROR`] where nothing listens on the port.
pub const APP_CONNECT_FAILED: &str = "APP_CONNECT_FAILED";
pub(crate) const PROXY_FORCE_H2: HeaderName = HeaderName::from_static("x-aws-proxy-force-h2");
/// Which trace a request belongs to (W3C Trace Context); the application sees it too, as it is.
const TRACE_PARENT: HeaderName = HeaderName::from_static("traceparent");
const PROXY_PREFIX: &str = "x-aws-proxy-";
/// The port of a request that names none.
pub const DEFAULT_PORT: u16 = 8080;

/// Headers that concern one hop only, besides those that `Connection` names.
static HOP_BY_HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
];

/// The port that the request asks for, `default` where it asks for none; `None` if the header is not one number from 1 to
/// 65535.
pub(crate) fn port(headers: &HeaderMap, default: u16) -> Option<u16> {
    let mut values = headers.get_all(PROXY_PORT).iter();
    match (values.next(), values.next()) {
        (None, _) => Some(default),
        (Some(value), None) => parse_port(value.as_bytes()),
        (Some(_), Some(_)) => None,
    }
}

/// A decimal number from 1 to 65535, digits only.
pub(crate) fn parse_port(text: &[u8]) -> Option<u16> {
    let text = std::str::from_utf8(text).ok()?;
    let digits = (1..=5).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    digits.then(|| text.parse().ok())?.filter(|port| *port != 0)
}

/// Whether a request's end is the same to everybody who reads its head (RFC 9112 §6.3). Lengths that differ or are none
/// are refused before.
pub(crate) fn is_framed(headers: &HeaderMap) -> bool {
    let lengths = headers.get_all(CONTENT_LENGTH).iter().count();
    let encodings: Vec<&[u8]> =
        headers.get_all(TRANSFER_ENCODING).iter().map(HeaderValue::as_bytes).collect();
    match encodings[..] {
        [] => lengths <= 1,
        [encoding] => lengths == 0 && encoding.eq_ignore_ascii_case(b"chunked"),
        _ => false,
    }
}

/// Whether the client asks for HTTP/2 toward the application.
pub(crate) fn forces_h2(headers: &HeaderMap) -> bool {
    headers.get(PROXY_FORCE_H2).is_some_and(|value| value.as_bytes().eq_ignore_ascii_case(b"true"))
}

/// The trace that the request says it belongs to.
pub(crate) fn trace_parent(headers: &HeaderMap) -> Option<&str> {
    headers.get(TRACE_PARENT)?.to_str().ok()
}

/// What the application may not see of a request: the proxy's own headers and those of one hop.
pub(crate) fn strip_request(headers: &mut HeaderMap) {
    let trailers = headers.get_all(TE).iter().any(accepts_trailers);
    strip(headers, |name| name.as_str().starts_with(PROXY_PREFIX));
    if trailers {
        // gRPC servers refuse calls without it; it is true of this hop too.
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

/// Removes the headers that concern one hop only.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip(headers, |_| false);
}

/// Removes those and `others`. Goes through what there is, which is less than there could be.
fn strip(headers: &mut HeaderMap, others: impl Fn(&HeaderName) -> bool) {
    let named: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    let goes = |name: &&HeaderName| HOP_BY_HOP.contains(name) || named.contains(name) || others(name);
    let gone: Vec<HeaderName> = headers.keys().filter(goes).cloned().collect();
    for name in gone {
        headers.remove(name);
    }
}

/// HTTP/2 clients may send one cookie per field; HTTP/1.1 knows one field only (RFC 9113 §8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let parts: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if parts.len() < 2 {
        return;
    }
    if let Ok(joined) = HeaderValue::from_bytes(&parts.join(&b"; "[..])) {
        headers.insert(COOKIE, joined);
    }
}

fn accepts_trailers(value: &HeaderValue) -> bool {
    value.to_str().is_ok_and(|v| v.split(',').any(|coding| coding.trim().eq_ignore_ascii_case("trailers")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn map(pairs: &[(&str, &str)]) -> HeaderMap {
        let parse = |(name, value): &(&str, &str)| -> (HeaderName, HeaderValue) {
            (name.parse().unwrap(), value.parse().unwrap())
        };
        pairs.iter().map(parse).collect()
    }

    #[test]
    fn port_is_a_number_or_the_default() {
        assert_eq!(port(&HeaderMap::new(), DEFAULT_PORT), Some(8080));
        assert_eq!(port(&map(&[("X-aws-proxy-port", "65535")]), 1), Some(65535));
        for bad in ["banana", "0", "-1", "1.5", "70000", "", "+80", "000080"] {
            assert_eq!(port(&map(&[("x-aws-proxy-port", bad)]), 1), None, "{bad}");
        }
        let mut twice = map(&[("x-aws-proxy-port", "80")]);
        twice.append(PROXY_PORT, HeaderValue::from_static("81"));
        assert_eq!(port(&twice, 1), None);
    }

    #[test]
    fn strips_what_is_ours_and_what_is_of_one_hop() {
        let mut headers = map(&[
            ("host", "h"),
            ("x-aws-proxy-auth", "t"),
            ("x-aws-proxy-unheard-of", "t"),
            ("connection", "keep-alive, x-private"),
            ("keep-alive", "5"),
            ("x-private", "1"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers, deflate"),
            ("traceparent", "00-1"),
            ("cookie", "a=b"),
        ]);
        strip_request(&mut headers);
        assert_eq!(
            headers,
            map(&[("host", "h"), ("te", "trailers"), ("traceparent", "00-1"), ("cookie", "a=b")])
        );
    }

    #[test]
    fn one_length_or_one_encoding_tells_the_end() {
        let framed = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.append(*name, HeaderValue::from_static(value));
            }
            is_framed(&headers)
        };
        let (length, chunked) = (("content-length", "5"), ("transfer-encoding", "Chunked"));
        assert!(framed(&[]) && framed(&[length]) && framed(&[chunked]));
        assert!(!framed(&[length, length]) && !framed(&[length, chunked]) && !framed(&[chunked, chunked]));
        assert!(!framed(&[("transfer-encoding", "gzip, chunked")]));
    }

    #[test]
    fn cookies_are_joined() {
        let mut headers = map(&[("cookie", "a=1")]);
        headers.append(COOKIE, HeaderValue::from_static("b=2"));
        join_cookies(&mut headers);
        assert_eq!(headers, map(&[("cookie", "a=1; b=2")]));
    }

    proptest! {
        #[test]
        fn every_port_reads_back(number in 1..=u16::MAX) {
            prop_assert_eq!(parse_port(number.to_string().as_bytes()), Some(number));
        }

        #[test]
        fn any_bytes_are_a_port_or_nothing(bytes: Vec<u8>) {
            if let Some(number) = parse_port(&bytes) {
                let digits = String::from_utf8(bytes).unwrap();
                prop_assert_eq!(digits.trim_start_matches('0'), number.to_string());
            }
        }

        #[test]
        fn nothing_of_ours_survives(suffix in "[a-z0-9-]{0,20}", connection in "[ -~]{0,40}") {
            let mut headers = map(&[("connection", &connection)]);
            headers.insert(format!("x-aws-proxy-{suffix}").parse::<HeaderName>().unwrap(), "x".parse().unwrap());
            strip_request(&mut headers);
            prop_assert!(headers.is_empty());
        }
    }
}
