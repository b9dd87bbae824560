//! Policies and tags of users and roles.

use iam::{Context, limits};

use super::holder::{Holder, Kind};
use super::{drop_tags, encoded, merge_tags, policies, requested_tags};
use crate::names::AWS_POLICY;
use crate::query::call::Call;
use crate::query::error::Refusal;
use crate::query::fields::{MAX_TAGS, POLICY_ARN, POLICY_DOCUMENT, POLICY_NAME, POLICY_PATH_PREFIX, TAG_KEY};
use crate::query::page::Asked;

/// Managed policies of one user or role.
const MAX_ATTACHED: usize = 10;
const POLICY_CONDITION: &str = "iam:PolicyARN";

pub(super) fn put_policy(call: &mut Call<'_>, kind: Kind) -> Result<(), Refusal> {
    let (name, policy) = (call.fields.required(kind.name()), call.fields.required(&POLICY_NAME));
    let document = call.fields.required(&POLICY_DOCUMENT);
    call.fields.done()?;
    let mut holder = Holder::permitted(call, kind, &name, Context::new())?;
    let inline = &mut holder.policies_mut().inline;
    inline.insert(policy, document);
    let (total, limit) =
        (inline.values().map(|text| limits::counted(text)).sum::<usize>(), kind.inline_limit());
    if total > limit {
        let (noun, name) = (kind.noun(), holder.name());
        let what = format!("Maximum policy size of {limit} bytes exceeded for {noun} {name}");
        return Err(Refusal::limit_exceeded(what));
    }
    holder.save(&mut call.draft)
}

pub(super) fn get_policy(call: &mut Call<'_>, kind: Kind) -> Result<(), Refusal> {
    let (name, policy) = (call.fields.required(kind.name()), call.fields.required(&POLICY_NAME));
    call.fields.done()?;
    let holder = Holder::permitted(call, kind, &name, Context::new())?;
    let document = holder.policies().inline.get(&policy).ok_or_else(|| no_inline(kind, &policy))?;
    call.answer.text(kind.name().name, holder.name());
    call.answer.text("PolicyName", &policy);
    call.answer.text("PolicyDocument", &encoded(document));
    Ok(())
}

pub(super) fn list_policies(call: &mut Call<'_>, kind: Kind) -> Result<(), Refusal> {
    let (name, asked) = (call.fields.required(kind.name()), Asked::read(&mut call.fields));
    call.fields.done()?;
    let holder = Holder::permitted(call, kind, &name, Context::new())?;
    let page = asked.of(holder.policies().inline.keys().map(|name| (name.clone(), name)))?;
    page.write(&mut call.answer, "PolicyNames", |xml, name| xml.content(name));
    Ok(())
}

pub(super) fn delete_policy(call: &mut Call<'_>, kind: Kind) -> Result<(), Refusal> {
    let (name, policy) = (call.fields.required(kind.name()), call.fields.required(&POLICY_NAME));
    call.fields.done()?;
    let mut holder = Holder::permitted(call, kind, &name, Context::new())?;
    holder.policies_mut().inline.remove(&policy).ok_or_else(|| no_inline(kind, &policy))?;
    holder.save(&mut call.draft)
}

pub(super) fn attach(call: &mut Call<'_>, kind: Kind) -> Result<(), Refusal> {
    let (name, arn) = (call.fields.required(kind.name()), call.fields.required(&POLICY_ARN));
    call.fields.done()?;
    let mut holder = Holder::permitted(call, kind, &name, Context::new().with(POLICY_CONDITION, &arn))?;
    policies::check_arn(&arn)?;
    if call.draft.account().managed(&arn).is_none() {
        return Err(Refusal::no_such_entity(format!("Policy {arn} does not exist or is not attachable.")));
    }
    let attached = &mut holder.policies_mut().attached;
    attached.insert(arn);
    if attached.len() > MAX_ATTACHED {
        return Err(Refusal::limit(kind.attached_quota(), MAX_ATTACHED));
    }
    holder.save(&mut call.draft)
}

pub(super) fn detach(call: &mut Call<'_>, kind: Kind) -> Result<(), Refusal> {
    let (name, arn) = (call.fields.required(kind.name()), call.fields.required(&POLICY_ARN));
    call.fields.done()?;
    let mut holder = Holder::permitted(call, kind, &name, Context::new().with(POLICY_CONDITION, &arn))?;
    policies::check_arn(&arn)?;
    if !holder.policies_mut().attached.remove(&arn) {
        return Err(policies::not_found(&arn));
    }
    holder.save(&mut call.draft)
}

pub(super) fn list_attached(call: &mut Call<'_>, kind: Kind) -> Result<(), Refusal> {
    let (name, asked) = (call.fields.required(kind.name()), Asked::read(&mut call.fields));
    let prefix = call.fields.optional(&POLICY_PATH_PREFIX).unwrap_or_else(|| "/".into());
    call.fields.done()?;
    let holder = Holder::permitted(call, kind, &name, Context::new())?;
    let named = holder.policies().attached.iter().filter_map(|arn| {
        let (path, name) = path_and_name(arn)?;
        path.starts_with(&prefix).then(|| (format!("{name}:{arn}"), (name, arn)))
    });
    asked.of(named)?.write(&mut call.answer, "AttachedPolicies", |xml, (name, arn)| {
        xml.text("PolicyName", name);
        xml.text("PolicyArn", arn);
    });
    Ok(())
}

pub(super) fn add_tags(call: &mut Call<'_>, kind: Kind) -> Result<(), Refusal> {
    let (name, new) = (call.fields.required(kind.name()), call.fields.tags("Tags"));
    call.fields.done()?;
    let mut holder = Holder::permitted(call, kind, &name, requested_tags(&new))?;
    merge_tags(holder.tags_mut(), new)?;
    holder.save(&mut call.draft)
}

pub(super) fn remove_tags(call: &mut Call<'_>, kind: Kind) -> Result<(), Refusal> {
    let name = call.fields.required(kind.name());
    let keys = call.fields.list("TagKeys", "", &TAG_KEY, MAX_TAGS);
    call.fields.done()?;
    let mut context = Context::new();
    context.set_all("aws:TagKeys", &keys);
    let mut holder = Holder::permitted(call, kind, &name, context)?;
    drop_tags(holder.tags_mut(), &keys);
    holder.save(&mut call.draft)
}

pub(super) fn list_tags(call: &mut Call<'_>, kind: Kind) -> Result<(), Refusal> {
    let (name, asked) = (call.fields.required(kind.name()), Asked::read(&mut call.fields));
    call.fields.done()?;
    let holder = Holder::permitted(call, kind, &name, Context::new())?;
    let page = asked.of(holder.tags().iter().map(|(key, value)| (key.clone(), (key, value))))?;
    page.write(&mut call.answer, "Tags", super::tag);
    Ok(())
}

fn no_inline(kind: Kind, policy: &str) -> Refusal {
    Refusal::no_such_entity(format!("The {} policy with name {policy} cannot be found.", kind.noun()))
}

/// Of a managed policy's ARN, of this account or of every.
fn path_and_name(arn: &str) -> Option<(&str, &str)> {
    let rest = match arn.strip_prefix(AWS_POLICY) {
        Some(name) => return Some(("/", name)),
        None => arn.split_once(":policy")?.1,
    };
    let at = rest.rfind('/')?;
    Some((&rest[..=at], &rest[at + 1..]))
}
