//! From a body and the parameters of path and query to a typed request.

use serde_json::{Map, Value};

use crate::{Error, ErrorKind, Request};

/// Members of the query that are numbers.
const NUMBERS: [&str; 1] = ["maxResults"];

/// Reads and validates a request. Parameters win over members of the body; `null` is the same as absent.
pub fn decode<R: Request>(body: &[u8], parameters: &[(String, String)]) -> Result<R, Error> {
    let mut members = body_members(body)?;
    for (name, text) in parameters {
        members.insert(name.clone(), parameter(name, text)?);
    }
    let request: R = serde_json::from_value(Value::Object(members)).map_err(|error| explain(&error))?;
    request.validate()?;
    Ok(request)
}

fn body_members(body: &[u8]) -> Result<Map<String, Value>, Error> {
    if body.is_empty() {
        return Ok(Map::new());
    }
    match serde_json::from_slice(body) {
        Ok(Value::Object(mut members)) => {
            drop_nulls(&mut members);
            Ok(members)
        }
        Ok(_) => Err(Error::new(ErrorKind::Serialization, "The request's body must be a JSON object")),
        Err(error) => {
            Err(Error::new(ErrorKind::Serialization, format!("The request's body is not JSON: {error}")))
        }
    }
}

fn drop_nulls(members: &mut Map<String, Value>) {
    members.retain(|_, value| !value.is_null());
    members.values_mut().for_each(drop_nulls_within);
}

// serde_json refuses bodies nested deeper than 128, which bounds this recursion.
fn drop_nulls_within(value: &mut Value) {
    match value {
        Value::Object(members) => drop_nulls(members),
        Value::Array(items) => items.iter_mut().for_each(drop_nulls_within),
        _ => {}
    }
}

fn parameter(name: &str, text: &str) -> Result<Value, Error> {
    if !NUMBERS.contains(&name) {
        return Ok(Value::String(text.to_owned()));
    }
    let number: i64 = text.parse().map_err(|_| {
        Error::new(
            ErrorKind::Serialization,
            format!("Parameter {name} must be a whole number, and '{text}' is not"),
        )
    })?;
    Ok(number.into())
}

/// serde tells these cases apart only in its message; whatever we fail to recognise is still a clear 400.
fn explain(error: &serde_json::Error) -> Error {
    let text = error.to_string();
    let quoted = |prefix: &str| text.strip_prefix(prefix)?.split('`').next().map(str::to_owned);
    if let Some(member) = quoted("missing field `") {
        return Error::validation(format!(
            "1 validation error detected: Value at '{member}' failed to satisfy constraint: Member must not be null"
        ));
    }
    if let Some(value) = quoted("unknown variant `") {
        let known: Vec<&str> = text.split('`').skip(3).step_by(2).collect();
        return Error::validation(format!(
            "1 validation error detected: Value '{value}' failed to satisfy constraint: \
             Member must satisfy enum value set: [{}]",
            known.join(", ")
        ));
    }
    Error::new(ErrorKind::Serialization, format!("The request cannot be read: {text}"))
}
