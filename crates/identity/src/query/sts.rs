//! Sessions: every operation of STS that is answered here.

use iam::{Context, Decision, Policy, TrustedPrincipal, limits};

use crate::assume::ASSUME_ROLE;
use crate::authorize::{AccessDenied, Reason, completed};
use crate::caller::{Caller, Principal, Session, SessionPolicy};
use crate::clock::iso;
use crate::credentials::{MAX_CLAIMS, TemporaryCredentials, claims};
use crate::names;
use crate::query::call::{Call, Handler};
use crate::query::error::Refusal;
use crate::query::fields::{
    ACCESS_KEY_ID, EXTERNAL_ID, ROLE_ARN, SESSION_NAME, SESSION_POLICY, SESSION_POLICY_ARN,
};
use crate::query::xml::Xml;
use crate::state::Role;

const TAG_SESSION: &str = "sts:TagSession";
/// Seconds of a session that says nothing else.
const ROLE_SECONDS: u32 = 3600;
/// The longest session of a role that was itself taken on in a session of a role, in seconds.
const CHAINED_SECONDS: u32 = 3600;
/// The same for GetSessionToken: 12 hours, and 1 hour for the root.
const TOKEN_SECONDS: u32 = 43_200;
const ROOT_TOKEN_SECONDS: u32 = 3600;
const LEAST_SECONDS: u32 = 900;
/// Managed policies that bound one session.
const MAX_SESSION_POLICIES: usize = 10;
const PERCENT: usize = 100;

/// What carries an action out.
pub(crate) fn handler(action: &str) -> Option<Handler> {
    Some(match action {
        "GetCallerIdentity" => caller_identity,
        "AssumeRole" => assume_role,
        "GetSessionToken" => session_token,
        "GetAccessKeyInfo" => access_key_info,
        _ => return None,
    })
}

/// Allowed to everybody.
fn caller_identity(call: &mut Call<'_>) -> Result<(), Refusal> {
    call.answer.text("UserId", &call.caller.user_id());
    call.answer.text("Account", &call.caller.account.to_string());
    call.answer.text("Arn", &call.caller.arn());
    Ok(())
}

fn assume_role(call: &mut Call<'_>) -> Result<(), Refusal> {
    let arn = call.fields.required(&ROLE_ARN);
    let name = call.fields.required(&SESSION_NAME);
    let seconds = call.fields.number("DurationSeconds", LEAST_SECONDS..=43_200);
    let document = call.fields.optional(&SESSION_POLICY);
    let managed = call.fields.list("PolicyArns", ".arn", &SESSION_POLICY_ARN, MAX_SESSION_POLICIES);
    let external_id = call.fields.optional(&EXTERNAL_ID);
    let tags = call.fields.tags("Tags");
    call.fields.done()?;
    call.fields.refuse_unsupported(&["SourceIdentity", "ProvidedContexts", "TransitiveTagKeys"])?;
    let (account, _) =
        names::parse(&arn, "role").ok_or_else(|| Refusal::validation(format!("{arn} is invalid")))?;

    let mut context = Context::new().with("sts:RoleSessionName", &name);
    if let Some(id) = external_id {
        context.set("sts:ExternalId", id);
    }
    for (key, value) in &tags {
        context.set(&format!("aws:RequestTag/{key}"), value);
    }
    context.set_all("aws:TagKeys", tags.keys());
    let account = call.identity.account(&account);
    let role = account.as_ref().and_then(|account| account.role_at(&arn)).map(AsRef::as_ref);
    permit(call, ASSUME_ROLE, &arn, role, &context)?;
    if !tags.is_empty() {
        permit(call, TAG_SESSION, &arn, role, &context)?;
    }
    // Whoever is not let in learns nothing about it; who is, has found it.
    let Some(role) = role else { return Err(no_trust(call, ASSUME_ROLE, &arn)) };
    let seconds = duration(call.caller, role, seconds)?;
    let session =
        Session { issued_at: call.now_ms / 1000, policies: session_policies(document, managed)?, tags };
    let caller = Caller {
        account: role.record.account.clone(),
        principal: role.principal(&name),
        access_key_id: String::new(),
        session: Some(session),
    };
    let (credentials, packed) = issue(call, &caller, seconds)?;
    write(&mut call.answer, &credentials);
    call.answer.within("AssumedRoleUser", |xml| {
        xml.text("AssumedRoleId", &caller.user_id());
        xml.text("Arn", &caller.arn());
    });
    call.answer.text("PackedPolicySize", &packed.to_string());
    Ok(())
}

/// Credentials of the caller itself, for a while.
fn session_token(call: &mut Call<'_>) -> Result<(), Refusal> {
    let seconds = call.fields.number("DurationSeconds", LEAST_SECONDS..=129_600);
    call.fields.done()?;
    call.fields.refuse_unsupported(&["SerialNumber", "TokenCode"])?;
    if call.caller.session.is_some() {
        return Err(Refusal::denied("Cannot call GetSessionToken with session credentials"));
    }
    let seconds = match (&call.caller.principal, seconds) {
        (Principal::Root, seconds) => seconds.unwrap_or(ROOT_TOKEN_SECONDS).min(ROOT_TOKEN_SECONDS),
        (_, seconds) => seconds.unwrap_or(TOKEN_SECONDS),
    };
    let (credentials, _) = issue(call, call.caller, seconds)?;
    write(&mut call.answer, &credentials);
    Ok(())
}

