//! Tags of log groups.

use std::collections::BTreeMap;

use iam::Context;
use serde::{Deserialize, Serialize};

use crate::Refusal;
use crate::call::{Call, Reply, done, reply};
use crate::checks::Checks;

/// Most tags of a group.
const MAX_TAGS: usize = 50;
const KEY: std::ops::RangeInclusive<usize> = 1..=128;
const MAX_VALUE: usize = 256;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Tagged {
    resource_arn: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Add {
    resource_arn: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Remove {
    resource_arn: Option<String>,
    #[serde(default)]
    tag_keys: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Listed {
    tags: BTreeMap<String, String>,
}

pub(crate) fn list(call: &mut Call, request: Tagged) -> Result<Reply, Refusal> {
    let name = named(call, request.resource_arn)?;
    call.may_touch_group(&name, Context::new())?;
    reply(&Listed { tags: call.group(&name)?.info().tags })
}

pub(crate) fn add(call: &mut Call, request: Add) -> Result<Reply, Refusal> {
    let name = named(call, request.resource_arn)?;
    check(&request.tags)?;
    call.may_touch_group(&name, requested(&request.tags))?;
    let group = call.group(&name)?;
    let mut tags = group.info().tags;
    tags.extend(request.tags);
    check(&tags)?;
    group.change(|info| info.tags = tags)?;
    done()
}

pub(crate) fn remove(call: &mut Call, request: Remove) -> Result<Reply, Refusal> {
    let name = named(call, request.resource_arn)?;
    let mut context = Context::new();
    context.set_all("aws:TagKeys", request.tag_keys.iter().cloned());
    call.may_touch_group(&name, context)?;
    call.group(&name)?.change(|info| info.tags.retain(|key, _| !request.tag_keys.contains(key)))?;
    done()
}

/// Whether these can be a group's tags.
pub(crate) fn check(tags: &BTreeMap<String, String>) -> Result<(), Refusal> {
    if tags.len() > MAX_TAGS {
        return Err(Refusal::invalid(format!("A log group has at most {MAX_TAGS} tags")));
    }
    let fits = |(key, value): (&String, &String)| {
        KEY.contains(&key.chars().count()) && value.chars().count() <= MAX_VALUE && !key.starts_with("aws:")
    };
    if tags.iter().all(fits) {
        return Ok(());
    }
    let message = "A tag's key has 1 to 128 characters and does not begin with aws:, its value at most 256";
    Err(Refusal::invalid(message))
}

/// The condition keys of tags that a request brings.
pub(crate) fn requested(tags: &BTreeMap<String, String>) -> Context {
    let mut context = Context::new();
    for (key, value) in tags {
        context.set(&format!("aws:RequestTag/{key}"), value);
    }
    context.set_all("aws:TagKeys", tags.keys().cloned());
    context
}

fn named(call: &Call, arn: Option<String>) -> Result<String, Refusal> {
    let mut checks = Checks::default();
    let arn = checks.required("resourceArn", arn);
    checks.finish()?;
    if !arn.starts_with("arn:") {
        return Err(Refusal::invalid("resourceArn: give the ARN of a log group"));
    }
    call.identified(&arn)
}
