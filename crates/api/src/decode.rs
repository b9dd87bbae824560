//! From a path, a query and a body to a typed request.

use serde_json::{Map, Value};

use crate::shape::{Reader, Sources};
use crate::{Error, ErrorKind, Request};

/// Reads and checks a request: types, then the model's constraints, then the rules beyond it. `null` is the same as
/// absent.
///
/// # Errors
/// A SerializationException or ValidationException, in the words of SPEC §2.4.
pub fn decode<R: Request>(
    body: &[u8],
    path: &[(&'static str, String)],
    query: &[(String, String)],
) -> Result<R, Error> {
    let mut reader = Reader::default();
    let sources = Sources { path, query, body: members(body)? };
    let read = reader.request(R::OPERATION.model().input, sources);
    let read = read.map_err(|mismatch| Error::new(ErrorKind::Serialization, mismatch.to_string()))?;
    refuse(reader.broken())?;
    let request: R = serde_json::from_value(read).map_err(|error| unreadable(&error))?;
    request.rules()?;
    Ok(request)
}

fn members(body: &[u8]) -> Result<Map<String, Value>, Error> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(members)) => Ok(members),
        Ok(_) => Err(Error::new(ErrorKind::Serialization, "The request's body must be a JSON object")),
        Err(error) => {
            Err(Error::new(ErrorKind::Serialization, format!("The request's body is not JSON: {error}")))
        }
    }
}

fn refuse(broken: &[String]) -> Result<(), Error> {
    let count = broken.len();
    let errors = if count == 1 { "error" } else { "errors" };
    match count {
        0 => Ok(()),
        _ => Err(Error::validation(format!("{count} validation {errors} detected: {}", broken.join("; ")))),
    }
}

/// What was checked against the model can be read, unless the model says less than its types do.
fn unreadable(error: &serde_json::Error) -> Error {
    Error::new(ErrorKind::Serialization, format!("The request cannot be read: {error}"))
}
