//! What traces and log records say of whom they are about.

use ids::{ImageArn, ImageVersion};
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue};

pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Who says it.
pub(crate) fn scope() -> InstrumentationScope {
    InstrumentationScope { name: "rekindle".into(), version: VERSION.into(), ..Default::default() }
}

/// Attributes that are text.
pub(crate) fn texts<const N: usize>(pairs: [(&str, String); N]) -> Vec<KeyValue> {
    pairs.into_iter().map(|(key, text)| pair(key, Value::StringValue(text))).collect()
}

/// An attribute that is a list, of which there is one member.
pub(crate) fn list_of(key: &str, text: &str) -> KeyValue {
    let member = AnyValue { value: Some(Value::StringValue(text.to_owned())) };
    pair(key, Value::ArrayValue(ArrayValue { values: vec![member] }))
}

/// Of which image something is a clone, or a build.
pub(crate) fn image(image: &ImageArn, version: ImageVersion) -> Vec<KeyValue> {
    texts([
        ("faas.name", image.name.to_string()),
        ("faas.version", version.to_string()),
        ("cloud.resource_id", image.to_string()),
    ])
}

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(value) }), ..Default::default() }
}
