//! Managed policies: those of the account, and those that every account finds.

use std::collections::BTreeMap;

use auth::keys::unique_id;
use iam::{Context, limits};
use store::{PolicyRecord, PolicyVersionRecord};

use super::{drop_tags, merge_tags, requested_tags, tags, with_tags_of};
use crate::clock::iso;
use crate::managed::{self, AwsPolicy};
use crate::names::{self, AWS_POLICY};
use crate::query::call::Call;
use crate::query::error::Refusal;
use crate::query::fields::{
    MAX_TAGS, PATH_PREFIX, POLICY_ARN, POLICY_DESCRIPTION, POLICY_DOCUMENT, POLICY_NAME, POLICY_PATH,
    POLICY_PATH_PREFIX, TAG_KEY,
};
use crate::query::page::Asked;
use crate::query::xml::Xml;
use crate::state::Account;

/// Managed policies of one account.
const MAX_POLICIES: usize = 1500;
const POLICY_ID: &str = "ANPA";

/// A managed policy, whoever it is of.
pub(super) struct Shown {
    pub(super) arn: String,
    pub(super) record: PolicyRecord,
}

/// What a policy is attached to.
enum Entity<'a> {
    User(&'a str, &'a str),
    Role(&'a str, &'a str),
}

pub(super) fn create(call: &mut Call<'_>) -> Result<(), Refusal> {
    let name = call.fields.required(&POLICY_NAME);
    let path = call.fields.optional(&POLICY_PATH).unwrap_or_else(|| "/".into());
    let document = call.fields.required(&POLICY_DOCUMENT);
    let description = call.fields.optional(&POLICY_DESCRIPTION);
    let given = call.fields.tags("Tags");
    call.fields.done()?;
    let account = call.draft.account();
    let id = account.record.id.clone();
    call.authorize(&names::arn(&id, "policy", &path, &name), &requested_tags(&given))?;
    if account.policies.contains_key(&name.to_lowercase()) {
        let what = format!("A policy called {name} already exists. Duplicate names are not allowed.");
        return Err(Refusal::already_exists(what));
    }
    if account.policies.len() >= MAX_POLICIES {
        return Err(Refusal::limit("PoliciesPerAccount", MAX_POLICIES));
    }
    check_size(&document)?;
    let record = PolicyRecord {
        id: unique_id(POLICY_ID)?,
        account: id,
        path,
        name,
        description,
        created_at: call.now_ms,
        updated_at: call.now_ms,
        tags: given,
        versions: vec![PolicyVersionRecord { number: 1, document, created_at: call.now_ms }],
        default_version: 1,
        last_version: 1,
    };
    let shown = Shown { arn: names::policy_arn(&record), record: record.clone() };
    call.answer.within("Policy", |xml| write(xml, &shown, 0, true));
    call.draft.put_policy(record)?;
    Ok(())
}

pub(super) fn get(call: &mut Call<'_>) -> Result<(), Refusal> {
    let arn = call.fields.required(&POLICY_ARN);
    call.fields.done()?;
    let shown = permitted(call, &arn)?;
    let attached = attachments(call.draft.account(), &arn);
    call.answer.within("Policy", |xml| write(xml, &shown, attached, true));
    Ok(())
}

pub(super) fn list(call: &mut Call<'_>) -> Result<(), Refusal> {
    let scope = call.fields.choice("Scope", &["All", "AWS", "Local"]).unwrap_or("All");
    let only_attached = call.fields.flag("OnlyAttached");
    let prefix = call.fields.optional(&POLICY_PATH_PREFIX).unwrap_or_else(|| "/".into());
    let usage = call.fields.choice("PolicyUsageFilter", &["PermissionsPolicy", "PermissionsBoundary"]);
    let asked = Asked::read(&mut call.fields);
    call.fields.done()?;
    let account = call.draft.account();
    call.authorize(&names::arn(&account.record.id, "policy", &prefix, ""), &Context::new())?;
    let of_aws =
        managed::ALL.iter().filter(|_| scope != "Local").map(|policy| Shown::of_aws(account, policy));
    let own = account.policies.values().filter(|_| scope != "AWS");
    let all = of_aws.chain(own.map(|policy| Shown::own(policy.record.clone())));
    let counted = all.map(|shown| (attachments(account, &shown.arn), shown)).filter(|(attached, shown)| {
        let wanted = !only_attached || *attached > 0;
        // Nothing here is a boundary.
        wanted && usage != Some("PermissionsBoundary") && shown.record.path.starts_with(&prefix)
    });
    let page = asked.of(counted.map(|(count, shown)| {
        (format!("{}:{}", shown.record.name.to_lowercase(), shown.arn), (count, shown))
    }))?;
    page.write(&mut call.answer, "Policies", |xml, (count, shown)| write(xml, &shown, count, false));
    Ok(())
}

