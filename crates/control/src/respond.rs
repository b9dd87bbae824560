//! Answers, with AWS's headers.

use api::{Error, Family};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use uuid::Uuid;

use crate::body::{Body, full};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// What an answer and the audit log know a request by.
#[derive(Debug, Clone)]
pub struct RequestId(String);

impl RequestId {
    /// A new one.
    #[must_use]
    pub fn new() -> Self {
        Self(Uuid::new_v4().to_string())
    }

    /// As text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Default for RequestId {
    fn default() -> Self {
        Self::new()
    }
}

/// A success: JSON, or nothing.
pub fn success(status: u16, answer: Vec<u8>, id: &RequestId) -> Response<Body> {
    response(status, "application/json", answer, id.as_str())
}

/// An answer of IAM or STS.
pub fn xml(status: u16, body: String, id: &str) -> Response<Body> {
    response(status, "text/xml", body.into_bytes(), id)
}

/// A refusal or failure, in the manners of `family`.
pub fn error(error: &Error, family: Family, id: &RequestId) -> Response<Body> {
    let json = error.body(family).to_string().into_bytes();
    let mut response = response(error.kind.status(family), "application/json", json, id.as_str());
    response.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static(error.kind.name(family)));
    if let Some(seconds) = error.retry_after_seconds {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn response(status: u16, kind: &'static str, body: Vec<u8>, id: &str) -> Response<Body> {
    let empty = body.is_empty();
    let mut response = Response::new(full(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if !empty {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    response
}
