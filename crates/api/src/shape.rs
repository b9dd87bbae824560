//! Reading and checking values by the service model: wrong types are refused at once, as nothing can be said of
//! such a request; constraints are checked all, and those that are broken reported together (SPEC §2.4).
//!
//! Members that the model does not know are dropped, as are `null`s, so that what remains deserialises.

use std::sync::OnceLock;

use regex::Regex;
use serde_json::{Map, Value};

/// A type of the model with its constraints.
#[derive(Debug)]
pub enum Shape {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer {
        /// Least.
        min: Option<i64>,
        /// Greatest.
        max: Option<i64>,
    },
    /// A moment.
    Timestamp,
    /// A string.
    Text(Text),
    /// A list.
    List {
        /// Of these.
        item: &'static Shape,
        /// Fewest.
        min: Option<i64>,
        /// Most.
        max: Option<i64>,
    },
    /// A map.
    Map {
        /// From these, which are texts.
        key: &'static Shape,
        /// To these.
        value: &'static Shape,
        /// Fewest.
        min: Option<i64>,
        /// Most.
        max: Option<i64>,
    },
    /// A structure.
    Structure(&'static [Member]),
    /// A structure of which exactly one member is given.
    Union(&'static [Member]),
}

/// Constraints of a string.
#[derive(Debug)]
pub struct Text {
    /// Fewest characters.
    pub min: Option<i64>,
    /// Most characters.
    pub max: Option<i64>,
    /// What all of it matches.
    pub pattern: Option<&'static Pattern>,
    /// The only values; empty where any will do.
    pub values: &'static [&'static str],
}

/// A member of a structure.
#[derive(Debug)]
pub struct Member {
    /// Its name, also in messages.
    pub name: &'static str,
    /// Its name in the path or the query.
    pub wire: &'static str,
    /// Where it is sent.
    pub place: Place,
    /// Whether it must be there.
    pub required: bool,
    /// Its type.
    pub shape: &'static Shape,
}

/// Where a member of a request is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the JSON body.
    Body,
    /// At a label of the path.
    Path,
    /// In the query.
    Query,
}

/// A regular expression of the model, compiled when first needed.
#[derive(Debug)]
pub struct Pattern {
    text: &'static str,
    compiled: OnceLock<Regex>,
}

impl Pattern {
    pub(crate) const fn new(text: &'static str) -> Self {
        Self { text, compiled: OnceLock::new() }
    }

    /// Whether it matches all of `text`.
    #[must_use]
    pub fn matches(&self, text: &str) -> bool {
        // The models' patterns were written for engines whose \d is ASCII.
        let whole = || Regex::new(&format!(r"\A(?:{})\z", self.text.replace(r"\d", "[0-9]")));
        // Generated, and a test compiles each.
        self.compiled
            .get_or_init(|| whole().expect("the model's patterns are regular expressions"))
            .is_match(text)
    }
}

/// A value of another type than the model's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("Value at '{at}' must be {expected}")]
pub struct Mismatch {
    at: String,
    expected: &'static str,
}

/// Where a value of a request comes from.
#[derive(Debug)]
pub struct Sources<'a> {
    /// Values at the path's labels.
    pub path: &'a [(&'static str, String)],
    /// Names and values of the query, in its order.
    pub query: &'a [(String, String)],
    /// Members of the body.
    pub body: Map<String, Value>,
}

/// Checks values, and notes the constraints that they break.
#[derive(Debug, Default)]
pub struct Reader {
    broken: Vec<String>,
}

impl Reader {
    /// The constraints broken so far, in the model's order.
    #[must_use]
    pub fn broken(&self) -> &[String] {
        &self.broken
    }

    /// What a request says to `members`, from wherever each is sent.
    ///
    /// # Errors
    /// [`Mismatch`] at the first value of a wrong type.
    pub fn request(&mut self, shape: &Shape, mut sources: Sources<'_>) -> Result<Value, Mismatch> {
        let (Shape::Structure(members) | Shape::Union(members)) = shape else {
            return self.value(shape, "", Value::Object(sources.body));
        };
        let mut given = Map::new();
        for member in *members {
            let value = match member.place {
                Place::Body => sources.body.remove(member.name),
                Place::Path => {
                    let found = sources.path.iter().find(|(name, _)| *name == member.wire);
                    found.map(|(_, text)| parse(member.shape, member.name, text)).transpose()?
                }
                Place::Query => from_query(member, sources.query)?,
            };
            given.extend(value.map(|value| (member.name.to_owned(), value)));
        }
        self.value(shape, "", Value::Object(given))
    }