pub(super) fn delete(call: &mut Call<'_>) -> Result<(), Refusal> {
    let arn = call.fields.required(&POLICY_ARN);
    call.fields.done()?;
    let record = permitted_own(call, &arn)?;
    if attachments(call.draft.account(), &arn) > 0 {
        return Err(Refusal::delete_conflict("Cannot delete a policy attached to entities."));
    }
    if record.versions.len() > 1 {
        return Err(Refusal::delete_conflict(
            "This policy has more than one version. Before you delete a policy, you must delete the policy's \
             versions. The default version is deleted with the policy.",
        ));
    }
    call.draft.remove_policy(&record.name);
    Ok(())
}

pub(super) fn list_entities(call: &mut Call<'_>) -> Result<(), Refusal> {
    let arn = call.fields.required(&POLICY_ARN);
    let kinds = ["User", "Role", "Group", "LocalManagedPolicy", "AWSManagedPolicy"];
    let filter = call.fields.choice("EntityFilter", &kinds);
    let prefix = call.fields.optional(&PATH_PREFIX).unwrap_or_else(|| "/".into());
    let asked = Asked::read(&mut call.fields);
    call.fields.done()?;
    permitted(call, &arn)?;
    let account = call.draft.account();
    let users = account
        .users
        .values()
        .map(|user| &user.record)
        .filter(|user| user.path.starts_with(&prefix) && user.policies.attached.contains(&arn));
    let users = users.filter(|_| filter.is_none_or(|filter| filter == "User"));
    let roles = account
        .roles
        .values()
        .map(|role| &role.record)
        .filter(|role| role.path.starts_with(&prefix) && role.policies.attached.contains(&arn));
    let roles = roles.filter(|_| filter.is_none_or(|filter| filter == "Role"));
    let entities = users
        .map(|user| (format!("1/{}", user.name.to_lowercase()), Entity::User(&user.name, &user.id)))
        .chain(
            roles.map(|role| (format!("2/{}", role.name.to_lowercase()), Entity::Role(&role.name, &role.id))),
        );
    let page = asked.of(entities)?;
    let xml = &mut call.answer;
    xml.list("PolicyGroups", [], |_, ()| {});
    let users = page.items.iter().filter_map(|entity| match entity {
        Entity::User(name, id) => Some((name, id)),
        Entity::Role(..) => None,
    });
    xml.list("PolicyUsers", users, |xml, (name, id)| {
        xml.text("UserName", name);
        xml.text("UserId", id);
    });
    let roles = page.items.iter().filter_map(|entity| match entity {
        Entity::Role(name, id) => Some((name, id)),
        Entity::User(..) => None,
    });
    xml.list("PolicyRoles", roles, |xml, (name, id)| {
        xml.text("RoleName", name);
        xml.text("RoleId", id);
    });
    page.end(xml);
    Ok(())
}

pub(super) fn add_tags(call: &mut Call<'_>) -> Result<(), Refusal> {
    let (arn, new) = (call.fields.required(&POLICY_ARN), call.fields.tags("Tags"));
    call.fields.done()?;
    let mut policy = own(&arn, permitted_with(call, &arn, requested_tags(&new))?)?;
    merge_tags(&mut policy.tags, new)?;
    call.draft.put_policy(policy)?;
    Ok(())
}

pub(super) fn remove_tags(call: &mut Call<'_>) -> Result<(), Refusal> {
    let arn = call.fields.required(&POLICY_ARN);
    let keys = call.fields.list("TagKeys", "", &TAG_KEY, MAX_TAGS);
    call.fields.done()?;
    let mut context = Context::new();
    context.set_all("aws:TagKeys", &keys);
    let mut policy = own(&arn, permitted_with(call, &arn, context)?)?;
    drop_tags(&mut policy.tags, &keys);
    call.draft.put_policy(policy)?;
    Ok(())
}

