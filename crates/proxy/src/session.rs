//! The cookie of a browser that has followed a login link: which request it counts for, and that the application does not
//! see it. Pure.
//!
//! The browser sends a cookie with every request to its host, whoever made it do so. SameSite keeps other sites from it,
//! but not the endpoints of other MicroVMs, which are of the same site. So a cookie counts only where the browser says that
//! the request comes from the same origin, or from its user; and where it follows a link as a page of its own, which is
//! what a link from elsewhere may do. Browsers cannot be made to leave these headers out; what sends neither is none.

use std::time::Duration;

use http::header::{COOKIE, HeaderMap, HeaderName, HeaderValue, ORIGIN};
use http::request::Parts;
use http::uri::Authority;
use http::{Method, header};

use crate::limits;

/// The prefix has browsers keep it to one host, and take it over TLS alone, from that host itself.
const NAME: &str = "__Host-rekindle";
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// The token of a request's cookie, where it counts.
pub(crate) fn token<'h>(head: &'h Parts, authority: &Authority) -> Option<&'h str> {
    let token = read(&head.headers)?;
    comes_from_here(head, authority).then_some(token)
}

/// The token of the cookie, if there is one.
#[must_use]
pub fn read(headers: &HeaderMap) -> Option<&str> {
    let values = headers.get_all(COOKIE).into_iter().filter_map(|value| value.to_str().ok());
    let mut pairs = values.flat_map(|value| value.split(';')).map(str::trim);
    pairs.find_map(|pair| pair.strip_prefix(NAME)?.strip_prefix('='))
}

/// Takes the cookie out of a request's one `Cookie` field; the others stay as they are.
pub fn strip(headers: &mut HeaderMap) {
    let Some(value) = headers.get(COOKIE) else { return };
    let ours = |pair: &&[u8]| {
        let rest = pair.trim_ascii().strip_prefix(NAME.as_bytes());
        rest.is_some_and(|rest| rest.first().is_none_or(|next| *next == b'='))
    };
    let pairs = || value.as_bytes().split(|byte| *byte == b';');
    if !pairs().any(|pair| ours(&pair)) {
        return;
    }
    let others: Vec<&[u8]> = pairs().filter(|pair| !ours(pair)).map(<[u8]>::trim_ascii).collect();
    match HeaderValue::from_bytes(&others.join(&b"; "[..])) {
        Ok(others) if !others.is_empty() => drop(headers.insert(COOKIE, others)),
        _ => drop(headers.remove(COOKIE)),
    }
}

/// The cookie for `token`, which is good for `left`; `None` where browsers would not take it.
pub(crate) fn set_cookie(token: &str, left: Duration) -> Option<HeaderValue> {
    if NAME.len() + token.len() > limits::MAX_COOKIE {
        return None;
    }
    let seconds = left.as_secs();
    let cookie = format!("{NAME}={token}; Path=/; Max-Age={seconds}; Secure; HttpOnly; SameSite=Lax");
    HeaderValue::from_str(&cookie).ok()
}

/// Whether it is a page of the host itself, or the browser's user, who makes the request.
pub(crate) fn comes_from_here(head: &Parts, authority: &Authority) -> bool {
    let text = |name: HeaderName| head.headers.get(name).map(HeaderValue::as_bytes);
    match text(SEC_FETCH_SITE) {
        Some(b"same-origin" | b"none") => true,
        Some(_) => {
            let reads = matches!(head.method, Method::GET | Method::HEAD);
            let alone = text(SEC_FETCH_DEST) == Some(b"document");
            reads && alone && text(SEC_FETCH_MODE) == Some(b"navigate") && !upgrades(head)
        }
        None => text(ORIGIN).is_none_or(|origin| is_origin(origin, authority)),
    }
}

fn upgrades(head: &Parts) -> bool {
    head.headers.contains_key(header::UPGRADE)
}

fn is_origin(origin: &[u8], authority: &Authority) -> bool {
    let host = origin.strip_prefix(b"https://");
    host.is_some_and(|host| host.eq_ignore_ascii_case(authority.as_str().as_bytes()))
}

