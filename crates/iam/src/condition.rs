//! Conditions: what must hold of a request beside its action and resource.

use std::cmp::Ordering;
use std::net::IpAddr;

use ipnet::IpNet;
use time::format_description::well_known::Iso8601;
use time::{Date, OffsetDateTime, Time};

use crate::json::Json;
use crate::pattern::{ArnPattern, Case, Pattern, Syntax};
use crate::{Context, Effect, PolicyError};

/// One operator on one key.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Condition {
    key: String,
    over: Over,
    if_exists: bool,
    negated: bool,
    test: Test,
}

/// How many of a key's values must pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Over {
    /// The key has one; with more, any that passes is enough, and the negated operator is the opposite of that.
    Single,
    All,
    Any,
}

/// What one value is compared with.
#[derive(Debug, Clone, PartialEq)]
enum Test {
    Text(Vec<Pattern>, Case),
    Arn(Vec<ArnPattern>),
    Bool(Vec<bool>),
    Absent(Vec<bool>),
    Number(Compare, Vec<f64>),
    /// Nanoseconds since 1970.
    Date(Compare, Vec<i128>),
    Ip(Vec<IpNet>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Compare {
    Equal,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// The form that an operator's values have.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text { wildcards: bool, case: Case },
    Arn,
    Bool,
    Null,
    Number(Compare),
    Date(Compare),
    Ip,
}

/// Reads the object of a `Condition` element.
pub(crate) fn parse(
    operators: Vec<(String, Json)>,
    at: &str,
    variables: bool,
) -> Result<Vec<Condition>, PolicyError> {
    let mut conditions = Vec::new();
    for (name, keys) in operators {
        let at = format!("{at}.{name}");
        let Json::Object(keys) = keys else {
            return Err(PolicyError::invalid(at, "Syntax errors in policy: condition keys are wanted here."));
        };
        for (key, values) in keys {
            let at = format!("{at}.{key}");
            conditions
                .push(one(&name, &key, values, variables).map_err(|what| PolicyError::invalid(at, what))?);
        }
    }
    Ok(conditions)
}

fn one(name: &str, key: &str, values: Json, variables: bool) -> Result<Condition, String> {
    if !key.split_once(':').is_some_and(|(vendor, rest)| !vendor.is_empty() && !rest.is_empty()) {
        return Err("Actions/Conditions must be prefaced by a vendor, e.g., iam, sdb, ec2, etc.".to_owned());
    }
    let (over, rest) = match name.split_once(':') {
        None => (Over::Single, name),
        Some(("ForAllValues", rest)) => (Over::All, rest),
        Some(("ForAnyValue", rest)) => (Over::Any, rest),
        Some((prefix, _)) => {
            return Err(format!("Invalid condition operator: there is no prefix {prefix}:."));
        }
    };
    let (operator, if_exists) = match rest.strip_suffix("IfExists") {
        Some(operator) => (operator, true),
        None => (rest, false),
    };
    let (kind, negated) =
        operator_of(operator).ok_or_else(|| format!("Invalid condition operator: {name}."))?;
    if matches!(kind, Kind::Null) && (if_exists || over != Over::Single) {
        return Err("Invalid condition operator: Null takes neither a prefix nor IfExists.".to_owned());
    }
    let test = Test::of(kind, &scalars(values)?, variables)?;
    Ok(Condition { key: key.to_lowercase(), over, if_exists, negated, test })
}

fn operator_of(name: &str) -> Option<(Kind, bool)> {
    let exact = Kind::Text { wildcards: false, case: Case::Kept };
    let folded = Kind::Text { wildcards: false, case: Case::Ignored };
    let like = Kind::Text { wildcards: true, case: Case::Kept };
    Some(match name {
        "StringEquals" => (exact, false),
        "StringNotEquals" => (exact, true),
        "StringEqualsIgnoreCase" => (folded, false),
        "StringNotEqualsIgnoreCase" => (folded, true),
        "StringLike" => (like, false),
        "StringNotLike" => (like, true),
        "ArnEquals" | "ArnLike" => (Kind::Arn, false),
        "ArnNotEquals" | "ArnNotLike" => (Kind::Arn, true),
        "Bool" => (Kind::Bool, false),
        "Null" => (Kind::Null, false),
        "NumericEquals" => (Kind::Number(Compare::Equal), false),
        "NumericNotEquals" => (Kind::Number(Compare::Equal), true),
        "NumericLessThan" => (Kind::Number(Compare::Less), false),
        "NumericLessThanEquals" => (Kind::Number(Compare::LessOrEqual), false),
        "NumericGreaterThan" => (Kind::Number(Compare::Greater), false),
        "NumericGreaterThanEquals" => (Kind::Number(Compare::GreaterOrEqual), false),
        "DateEquals" => (Kind::Date(Compare::Equal), false),
        "DateNotEquals" => (Kind::Date(Compare::Equal), true),
        "DateLessThan" => (Kind::Date(Compare::Less), false),
        "DateLessThanEquals" => (Kind::Date(Compare::LessOrEqual), false),
        "DateGreaterThan" => (Kind::Date(Compare::Greater), false),
        "DateGreaterThanEquals" => (Kind::Date(Compare::GreaterOrEqual), false),
        "IpAddress" => (Kind::Ip, false),
        "NotIpAddress" => (Kind::Ip, true),
        _ => return None,
    })
}

/// The values of a condition, which may be written as strings, numbers or truth values.
fn scalars(json: Json) -> Result<Vec<String>, String> {
    let list = match json {
        Json::List(list) => list,
        one => vec![one],
    };
    if list.is_empty() {
        return Err("Syntax errors in policy: the condition has no value.".to_owned());
    }
    let value = |json| match json {
        Json::Text(text) | Json::Scalar(text) => Ok(text),
        _ => Err("Syntax errors in policy: a condition's values are strings.".to_owned()),
    };
    list.into_iter().map(value).collect()
}

impl Test {
    fn of(kind: Kind, values: &[String], variables: bool) -> Result<Self, String> {
        fn each<T>(
            values: &[String],
            read: impl Fn(&str) -> Option<T>,
            wanted: &str,
        ) -> Result<Vec<T>, String> {
            let one = |value: &String| read(value).ok_or_else(|| format!("{value:?} is not {wanted}."));
            values.iter().map(one).collect()
        }
        Ok(match kind {
            Kind::Text { wildcards, case } => {
                let syntax = Syntax { wildcards, variables };
                Test::Text(
                    values.iter().map(|value| Pattern::parse(value, syntax)).collect::<Result<_, _>>()?,
                    case,
                )
            }
            Kind::Arn => Test::Arn(
                values.iter().map(|value| ArnPattern::parse(value, variables)).collect::<Result<_, _>>()?,
            ),
            Kind::Bool => Test::Bool(each(values, truth, "true or false")?),
            Kind::Null => Test::Absent(each(values, truth, "true or false")?),
            Kind::Number(compare) => Test::Number(compare, each(values, number, "a number")?),
            Kind::Date(compare) => {
                Test::Date(compare, each(values, date, "a date such as 2026-01-31T12:00:00Z")?)
            }
            Kind::Ip => Test::Ip(each(values, network, "an address or a network such as 203.0.113.0/24")?),
        })
    }

    /// Whether a value is equal to, like, or within one of those named. `unknown`: whether a named one that depends on
    /// an unknown variable counts as such.
    fn passes(&self, value: &str, context: &Context, unknown: bool) -> bool {
        match self {
            Test::Text(patterns, case) => {
                patterns.iter().any(|pattern| pattern.matches(value, context, *case).unwrap_or(unknown))
            }
            Test::Arn(patterns) => {
                patterns.iter().any(|pattern| pattern.matches(value, context).unwrap_or(unknown))
            }
            Test::Bool(wanted) => truth(value).is_some_and(|value| wanted.contains(&value)),
            Test::Absent(wanted) => wanted.contains(&false),
            Test::Number(compare, wanted) => number(value)
                .is_some_and(|value| wanted.iter().any(|wanted| compare.holds(value.partial_cmp(wanted)))),
            Test::Date(compare, wanted) => date(value)
                .is_some_and(|value| wanted.iter().any(|wanted| compare.holds(Some(value.cmp(wanted))))),
            Test::Ip(networks) => value.parse::<IpAddr>().is_ok_and(|address| {
                networks.iter().any(|network| network.contains(&address.to_canonical()))
            }),
        }
    }
}

impl Condition {
    /// Whether the condition holds, in a statement of this effect.
    pub(crate) fn holds(&self, context: &Context, effect: Effect) -> bool {
        let values = context.get(&self.key);
        if let (Test::Absent(wanted), true) = (&self.test, values.is_empty()) {
            return wanted.contains(&true);
        }
        if values.is_empty() {
            return self.if_exists
                || match self.over {
                    Over::Single => self.negated,
                    Over::All => true,
                    Over::Any => false,
                };
        }
        // Not being equal to nobody knows what lets nobody in.
        let unknown = self.negated && effect == Effect::Allow;
        let mut holds = values.iter().map(|value| self.test.passes(value, context, unknown) != self.negated);
        match self.over {
            Over::Single if self.negated => holds.all(|holds| holds),
            Over::All => holds.all(|holds| holds),
            Over::Single | Over::Any => holds.any(|holds| holds),
        }
    }
}

impl Compare {
    fn holds(self, found: Option<Ordering>) -> bool {
        match (self, found) {
            (_, None) => false,
            (Compare::Equal, Some(order)) => order.is_eq(),
            (Compare::Less, Some(order)) => order.is_lt(),
            (Compare::LessOrEqual, Some(order)) => order.is_le(),
            (Compare::Greater, Some(order)) => order.is_gt(),
            (Compare::GreaterOrEqual, Some(order)) => order.is_ge(),
        }
    }
}

fn truth(text: &str) -> Option<bool> {
    match () {
        () if text.eq_ignore_ascii_case("true") => Some(true),
        () if text.eq_ignore_ascii_case("false") => Some(false),
        () => None,
    }
}

fn number(text: &str) -> Option<f64> {
    text.parse().ok().filter(|number: &f64| number.is_finite())
}

/// A moment as ISO 8601 writes it, a day (which begins at midnight UTC), or seconds since 1970.
fn date(text: &str) -> Option<i128> {
    const NANOS: f64 = 1e9;
    if let Ok(seconds) = text.parse::<i64>() {
        return Some(i128::from(seconds) * 1_000_000_000);
    }
    if let Some(seconds) = number(text) {
        return Some((seconds * NANOS) as i128);
    }
    if let Ok(moment) = OffsetDateTime::parse(text, &Iso8601::DEFAULT) {
        return Some(moment.unix_timestamp_nanos());
    }
    let day = Date::parse(text, &Iso8601::DATE).ok()?;
    Some(day.with_time(Time::MIDNIGHT).assume_utc().unix_timestamp_nanos())
}

fn network(text: &str) -> Option<IpNet> {
    text.parse().ok().or_else(|| text.parse::<IpAddr>().ok().map(IpNet::from))
}
