//! Who makes a request, once the signature has been checked.

use std::collections::BTreeMap;

use iam::Policy;
use ids::AccountId;
use serde::{Deserialize, Serialize};

use crate::names;

/// Whom the credentials of a request belong to.
#[derive(Debug, Clone, PartialEq)]
pub struct Caller {
    /// The account.
    pub account: AccountId,
    /// Who in it.
    pub principal: Principal,
    /// What signed. Empty for a session that has no credentials yet.
    pub access_key_id: String,
    /// What is special to temporary credentials. None: a long-lived key.
    pub session: Option<Session>,
}

/// Who in an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Principal {
    /// The account itself: may do everything in it.
    Root,
    /// A user.
    User {
        /// `AIDA…`.
        id: String,
        /// `/`, or `/a/b/`.
        path: String,
        /// Its name.
        name: String,
    },
    /// A session of a role.
    Role {
        /// `AROA…`, of the role.
        id: String,
        /// `/`, or `/a/b/`.
        path: String,
        /// The role's name.
        role: String,
        /// The session's name.
        session: String,
    },
}

/// What temporary credentials say beyond who has them.
#[derive(Debug, Clone, PartialEq)]
pub struct Session {
    /// When it began, in Unix time.
    pub issued_at: u64,
    /// What it may do at most. Empty: what its principal may.
    pub policies: Vec<SessionPolicy>,
    /// Tags of the session, which go before those of the role.
    pub tags: BTreeMap<String, String>,
}

/// A policy that bounds a session.
#[derive(Debug, Clone, PartialEq)]
pub enum SessionPolicy {
    /// A document.
    Document {
        /// As it was given.
        text: String,
        /// What it says.
        policy: Policy,
    },
    /// The ARN of a managed policy.
    Managed(String),
}

impl Caller {
    /// `arn:aws:iam::…:root`, `arn:aws:iam::…:user/…` or `arn:aws:sts::…:assumed-role/<role>/<session>`.
    #[must_use]
    pub fn arn(&self) -> String {
        let account = &self.account;
        match &self.principal {
            Principal::Root => format!("arn:aws:iam::{account}:root"),
            Principal::User { path, name, .. } => names::arn(account, "user", path, name),
            Principal::Role { role, session, .. } => {
                format!("arn:aws:sts::{account}:assumed-role/{role}/{session}")
            }
        }
    }

    /// The ARN that `aws:PrincipalArn` stands for: a session's role, and not the session.
    #[must_use]
    pub fn principal_arn(&self) -> String {
        self.role_arn().unwrap_or_else(|| self.arn())
    }

    /// The ARN of the role whose session this is.
    #[must_use]
    pub fn role_arn(&self) -> Option<String> {
        match &self.principal {
            Principal::Role { path, role, .. } => Some(names::arn(&self.account, "role", path, role)),
            Principal::Root | Principal::User { .. } => None,
        }
    }

    /// `UserId` of GetCallerIdentity, and `aws:userid`: the account, `AIDA…`, or `AROA…:<session>`.
    #[must_use]
    pub fn user_id(&self) -> String {
        match &self.principal {
            Principal::Root => self.account.to_string(),
            Principal::User { id, .. } => id.clone(),
            Principal::Role { id, session, .. } => format!("{id}:{session}"),
        }
    }

    /// CloudTrail's `userIdentity.type`: `Root`, `IAMUser` or `AssumedRole`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match &self.principal {
            Principal::Root => "Root",
            Principal::User { .. } => "IAMUser",
            Principal::Role { .. } => "AssumedRole",
        }
    }

    /// The same role under another session name; nothing changes for anybody else.
    #[must_use]
    pub fn with_session_name(mut self, name: &str) -> Self {
        if let Principal::Role { session, .. } = &mut self.principal {
            name.clone_into(session);
        }
        self
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn caller(principal: Principal) -> Caller {
        let account = "123456789012".parse().unwrap();
        Caller { account, principal, access_key_id: "AKIA".into(), session: None }
    }

    #[test]
    fn every_principal_has_the_names_that_aws_gives_it() {
        let root = caller(Principal::Root);
        assert_eq!(root.arn(), "arn:aws:iam::123456789012:root");
        assert_eq!((root.user_id().as_str(), root.kind()), ("123456789012", "Root"));

        let user = caller(Principal::User { id: "AIDA1".into(), path: "/a/".into(), name: "ada".into() });
        assert_eq!(user.arn(), "arn:aws:iam::123456789012:user/a/ada");
        assert_eq!((user.user_id().as_str(), user.principal_arn()), ("AIDA1", user.arn()));

        let (id, path, role) = ("AROA1".into(), "/p/".into(), "R".into());
        let role = caller(Principal::Role { id, path, role, session: "s".into() });
        assert_eq!(role.arn(), "arn:aws:sts::123456789012:assumed-role/R/s");
        assert_eq!(role.principal_arn(), "arn:aws:iam::123456789012:role/p/R");
        assert_eq!(role.user_id(), "AROA1:s");
        assert_eq!(role.with_session_name("t").user_id(), "AROA1:t");
    }
}
