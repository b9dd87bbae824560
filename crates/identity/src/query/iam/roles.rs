//! Roles.

use auth::keys::unique_id;
use iam::{Context, limits};
use store::{GrantedPolicies, RoleRecord};

use super::holder::{Holder, Kind};
use super::{encoded, requested_tags, tags};
use crate::bootstrap::{MAX_SESSION, ROLE_ID};
use crate::clock::iso;
use crate::names;
use crate::query::call::Call;
use crate::query::error::Refusal;
use crate::query::fields::{PATH, PATH_PREFIX, POLICY_DOCUMENT, ROLE_DESCRIPTION, ROLE_NAME, TRUST_DOCUMENT};
use crate::query::page::Asked;
use crate::query::xml::Xml;

/// Roles of one account.
const MAX_ROLES: usize = 1000;
/// What a role may allow its longest session to be, in seconds.
const SESSIONS: std::ops::RangeInclusive<u32> = 3600..=43200;

pub(super) fn create(call: &mut Call<'_>) -> Result<(), Refusal> {
    let name = call.fields.required(&ROLE_NAME);
    let path = call.fields.optional(&PATH).unwrap_or_else(|| "/".into());
    let trust = call.fields.required(&TRUST_DOCUMENT);
    let description = call.fields.optional(&ROLE_DESCRIPTION);
    let max_session = call.fields.number("MaxSessionDuration", SESSIONS).unwrap_or(MAX_SESSION);
    let given = call.fields.tags("Tags");
    call.fields.done()?;
    call.fields.refuse_unsupported(&["PermissionsBoundary"])?;
    let account = call.draft.account();
    let id = account.record.id.clone();
    call.authorize(&names::arn(&id, "role", &path, &name), &requested_tags(&given))?;
    if account.role(&name).is_some() {
        return Err(Refusal::already_exists(format!("Role with name {name} already exists.")));
    }
    if account.roles.len() >= MAX_ROLES {
        return Err(Refusal::limit("RolesPerAccount", MAX_ROLES));
    }
    check_trust(&trust)?;
    let record = RoleRecord {
        id: unique_id(ROLE_ID)?,
        account: id,
        path,
        name,
        created_at: call.now_ms,
        tags: given,
        policies: GrantedPolicies::default(),
        trust,
        description,
        max_session,
    };
    call.answer.within("Role", |xml| write(xml, &record, true));
    call.draft.put_role(record)?;
    Ok(())
}

pub(super) fn get(call: &mut Call<'_>) -> Result<(), Refusal> {
    let name = call.fields.required(&ROLE_NAME);
    call.fields.done()?;
    let record = permitted(call, &name)?;
    call.answer.within("Role", |xml| write(xml, &record, true));
    Ok(())
}

pub(super) fn list(call: &mut Call<'_>) -> Result<(), Refusal> {
    let prefix = call.fields.optional(&PATH_PREFIX).unwrap_or_else(|| "/".into());
    let asked = Asked::read(&mut call.fields);
    call.fields.done()?;
    let account = call.draft.account();
    call.authorize(&names::arn(&account.record.id, "role", &prefix, ""), &Context::new())?;
    let roles = account.roles.iter().filter(|(_, role)| role.record.path.starts_with(&prefix));
    let page = asked.of(roles.map(|(key, role)| (key.clone(), role)))?;
    page.write(&mut call.answer, "Roles", |xml, role| write(xml, &role.record, false));
    Ok(())
}

pub(super) fn delete(call: &mut Call<'_>) -> Result<(), Refusal> {
    let name = call.fields.required(&ROLE_NAME);
    call.fields.done()?;
    let holder = Holder::permitted(call, Kind::Role, &name, Context::new())?;
    holder.check_bare()?;
    call.draft.remove_role(holder.name());
    Ok(())
}

pub(super) fn update(call: &mut Call<'_>) -> Result<(), Refusal> {
    let name = call.fields.required(&ROLE_NAME);
    let description = call.fields.optional(&ROLE_DESCRIPTION);
    let max_session = call.fields.number("MaxSessionDuration", SESSIONS);
    call.fields.done()?;
    let mut record = permitted(call, &name)?;
    record.description = description.or(record.description);
    record.max_session = max_session.unwrap_or(record.max_session);
    call.draft.put_role(record)?;
    // The one answer that has a result and nothing in it.
    call.answer.content("\n");
    Ok(())
}

pub(super) fn update_description(call: &mut Call<'_>) -> Result<(), Refusal> {
    let name = call.fields.required(&ROLE_NAME);
    let description = call.fields.required(&ROLE_DESCRIPTION);
    call.fields.done()?;
    let mut record = permitted(call, &name)?;
    record.description = Some(description);
    call.answer.within("Role", |xml| write(xml, &record, true));
    call.draft.put_role(record)?;
    Ok(())
}

pub(super) fn update_trust(call: &mut Call<'_>) -> Result<(), Refusal> {
    let name = call.fields.required(&ROLE_NAME);
    let trust = call.fields.required(&POLICY_DOCUMENT);
    call.fields.done()?;
    let mut record = permitted(call, &name)?;
    check_trust(&trust)?;
    record.trust = trust;
    call.draft.put_role(record)?;
    Ok(())
}

/// There are no instance profiles; infrastructure tools ask before they delete a role.
pub(super) fn list_instance_profiles(call: &mut Call<'_>) -> Result<(), Refusal> {
    let (name, asked) = (call.fields.required(&ROLE_NAME), Asked::read(&mut call.fields));
    call.fields.done()?;
    permitted(call, &name)?;
    asked.of::<()>([])?.write(&mut call.answer, "InstanceProfiles", |_, ()| {});
    Ok(())
}

fn permitted(call: &Call<'_>, name: &str) -> Result<RoleRecord, Refusal> {
    match Holder::permitted(call, Kind::Role, name, Context::new())? {
        Holder::Role(record) => Ok(record),
        Holder::User(_) => unreachable!("asked for a role"),
    }
}

fn check_trust(document: &str) -> Result<(), Refusal> {
    if limits::counted(document) > limits::TRUST_POLICY {
        return Err(Refusal::limit("ACLSizePerRole", limits::TRUST_POLICY));
    }
    Ok(())
}

fn write(xml: &mut Xml, role: &RoleRecord, whole: bool) {
    xml.text("Path", &role.path);
    xml.text("RoleName", &role.name);
    xml.text("RoleId", &role.id);
    xml.text("Arn", &names::role_arn(role));
    xml.text("CreateDate", &iso(role.created_at / 1000));
    xml.text("AssumeRolePolicyDocument", &encoded(&role.trust));
    xml.optional("Description", role.description.as_deref());
    xml.text("MaxSessionDuration", &role.max_session.to_string());
    if whole && !role.tags.is_empty() {
        tags(xml, &role.tags);
    }
}