#[cfg(test)]
mod tests {
    use http::Request;
    use proptest::prelude::*;

    use super::*;

    const HOST: &str = "a.example.test:8443";

    fn head(method: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = Request::builder().method(method).uri("/");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    fn counts(method: &str, headers: &[(&str, &str)]) -> bool {
        let cookie = [("cookie", "__Host-rekindle=t")];
        token(&head(method, &[headers, &cookie].concat()), &HOST.parse().unwrap()) == Some("t")
    }

    #[test]
    fn it_counts_for_pages_of_its_own_and_for_what_the_user_opens() {
        let site = |site| ("sec-fetch-site", site);
        let (navigate, document) = (("sec-fetch-mode", "navigate"), ("sec-fetch-dest", "document"));
        assert!(counts("POST", &[site("same-origin")]) && counts("GET", &[site("none")]));
        // A link on another page.
        assert!(counts("GET", &[site("cross-site"), navigate, document]));
        assert!(counts("GET", &[site("same-site"), navigate, document]));
        for headers in [
            &[site("cross-site")][..],
            &[site("same-site")],
            &[site("same-site"), navigate],
            &[site("cross-site"), navigate, ("sec-fetch-dest", "iframe")],
            &[site("cross-site"), ("sec-fetch-mode", "no-cors"), document],
            &[site("cross-site"), navigate, document, ("upgrade", "websocket")],
            &[site("cross-site"), ("origin", "https://a.example.test:8443")],
            &[site("anything")],
        ] {
            assert!(!counts("GET", headers), "{headers:?}");
        }
        assert!(!counts("POST", &[site("cross-site"), navigate, document]));
    }

    #[test]
    fn without_fetch_metadata_the_origin_tells() {
        assert!(counts("GET", &[]) && counts("POST", &[]), "no browser");
        assert!(counts("POST", &[("origin", "https://A.example.test:8443")]));
        for other in
            ["null", "https://a.example.test", "http://a.example.test:8443", "https://b.example.test:8443"]
        {
            assert!(!counts("GET", &[("origin", other)]), "{other}");
        }
    }

    #[test]
    fn it_is_found_among_others_and_taken_out() {
        let with = |cookie: &str| head("GET", &[("cookie", cookie)]).headers;
        for (sent, found, left) in [
            ("__Host-rekindle=a.b", Some("a.b"), None),
            ("x=1; __Host-rekindle=a.b;y=2", Some("a.b"), Some("x=1; y=2")),
            ("x=__Host-rekindle=1", None, Some("x=__Host-rekindle=1")),
            ("__Host-rekindled=1", None, Some("__Host-rekindled=1")),
            ("__Host-rekindle", None, None),
            ("__Host-rekindle=a; __Host-rekindle=b; z", Some("a"), Some("z")),
        ] {
            let mut headers = with(sent);
            assert_eq!(read(&headers), found, "{sent}");
            strip(&mut headers);
            assert_eq!(headers.get(COOKIE).map(|left| left.to_str().unwrap()), left, "{sent}");
        }
    }

    #[test]
    fn it_is_for_one_host_and_no_script() {
        let cookie = set_cookie("a.b", Duration::from_secs(60)).unwrap();
        let expected = "__Host-rekindle=a.b; Path=/; Max-Age=60; Secure; HttpOnly; SameSite=Lax";
        assert_eq!(cookie, expected);
        assert!(set_cookie(&"a".repeat(limits::MAX_COOKIE), Duration::from_secs(60)).is_none());
    }

    proptest! {
        #[test]
        fn whatever_is_sent_the_application_does_not_see_it(cookie in "[ -~]{0,60}") {
            for sent in [cookie.clone(), format!("{cookie};__Host-rekindle=secret"), format!("__Host-rekindle=secret; {cookie}")] {
                let mut headers = HeaderMap::new();
                headers.insert(COOKIE, sent.parse().unwrap());
                strip(&mut headers);
                prop_assert_eq!(read(&headers), None);
            }
        }
    }
}
