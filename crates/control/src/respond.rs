//! Answers: JSON, with AWS's headers.

use api::Error;
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER};
use http::{Response, StatusCode};
use uuid::Uuid;

use crate::body::{Body, full};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");

/// A success.
pub fn success<T: serde::Serialize>(status: u16, value: &T) -> Response<Body> {
    match serde_json::to_vec(value) {
        Ok(json) => json_response(status, json),
        Err(failure) => error(&Error::internal(format!("Rendering the answer: {failure}; report this"))),
    }
}

/// A refusal or failure.
pub fn error(error: &Error) -> Response<Body> {
    // The fields are texts, so that rendering cannot fail; an empty object would still carry the type.
    let json = serde_json::to_vec(error).unwrap_or_else(|_| b"{}".to_vec());
    let mut response = json_response(error.kind.status(), json);
    response.headers_mut().insert(ERROR_TYPE, HeaderValue::from_static(error.kind.name()));
    if let Some(seconds) = error.retry_after_seconds {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

fn json_response(status: u16, json: Vec<u8>) -> Response<Body> {
    let mut response = Response::new(full(json));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    if let Ok(id) = HeaderValue::from_str(&Uuid::new_v4().to_string()) {
        headers.insert(REQUEST_ID, id);
    }
    response
}
