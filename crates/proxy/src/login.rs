//! Login links for browsers, which cannot set headers: `https://<endpoint>/.rekindle/login#<token>`. AWS has nothing of
//! the kind.
//!
//! The token stands behind the `#`, which browsers send nobody, so that no log, history of a proxy or `Referer` has it. The
//! page at that path, the same for every host, sends it in a header, and is given a cookie for its host alone. No request
//! that shows a token by the header of the service gets here, so that to its clients the path is the application's like
//! any other.

use std::time::Duration;

use bytes::Bytes;
use http::header::{
    ALLOW, CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY, SET_COOKIE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use uuid::Uuid;

use crate::error::Refusal;
use crate::headers;
use crate::route::Router;
use crate::session;

/// Where links lead.
pub const PATH: &str = "/.rekindle/login";
/// What the page shows the link's token with.
const TOKEN: HeaderName = HeaderName::from_static("x-aws-proxy-login");
const PAGE: &str = include_str!("login/page.html");

/// Whether a request is for the login, and not for the application.
pub(crate) fn is_asked(head: &Parts) -> bool {
    head.method != Method::CONNECT
        && head.uri.path() == PATH
        && !head.headers.contains_key(headers::PROXY_AUTH)
}

/// The answer to a request for the login.
pub(crate) fn answer(router: &Router<'_>, head: &Parts) -> Result<Response<Full<Bytes>>, Refusal> {
    router.addressed(head)?;
    let mut response = match head.method {
        Method::GET | Method::HEAD => page(),
        Method::POST => {
            let token = head.headers.get(TOKEN).and_then(|token| token.to_str().ok());
            let token = token.ok_or(Refusal::Unauthorized)?;
            let left = router.login(head, token)?;
            cookie(token, left).ok_or(Refusal::LongToken)?
        }
        _ => refused(),
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
    Ok(response)
}

fn page() -> Response<Full<Bytes>> {
    let nonce = Uuid::new_v4().simple().to_string();
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; connect-src 'self'; base-uri 'none'; \
         frame-ancestors 'none'"
    );
    let mut response = Response::new(Full::from(PAGE.replace("NONCE", &nonce)));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
    headers.extend(HeaderValue::from_str(&policy).ok().map(|policy| (CONTENT_SECURITY_POLICY, policy)));
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// `None` where the token is too long for browsers.
fn cookie(token: &str, left: Duration) -> Option<Response<Full<Bytes>>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response.headers_mut().insert(SET_COOKIE, session::set_cookie(token, left)?);
    Some(response)
}

fn refused() -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::METHOD_NOT_ALLOWED;
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD, POST"));
    response
}