    /// The value at `at`, without what the model does not know.
    ///
    /// # Errors
    /// [`Mismatch`] at the first value of a wrong type.
    pub fn value(&mut self, shape: &Shape, at: &str, value: Value) -> Result<Value, Mismatch> {
        let mismatch = |expected| Mismatch { at: at.to_owned(), expected };
        match (shape, value) {
            (Shape::Boolean, Value::Bool(value)) => Ok(value.into()),
            (Shape::Boolean, _) => Err(mismatch("true or false")),
            (Shape::Integer { min, max }, Value::Number(number)) => {
                let value = number.as_i64().ok_or_else(|| mismatch("a whole number"))?;
                self.bounds(at, "value", value, *min, *max);
                Ok(value.into())
            }
            (Shape::Integer { .. }, _) => Err(mismatch("a whole number")),
            (Shape::Timestamp, value @ (Value::Number(_) | Value::String(_))) => Ok(value),
            (Shape::Timestamp, _) => Err(mismatch("a timestamp")),
            (Shape::Text(text), Value::String(value)) => {
                self.text(text, at, &value);
                Ok(value.into())
            }
            (Shape::Text(_), _) => Err(mismatch("a string")),
            (Shape::List { item, min, max }, Value::Array(items)) => {
                self.bounds(at, "length", count(items.len()), *min, *max);
                let items = items.into_iter().enumerate();
                let item = |(index, value)| self.value(item, &format!("{at}.{}.member", index + 1), value);
                items.map(item).collect::<Result<_, _>>().map(Value::Array)
            }
            (Shape::List { .. }, _) => Err(mismatch("a list")),
            (Shape::Map { key, value, min, max }, Value::Object(entries)) => {
                self.entries(at, (key, value), (*min, *max), entries)
            }
            (Shape::Map { .. }, _) => Err(mismatch("a map")),
            (Shape::Structure(members), Value::Object(given)) => {
                self.members(members, at, given).map(Value::Object)
            }
            (Shape::Union(members), Value::Object(given)) => {
                let given = self.members(members, at, given)?;
                if given.len() != 1 {
                    self.note(at, "have exactly one member");
                }
                Ok(Value::Object(given))
            }
            (Shape::Structure(_) | Shape::Union(_), _) => Err(mismatch("a structure")),
        }
    }

    fn members(
        &mut self,
        members: &[Member],
        at: &str,
        mut given: Map<String, Value>,
    ) -> Result<Map<String, Value>, Mismatch> {
        let mut known = Map::new();
        for member in members {
            let at = if at.is_empty() { member.name.to_owned() } else { format!("{at}.{}", member.name) };
            match given.remove(member.name).filter(|value| !value.is_null()) {
                Some(value) => {
                    known.insert(member.name.to_owned(), self.value(member.shape, &at, value)?);
                }
                None if member.required => self.note(&at, "not be null"),
                None => {}
            }
        }
        Ok(known)
    }

    fn entries(
        &mut self,
        at: &str,
        (key, value): (&Shape, &Shape),
        (min, max): (Option<i64>, Option<i64>),
        entries: Map<String, Value>,
    ) -> Result<Value, Mismatch> {
        self.bounds(at, "length", count(entries.len()), min, max);
        let mut known = Map::new();
        for (name, entry) in entries.into_iter().filter(|(_, entry)| !entry.is_null()) {
            self.value(key, at, Value::String(name.clone()))?;
            let entry = self.value(value, &format!("{at}.{name}.member"), entry)?;
            known.insert(name, entry);
        }
        Ok(Value::Object(known))
    }

    fn text(&mut self, text: &Text, at: &str, value: &str) {
        self.bounds(at, "length", count(value.chars().count()), text.min, text.max);
        if let Some(pattern) = text.pattern.filter(|pattern| !pattern.matches(value)) {
            self.note(at, &format!("satisfy regular expression pattern: {}", pattern.text));
        }
        if !text.values.is_empty() && !text.values.contains(&value) {
            self.note(at, &format!("satisfy enum value set: [{}]", text.values.join(", ")));
        }
    }

    fn bounds(&mut self, at: &str, what: &str, value: i64, min: Option<i64>, max: Option<i64>) {
        if let Some(min) = min.filter(|min| value < *min) {
            self.note(at, &format!("have {what} greater than or equal to {min}"));
        }
        if let Some(max) = max.filter(|max| value > *max) {
            self.note(at, &format!("have {what} less than or equal to {max}"));
        }
    }

    fn note(&mut self, at: &str, rule: &str) {
        self.broken.push(format!("Value at '{at}' failed to satisfy constraint: Member must {rule}"));
    }
}

fn count(length: usize) -> i64 {
    i64::try_from(length).unwrap_or(i64::MAX)
}

/// A member of the query; a list is one that comes several times.
fn from_query(member: &Member, query: &[(String, String)]) -> Result<Option<Value>, Mismatch> {
    let mut values = query.iter().filter(|(name, _)| name == member.wire).map(|(_, value)| value);
    let Shape::List { item, .. } = member.shape else {
        return values.next().map(|text| parse(member.shape, member.name, text)).transpose();
    };
    let items = values.map(|text| parse(item, member.name, text)).collect::<Result<Vec<_>, _>>()?;
    Ok((!items.is_empty()).then_some(Value::Array(items)))
}

