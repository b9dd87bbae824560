//! Identity policies: what the user or role that has them may do.

use std::collections::BTreeSet;

use crate::document::{Document, Rule};
use crate::pattern::ArnPattern;
use crate::{Access, Decision, Effect, PolicyError};

/// A policy of a user, a role or a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy(Vec<Statement>);

#[derive(Debug, Clone, PartialEq)]
struct Statement {
    rule: Rule,
    resources: Vec<ArnPattern>,
    all_but: bool,
}

impl Policy {
    /// Reads a policy, strictly: what is not understood is an error.
    pub fn parse(json: &str) -> Result<Policy, PolicyError> {
        let document = Document::parse(json)?;
        let mut sids = BTreeSet::new();
        let mut statements = Vec::with_capacity(document.statements.len());
        for mut elements in document.statements {
            for name in ["Principal", "NotPrincipal"] {
                if elements.has(name) {
                    let what = "Policy document should not specify a principal.";
                    return Err(PolicyError::invalid(elements.at(name), what));
                }
            }
            let rule = elements.rule(document.variables, &mut sids)?;
            let (resources, all_but) = elements.either("Resource")?;
            let resources = resources
                .into_iter()
                .map(|(at, text)| {
                    ArnPattern::parse(&text, document.variables)
                        .map_err(|what| PolicyError::invalid(at, format!("Resource {what}")))
                })
                .collect::<Result<_, _>>()?;
            elements.finish()?;
            statements.push(Statement { rule, resources, all_but });
        }
        Ok(Policy(statements))
    }
}

impl Statement {
    fn covers(&self, access: &Access<'_>) -> bool {
        // A pattern with an unknown variable matches nothing, and where it says what is *not* meant, it lets nobody in.
        let unknown = self.all_but && self.rule.effect == Effect::Allow;
        let listed = self
            .resources
            .iter()
            .any(|pattern| pattern.matches(access.resource, access.context).unwrap_or(unknown));
        listed != self.all_but && self.rule.covers(access)
    }
}

/// What all policies of somebody together say to an access.
pub fn evaluate<'p>(policies: impl IntoIterator<Item = &'p Policy>, access: &Access<'_>) -> Decision {
    let statements = policies.into_iter().flat_map(|policy| &policy.0);
    Decision::of(
        statements.filter(|statement| statement.covers(access)).map(|statement| statement.rule.effect),
    )
}
