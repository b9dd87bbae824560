//! What identity and trust policies have in common: the document, and the parts of a statement.

use std::collections::BTreeSet;

use crate::condition::{self, Condition};
use crate::json::Json;
use crate::pattern::{Case, Pattern, Syntax};
use crate::{Access, Context, Effect, PolicyError, limits};

/// An object's elements, taken one by one; what is left over in the end is an error.
#[derive(Debug)]
pub(crate) struct Elements {
    at: String,
    elements: Vec<(String, Json)>,
}

/// A document: whether it knows variables, and its statements.
pub(crate) struct Document {
    pub(crate) variables: bool,
    pub(crate) statements: Vec<Elements>,
}

/// What a statement of either kind of policy says, but for whom or on what.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rule {
    pub(crate) effect: Effect,
    actions: Vec<Pattern>,
    all_but: bool,
    conditions: Vec<Condition>,
}

impl Document {
    pub(crate) fn parse(json: &str) -> Result<Self, PolicyError> {
        if json.len() > limits::DOCUMENT {
            return Err(PolicyError::TooLong(json.len()));
        }
        let json: Json = serde_json::from_str(json).map_err(|error| PolicyError::Json(error.to_string()))?;
        let mut policy = Elements::of(json, "the policy")?;
        let variables = match policy.text("Version")?.as_deref() {
            Some("2012-10-17") => true,
            Some("2008-10-17") | None => false,
            Some(other) => {
                let what = format!("The policy version {other:?} is neither 2012-10-17 nor 2008-10-17.");
                return Err(PolicyError::invalid("Version", what));
            }
        };
        policy.text("Id")?;
        let statements = match policy.take("Statement") {
            Some(Json::List(list)) if !list.is_empty() => list,
            Some(one @ Json::Object(_)) => vec![one],
            _ => {
                return Err(PolicyError::invalid(
                    "Statement",
                    "The policy must contain at least one statement.",
                ));
            }
        };
        policy.finish()?;
        let statements = statements
            .into_iter()
            .enumerate()
            .map(|(index, statement)| Elements::of(statement, &format!("Statement[{index}]")))
            .collect::<Result<Vec<_>, _>>()?;
        Ok(Document { variables, statements })
    }
}

impl Elements {
    fn of(json: Json, at: &str) -> Result<Self, PolicyError> {
        match json {
            Json::Object(elements) => Ok(Elements { at: at.to_owned(), elements }),
            _ => Err(PolicyError::invalid(at, "Syntax errors in policy: a JSON object is wanted here.")),
        }
    }

    pub(crate) fn at(&self, name: &str) -> String {
        if self.at == "the policy" { name.to_owned() } else { format!("{}.{name}", self.at) }
    }

    pub(crate) fn take(&mut self, name: &str) -> Option<Json> {
        let index = self.elements.iter().position(|(element, _)| element == name)?;
        Some(self.elements.swap_remove(index).1)
    }

    pub(crate) fn peek(&self, name: &str) -> Option<&Json> {
        self.elements.iter().find(|(element, _)| element == name).map(|(_, value)| value)
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.peek(name).is_some()
    }

    fn text(&mut self, name: &str) -> Result<Option<String>, PolicyError> {
        match self.take(name) {
            None => Ok(None),
            Some(Json::Text(text)) => Ok(Some(text)),
            Some(_) => {
                Err(PolicyError::invalid(self.at(name), "Syntax errors in policy: a string is wanted here."))
            }
        }
    }

    /// One of two elements, of which a statement has exactly one, and whether it is the negated one.
    pub(crate) fn either(&mut self, name: &str) -> Result<(Vec<(String, String)>, bool), PolicyError> {
        let negated = format!("Not{name}");
        let plural = name.to_lowercase() + "s";
        let (used, all_but) = match (self.has(name), self.has(&negated)) {
            (true, true) => {
                let what = format!("Policy statement must contain either {name} or {negated}, not both.");
                return Err(PolicyError::invalid(&self.at, what));
            }
            (_, all_but) => (if all_but { negated.as_str() } else { name }, all_but),
        };
        let at = self.at(used);
        let values = self.take(used).map_or(Ok(Vec::new()), |json| texts(json, &at))?;
        if values.is_empty() {
            return Err(PolicyError::invalid(&self.at, format!("Policy statement must contain {plural}.")));
        }
        Ok((values, all_but))
    }

