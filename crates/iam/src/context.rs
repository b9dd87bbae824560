//! What is known of a request when a condition asks.

use std::collections::BTreeMap;

/// The values of condition keys. Keys are lower-cased: `aws:SourceArn` and `aws:sourcearn` are one key.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Context(BTreeMap<String, Vec<String>>);

impl Context {
    /// Nothing is known.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets a key that has one value.
    pub fn set(&mut self, key: &str, value: impl Into<String>) {
        self.0.insert(key.to_lowercase(), vec![value.into()]);
    }

    /// Sets a key that has any number of values (`aws:TagKeys`). None is the same as no such key.
    pub fn set_all<V: Into<String>>(&mut self, key: &str, values: impl IntoIterator<Item = V>) {
        self.0.insert(key.to_lowercase(), values.into_iter().map(Into::into).collect());
    }

    /// The same with one more key of one value.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<String>) -> Self {
        self.set(key, value);
        self
    }

    /// The values of a key; none if it is not known.
    pub fn get(&self, key: &str) -> &[String] {
        match self.0.get(key) {
            Some(values) => values,
            None => self.0.get(&key.to_lowercase()).map_or(&[], Vec::as_slice),
        }
    }

    /// Takes over every key of another one.
    pub fn extend(&mut self, other: &Context) {
        self.0.extend(other.0.iter().map(|(key, values)| (key.clone(), values.clone())));
    }
}
