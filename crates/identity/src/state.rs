//! What is held in memory: every account with its users, roles, policies and keys, its policies read.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use iam::{Policy, PolicyError, TrustPolicy};
use ids::AccountId;
use store::{
    AccessKeyRecord, AccountRecord, GrantedPolicies, PolicyRecord, RoleRecord, StoreError, Tx, UserRecord,
};

use crate::caller::{Caller, Principal};
use crate::{managed, names};

/// Why an account cannot be taken from the store.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A policy in it cannot be read.
    #[error("a policy of {of} cannot be read: {source}; was it written by a newer Rekindle?")]
    Policy {
        /// ARN of its owner.
        of: String,
        /// What is wrong with it.
        source: PolicyError,
    },
}

/// Everything.
#[derive(Debug, Clone, Default)]
pub(crate) struct State {
    accounts: BTreeMap<AccountId, Arc<Account>>,
    owners: HashMap<String, AccountId>,
}

/// One account. Names are keys in lower case.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    pub(crate) record: AccountRecord,
    pub(crate) users: BTreeMap<String, Arc<User>>,
    pub(crate) roles: BTreeMap<String, Arc<Role>>,
    pub(crate) policies: BTreeMap<String, Arc<Managed>>,
    pub(crate) keys: BTreeMap<String, Arc<Key>>,
}

#[derive(Debug)]
pub(crate) struct User {
    pub(crate) record: UserRecord,
    inline: Vec<Policy>,
}

#[derive(Debug)]
pub(crate) struct Role {
    pub(crate) record: RoleRecord,
    pub(crate) trust: TrustPolicy,
    inline: Vec<Policy>,
}

/// A managed policy of an account.
#[derive(Debug)]
pub(crate) struct Managed {
    pub(crate) record: PolicyRecord,
    /// The version in force. None, which allows nothing, cannot come from this program.
    policy: Option<Policy>,
}

#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) record: AccessKeyRecord,
    pub(crate) caller: Arc<Caller>,
}

impl State {
    pub(crate) fn load(tx: &Tx<'_>) -> Result<Self, LoadError> {
        let mut state = Self::default();
        for record in tx.accounts()? {
            state = state.with(Account::load(tx, record)?.into());
        }
        Ok(state)
    }

    pub(crate) fn account(&self, id: &AccountId) -> Option<&Arc<Account>> {
        self.accounts.get(id)
    }

    pub(crate) fn key(&self, id: &str) -> Option<&Arc<Key>> {
        self.account(self.owners.get(id)?)?.keys.get(id)
    }

    /// The role with exactly this ARN.
    pub(crate) fn role(&self, arn: &str) -> Option<&Arc<Role>> {
        let (account, _) = names::parse(arn, "role")?;
        self.account(&account)?.role_at(arn)
    }

    /// The same, with this account as it is now.
    #[must_use]
    pub(crate) fn with(mut self, account: Arc<Account>) -> Self {
        let id = &account.record.id;
        if let Some(before) = self.accounts.get(id) {
            for key in before.keys.keys().filter(|key| !account.keys.contains_key(*key)) {
                self.owners.remove(key);
            }
        }
        self.owners.extend(account.keys.keys().map(|key| (key.clone(), id.clone())));
        self.accounts.insert(id.clone(), account);
        self
    }
}

impl Account {
    pub(crate) fn load(tx: &Tx<'_>, record: AccountRecord) -> Result<Self, LoadError> {
        let id = record.id.clone();
        let mut account = Self {
            record,
            users: BTreeMap::new(),
            roles: BTreeMap::new(),
            policies: BTreeMap::new(),
            keys: BTreeMap::new(),
        };
        for user in tx.users(&id)? {
            let of = names::user_arn(&user);
            account.put_user(user).map_err(|source| LoadError::Policy { of, source })?;
        }
        for role in tx.roles(&id)? {
            let of = names::role_arn(&role);
            account.put_role(role).map_err(|source| LoadError::Policy { of, source })?;
        }
        for policy in tx.policies(&id)? {
            let of = names::policy_arn(&policy);
            account.put_policy(policy).map_err(|source| LoadError::Policy { of, source })?;
        }
        for key in tx.access_keys(&id)? {
            account.put_key(key);
        }
        Ok(account)
    }

