//! Users, roles and policies: every operation of IAM that is answered here.

mod holder;
mod holders;
mod keys;
mod policies;
mod roles;
mod users;
mod versions;

use std::collections::BTreeMap;

use iam::Context;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::query::call::Handler;
use crate::query::error::Refusal;
use crate::query::fields::MAX_TAGS;
use crate::query::xml::Xml;
use holder::Kind::{Role, User};

/// Everything but RFC 3986's unreserved characters.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// What carries an action out.
pub(crate) fn handler(action: &str) -> Option<Handler> {
    Some(match action {
        "CreateUser" => users::create,
        "GetUser" => users::get,
        "ListUsers" => users::list,
        "DeleteUser" => users::delete,
        "ListGroupsForUser" => users::list_groups,
        "CreateAccessKey" => keys::create,
        "ListAccessKeys" => keys::list,
        "UpdateAccessKey" => keys::update,
        "DeleteAccessKey" => keys::delete,
        "CreateRole" => roles::create,
        "GetRole" => roles::get,
        "ListRoles" => roles::list,
        "DeleteRole" => roles::delete,
        "UpdateRole" => roles::update,
        "UpdateRoleDescription" => roles::update_description,
        "UpdateAssumeRolePolicy" => roles::update_trust,
        "ListInstanceProfilesForRole" => roles::list_instance_profiles,
        "PutUserPolicy" => |call| holders::put_policy(call, User),
        "PutRolePolicy" => |call| holders::put_policy(call, Role),
        "GetUserPolicy" => |call| holders::get_policy(call, User),
        "GetRolePolicy" => |call| holders::get_policy(call, Role),
        "ListUserPolicies" => |call| holders::list_policies(call, User),
        "ListRolePolicies" => |call| holders::list_policies(call, Role),
        "DeleteUserPolicy" => |call| holders::delete_policy(call, User),
        "DeleteRolePolicy" => |call| holders::delete_policy(call, Role),
        "AttachUserPolicy" => |call| holders::attach(call, User),
        "AttachRolePolicy" => |call| holders::attach(call, Role),
        "DetachUserPolicy" => |call| holders::detach(call, User),
        "DetachRolePolicy" => |call| holders::detach(call, Role),
        "ListAttachedUserPolicies" => |call| holders::list_attached(call, User),
        "ListAttachedRolePolicies" => |call| holders::list_attached(call, Role),
        "TagUser" => |call| holders::add_tags(call, User),
        "TagRole" => |call| holders::add_tags(call, Role),
        "UntagUser" => |call| holders::remove_tags(call, User),
        "UntagRole" => |call| holders::remove_tags(call, Role),
        "ListUserTags" => |call| holders::list_tags(call, User),
        "ListRoleTags" => |call| holders::list_tags(call, Role),
        "CreatePolicy" => policies::create,
        "GetPolicy" => policies::get,
        "ListPolicies" => policies::list,
        "DeletePolicy" => policies::delete,
        "ListEntitiesForPolicy" => policies::list_entities,
        "TagPolicy" => policies::add_tags,
        "UntagPolicy" => policies::remove_tags,
        "ListPolicyTags" => policies::list_tags,
        "CreatePolicyVersion" => versions::create,
        "GetPolicyVersion" => versions::get,
        "ListPolicyVersions" => versions::list,
        "DeletePolicyVersion" => versions::delete,
        "SetDefaultPolicyVersion" => versions::set_default,
        _ => return None,
    })
}

/// A policy document as answers have it.
fn encoded(document: &str) -> String {
    utf8_percent_encode(document, ENCODED).to_string()
}

fn tags(xml: &mut Xml, tags: &BTreeMap<String, String>) {
    xml.list("Tags", tags, tag);
}

fn tag(xml: &mut Xml, (key, value): (&String, &String)) {
    xml.text("Key", key);
    xml.text("Value", value);
}

/// Adds tags. Keys that differ only in case are one key, and the newer spelling stays.
fn merge_tags(tags: &mut BTreeMap<String, String>, new: BTreeMap<String, String>) -> Result<(), Refusal> {
    let keys: Vec<String> = new.keys().cloned().collect();
    drop_tags(tags, &keys);
    tags.extend(new);
    if tags.len() > MAX_TAGS {
        return Err(Refusal::limit_exceeded("The number of tags has reached the maximum limit."));
    }
    Ok(())
}

fn drop_tags(tags: &mut BTreeMap<String, String>, keys: &[String]) {
    tags.retain(|old, _| !keys.iter().any(|key| key.to_lowercase() == old.to_lowercase()));
}

/// The condition keys of a request that gives tags.
fn requested_tags(tags: &BTreeMap<String, String>) -> Context {
    let mut context = Context::new();
    for (key, value) in tags {
        context.set(&format!("aws:RequestTag/{key}"), value);
    }
    if !tags.is_empty() {
        context.set_all("aws:TagKeys", tags.keys());
    }
    context
}

/// The condition keys of a thing that has tags.
fn with_tags_of(mut context: Context, tags: &BTreeMap<String, String>) -> Context {
    for (key, value) in tags {
        context.set(&format!("aws:ResourceTag/{key}"), value);
        context.set(&format!("iam:ResourceTag/{key}"), value);
    }
    context
}
