//! Whether a caller may do something, and the words in which AWS says no.

use std::fmt;

use iam::{Access, Context, Decision, evaluate};

use crate::caller::{Caller, Principal, SessionPolicy};
use crate::clock::iso;
use crate::state::{Account, State};

/// A caller may not do what it asks for. Its text is AWS's (SPEC §8).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("User: {caller} is not authorized to perform: {action} on resource: {resource} {reason}")]
pub struct AccessDenied {
    /// ARN of who asked.
    pub caller: String,
    /// `lambda:RunMicrovm`.
    pub action: String,
    /// ARN of what it would have touched.
    pub resource: String,
    /// Which policies said no.
    pub reason: Reason,
}

/// Which policies said no, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// No policy of the user or role allows this action.
    NoIdentityPolicy(String),
    /// A policy of the user or role denies it.
    DeniedByIdentityPolicy,
    /// No policy of the session allows this action.
    NoSessionPolicy(String),
    /// A policy of the session denies it.
    DeniedBySessionPolicy,
    /// It is another account's, and nothing here has policies of its own that could let somebody else in.
    Foreign(String),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, action) = match self {
            Self::NoIdentityPolicy(action) => ("identity-based", action),
            Self::NoSessionPolicy(action) => ("session", action),
            Self::Foreign(action) => ("resource-based", action),
            Self::DeniedByIdentityPolicy => {
                return f.write_str("with an explicit deny in an identity-based policy");
            }
            Self::DeniedBySessionPolicy => return f.write_str("with an explicit deny in a session policy"),
        };
        write!(f, "because no {kind} policy allows the {action} action")
    }
}

impl AccessDenied {
    pub(crate) fn new(caller: &Caller, access: &Access<'_>, reason: Reason) -> Self {
        Self { caller: caller.arn(), action: access.action.into(), resource: access.resource.into(), reason }
    }
}

/// Whether `caller` may, by what its own account says of it.
pub(crate) fn authorize(
    state: &State,
    caller: &Caller,
    access: &Access<'_>,
    now_ms: u64,
) -> Result<(), AccessDenied> {
    if caller.principal == Principal::Root {
        return Ok(());
    }
    let no = |reason| Err(AccessDenied::new(caller, access, reason));
    let action = || access.action.to_owned();
    // An account, user or role that is gone has no policies left.
    let Some(account) = state.account(&caller.account) else { return no(Reason::NoIdentityPolicy(action())) };
    let context = completed(account, caller, access.context, now_ms);
    let access = &Access { context: &context, ..*access };
    match by_identity(account, caller, access) {
        Decision::Allowed => {}
        Decision::ImplicitDeny => return no(Reason::NoIdentityPolicy(action())),
        Decision::ExplicitDeny => return no(Reason::DeniedByIdentityPolicy),
    }
    match by_session(account, caller, access) {
        Decision::Allowed => Ok(()),
        Decision::ImplicitDeny => no(Reason::NoSessionPolicy(action())),
        Decision::ExplicitDeny => no(Reason::DeniedBySessionPolicy),
    }
}

fn by_identity(account: &Account, caller: &Caller, access: &Access<'_>) -> Decision {
    match &caller.principal {
        Principal::Root => Decision::Allowed,
        Principal::User { id, name, .. } => match account.user(name).filter(|user| user.record.id == *id) {
            Some(user) => evaluate(user.policies(account), access),
            None => Decision::ImplicitDeny,
        },
        Principal::Role { id, role, .. } => match account.role(role).filter(|role| role.record.id == *id) {
            Some(role) => evaluate(role.policies(account), access),
            None => Decision::ImplicitDeny,
        },
    }
}

fn by_session(account: &Account, caller: &Caller, access: &Access<'_>) -> Decision {
    let policies = match &caller.session {
        Some(session) if !session.policies.is_empty() => &session.policies,
        _ => return Decision::Allowed,
    };
    let policies = policies.iter().filter_map(|policy| match policy {
        SessionPolicy::Document { policy, .. } => Some(policy),
        SessionPolicy::Managed(arn) => account.managed(arn),
    });
    evaluate(policies, access)
}

/// The request's own keys with those that every request has. Who the caller is, no request says for itself.
pub(crate) fn completed(account: &Account, caller: &Caller, request: &Context, now_ms: u64) -> Context {
    let mut context = Context::new().with("aws:SecureTransport", "false");
    context.extend(request);
    context.set("aws:CurrentTime", iso(now_ms / 1000));
    context.set("aws:EpochTime", (now_ms / 1000).to_string());
    context.set("aws:PrincipalAccount", caller.account.to_string());
    context.set("aws:PrincipalArn", caller.principal_arn());
    context.set("aws:PrincipalIsAWSService", "false");
    context.set("aws:userid", caller.user_id());
    let tags = match &caller.principal {
        Principal::Root => {
            context.set("aws:PrincipalType", "Account");
            None
        }
        Principal::User { name, .. } => {
            context.set("aws:PrincipalType", "User");
            context.set("aws:username", name);
            account.user(name).map(|user| &user.record.tags)
        }
        Principal::Role { role, .. } => {
            context.set("aws:PrincipalType", "AssumedRole");
            account.role(role).map(|role| &role.record.tags)
        }
    };
    let session_tags = caller.session.as_ref().map(|session| &session.tags);
    for (key, value) in [tags, session_tags].into_iter().flatten().flatten() {
        context.set(&format!("aws:PrincipalTag/{key}"), value);
    }
    if let Some(session) = &caller.session {
        context.set("aws:TokenIssueTime", iso(session.issued_at));
        context.set("aws:MultiFactorAuthPresent", "false");
    }
    context
}