    pub(crate) fn user(&self, name: &str) -> Option<&Arc<User>> {
        self.users.get(&name.to_lowercase())
    }

    pub(crate) fn role(&self, name: &str) -> Option<&Arc<Role>> {
        self.roles.get(&name.to_lowercase())
    }

    /// The account's role with exactly this ARN.
    pub(crate) fn role_at(&self, arn: &str) -> Option<&Arc<Role>> {
        let (_, name) = names::parse(arn, "role")?;
        self.role(name).filter(|role| names::role_arn(&role.record) == arn)
    }

    /// The account's own policy with exactly this ARN.
    pub(crate) fn policy(&self, arn: &str) -> Option<&Arc<Managed>> {
        let (_, name) = names::parse(arn, "policy")?;
        let policy = self.policies.get(&name.to_lowercase())?;
        (names::policy_arn(&policy.record) == arn).then_some(policy)
    }

    /// What a managed policy says that this account may use.
    pub(crate) fn managed(&self, arn: &str) -> Option<&Policy> {
        match managed::find(arn) {
            Some(policy) => Some(&policy.policy),
            None => self.policy(arn)?.policy.as_ref(),
        }
    }

    /// Everything that says what somebody with these policies may do.
    pub(crate) fn granted<'a>(
        &'a self,
        inline: &'a [Policy],
        granted: &'a GrantedPolicies,
    ) -> impl Iterator<Item = &'a Policy> {
        inline.iter().chain(granted.attached.iter().filter_map(|arn| self.managed(arn)))
    }

    pub(crate) fn put_user(&mut self, record: UserRecord) -> Result<(), PolicyError> {
        let inline = read(&record.policies)?;
        self.users.insert(record.name.to_lowercase(), Arc::new(User { record, inline }));
        Ok(())
    }

    pub(crate) fn put_role(&mut self, record: RoleRecord) -> Result<(), PolicyError> {
        let (trust, inline) = (TrustPolicy::parse(&record.trust)?, read(&record.policies)?);
        self.roles.insert(record.name.to_lowercase(), Arc::new(Role { record, trust, inline }));
        Ok(())
    }

    pub(crate) fn put_policy(&mut self, record: PolicyRecord) -> Result<(), PolicyError> {
        let in_force = record.versions.iter().find(|version| version.number == record.default_version);
        let policy = in_force.map(|version| Policy::parse(&version.document)).transpose()?;
        self.policies.insert(record.name.to_lowercase(), Arc::new(Managed { record, policy }));
        Ok(())
    }

    /// A key whose user is gone is nobody's, and left out.
    pub(crate) fn put_key(&mut self, record: AccessKeyRecord) {
        let principal = match &record.user {
            None => Principal::Root,
            Some(name) => match self.user(name) {
                Some(user) => user.principal(),
                None => return,
            },
        };
        let (account, access_key_id) = (record.account.clone(), record.id.clone());
        let caller = Caller { account, principal, access_key_id, session: None }.into();
        self.keys.insert(record.id.clone(), Arc::new(Key { record, caller }));
    }
}

impl User {
    pub(crate) fn principal(&self) -> Principal {
        let UserRecord { id, path, name, .. } = self.record.clone();
        Principal::User { id, path, name }
    }

    pub(crate) fn policies<'a>(&'a self, account: &'a Account) -> impl Iterator<Item = &'a Policy> {
        account.granted(&self.inline, &self.record.policies)
    }
}

impl Role {
    pub(crate) fn principal(&self, session: &str) -> Principal {
        let RoleRecord { id, path, name, .. } = self.record.clone();
        Principal::Role { id, path, role: name, session: session.to_owned() }
    }

    pub(crate) fn policies<'a>(&'a self, account: &'a Account) -> impl Iterator<Item = &'a Policy> {
        account.granted(&self.inline, &self.record.policies)
    }
}

fn read(policies: &GrantedPolicies) -> Result<Vec<Policy>, PolicyError> {
    policies.inline.values().map(|document| Policy::parse(document)).collect()
}
