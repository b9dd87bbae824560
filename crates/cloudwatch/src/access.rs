//! What a call touches, and whether the caller may.

use iam::{Access, Context};
use identity::{AccessDenied, Caller, Identity, Reason};

use crate::Operation;

/// The names of an account's groups and streams.
#[derive(Debug, Clone)]
pub(crate) struct Names {
    /// `arn:aws:logs:<region>:<account>:log-group:`.
    prefix: String,
}

impl Names {
    pub(crate) fn new(region: &str, caller: &Caller) -> Self {
        Self { prefix: format!("arn:aws:logs:{region}:{}:log-group:", caller.account) }
    }

    pub(crate) fn group(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    pub(crate) fn stream(&self, group: &str, stream: &str) -> String {
        format!("{}{group}:log-stream:{stream}", self.prefix)
    }

    /// The group that an ARN names, with or without `:*`; none where it is another's.
    pub(crate) fn parse(&self, arn: &str) -> Option<String> {
        let name = arn.strip_prefix(&self.prefix)?;
        Some(name.strip_suffix(":*").unwrap_or(name).to_owned())
    }
}

/// Whether the caller may do something to a group. Policies write one as `…:log-group:NAME` and as
/// `…:log-group:NAME:*`: AWS documents both, and each lets the caller in.
pub(crate) fn to_group(
    identity: &Identity,
    caller: &Caller,
    operation: Operation,
    (names, group): (&Names, &str),
    context: &Context,
) -> Result<(), AccessDenied> {
    let bare = check(identity, caller, operation, &names.group(group), context);
    let denies = |denied: &AccessDenied| {
        matches!(denied.reason, Reason::DeniedByIdentityPolicy | Reason::DeniedBySessionPolicy)
    };
    match check(identity, caller, operation, &names.stream(group, ""), context) {
        Ok(()) => bare.or_else(|denied| if denies(&denied) { Err(denied) } else { Ok(()) }),
        Err(denied) if denies(&denied) => Err(denied),
        Err(denied) => bare.map_err(|_| denied),
    }
}

/// Whether the caller may do something to a stream.
pub(crate) fn check(
    identity: &Identity,
    caller: &Caller,
    operation: Operation,
    resource: &str,
    context: &Context,
) -> Result<(), AccessDenied> {
    let action = format!("logs:{}", operation.name());
    identity.authorize(caller, &Access { action: &action, resource, context })
}
