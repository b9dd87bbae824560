//! The answers that the proxy makes itself (SPEC §5.4).

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;

use crate::WakeError;
use crate::headers::{APP_CONNECT_FAILED, PROXY_ERROR};
use crate::limits;

/// Why a request was not answered by the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refusal {
    #[error("cannot read the request's authority: send exactly one Host, the endpoint's")]
    BadHost,
    #[error(
        "cannot tell where the request ends: send one Content-Length, or one Transfer-Encoding and no length"
    )]
    Framing,
    #[error("cannot route the request: the TLS name and the Host name different endpoints")]
    Misdirected,
    #[error("cannot route the request: X-aws-proxy-port must be one number from 1 to 65535")]
    BadPort,
    #[error("cannot tunnel: a CONNECT has no body")]
    ConnectBody,
    #[error("cannot tunnel: the only protocol of an extended CONNECT is websocket")]
    Protocol,
    #[error("cannot accept the WebSocket handshake: it lacks its key")]
    Handshake,
    #[error("the request's token is missing, expired, or not for this endpoint")]
    Unauthorized,
    #[error("the token is too long for a cookie: ask for one for fewer ports")]
    LongToken,
    #[error("the token does not cover this port")]
    PortDenied,
    #[error("the MicroVM has as many requests as it may")]
    TooMany,
    #[error(transparent)]
    Wake(#[from] WakeError),
    #[error("the MicroVM did not wake within the deadline")]
    WakeTimeout,
    #[error("cannot open a connection into the MicroVM")]
    MicrovmConnect,
    #[error("cannot connect to the application: nothing listens on the port")]
    AppConnect,
    #[error("the application broke off before it answered")]
    App,
    #[error("a shell's token opens nothing but a WebSocket")]
    NotAShell,
    #[error("as many shells are open in the MicroVM as may be at once")]
    TooManyShells,
}

impl Refusal {
    /// Status, body, `x-aws-proxy-error`.
    fn parts(self) -> (StatusCode, &'static str, Option<&'static str>) {
        match self {
            Self::BadHost => (StatusCode::BAD_REQUEST, "Invalid Host header", None),
            Self::Framing => (StatusCode::BAD_REQUEST, "Invalid request framing", None),
            Self::BadPort => (StatusCode::BAD_REQUEST, "Invalid port", None),
            Self::LongToken => (StatusCode::BAD_REQUEST, "Token too long for a cookie", None),
            Self::ConnectBody => (StatusCode::BAD_REQUEST, "Invalid CONNECT", None),
            Self::Handshake => (StatusCode::BAD_REQUEST, "Invalid WebSocket handshake", None),
            Self::TooManyShells => (StatusCode::TOO_MANY_REQUESTS, "Too many shells", None),
            // RFC 9220 §3.
            Self::Protocol => (StatusCode::NOT_IMPLEMENTED, "", None),
            Self::Misdirected => (StatusCode::MISDIRECTED_REQUEST, "", None),
            // One answer for missing and wrong tokens and for endpoints that do not exist, so that nobody
            // can learn which do.
            Self::Unauthorized => {
                (StatusCode::FORBIDDEN, "Request missing authentication", Some("UNAUTHORIZED"))
            }
            Self::TooMany => (StatusCode::TOO_MANY_REQUESTS, "", None),
            Self::PortDenied => (StatusCode::FORBIDDEN, "Access to port denied", None),
            Self::AppConnect => (StatusCode::BAD_GATEWAY, "", Some(APP_CONNECT_FAILED)),
            Self::MicrovmConnect | Self::Wake(WakeError::Gone) => {
                (StatusCode::BAD_GATEWAY, "", Some("MICROVM_CONNECT_FAILED"))
            }
            Self::Wake(WakeError::NoAutoResume | WakeError::NoRoom | WakeError::Failed)
            | Self::WakeTimeout
            | Self::App
            | Self::NotAShell => (StatusCode::BAD_GATEWAY, "", None),
        }
    }

    fn retry_after_seconds(self) -> Option<u32> {
        match self {
            Self::Wake(WakeError::NoRoom) => Some(limits::RETRY_AFTER_SECONDS),
            // What is spent in a second may be spent again in the next.
            Self::TooMany => Some(1),
            _ => None,
        }
    }

    pub(crate) fn response(self) -> Response<Full<Bytes>> {
        let (status, body, code) = self.parts();
        let mut response = Response::new(Full::new(Bytes::from_static(body.as_bytes())));
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-store"));
        if !body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
        }
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self == Self::Framing {
            // What follows on the connection may be anything.
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        if let Some(code) = code {
            headers.insert(PROXY_ERROR, HeaderValue::from_static(code));
        }
        response
    }
}
