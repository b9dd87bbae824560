//! Accounts, users, roles, policies and access keys. Times are milliseconds since the Unix epoch.
//!
//! A name is found whatever its case, and kept in the case that it was given in.

use std::collections::{BTreeMap, BTreeSet};

use ids::AccountId;
use rusqlite::params;
use serde::{Deserialize, Serialize};

use crate::tx::doc;
use crate::{StoreError, Tx};

type Result<T> = std::result::Result<T, StoreError>;

/// An account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountRecord {
    /// 12 digits.
    pub id: AccountId,
    /// What its operator calls it.
    pub name: Option<String>,
    /// When it was made.
    pub created_at: u64,
}

/// What a user or a role is allowed, and forbidden.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantedPolicies {
    /// Documents that are its own, by name.
    pub inline: BTreeMap<String, String>,
    /// ARNs of managed policies.
    pub attached: BTreeSet<String>,
}

/// A user.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UserRecord {
    /// `AIDA…`; never given twice.
    pub id: String,
    /// Owner.
    pub account: AccountId,
    /// `/`, or `/a/b/`.
    pub path: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: u64,
    /// Tags by key.
    pub tags: BTreeMap<String, String>,
    /// What it may do.
    pub policies: GrantedPolicies,
}

/// A role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RoleRecord {
    /// `AROA…`; never given twice.
    pub id: String,
    /// Owner.
    pub account: AccountId,
    /// `/`, or `/a/b/`.
    pub path: String,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: u64,
    /// Tags by key.
    pub tags: BTreeMap<String, String>,
    /// What it may do.
    pub policies: GrantedPolicies,
    /// Who may take it on: a policy document.
    pub trust: String,
    /// Free text.
    pub description: Option<String>,
    /// The longest session, in seconds.
    pub max_session: u32,
}

/// One version of a managed policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyVersionRecord {
    /// The number after its `v`.
    pub number: u32,
    /// The document.
    pub document: String,
    /// When it was made.
    pub created_at: u64,
}

/// A managed policy of an account.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyRecord {
    /// `ANPA…`; never given twice.
    pub id: String,
    /// Owner.
    pub account: AccountId,
    /// `/`, or `/a/b/`.
    pub path: String,
    /// Its name.
    pub name: String,
    /// Free text.
    pub description: Option<String>,
    /// When it was made.
    pub created_at: u64,
    /// When it last changed.
    pub updated_at: u64,
    /// Tags by key.
    pub tags: BTreeMap<String, String>,
    /// What is left of its versions, oldest first.
    pub versions: Vec<PolicyVersionRecord>,
    /// The number of the version in force.
    pub default_version: u32,
    /// The highest number given to a version.
    pub last_version: u32,
}

/// A long-lived access key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessKeyRecord {
    /// `AKIA…`.
    pub id: String,
    /// What signs.
    pub secret: String,
    /// Owner.
    pub account: AccountId,
    /// Name of its user. None: the account's root.
    pub user: Option<String>,
    /// Whether it is good for anything.
    pub active: bool,
    /// When it was made.
    pub created_at: u64,
}

impl std::fmt::Debug for AccessKeyRecord {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessKeyRecord")
            .field("id", &self.id)
            .field("account", &self.account)
            .field("user", &self.user)
            .field("active", &self.active)
            .finish_non_exhaustive()
    }
}

