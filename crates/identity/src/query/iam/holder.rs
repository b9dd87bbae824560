//! What has policies and tags: a user or a role.

use std::collections::BTreeMap;

use iam::{Context, limits};
use store::{GrantedPolicies, RoleRecord, UserRecord};

use super::with_tags_of;
use crate::draft::Draft;
use crate::names;
use crate::query::call::Call;
use crate::query::error::Refusal;
use crate::query::fields::{EXISTING_USER_NAME, ROLE_NAME, Text};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    User,
    Role,
}

pub(super) enum Holder {
    User(UserRecord),
    Role(RoleRecord),
}

impl Kind {
    pub(super) fn noun(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Role => "role",
        }
    }

    /// The parameter with its name.
    pub(super) fn name(self) -> &'static Text {
        match self {
            Self::User => &EXISTING_USER_NAME,
            Self::Role => &ROLE_NAME,
        }
    }

    pub(super) fn inline_limit(self) -> usize {
        match self {
            Self::User => limits::USER_INLINE_POLICIES,
            Self::Role => limits::ROLE_INLINE_POLICIES,
        }
    }

    pub(super) fn attached_quota(self) -> &'static str {
        match self {
            Self::User => "PoliciesPerUser",
            Self::Role => "PoliciesPerRole",
        }
    }
}

impl Holder {
    /// The one that the call is about, if the caller may do this with it.
    pub(super) fn permitted(
        call: &Call<'_>,
        kind: Kind,
        name: &str,
        context: Context,
    ) -> Result<Self, Refusal> {
        let account = call.draft.account();
        let found = match kind {
            Kind::User => account.user(name).map(|user| Self::User(user.record.clone())),
            Kind::Role => account.role(name).map(|role| Self::Role(role.record.clone())),
        };
        // What there is, only those may learn who may ask.
        match &found {
            Some(holder) => call.authorize(&holder.arn(), &with_tags_of(context, holder.tags()))?,
            None => call.authorize(&names::arn(&account.record.id, kind.noun(), "/", name), &context)?,
        }
        found.ok_or_else(|| {
            Refusal::no_such_entity(format!("The {} with name {name} cannot be found.", kind.noun()))
        })
    }

    pub(super) fn arn(&self) -> String {
        match self {
            Self::User(user) => names::user_arn(user),
            Self::Role(role) => names::role_arn(role),
        }
    }

    pub(super) fn name(&self) -> &str {
        match self {
            Self::User(user) => &user.name,
            Self::Role(role) => &role.name,
        }
    }

    pub(super) fn tags(&self) -> &BTreeMap<String, String> {
        match self {
            Self::User(user) => &user.tags,
            Self::Role(role) => &role.tags,
        }
    }

    pub(super) fn tags_mut(&mut self) -> &mut BTreeMap<String, String> {
        match self {
            Self::User(user) => &mut user.tags,
            Self::Role(role) => &mut role.tags,
        }
    }

    pub(super) fn policies(&self) -> &GrantedPolicies {
        match self {
            Self::User(user) => &user.policies,
            Self::Role(role) => &role.policies,
        }
    }

    pub(super) fn policies_mut(&mut self) -> &mut GrantedPolicies {
        match self {
            Self::User(user) => &mut user.policies,
            Self::Role(role) => &mut role.policies,
        }
    }

    pub(super) fn save(self, draft: &mut Draft) -> Result<(), Refusal> {
        match self {
            Self::User(user) => draft.put_user(user)?,
            Self::Role(role) => draft.put_role(role)?,
        }
        Ok(())
    }

    /// Whether nothing hangs on it any more.
    pub(super) fn check_bare(&self) -> Result<(), Refusal> {
        let GrantedPolicies { inline, attached } = self.policies();
        match (inline.is_empty(), attached.is_empty()) {
            (true, true) => Ok(()),
            (_, false) => Err(still("detach all policies")),
            (false, true) => Err(still("delete policies")),
        }
    }
}

/// The refusal of a deletion that something else has to come before.
pub(super) fn still(what: &str) -> Refusal {
    Refusal::delete_conflict(format!("Cannot delete entity, must {what} first."))
}
