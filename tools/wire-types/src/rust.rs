//! The Rust type of a shape.

use crate::model::{Model, Shape};

/// The type of values of shape `name`.
pub(crate) fn type_of(model: &Model, name: &str) -> String {
    let shape = model.shape(name);
    let inner = |reference: &Option<crate::model::Reference>| {
        reference.as_ref().map(|to| type_of(model, &to.shape)).unwrap_or_default()
    };
    match shape.kind.as_str() {
        "string" if !shape.values.is_empty() => name.to_owned(),
        "string" if shape.sensitive => "Sensitive".into(),
        "string" => "String".into(),
        "integer" | "long" => "i64".into(),
        "boolean" => "bool".into(),
        "timestamp" if shape.timestamp_format.as_deref() == Some("iso8601") => "IsoTimestamp".into(),
        "timestamp" => "Timestamp".into(),
        "list" => format!("Vec<{}>", inner(&shape.member)),
        "map" => format!("BTreeMap<{}, {}>", inner(&shape.key), inner(&shape.value)),
        "structure" => name.to_owned(),
        other => panic!("shape {name} is of type {other}, which this generator does not know"),
    }
}

/// The constraints in words, for the documentation of a field.
pub(crate) fn rule(shape: &Shape) -> Option<String> {
    let what = match shape.kind.as_str() {
        "string" => " characters",
        "list" | "map" => " entries",
        _ => "",
    };
    let size = match (shape.min, shape.max) {
        (None, None) => None,
        (Some(min), None) => Some(format!("{min}{what} or more")),
        (None, Some(max)) => Some(format!("up to {max}{what}")),
        (Some(min), Some(max)) => Some(format!("{min} to {max}{what}")),
    };
    let pattern = shape.pattern.as_ref().map(|pattern| format!("matches `{pattern}`"));
    let parts: Vec<String> = [size, pattern].into_iter().flatten().collect();
    (!parts.is_empty()).then(|| parts.join(", "))
}