pub(super) fn list_tags(call: &mut Call<'_>) -> Result<(), Refusal> {
    let (arn, asked) = (call.fields.required(&POLICY_ARN), Asked::read(&mut call.fields));
    call.fields.done()?;
    let shown = permitted(call, &arn)?;
    let page = asked.of(shown.record.tags.iter().map(|(key, value)| (key.clone(), (key, value))))?;
    page.write(&mut call.answer, "Tags", super::tag);
    Ok(())
}

/// The policy that a call is about, if the caller may do this with it.
pub(super) fn permitted(call: &Call<'_>, arn: &str) -> Result<Shown, Refusal> {
    permitted_with(call, arn, Context::new())
}

fn permitted_with(call: &Call<'_>, arn: &str, context: Context) -> Result<Shown, Refusal> {
    check_arn(arn)?;
    let account = call.draft.account();
    let found = match managed::find(arn) {
        Some(policy) => Some(Shown::of_aws(account, policy)),
        None => account.policy(arn).map(|policy| Shown::own(policy.record.clone())),
    };
    let empty = BTreeMap::new();
    let tags = found.as_ref().map_or(&empty, |shown| &shown.record.tags);
    call.authorize(arn, &with_tags_of(context, tags))?;
    let is_reachable = arn.starts_with(AWS_POLICY)
        || names::parse(arn, "policy").is_some_and(|(owner, _)| owner == account.record.id);
    match found {
        Some(shown) => Ok(shown),
        None if is_reachable => Err(not_found(arn)),
        None => Err(outside()),
    }
}

/// The same for what changes it.
pub(super) fn permitted_own(call: &Call<'_>, arn: &str) -> Result<PolicyRecord, Refusal> {
    own(arn, permitted(call, arn)?)
}

fn own(arn: &str, shown: Shown) -> Result<PolicyRecord, Refusal> {
    if arn.starts_with(AWS_POLICY) { Err(outside()) } else { Ok(shown.record) }
}

pub(super) fn not_found(arn: &str) -> Refusal {
    Refusal::no_such_entity(format!("Policy {arn} was not found."))
}

pub(super) fn check_arn(arn: &str) -> Result<(), Refusal> {
    if arn.starts_with(AWS_POLICY) || names::parse(arn, "policy").is_some() {
        return Ok(());
    }
    Err(Refusal::invalid_input(format!("ARN {arn} is not valid.")))
}

pub(super) fn check_size(document: &str) -> Result<(), Refusal> {
    if limits::counted(document) > limits::MANAGED_POLICY {
        return Err(Refusal::limit("PolicySize", limits::MANAGED_POLICY));
    }
    Ok(())
}

fn outside() -> Refusal {
    Refusal::denied("Policy is outside your own account.")
}

fn attachments(account: &Account, arn: &str) -> usize {
    let users = account.users.values().filter(|user| user.record.policies.attached.contains(arn));
    users.count() + account.roles.values().filter(|role| role.record.policies.attached.contains(arn)).count()
}

impl Shown {
    fn own(record: PolicyRecord) -> Self {
        Self { arn: names::policy_arn(&record), record }
    }

    fn of_aws(account: &Account, policy: &AwsPolicy) -> Self {
        let created_at = managed::CREATED_AT_MS;
        let record = PolicyRecord {
            id: policy.id.into(),
            account: account.record.id.clone(),
            path: "/".into(),
            name: policy.name.into(),
            description: None,
            created_at,
            updated_at: created_at,
            tags: BTreeMap::new(),
            versions: vec![PolicyVersionRecord { number: 1, document: policy.document.into(), created_at }],
            default_version: 1,
            last_version: 1,
        };
        Self { arn: policy.arn(), record }
    }
}

fn write(xml: &mut Xml, shown: &Shown, attached: usize, whole: bool) {
    let Shown { arn, record } = shown;
    xml.text("PolicyName", &record.name);
    xml.text("PolicyId", &record.id);
    xml.text("Arn", arn);
    xml.text("Path", &record.path);
    xml.text("DefaultVersionId", &format!("v{}", record.default_version));
    xml.text("AttachmentCount", &attached.to_string());
    xml.text("PermissionsBoundaryUsageCount", "0");
    xml.text("IsAttachable", "true");
    if whole {
        xml.optional("Description", record.description.as_deref());
    }
    xml.text("CreateDate", &iso(record.created_at / 1000));
    xml.text("UpdateDate", &iso(record.updated_at / 1000));
    if whole && !record.tags.is_empty() {
        tags(xml, &record.tags);
    }
}