/// The account of any access key, as on AWS: an account id is no secret.
fn access_key_info(call: &mut Call<'_>) -> Result<(), Refusal> {
    let id = call.fields.required(&ACCESS_KEY_ID);
    call.fields.done()?;
    call.authorize("*", &Context::new())?;
    let account = call
        .identity
        .owner(&id)
        .or_else(|| (id == call.caller.access_key_id).then(|| call.caller.account.clone()));
    let unknown = || Refusal::validation(format!("The access key {id} is not known here"));
    call.answer.text("Account", &account.ok_or_else(unknown)?.to_string());
    Ok(())
}

/// The caller's account lets it go, and the role lets it in. Within one account it is enough that the role names the
/// caller itself, as on AWS.
fn permit(
    call: &Call<'_>,
    action: &str,
    arn: &str,
    role: Option<&Role>,
    context: &Context,
) -> Result<(), Refusal> {
    let caller = call.caller;
    let (caller_arn, role_arn, account) = (caller.arn(), caller.role_arn(), caller.account.to_string());
    let principal = TrustedPrincipal::Aws { account: &account, arn: &caller_arn, role: role_arn.as_deref() };
    let whole = completed(call.draft.account(), caller, context, call.now_ms);
    let decide = |role: &Role| role.trust.decide(&principal, action, &whole);
    let names_caller = role.is_some_and(|role| {
        role.record.account == caller.account
            && caller.session.as_ref().is_none_or(|session| session.policies.is_empty())
            && role.trust.names(&principal, action, &whole)
    });
    match call.check(action, arn, context) {
        Err(AccessDenied { reason: Reason::NoIdentityPolicy(_), .. }) if names_caller => {}
        permitted => permitted?,
    }
    match role.map(decide) {
        Some(Decision::Allowed) => Ok(()),
        _ => Err(no_trust(call, action, arn)),
    }
}

fn no_trust(call: &Call<'_>, action: &str, arn: &str) -> Refusal {
    let caller = call.caller.arn();
    Refusal::denied(format!("User: {caller} is not authorized to perform: {action} on resource: {arn}"))
}

fn duration(caller: &Caller, role: &Role, asked: Option<u32>) -> Result<u32, Refusal> {
    let is_chained = matches!(caller.principal, Principal::Role { .. });
    match asked {
        None => Ok(ROLE_SECONDS.min(role.record.max_session)),
        Some(seconds) if is_chained && seconds > CHAINED_SECONDS => Err(Refusal::validation(
            "The requested DurationSeconds exceeds the 1 hour session limit for roles assumed by role chaining.",
        )),
        Some(seconds) if seconds > role.record.max_session => Err(Refusal::validation(
            "The requested DurationSeconds exceeds the MaxSessionDuration set for this role.",
        )),
        Some(seconds) => Ok(seconds),
    }
}

fn session_policies(document: Option<String>, managed: Vec<String>) -> Result<Vec<SessionPolicy>, Refusal> {
    let mut policies: Vec<SessionPolicy> = managed.into_iter().map(SessionPolicy::Managed).collect();
    if let Some(text) = document {
        let (size, limit) = (limits::counted(&text), limits::SESSION_POLICY);
        if size > limit {
            let what = format!("Session policy has {size} characters, and at most {limit} are allowed");
            return Err(Refusal::packed_policy_too_large(what));
        }
        policies.push(SessionPolicy::Document { policy: Policy::parse(&text)?, text });
    }
    Ok(policies)
}

/// Credentials, and how much of the room for policies and tags they take, in percent.
fn issue(call: &Call<'_>, caller: &Caller, seconds: u32) -> Result<(TemporaryCredentials, usize), Refusal> {
    let now = call.now_ms / 1000;
    let expires_at = now.saturating_add(seconds.into());
    let claims = claims(caller, now, expires_at);
    let packed = (claims.len() * PERCENT).div_ceil(MAX_CLAIMS);
    if packed > PERCENT {
        let what = format!("Packed policy consumes {packed}% of allotted space, please use smaller policy.");
        return Err(Refusal::packed_policy_too_large(what));
    }
    Ok((call.identity.seal(&claims, expires_at), packed))
}

fn write(xml: &mut Xml, credentials: &TemporaryCredentials) {
    xml.within("Credentials", |xml| {
        xml.text("AccessKeyId", &credentials.access_key_id);
        xml.text("SecretAccessKey", &credentials.secret_access_key);
        xml.text("SessionToken", &credentials.session_token);
        xml.text("Expiration", &iso(credentials.expires_at));
    });
}
