//! What is read of a service model.

use std::collections::{BTreeMap, BTreeSet};

use indexmap::IndexMap;
use serde::Deserialize;

/// A service: `service-2.json`.
#[derive(Debug, Deserialize)]
pub(crate) struct Model {
    pub(crate) operations: BTreeMap<String, Operation>,
    pub(crate) shapes: BTreeMap<String, Shape>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Operation {
    pub(crate) http: Http,
    pub(crate) input: Reference,
    pub(crate) output: Option<Reference>,
    #[serde(default)]
    pub(crate) errors: Vec<Reference>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Http {
    pub(crate) method: String,
    pub(crate) request_uri: String,
    pub(crate) response_code: u16,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Reference {
    pub(crate) shape: String,
    pub(crate) location: Option<String>,
    pub(crate) location_name: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Shape {
    #[serde(rename = "type")]
    pub(crate) kind: String,
    #[serde(default)]
    pub(crate) required: Vec<String>,
    /// In the order of the model.
    #[serde(default)]
    members: IndexMap<String, Reference>,
    pub(crate) member: Option<Reference>,
    pub(crate) key: Option<Reference>,
    pub(crate) value: Option<Reference>,
    pub(crate) min: Option<i64>,
    pub(crate) max: Option<i64>,
    pub(crate) pattern: Option<String>,
    #[serde(rename = "enum", default)]
    pub(crate) values: Vec<String>,
    #[serde(default)]
    pub(crate) union: bool,
    #[serde(default)]
    pub(crate) sensitive: bool,
    pub(crate) timestamp_format: Option<String>,
    pub(crate) error: Option<ErrorTrait>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ErrorTrait {
    pub(crate) http_status_code: u16,
    #[serde(default)]
    pub(crate) sender_fault: bool,
}

/// A member of a structure.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub(crate) name: String,
    pub(crate) required: bool,
    pub(crate) target: Reference,
}

impl Shape {
    pub(crate) fn members(&self) -> Vec<Member> {
        let member = |(name, target): (&String, &Reference)| Member {
            name: name.clone(),
            required: self.required.contains(name),
            target: target.clone(),
        };
        self.members.iter().map(member).collect()
    }

    /// The shapes that this one refers to.
    pub(crate) fn targets(&self) -> Vec<String> {
        let inner = [&self.member, &self.key, &self.value].into_iter().flatten().map(|to| to.shape.clone());
        inner.chain(self.members().into_iter().map(|member| member.target.shape)).collect()
    }
}

impl Model {
    /// A shape that the model itself refers to.
    pub(crate) fn shape(&self, name: &str) -> &Shape {
        &self.shapes[name]
    }

    /// The shapes that `roots` reach, each once, by name.
    pub(crate) fn reachable(&self, roots: impl IntoIterator<Item = String>) -> Vec<String> {
        let mut found = BTreeSet::new();
        let mut open: Vec<String> = roots.into_iter().collect();
        while let Some(name) = open.pop() {
            if found.insert(name.clone()) {
                open.extend(self.shape(&name).targets());
            }
        }
        found.into_iter().collect()
    }
}
