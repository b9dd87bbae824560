//! Versions of managed policies.

use store::{PolicyRecord, PolicyVersionRecord};

use super::encoded;
use super::policies::{check_size, permitted, permitted_own};
use crate::clock::iso;
use crate::query::call::Call;
use crate::query::error::Refusal;
use crate::query::fields::{POLICY_ARN, POLICY_DOCUMENT, VERSION_ID};
use crate::query::page::Asked;
use crate::query::xml::Xml;

/// Versions of one policy.
const MAX_VERSIONS: usize = 5;

pub(super) fn create(call: &mut Call<'_>) -> Result<(), Refusal> {
    let (arn, document) = (call.fields.required(&POLICY_ARN), call.fields.required(&POLICY_DOCUMENT));
    let is_default = call.fields.flag("SetAsDefault");
    call.fields.done()?;
    let mut policy = permitted_own(call, &arn)?;
    if policy.versions.len() >= MAX_VERSIONS {
        return Err(Refusal::limit_exceeded(format!(
            "A managed policy can have up to {MAX_VERSIONS} versions. Before you create a new version, you must \
             delete an existing version."
        )));
    }
    check_size(&document)?;
    // One that is not in force yet must be one that can be.
    iam::Policy::parse(&document)?;
    policy.last_version = policy.last_version.saturating_add(1);
    let version = PolicyVersionRecord { number: policy.last_version, document, created_at: call.now_ms };
    policy.versions.push(version.clone());
    policy.updated_at = call.now_ms;
    if is_default {
        policy.default_version = version.number;
    }
    call.answer.within("PolicyVersion", |xml| write(xml, &policy, &version, false));
    call.draft.put_policy(policy)?;
    Ok(())
}

pub(super) fn get(call: &mut Call<'_>) -> Result<(), Refusal> {
    let (arn, id) = (call.fields.required(&POLICY_ARN), call.fields.required(&VERSION_ID));
    call.fields.done()?;
    let policy = permitted(call, &arn)?.record;
    let version = &policy.versions[find(&policy, &arn, &id)?];
    call.answer.within("PolicyVersion", |xml| write(xml, &policy, version, true));
    Ok(())
}

pub(super) fn list(call: &mut Call<'_>) -> Result<(), Refusal> {
    let (arn, asked) = (call.fields.required(&POLICY_ARN), Asked::read(&mut call.fields));
    call.fields.done()?;
    let policy = permitted(call, &arn)?.record;
    // Newest first.
    let versions =
        policy.versions.iter().map(|version| (format!("{:010}", u32::MAX - version.number), version));
    asked
        .of(versions)?
        .write(&mut call.answer, "Versions", |xml, version| write(xml, &policy, version, false));
    Ok(())
}

pub(super) fn delete(call: &mut Call<'_>) -> Result<(), Refusal> {
    let (arn, id) = (call.fields.required(&POLICY_ARN), call.fields.required(&VERSION_ID));
    call.fields.done()?;
    let mut policy = permitted_own(call, &arn)?;
    let at = find(&policy, &arn, &id)?;
    if policy.versions[at].number == policy.default_version {
        return Err(Refusal::delete_conflict("Cannot delete the default version of a policy."));
    }
    policy.versions.remove(at);
    call.draft.put_policy(policy)?;
    Ok(())
}

pub(super) fn set_default(call: &mut Call<'_>) -> Result<(), Refusal> {
    let (arn, id) = (call.fields.required(&POLICY_ARN), call.fields.required(&VERSION_ID));
    call.fields.done()?;
    let mut policy = permitted_own(call, &arn)?;
    policy.default_version = policy.versions[find(&policy, &arn, &id)?].number;
    policy.updated_at = call.now_ms;
    call.draft.put_policy(policy)?;
    Ok(())
}

/// The index of a version.
fn find(policy: &PolicyRecord, arn: &str, id: &str) -> Result<usize, Refusal> {
    let found = policy.versions.iter().position(|version| name(version) == id);
    found.ok_or_else(|| {
        Refusal::no_such_entity(format!("Policy {arn} version {id} does not exist or is not attachable."))
    })
}

fn name(version: &PolicyVersionRecord) -> String {
    format!("v{}", version.number)
}

fn write(xml: &mut Xml, policy: &PolicyRecord, version: &PolicyVersionRecord, whole: bool) {
    if whole {
        xml.text("Document", &encoded(&version.document));
    }
    xml.text("VersionId", &name(version));
    let is_default = version.number == policy.default_version;
    xml.text("IsDefaultVersion", if is_default { "true" } else { "false" });
    xml.text("CreateDate", &iso(version.created_at / 1000));
}