impl Tx<'_> {
    /// One account.
    ///
    /// # Errors
    /// [`StoreError`], as everywhere here.
    pub fn account(&self, id: &AccountId) -> Result<Option<AccountRecord>> {
        self.one("account", "SELECT doc FROM accounts WHERE id = ?1", [id.to_string()])
    }

    /// Every account, in the order of their ids.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn accounts(&self) -> Result<Vec<AccountRecord>> {
        self.many("account", "SELECT doc FROM accounts ORDER BY id", [])
    }

    /// Writes an account.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_account(&self, account: &AccountRecord) -> Result<()> {
        self.run(
            "INSERT OR REPLACE INTO accounts (id, doc) VALUES (?1, ?2)",
            params![account.id.to_string(), doc("account", account)?],
        )
    }

    /// Every user of an account.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn users(&self, account: &AccountId) -> Result<Vec<UserRecord>> {
        self.many("user", "SELECT doc FROM users WHERE account = ?1", [account.to_string()])
    }

    /// Writes a user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_user(&self, user: &UserRecord) -> Result<()> {
        self.run(
            "INSERT OR REPLACE INTO users (account, name, doc) VALUES (?1, ?2, ?3)",
            params![user.account.to_string(), user.name.to_lowercase(), doc("user", user)?],
        )
    }

    /// Forgets a user.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_user(&self, account: &AccountId, name: &str) -> Result<()> {
        const SQL: &str = "DELETE FROM users WHERE account = ?1 AND name = ?2";
        self.run(SQL, params![account.to_string(), name.to_lowercase()])
    }

    /// Every role of an account.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn roles(&self, account: &AccountId) -> Result<Vec<RoleRecord>> {
        self.many("role", "SELECT doc FROM roles WHERE account = ?1", [account.to_string()])
    }

    /// Writes a role.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_role(&self, role: &RoleRecord) -> Result<()> {
        self.run(
            "INSERT OR REPLACE INTO roles (account, name, doc) VALUES (?1, ?2, ?3)",
            params![role.account.to_string(), role.name.to_lowercase(), doc("role", role)?],
        )
    }

    /// Forgets a role.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_role(&self, account: &AccountId, name: &str) -> Result<()> {
        const SQL: &str = "DELETE FROM roles WHERE account = ?1 AND name = ?2";
        self.run(SQL, params![account.to_string(), name.to_lowercase()])
    }

    /// Every managed policy of an account.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn policies(&self, account: &AccountId) -> Result<Vec<PolicyRecord>> {
        self.many("policy", "SELECT doc FROM policies WHERE account = ?1", [account.to_string()])
    }

    /// Writes a managed policy.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_policy(&self, policy: &PolicyRecord) -> Result<()> {
        self.run(
            "INSERT OR REPLACE INTO policies (account, name, doc) VALUES (?1, ?2, ?3)",
            params![policy.account.to_string(), policy.name.to_lowercase(), doc("policy", policy)?],
        )
    }

    /// Forgets a managed policy.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_policy(&self, account: &AccountId, name: &str) -> Result<()> {
        const SQL: &str = "DELETE FROM policies WHERE account = ?1 AND name = ?2";
        self.run(SQL, params![account.to_string(), name.to_lowercase()])
    }

    /// The access key with this id.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn access_key(&self, id: &str) -> Result<Option<AccessKeyRecord>> {
        self.one("access key", "SELECT doc FROM access_keys WHERE id = ?1", [id])
    }

    /// Every access key of an account.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn access_keys(&self, account: &AccountId) -> Result<Vec<AccessKeyRecord>> {
        const SQL: &str = "SELECT doc FROM access_keys WHERE account = ?1 ORDER BY id";
        self.many("access key", SQL, [account.to_string()])
    }

    /// Writes an access key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn put_access_key(&self, key: &AccessKeyRecord) -> Result<()> {
        self.run(
            "INSERT OR REPLACE INTO access_keys (id, account, doc) VALUES (?1, ?2, ?3)",
            params![key.id, key.account.to_string(), doc("access key", key)?],
        )
    }

    /// Forgets an access key.
    ///
    /// # Errors
    /// [`StoreError`].
    pub fn delete_access_key(&self, id: &str) -> Result<()> {
        self.run("DELETE FROM access_keys WHERE id = ?1", [id])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Store;

    fn user(account: &AccountId, name: &str) -> UserRecord {
        UserRecord {
            id: "AIDA".into(),
            account: account.clone(),
            path: "/".into(),
            name: name.into(),
            created_at: 1,
            tags: BTreeMap::from([("k".into(), "v".into())]),
            policies: GrantedPolicies::default(),
        }
    }

    #[tokio::test]
    async fn a_user_is_kept_once_whatever_the_case_of_its_name() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("db")).unwrap();
        let (one, other): (AccountId, AccountId) =
            ("111111111111".parse().unwrap(), "222222222222".parse().unwrap());
        let (first, again, theirs) = (user(&one, "Ada"), user(&one, "ADA"), user(&other, "ada"));
        let written = [first, again.clone(), theirs.clone()];
        store
            .write::<_, StoreError>(move |tx| written.iter().try_for_each(|user| tx.put_user(user)))
            .await
            .unwrap();
        assert_eq!(store.read::<_, StoreError>(|tx| tx.users(&one)).unwrap(), [again]);

        let account = one.clone();
        store.write::<_, StoreError>(move |tx| tx.delete_user(&account, "aDa")).await.unwrap();
        assert_eq!(store.read::<_, StoreError>(|tx| tx.users(&one)).unwrap(), []);
        assert_eq!(store.read::<_, StoreError>(|tx| tx.users(&other)).unwrap(), [theirs]);
    }

    #[tokio::test]
    async fn an_access_key_is_found_by_its_id_and_hides_its_secret() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(&root.path().join("db")).unwrap();
        let key = AccessKeyRecord {
            id: "AKIA".into(),
            secret: "hush".into(),
            account: "111111111111".parse().unwrap(),
            user: None,
            active: true,
            created_at: 1,
        };
        assert!(!format!("{key:?}").contains("hush"));
        let written = key.clone();
        store.write::<_, StoreError>(move |tx| tx.put_access_key(&written)).await.unwrap();
        assert_eq!(store.read::<_, StoreError>(|tx| tx.access_key("AKIA")).unwrap(), Some(key.clone()));
        assert_eq!(store.read::<_, StoreError>(|tx| tx.access_keys(&key.account)).unwrap(), [key]);
        assert_eq!(store.read::<_, StoreError>(|tx| tx.access_key("AKIB")).unwrap(), None);
    }

    /// A server and the command line beside it, each of whose changes reads before it writes.
    #[tokio::test(flavor = "multi_thread")]
    async fn two_processes_write_one_after_the_other() {
        const CHANGES: u64 = 50;
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("db");
        let account: AccountId = "111111111111".parse().unwrap();
        let first = AccountRecord { id: account.clone(), name: None, created_at: 0 };
        let opening = [(); 2].map(|()| {
            let path = path.clone();
            std::thread::spawn(move || Store::open(&path).unwrap())
        });
        let stores = opening.map(|store| store.join().unwrap());
        stores[0].write::<_, StoreError>(move |tx| tx.put_account(&first)).await.unwrap();
        let writers = stores.clone().map(|store| {
            let account = account.clone();
            tokio::spawn(async move {
                for _ in 0..CHANGES {
                    let account = account.clone();
                    let count = move |tx: &Tx<'_>| {
                        let mut record = tx.account(&account)?.unwrap();
                        record.created_at += 1;
                        tx.put_account(&record)
                    };
                    store.write::<_, StoreError>(count).await.unwrap();
                }
            })
        });
        for writer in writers {
            writer.await.unwrap();
        }
        let counted = stores[0].read::<_, StoreError>(|tx| tx.account(&account)).unwrap().unwrap();
        assert_eq!(counted.created_at, 2 * CHANGES);
    }
}
