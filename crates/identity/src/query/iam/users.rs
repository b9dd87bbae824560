//! Users.

use iam::Context;
use store::{GrantedPolicies, UserRecord};

use auth::keys::unique_id;

use super::holder::{Holder, Kind, still};
use super::{requested_tags, tags};
use crate::caller::Principal;
use crate::clock::iso;
use crate::names;
use crate::query::call::Call;
use crate::query::error::Refusal;
use crate::query::fields::{EXISTING_USER_NAME, PATH, PATH_PREFIX, USER_NAME};
use crate::query::page::Asked;
use crate::query::xml::Xml;

/// Users of one account.
const MAX_USERS: usize = 5000;
const USER_ID: &str = "AIDA";

pub(super) fn create(call: &mut Call<'_>) -> Result<(), Refusal> {
    let name = call.fields.required(&USER_NAME);
    let path = call.fields.optional(&PATH).unwrap_or_else(|| "/".into());
    let given = call.fields.tags("Tags");
    call.fields.done()?;
    call.fields.refuse_unsupported(&["PermissionsBoundary"])?;
    let account = call.draft.account();
    let id = account.record.id.clone();
    call.authorize(&names::arn(&id, "user", &path, &name), &requested_tags(&given))?;
    if account.user(&name).is_some() {
        return Err(Refusal::already_exists(format!("User with name {name} already exists.")));
    }
    if account.users.len() >= MAX_USERS {
        return Err(Refusal::limit("UsersPerAccount", MAX_USERS));
    }
    let record = UserRecord {
        id: unique_id(USER_ID)?,
        account: id,
        path,
        name,
        created_at: call.now_ms,
        tags: given,
        policies: GrantedPolicies::default(),
    };
    call.answer.within("User", |xml| write(xml, &record, true));
    call.draft.put_user(record)?;
    Ok(())
}

pub(super) fn get(call: &mut Call<'_>) -> Result<(), Refusal> {
    let name = call.fields.optional(&EXISTING_USER_NAME);
    call.fields.done()?;
    match named(call, name)? {
        Some(name) => {
            let holder = Holder::permitted(call, Kind::User, &name, Context::new())?;
            if let Holder::User(record) = &holder {
                call.answer.within("User", |xml| write(xml, record, true));
            }
        }
        None => {
            let created = iso(call.draft.account().record.created_at / 1000);
            let (id, arn) = (call.caller.user_id(), call.caller.arn());
            call.answer.within("User", |xml| {
                xml.text("UserId", &id);
                xml.text("Arn", &arn);
                xml.text("CreateDate", &created);
            });
        }
    }
    Ok(())
}

pub(super) fn list(call: &mut Call<'_>) -> Result<(), Refusal> {
    let prefix = call.fields.optional(&PATH_PREFIX).unwrap_or_else(|| "/".into());
    let asked = Asked::read(&mut call.fields);
    call.fields.done()?;
    let account = call.draft.account();
    call.authorize(&names::arn(&account.record.id, "user", &prefix, ""), &Context::new())?;
    let users = account.users.iter().filter(|(_, user)| user.record.path.starts_with(&prefix));
    let page = asked.of(users.map(|(key, user)| (key.clone(), user)))?;
    page.write(&mut call.answer, "Users", |xml, user| write(xml, &user.record, false));
    Ok(())
}

pub(super) fn delete(call: &mut Call<'_>) -> Result<(), Refusal> {
    let name = call.fields.required(&EXISTING_USER_NAME);
    call.fields.done()?;
    let holder = Holder::permitted(call, Kind::User, &name, Context::new())?;
    let mut keys = call.draft.account().keys.values();
    if keys.any(|key| key.record.user.as_deref() == Some(holder.name())) {
        return Err(still("delete access keys"));
    }
    holder.check_bare()?;
    call.draft.remove_user(holder.name());
    Ok(())
}

/// There are no groups.
pub(super) fn list_groups(call: &mut Call<'_>) -> Result<(), Refusal> {
    let (name, asked) = (call.fields.required(&EXISTING_USER_NAME), Asked::read(&mut call.fields));
    call.fields.done()?;
    Holder::permitted(call, Kind::User, &name, Context::new())?;
    asked.of::<()>([])?.write(&mut call.answer, "Groups", |_, ()| {});
    Ok(())
}

/// The user that a call is about: the one it names, or else the caller. None: the account's root.
pub(super) fn named(call: &Call<'_>, name: Option<String>) -> Result<Option<String>, Refusal> {
    match (name, &call.caller.principal) {
        (Some(name), _) => Ok(Some(name)),
        (None, Principal::Root) => Ok(None),
        (None, Principal::User { name, .. }) => Ok(Some(name.clone())),
        (None, Principal::Role { .. }) => {
            Err(Refusal::validation("Must specify userName when calling with non-User credentials"))
        }
    }
}

fn write(xml: &mut Xml, user: &UserRecord, with_tags: bool) {
    xml.text("Path", &user.path);
    xml.text("UserName", &user.name);
    xml.text("UserId", &user.id);
    xml.text("Arn", &names::user_arn(user));
    xml.text("CreateDate", &iso(user.created_at / 1000));
    if with_tags && !user.tags.is_empty() {
        tags(xml, &user.tags);
    }
}
