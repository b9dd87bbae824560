//! Access keys of users, and of the account's root.

use auth::keys::AccessKey;
use iam::Context;
use store::AccessKeyRecord;

use super::holder::{Holder, Kind};
use super::users::named;
use crate::clock::iso;
use crate::query::call::Call;
use crate::query::error::Refusal;
use crate::query::fields::{ACCESS_KEY_ID, EXISTING_USER_NAME};
use crate::query::page::Asked;
use crate::query::xml::Xml;

/// Access keys of one user.
const MAX_KEYS: usize = 2;
/// What stands for a user's name where the root is meant.
const ROOT: &str = "root";

pub(super) fn create(call: &mut Call<'_>) -> Result<(), Refusal> {
    let user = owner(call)?;
    if keys_of(call, user.as_deref()).count() >= MAX_KEYS {
        return Err(Refusal::limit("AccessKeysPerUser", MAX_KEYS));
    }
    let AccessKey { id, secret } = AccessKey::generate()?;
    let account = call.draft.account().record.id.clone();
    let record = AccessKeyRecord { id, secret, account, user, active: true, created_at: call.now_ms };
    call.answer.within("AccessKey", |xml| {
        write(xml, &record);
        xml.text("SecretAccessKey", &record.secret);
    });
    call.draft.put_key(record);
    Ok(())
}

pub(super) fn list(call: &mut Call<'_>) -> Result<(), Refusal> {
    let asked = Asked::read(&mut call.fields);
    let user = owner(call)?;
    let page = asked.of(keys_of(call, user.as_deref()).map(|key| (key.id.clone(), key)))?;
    page.write(&mut call.answer, "AccessKeyMetadata", |xml, key| write(xml, &key));
    Ok(())
}

pub(super) fn update(call: &mut Call<'_>) -> Result<(), Refusal> {
    let id = call.fields.required(&ACCESS_KEY_ID);
    let status = call.fields.required_choice("Status", &["Active", "Inactive"]);
    let user = owner(call)?;
    let mut key = find(call, user.as_deref(), &id)?;
    key.active = status == Some("Active");
    call.draft.put_key(key);
    Ok(())
}

pub(super) fn delete(call: &mut Call<'_>) -> Result<(), Refusal> {
    let id = call.fields.required(&ACCESS_KEY_ID);
    let user = owner(call)?;
    let key = find(call, user.as_deref(), &id)?;
    call.draft.remove_key(&key.id);
    Ok(())
}

/// Whose keys the call is about, if the caller may do this with them. Everything else must have been read.
fn owner(call: &mut Call<'_>) -> Result<Option<String>, Refusal> {
    let name = call.fields.optional(&EXISTING_USER_NAME);
    call.fields.done()?;
    match named(call, name)? {
        Some(name) => {
            let holder = Holder::permitted(call, Kind::User, &name, Context::new())?;
            Ok(Some(holder.name().to_owned()))
        }
        None => Ok(None),
    }
}

fn keys_of(call: &Call<'_>, user: Option<&str>) -> impl Iterator<Item = AccessKeyRecord> {
    let keys = call.draft.account().keys.values().filter(move |key| key.record.user.as_deref() == user);
    keys.map(|key| key.record.clone())
}

fn find(call: &Call<'_>, user: Option<&str>, id: &str) -> Result<AccessKeyRecord, Refusal> {
    let found = keys_of(call, user).find(|key| key.id == id);
    found.ok_or_else(|| Refusal::no_such_entity(format!("The Access Key with id {id} cannot be found.")))
}

fn write(xml: &mut Xml, key: &AccessKeyRecord) {
    xml.text("UserName", key.user.as_deref().unwrap_or(ROOT));
    xml.text("AccessKeyId", &key.id);
    xml.text("Status", if key.active { "Active" } else { "Inactive" });
    xml.text("CreateDate", &iso(key.created_at / 1000));
}
