//! The two roles that every new account has, so that the first image can be built and run at once.

use std::collections::BTreeMap;

use auth::keys::{GenerateError, unique_id};
use ids::AccountId;
use store::{GrantedPolicies, RoleRecord};

/// How the unique id of a role begins.
pub(crate) const ROLE_ID: &str = "AROA";
/// The longest session of a role that says nothing else, in seconds.
pub(crate) const MAX_SESSION: u32 = 3600;
const TRUST: &str = include_str!("bootstrap/trust.json");
const ROLES: [(&str, &str, &str, &str); 2] = [
    (
        "MicroVMBuildRole",
        "Reads code artifacts and writes the logs of builds",
        "Build",
        include_str!("bootstrap/build.json"),
    ),
    (
        "MicroVMExecutionRole",
        "Writes the logs of applications",
        "Execution",
        include_str!("bootstrap/execution.json"),
    ),
];

/// The roles of a new account.
pub(crate) fn roles(account: &AccountId, now_ms: u64) -> Result<Vec<RoleRecord>, GenerateError> {
    let role = |(name, description, policy, document): (&str, &str, &str, &str)| {
        Ok(RoleRecord {
            id: unique_id(ROLE_ID)?,
            account: account.clone(),
            path: "/".into(),
            name: name.into(),
            created_at: now_ms,
            tags: BTreeMap::new(),
            policies: GrantedPolicies {
                inline: BTreeMap::from([(policy.into(), document.into())]),
                attached: std::collections::BTreeSet::new(),
            },
            trust: TRUST.into(),
            description: Some(description.into()),
            max_session: MAX_SESSION,
        })
    };
    ROLES.into_iter().map(role).collect()
}
