//! Answers: JSON, with AWS's headers.

use api::{Error, Family};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use uuid::Uuid;

use crate::body::{Body, full};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// A success: JSON, or nothing.
pub fn success(status: u16, answer: Vec<u8>) -> Response<Body> {
    json_response(status, answer)
}

/// A refusal or failure, in the manners of `family`.
pub fn error(error: &Error, family: Family) -> Response<Body> {
    let json = error.body(family).to_string().into_bytes();
    let mut response = json_response(error.kind.status(family), json);
    response.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static(error.kind.name(family)));
    if let Some(seconds) = error.retry_after_seconds {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn json_response(status: u16, json: Vec<u8>) -> Response<Body> {
    let empty = json.is_empty();
    let mut response = Response::new(full(json));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    if !empty {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    if let Ok(id) = HeaderValue::from_str(&Uuid::new_v4().to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    response
}
