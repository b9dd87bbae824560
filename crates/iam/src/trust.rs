//! Trust policies: who may become a role.

use std::collections::BTreeSet;

use crate::document::{Document, Elements, Rule, texts};
use crate::json::Json;
use crate::{Context, Decision, PolicyError};

/// The policy of a role that says who may assume it.
#[derive(Debug, Clone, PartialEq)]
pub struct TrustPolicy(Vec<Statement>);

/// Who asks to become the role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TrustedPrincipal<'a> {
    /// A service, such as `lambda.amazonaws.com`.
    Service(&'a str),
    /// Somebody with credentials.
    Aws {
        /// The account of 12 digits.
        account: &'a str,
        /// The caller's ARN: of the root, a user, or the session of a role.
        arn: &'a str,
        /// The IAM ARN of the role whose session this is: a policy that names the role means its sessions.
        role: Option<&'a str>,
    },
}

#[derive(Debug, Clone, PartialEq)]
struct Statement {
    rule: Rule,
    principals: Vec<Principal>,
}

#[derive(Debug, Clone, PartialEq)]
enum Principal {
    Anybody,
    Service(String),
    Account(String),
    Arn(String),
}

impl TrustPolicy {
    /// Reads a trust policy, strictly: what is not understood is an error.
    pub fn parse(json: &str) -> Result<TrustPolicy, PolicyError> {
        let document = Document::parse(json)?;
        let mut sids = BTreeSet::new();
        let mut statements = Vec::with_capacity(document.statements.len());
        for mut elements in document.statements {
            for name in ["Resource", "NotResource", "NotAction", "NotPrincipal"] {
                if elements.has(name) {
                    return Err(PolicyError::invalid(
                        elements.at(name),
                        format!("Has prohibited field {name}"),
                    ));
                }
            }
            let principals = principals(&mut elements)?;
            sts_only(&elements)?;
            let rule = elements.rule(document.variables, &mut sids)?;
            elements.finish()?;
            statements.push(Statement { rule, principals });
        }
        Ok(TrustPolicy(statements))
    }

    /// What the policy says to somebody who asks for `sts:AssumeRole` or the like.
    pub fn decide(&self, principal: &TrustedPrincipal<'_>, action: &str, context: &Context) -> Decision {
        self.decision(action, context, |trusted| trusted.is(principal) || trusted.is_account_of(principal))
    }

    /// Whether the policy lets somebody in by name. One who is let in as part of a whole account or of everybody needs
    /// the permission of that account besides.
    pub fn names(&self, principal: &TrustedPrincipal<'_>, action: &str, context: &Context) -> bool {
        self.decision(action, context, |trusted| trusted.is(principal)) == Decision::Allowed
    }

    fn decision(&self, action: &str, context: &Context, is_trusted: impl Fn(&Principal) -> bool) -> Decision {
        let statements = self.0.iter().filter(|statement| statement.principals.iter().any(&is_trusted));
        Decision::of(statements.filter(|s| s.rule.applies(action, context)).map(|s| s.rule.effect))
    }
}

impl Principal {
    fn is(&self, principal: &TrustedPrincipal<'_>) -> bool {
        match (self, principal) {
            (Principal::Service(trusted), TrustedPrincipal::Service(service)) => trusted == service,
            (Principal::Arn(trusted), TrustedPrincipal::Aws { arn, role, .. }) => {
                trusted == arn || role.is_some_and(|role| trusted == role)
            }
            _ => false,
        }
    }

    fn is_account_of(&self, principal: &TrustedPrincipal<'_>) -> bool {
        match (self, principal) {
            (Principal::Anybody, TrustedPrincipal::Aws { .. }) => true,
            (Principal::Account(trusted), TrustedPrincipal::Aws { account, .. }) => trusted == account,
            _ => false,
        }
    }
}

fn principals(elements: &mut Elements) -> Result<Vec<Principal>, PolicyError> {
    let at = elements.at("Principal");
    let kinds = match elements.take("Principal") {
        None => return Err(PolicyError::invalid(at, "Missing required field Principal")),
        Some(Json::Text(text)) if text == "*" => return Ok(vec![Principal::Anybody]),
        Some(Json::Object(kinds)) => kinds,
        Some(_) => {
            let what =
                "Invalid principal in policy: \"*\" or an object with \"AWS\" or \"Service\" is wanted.";
            return Err(PolicyError::invalid(at, what));
        }
    };
    let mut principals = Vec::new();
    for (kind, values) in kinds {
        let at = format!("{at}.{kind}");
        let read = match kind.as_str() {
            "AWS" => aws,
            "Service" => service,
            other => {
                let what = format!(
                    "Invalid principal in policy: {other:?} is not supported, \"AWS\" and \"Service\" are."
                );
                return Err(PolicyError::invalid(at, what));
            }
        };
        for (at, text) in texts(values, &at)? {
            let invalid =
                || PolicyError::invalid(at, format!("Invalid principal in policy: \"{kind}\":\"{text}\""));
            principals.push(read(&text).ok_or_else(invalid)?);
        }
    }
    if principals.is_empty() {
        return Err(PolicyError::invalid(at, "Invalid principal in policy: nobody is named."));
    }
    Ok(principals)
}

/// Everybody, an account, its root (which means the account), a user, a role, or a session of a role.
fn aws(text: &str) -> Option<Principal> {
    if text == "*" {
        return Some(Principal::Anybody);
    }
    if is_account(text) {
        return Some(Principal::Account(text.to_owned()));
    }
    let mut parts = text.splitn(6, ':');
    let (arn, _partition, service) = (parts.next()?, parts.next()?, parts.next()?);
    let (region, account, resource) = (parts.next()?, parts.next()?, parts.next()?);
    if arn != "arn" || !region.is_empty() || !is_account(account) || resource.contains(['*', '?']) {
        return None;
    }
    match (service, resource.split_once('/')) {
        ("iam", None) if resource == "root" => Some(Principal::Account(account.to_owned())),
        ("iam", Some(("user" | "role", name))) if !name.is_empty() => Some(Principal::Arn(text.to_owned())),
        ("sts", Some(("assumed-role", name))) if name.contains('/') => Some(Principal::Arn(text.to_owned())),
        _ => None,
    }
}

fn is_account(text: &str) -> bool {
    text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit())
}

fn service(text: &str) -> Option<Principal> {
    let is_host = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
    (text.contains('.') && text.chars().all(is_host)).then(|| Principal::Service(text.to_owned()))
}

/// Nothing but becoming the role can be allowed by a trust policy.
fn sts_only(elements: &Elements) -> Result<(), PolicyError> {
    let Some(actions) = elements.peek("Action") else { return Ok(()) };
    for (at, text) in texts(actions.clone(), &elements.at("Action"))? {
        if !text.get(..4).is_some_and(|service| service.eq_ignore_ascii_case("sts:")) {
            return Err(PolicyError::invalid(
                at,
                "AssumeRole policy may only specify STS AssumeRole actions.",
            ));
        }
    }
    Ok(())
}
