//! Answers, with AWS's headers.

use api::{Error, Family};
use bytes::Bytes;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::body::{self, Body, full};

const AMZ_JSON: &str = "application/x-amz-json-1.1";
const EVENT_STREAM: &str = "application/vnd.amazon.eventstream";
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

/// An answer of JSON 1.1.
pub fn amz_json(answer: Vec<u8>, id: &RequestId) -> Response<Body> {
    response(200, AMZ_JSON, answer, id.as_str())
}

/// A refusal in the manners of JSON 1.1.
pub fn amz_json_error(status: u16, code: &'static str, message: &str, id: &RequestId) -> Response<Body> {
    let json = serde_json::json!({"__type": code, "message": message}).to_string().into_bytes();
    let mut response = response(status, AMZ_JSON, json, id.as_str());
    response.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static(code));
    response
}

/// An answer whose messages come until its end.
pub fn events(messages: mpsc::Receiver<Bytes>, id: &RequestId) -> Response<Body> {
    with_body(200, EVENT_STREAM, body::stream(messages), id.as_str())
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
    let kind = if body.is_empty() { "" } else { kind };
    with_body(status, kind, full(body), id)
}

fn with_body(status: u16, kind: &'static str, body: Body, id: &str) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if !kind.is_empty() {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    }
    if let Ok(id) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, id);
    }
    response
}
