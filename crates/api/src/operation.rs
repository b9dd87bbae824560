//! What the service model says of an operation, and how a path leads to one.

use crate::generated::operations::{OPERATIONS, Operation};
use crate::shape::Shape;

/// Whose manners an answer has: the services name their errors, and write their members, differently.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Family {
    /// lambda-microvms.
    Microvms,
    /// lambda-core.
    Core,
    /// Lambda's older operations, on tags of what is not lambda-microvms': they are in the model of lambda-microvms,
    /// with names of their own for some errors.
    Lambda,
    /// Rekindle's own operations on endpoints, in the manners of lambda-microvms.
    Endpoints,
}

/// A part of an operation's path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Segment {
    /// This text.
    Literal(&'static str),
    /// The member of that name, percent-encoded.
    Label(&'static str),
}

/// An operation as its service's model has it.
#[derive(Debug)]
pub struct OperationModel {
    /// Which.
    pub operation: Operation,
    /// Its name, for example `RunMicrovm`.
    pub name: &'static str,
    /// Whose manners its answers have.
    pub family: Family,
    /// HTTP method.
    pub method: &'static str,
    /// Path.
    pub path: &'static [Segment],
    /// Status of a success.
    pub status: u16,
    /// What it takes.
    pub input: &'static Shape,
    /// What it answers, if anything.
    pub output: Option<&'static Shape>,
    /// Names of the errors it answers.
    pub errors: &'static [&'static str],
}

impl Operation {
    /// What the model says of it.
    #[must_use]
    pub fn model(self) -> &'static OperationModel {
        &OPERATIONS[self as usize]
    }

    /// Its name, for example `RunMicrovm`.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.model().name
    }

    /// The operation with this method and path, and what stands at its labels, still encoded.
    #[must_use]
    pub fn find<'p>(method: &str, path: &'p str) -> Option<(Self, Vec<(&'static str, &'p str)>)> {
        let segments: Vec<&str> = path.strip_prefix('/')?.split('/').collect();
        let mut same = OPERATIONS.iter().filter(|model| model.method == method);
        same.find_map(|model| Some((model.operation, labels(model.path, &segments)?)))
    }
}

fn labels<'p>(path: &'static [Segment], segments: &[&'p str]) -> Option<Vec<(&'static str, &'p str)>> {
    if path.len() != segments.len() {
        return None;
    }
    let mut found = vec![];
    for (expected, segment) in path.iter().zip(segments) {
        match expected {
            Segment::Literal(text) if text == segment => {}
            Segment::Literal(_) => return None,
            Segment::Label(name) => found.push((*name, *segment)),
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_found_by_its_own_path() {
        for (at, model) in OPERATIONS.iter().enumerate() {
            assert_eq!(model.operation as usize, at);
            let segments = model.path.iter().map(|segment| match segment {
                Segment::Literal(text) => *text,
                Segment::Label(_) => "a%3Ab",
            });
            let path = format!("/{}", segments.collect::<Vec<_>>().join("/"));
            let (found, labels) = Operation::find(model.method, &path).unwrap();
            assert_eq!(found, model.operation);
            assert!(labels.iter().all(|(_, value)| *value == "a%3Ab"));
        }
    }

    #[test]
    fn other_paths_lead_nowhere() {
        for (method, path) in [
            ("GET", "/"),
            ("GET", ""),
            ("GET", "/2025-09-09/"),
            ("GET", "/2025-09-09/microvms/m/x"),
            ("PUT", "/2025-09-09/microvms"),
            ("GET", "/2025-09-09/microvms/"),
        ] {
            let found = Operation::find(method, path).map(|(operation, _)| operation);
            let empty_label = path.ends_with("microvms/");
            assert_eq!(found, empty_label.then_some(Operation::GetMicrovm), "{method} {path}");
        }
    }
}