    pub(crate) fn finish(self) -> Result<(), PolicyError> {
        match self.elements.first() {
            None => Ok(()),
            Some((name, _)) => {
                let what = format!("Syntax errors in policy: {name:?} is no element of it.");
                Err(PolicyError::invalid(self.at(name), what))
            }
        }
    }

    /// Takes everything that a statement of either kind has. `sids` are those of the statements before.
    pub(crate) fn rule(&mut self, variables: bool, sids: &mut BTreeSet<String>) -> Result<Rule, PolicyError> {
        if let Some(sid) = self.text("Sid")? {
            if !sid.chars().all(|c| c.is_ascii_alphanumeric()) {
                let what = "Statement IDs (SID) must be alpha-numeric: they match [0-9A-Za-z]*.";
                return Err(PolicyError::invalid(self.at("Sid"), what));
            }
            if !sid.is_empty() && !sids.insert(sid) {
                let what = "Statement IDs (SID) in a single policy must be unique.";
                return Err(PolicyError::invalid(self.at("Sid"), what));
            }
        }
        let effect = match self.text("Effect")?.as_deref() {
            Some("Allow") => Effect::Allow,
            Some("Deny") => Effect::Deny,
            Some(other) => {
                let what = format!("Invalid effect: {other:?} is neither \"Allow\" nor \"Deny\".");
                return Err(PolicyError::invalid(self.at("Effect"), what));
            }
            None => return Err(PolicyError::invalid(&self.at, "Missing required field Effect")),
        };
        let (actions, all_but) = self.either("Action")?;
        let actions = actions
            .into_iter()
            .map(|(at, text)| action(&text).map_err(|what| PolicyError::invalid(at, what)));
        let actions = actions.collect::<Result<_, _>>()?;
        let at = self.at("Condition");
        let conditions = match self.take("Condition") {
            None => Vec::new(),
            Some(Json::Object(operators)) => condition::parse(operators, &at, variables)?,
            Some(_) => {
                return Err(PolicyError::invalid(
                    at,
                    "Syntax errors in policy: a JSON object is wanted here.",
                ));
            }
        };
        Ok(Rule { effect, actions, all_but, conditions })
    }
}

impl Rule {
    /// Whether it speaks of an action under these circumstances.
    pub(crate) fn applies(&self, action: &str, context: &Context) -> bool {
        let listed =
            self.actions.iter().any(|pattern| pattern.matches(action, context, Case::Ignored) == Some(true));
        listed != self.all_but
            && self.conditions.iter().all(|condition| condition.holds(context, self.effect))
    }

    /// The same of an [`Access`].
    pub(crate) fn covers(&self, access: &Access<'_>) -> bool {
        self.applies(access.action, access.context)
    }
}

/// A string or a list of strings, each with its place.
pub(crate) fn texts(json: Json, at: &str) -> Result<Vec<(String, String)>, PolicyError> {
    match json {
        Json::Text(text) => Ok(vec![(at.to_owned(), text)]),
        Json::List(list) => list
            .into_iter()
            .enumerate()
            .map(|(index, item)| match item {
                Json::Text(text) => Ok((format!("{at}[{index}]"), text)),
                _ => {
                    let what = "Syntax errors in policy: a string is wanted here.";
                    Err(PolicyError::invalid(format!("{at}[{index}]"), what))
                }
            })
            .collect(),
        _ => Err(PolicyError::invalid(
            at,
            "Syntax errors in policy: a string or a list of strings is wanted here.",
        )),
    }
}

/// `*`, or a service and an operation with wildcards.
fn action(text: &str) -> Result<Pattern, String> {
    if text != "*" {
        let vendor = "Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.";
        let (service, name) = text.split_once(':').ok_or_else(|| format!("{vendor} {text:?} is not."))?;
        if service.is_empty() || !service.chars().all(|c| c.is_ascii_alphanumeric() || c == '-') {
            return Err(format!("Vendor {service} is not valid"));
        }
        if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "*?-_".contains(c)) {
            return Err(format!(
                "The action {text:?} names no operation: letters, digits, \"*\" and \"?\" are allowed."
            ));
        }
    }
    Pattern::parse(text, Syntax { wildcards: true, variables: false })
}
