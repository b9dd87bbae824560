//! A change to an account: what it will be, and what is to be written for it.

use std::sync::Arc;

use iam::PolicyError;
use ids::AccountId;
use store::{AccessKeyRecord, PolicyRecord, RoleRecord, StoreError, Tx, UserRecord};

use crate::state::Account;

/// An account as it will be. It costs nothing until the first change.
#[derive(Debug)]
pub(crate) struct Draft {
    account: Arc<Account>,
    writes: Vec<Write>,
}

/// One thing to write.
#[derive(Debug)]
pub(crate) enum Write {
    User(UserRecord),
    NoUser(AccountId, String),
    Role(RoleRecord),
    NoRole(AccountId, String),
    Policy(PolicyRecord),
    NoPolicy(AccountId, String),
    Key(AccessKeyRecord),
    NoKey(String),
}

impl Write {
    pub(crate) fn apply(&self, tx: &Tx<'_>) -> Result<(), StoreError> {
        match self {
            Self::User(record) => tx.put_user(record),
            Self::NoUser(account, name) => tx.delete_user(account, name),
            Self::Role(record) => tx.put_role(record),
            Self::NoRole(account, name) => tx.delete_role(account, name),
            Self::Policy(record) => tx.put_policy(record),
            Self::NoPolicy(account, name) => tx.delete_policy(account, name),
            Self::Key(record) => tx.put_access_key(record),
            Self::NoKey(id) => tx.delete_access_key(id),
        }
    }
}

impl Draft {
    pub(crate) fn new(account: Arc<Account>) -> Self {
        Self { account, writes: Vec::new() }
    }

    pub(crate) fn account(&self) -> &Account {
        &self.account
    }

    pub(crate) fn is_changed(&self) -> bool {
        !self.writes.is_empty()
    }

    pub(crate) fn into_parts(self) -> (Arc<Account>, Vec<Write>) {
        (self.account, self.writes)
    }

    pub(crate) fn put_user(&mut self, record: UserRecord) -> Result<(), PolicyError> {
        self.edit().put_user(record.clone())?;
        self.writes.push(Write::User(record));
        Ok(())
    }

    pub(crate) fn remove_user(&mut self, name: &str) {
        self.edit().users.remove(&name.to_lowercase());
        self.writes.push(Write::NoUser(self.id(), name.to_owned()));
    }

    pub(crate) fn put_role(&mut self, record: RoleRecord) -> Result<(), PolicyError> {
        self.edit().put_role(record.clone())?;
        self.writes.push(Write::Role(record));
        Ok(())
    }

    pub(crate) fn remove_role(&mut self, name: &str) {
        self.edit().roles.remove(&name.to_lowercase());
        self.writes.push(Write::NoRole(self.id(), name.to_owned()));
    }

    pub(crate) fn put_policy(&mut self, record: PolicyRecord) -> Result<(), PolicyError> {
        self.edit().put_policy(record.clone())?;
        self.writes.push(Write::Policy(record));
        Ok(())
    }

    pub(crate) fn remove_policy(&mut self, name: &str) {
        self.edit().policies.remove(&name.to_lowercase());
        self.writes.push(Write::NoPolicy(self.id(), name.to_owned()));
    }

    pub(crate) fn put_key(&mut self, record: AccessKeyRecord) {
        self.edit().put_key(record.clone());
        self.writes.push(Write::Key(record));
    }

    pub(crate) fn remove_key(&mut self, id: &str) {
        self.edit().keys.remove(id);
        self.writes.push(Write::NoKey(id.to_owned()));
    }

    fn edit(&mut self) -> &mut Account {
        Arc::make_mut(&mut self.account)
    }

    fn id(&self) -> AccountId {
        self.account.record.id.clone()
    }
}