/// A value that was sent as text.
fn parse(shape: &Shape, at: &str, text: &str) -> Result<Value, Mismatch> {
    let mismatch = |expected| Mismatch { at: at.to_owned(), expected };
    match shape {
        Shape::Integer { .. } => text.parse::<i64>().map(Value::from).map_err(|_| mismatch("a whole number")),
        Shape::Boolean => text.parse::<bool>().map(Value::from).map_err(|_| mismatch("true or false")),
        _ => Ok(Value::String(text.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::generated::operations::{OPERATIONS, Operation};

    fn read(operation: Operation, body: Value) -> (Result<Value, Mismatch>, Vec<String>) {
        let Value::Object(body) = body else { panic!("a body is an object") };
        let mut reader = Reader::default();
        let read = reader.request(operation.model().input, Sources { path: &[], query: &[], body });
        (read, reader.broken().to_vec())
    }

    fn patterns(shape: &'static Shape, depth: usize, found: &mut Vec<&'static Pattern>) {
        // The models nest no deeper; this only stops a shape that holds itself.
        if depth == 10 {
            return;
        }
        match shape {
            Shape::Text(text) => found.extend(text.pattern),
            Shape::List { item, .. } => patterns(item, depth + 1, found),
            Shape::Map { key, value, .. } => {
                patterns(key, depth + 1, found);
                patterns(value, depth + 1, found);
            }
            Shape::Structure(members) | Shape::Union(members) => {
                members.iter().for_each(|member| patterns(member.shape, depth + 1, found));
            }
            _ => {}
        }
    }

    #[test]
    fn every_pattern_of_the_models_compiles() {
        let mut found = vec![];
        for model in &OPERATIONS {
            patterns(model.input, 0, &mut found);
            model.output.into_iter().for_each(|output| patterns(output, 0, &mut found));
        }
        assert!(found.len() > 50);
        for pattern in found {
            let _ = pattern.matches("");
        }
    }

    #[test]
    fn all_that_is_broken_is_reported_in_the_models_order() {
        let (_, broken) = read(
            Operation::RunMicrovm,
            json!({
                "runHookPayload": "x".repeat(4097),
                "executionRoleArn": "arn:aws:iam::1:role/x-long-enough",
                "idlePolicy": {"maxIdleDurationSeconds": 5, "autoResumeEnabled": true},
            }),
        );
        let constraint = "failed to satisfy constraint: Member must";
        assert_eq!(
            broken,
            [
                format!("Value at 'imageIdentifier' {constraint} not be null"),
                format!(
                    r"Value at 'executionRoleArn' {constraint} satisfy regular expression pattern: arn:aws[a-z\-]*:iam::[0-9]{{12}}:role/?[a-zA-Z_0-9+=,.@\-_/]+"
                ),
                format!(
                    "Value at 'idlePolicy.maxIdleDurationSeconds' {constraint} have value greater than or equal to 60"
                ),
                format!("Value at 'idlePolicy.suspendedDurationSeconds' {constraint} not be null"),
                format!("Value at 'runHookPayload' {constraint} have length less than or equal to 4096"),
            ]
        );
    }

    #[test]
    fn a_wrong_type_is_no_broken_constraint() {
        let (read, _) = read(Operation::RunMicrovm, json!({"imageIdentifier": ["x"], "runHookPayload": 1}));
        assert!(read.is_err());
    }

    #[test]
    fn what_the_model_does_not_know_is_dropped() {
        let given = json!({"imageIdentifier": "x", "future": {"x": 1}, "logging": {"disabled": {"x": 1}, "y": 2}, "idlePolicy": null});
        let (read, broken) = read(Operation::RunMicrovm, given);
        assert_eq!(read.unwrap(), json!({"imageIdentifier": "x", "logging": {"disabled": {}}}));
        assert!(broken.is_empty(), "{broken:?}");
    }

    #[test]
    fn a_union_has_one_member() {
        for logging in [json!({}), json!({"disabled": {}, "cloudWatch": {}}), json!({"future": {}})] {
            let (_, broken) =
                read(Operation::RunMicrovm, json!({"imageIdentifier": "x", "logging": logging}));
            assert_eq!(
                broken,
                ["Value at 'logging' failed to satisfy constraint: Member must have exactly one member"]
            );
        }
    }

    #[test]
    fn the_query_and_the_path_are_read_too() {
        let query = [("tagKeys".to_owned(), "a".to_owned()), ("tagKeys".into(), "b".into())];
        let path = [("Resource", "arn".to_owned())];
        let mut reader = Reader::default();
        let body = json!({"TagKeys": ["c"]}).as_object().unwrap().clone();
        let sources = Sources { path: &path, query: &query, body };
        let read = reader.request(Operation::UntagResource.model().input, sources).unwrap();
        assert_eq!(read, json!({"Resource": "arn", "TagKeys": ["a", "b"]}));
        let query = [("maxResults".to_owned(), "x".to_owned())];
        let sources = Sources { path: &[], query: &query, body: Map::new() };
        assert!(Reader::default().request(Operation::ListMicrovms.model().input, sources).is_err());
    }
}
