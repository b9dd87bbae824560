//! The policy language of AWS IAM: what JSON policies with Allow and Deny decide. Pure: no clock, no I/O.
//!
//! Own code, since the crates there are fail open where it matters. `iam-rs` 0.8 lets a user whose name is `*`
//! into everything under `${aws:username}`, takes a variable that nobody set for an empty string, and skips a
//! misspelt `Condition`; `scratchstack-aspen` 0.3 has neither `ForAllValues` nor `ForAnyValue`. Here whatever is not
//! understood is an error when the policy is put, and whatever cannot be resolved lets nobody in.

mod condition;
mod context;
mod document;
mod error;
mod json;
pub mod limits;
mod pattern;
mod policy;
mod roles;
mod trust;

pub use context::Context;
pub use error::PolicyError;
pub use policy::{Policy, evaluate};
pub use roles::{RoleCredentials, RoleKeys, RoleSession, RoleUse, ServiceRoles};
pub use trust::{TrustPolicy, TrustedPrincipal};

/// What is asked for: an action on a resource, under circumstances.
#[derive(Debug, Clone, Copy)]
pub struct Access<'a> {
    /// Service and operation: `lambda:RunMicrovm`.
    pub action: &'a str,
    /// The ARN of what the action touches, or `*` where it touches nothing that has one.
    pub resource: &'a str,
    /// The values that the keys of conditions have in this request.
    pub context: &'a Context,
}

/// What policies say to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// A statement allows it and none denies it.
    Allowed,
    /// No statement speaks of it.
    ImplicitDeny,
    /// A statement denies it, whatever the others say.
    ExplicitDeny,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Effect {
    Allow,
    Deny,
}

impl Decision {
    /// One decision out of every statement that applies: a denial is final, silence denies.
    fn of(effects: impl IntoIterator<Item = Effect>) -> Self {
        let mut decision = Decision::ImplicitDeny;
        for effect in effects {
            match effect {
                Effect::Deny => return Decision::ExplicitDeny,
                Effect::Allow => decision = Decision::Allowed,
            }
        }
        decision
    }
}
