//! Log groups: made, listed, kept for some days, removed.

use std::collections::BTreeMap;

use iam::Context;
use logs::{CreateError, Group, GroupInfo, RETENTION_DAYS};
use serde::{Deserialize, Serialize};

use crate::access::Names;
use crate::call::{Call, Reply, done, reply};
use crate::checks::Checks;
use crate::{Refusal, tags};

const PAGE: usize = 50;
const STANDARD: &str = "STANDARD";
/// Beginning of names that nobody may give.
const RESERVED: &str = "aws/";

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Create {
    log_group_name: Option<String>,
    kms_key_id: Option<String>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    log_group_class: Option<String>,
    deletion_protection_enabled: Option<bool>,
}

pub(crate) fn create(call: &mut Call, request: Create) -> Result<Reply, Refusal> {
    let name = checked(request.log_group_name)?;
    tags::check(&request.tags)?;
    call.may_touch_group(&name, tags::requested(&request.tags))?;
    if name.get(..RESERVED.len()).is_some_and(|start| start.eq_ignore_ascii_case(RESERVED)) {
        return Err(Refusal::invalid("Log groups starting with AWS/ are reserved for AWS."));
    }
    if request.kms_key_id.is_some() {
        return Err(Refusal::invalid(
            "kmsKeyId: this server has no keys to encrypt log groups with; leave it out",
        ));
    }
    if request.log_group_class.is_some_and(|class| class != STANDARD) {
        return Err(Refusal::invalid("logGroupClass: this server has log groups of the class STANDARD only"));
    }
    if request.deletion_protection_enabled == Some(true) {
        return Err(Refusal::invalid(
            "deletionProtectionEnabled: this server does not protect log groups; leave it out",
        ));
    }
    let info = GroupInfo { name, created: logs::now_ms(), retention_days: None, tags: request.tags };
    call.service.logs.create_group(&call.caller.account, info)?;
    done()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Named {
    log_group_name: Option<String>,
}

pub(crate) fn delete(call: &mut Call, request: Named) -> Result<Reply, Refusal> {
    let name = checked(request.log_group_name)?;
    call.may_touch_group(&name, Context::new())?;
    if call.service.logs.delete_group(&call.caller.account, &name)? {
        done()
    } else {
        Err(Refusal::no_group())
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PutRetention {
    log_group_name: Option<String>,
    retention_in_days: Option<u32>,
}

pub(crate) fn put_retention(call: &mut Call, request: PutRetention) -> Result<Reply, Refusal> {
    let mut checks = Checks::default();
    let name = checks.required("logGroupName", request.log_group_name);
    let days = checks.required("retentionInDays", request.retention_in_days);
    checks.finish()?;
    let name = checked(Some(name))?;
    call.may_touch_group(&name, Context::new())?;
    if !RETENTION_DAYS.contains(&days) {
        let days: Vec<String> = RETENTION_DAYS.iter().map(u32::to_string).collect();
        return Err(Refusal::invalid(format!("retentionInDays must be one of {}", days.join(", "))));
    }
    call.group(&name)?.change(|info| info.retention_days = Some(days))?;
    done()
}

pub(crate) fn delete_retention(call: &mut Call, request: Named) -> Result<Reply, Refusal> {
    let name = checked(request.log_group_name)?;
    call.may_touch_group(&name, Context::new())?;
    call.group(&name)?.change(|info| info.retention_days = None)?;
    done()
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Describe {
    log_group_name_prefix: Option<String>,
    log_group_name_pattern: Option<String>,
    log_group_class: Option<String>,
    log_group_identifiers: Option<Vec<String>>,
    next_token: Option<String>,
    limit: Option<i64>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Described {
    log_groups: Vec<Shown>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    log_group_name: String,
    creation_time: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    retention_in_days: Option<u32>,
    metric_filter_count: u32,
    arn: String,
    stored_bytes: u64,
    log_group_class: &'static str,
    log_group_arn: String,
}

impl Shown {
    fn of(group: &Group, names: &Names) -> Self {
        let GroupInfo { name, created, retention_days, .. } = group.info();
        let arn = names.group(&name);
        Self {
            log_group_name: name,
            creation_time: created,
            retention_in_days: retention_days,
            metric_filter_count: 0,
            arn: format!("{arn}:*"),
            stored_bytes: group.bytes(),
            log_group_class: STANDARD,
            log_group_arn: arn,
        }
    }
}

pub(crate) fn describe(call: &mut Call, request: Describe) -> Result<Reply, Refusal> {
    let mut checks = Checks::default();
    let Describe { log_group_name_prefix: prefix, log_group_name_pattern: pattern, .. } = request;
    prefix.iter().for_each(|prefix| checks.group("logGroupNamePrefix", prefix));
    checks.limit("limit", request.limit, 50);
    request
        .log_group_identifiers
        .iter()
        .for_each(|all| checks.count("logGroupIdentifiers", all.len(), 1..=PAGE));
    checks.finish()?;
    if prefix.is_some() && pattern.is_some() {
        return Err(Refusal::invalid(
            "LogGroup name prefix and LogGroup name pattern are mutually exclusive parameters.",
        ));
    }
    call.may_touch_group(prefix.as_deref().unwrap_or_default(), Context::new())?;
    let wanted = request
        .log_group_identifiers
        .map(|all| all.iter().map(|one| call.identified(one)).collect::<Result<Vec<_>, _>>());
    let wanted = wanted.transpose()?;
    let fits = |name: &str| {
        prefix.as_ref().is_none_or(|prefix| name.starts_with(prefix))
            && pattern.as_ref().is_none_or(|pattern| name.contains(pattern))
            && wanted.as_ref().is_none_or(|wanted| wanted.iter().any(|one| one == name))
            && request.next_token.as_ref().is_none_or(|last| name > last.as_str())
    };
    let mut groups = call.service.logs.groups(&call.caller.account);
    groups.retain(|group| fits(&group.info().name));
    if request.log_group_class.is_some_and(|class| class != STANDARD) {
        groups.clear();
    }
    let limit = request.limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(PAGE);
    let more = groups.len() > limit;
    groups.truncate(limit);
    let log_groups: Vec<Shown> = groups.iter().map(|group| Shown::of(group, &call.names)).collect();
    // Names are in order, so that the last one says where the next page begins.
    let next_token = log_groups.last().filter(|_| more).map(|last| last.log_group_name.clone());
    reply(&Described { log_groups, next_token })
}

fn checked(name: Option<String>) -> Result<String, Refusal> {
    let mut checks = Checks::default();
    let is_there = name.is_some();
    let name = checks.required("logGroupName", name);
    if is_there {
        checks.group("logGroupName", &name);
    }
    checks.finish().map(|()| name)
}

/// What a stream that is not made says: there it is the stream that exists.
pub(crate) fn stream_error(error: CreateError) -> Refusal {
    match error {
        CreateError::Exists => Refusal::exists("log stream"),
        error => error.into(),
    }
}
