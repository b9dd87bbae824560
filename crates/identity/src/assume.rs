//! Taking on a role: by a service, for what it does in somebody's name.

use iam::{Context, Decision, TrustedPrincipal};

use crate::caller::{Caller, Session};
use crate::state::State;

/// The action that a trust policy is asked for.
pub(crate) const ASSUME_ROLE: &str = "sts:AssumeRole";
/// The condition key that names the account a service acts for.
const SOURCE_ACCOUNT: &str = "aws:SourceAccount";

/// Why a service cannot take on a role.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AssumeError {
    /// No such role, or one of another account than `aws:SourceAccount` of the context: the two look alike from
    /// outside.
    #[error("The role {0} cannot be found.")]
    NoSuchRole(String),
    /// Its trust policy does not let the service in.
    #[error(
        "The role {role} cannot be assumed by {service}: its trust policy does not allow sts:AssumeRole."
    )]
    NotTrusted {
        /// ARN of the role.
        role: String,
        /// The service.
        service: String,
    },
}

/// A session of the role for `service`.
pub(crate) fn for_service(
    state: &State,
    role_arn: &str,
    service: &str,
    context: &Context,
    now_ms: u64,
) -> Result<Caller, AssumeError> {
    let missing = || AssumeError::NoSuchRole(role_arn.to_owned());
    let role = state.role(role_arn).ok_or_else(missing)?;
    let account = role.record.account.to_string();
    if context.get(SOURCE_ACCOUNT) != [account] {
        return Err(missing());
    }
    if role.trust.decide(&TrustedPrincipal::Service(service), ASSUME_ROLE, context) != Decision::Allowed {
        return Err(AssumeError::NotTrusted { role: role_arn.to_owned(), service: service.to_owned() });
    }
    let name = service.split_once('.').map_or(service, |(name, _)| name);
    Ok(Caller {
        account: role.record.account.clone(),
        principal: role.principal(name),
        access_key_id: String::new(),
        session: Some(Session {
            issued_at: now_ms / 1000,
            policies: Vec::new(),
            tags: std::collections::BTreeMap::new(),
        }),
    })
}
