//! Making and finding accounts in the store, with or without a server at work on it.

use auth::keys::{self, AccessKey, GenerateError};
use ids::AccountId;
use store::{AccessKeyRecord, AccountRecord, Store, StoreError, Tx};

use crate::bootstrap;
use crate::clock::now_ms;

/// The longest name of an account.
const MAX_NAME_CHARS: usize = 50;

/// Why an account cannot be made or found.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No random numbers.
    #[error(transparent)]
    Generate(#[from] GenerateError),
    /// A name that is none, or could be taken for an id.
    #[error(
        "{0:?} is no name for an account: give 1 to {MAX_NAME_CHARS} letters, digits and any of +=,.@_-, not only digits"
    )]
    BadName(String),
    /// A name that is taken.
    #[error("an account with the name {0:?} exists already; give another, or use that one")]
    NameTaken(String),
    /// Nobody has this id or name.
    #[error("no account has the id or name {0:?}; `rekindle account list` shows them all")]
    Unknown(String),
    /// An account whose root has no key that works.
    #[error("the root of account {0} has no active access key; make one with the keys of one of its users")]
    NoRootKey(AccountId),
}

/// An account with its root's access key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RootAccount {
    /// The account.
    pub record: AccountRecord,
    /// What signs for its root.
    pub key: AccessKey,
}

/// Makes an account, with an access key for its root and the roles that a first image needs.
///
/// # Errors
/// [`AccountError`].
pub async fn create(store: &Store, name: Option<&str>) -> Result<RootAccount, AccountError> {
    if let Some(name) = name {
        check_name(name)?;
    }
    let record =
        AccountRecord { id: keys::account_id()?, name: name.map(str::to_owned), created_at: now_ms() };
    let account = RootAccount { record, key: AccessKey::generate()? };
    let made = account.clone();
    store
        .write(move |tx| {
            let taken = |other: &AccountRecord| made.record.name.is_some() && other.name == made.record.name;
            if let Some(name) = tx.accounts()?.into_iter().find(taken).and_then(|other| other.name) {
                return Err(AccountError::NameTaken(name));
            }
            put(tx, &made)
        })
        .await?;
    Ok(account)
}

/// Makes sure that this account is there, and that its root has this key: the ones of a server's first start.
///
/// # Errors
/// [`AccountError`].
pub async fn ensure(store: &Store, id: &AccountId, key: &AccessKey) -> Result<(), AccountError> {
    let record = AccountRecord { id: id.clone(), name: None, created_at: now_ms() };
    let account = RootAccount { record, key: key.clone() };
    store
        .write(move |tx| {
            let id = &account.record.id;
            match (tx.account(id)?, tx.access_key(&account.key.id)?) {
                (None, _) => put(tx, &account),
                (Some(_), Some(key)) if key.account == *id => Ok(()),
                (Some(_), _) => put_key(tx, &account),
            }
        })
        .await
}

/// Every account, in the order of their ids.
///
/// # Errors
/// [`AccountError`].
pub fn list(store: &Store) -> Result<Vec<AccountRecord>, AccountError> {
    Ok(store.read::<_, StoreError>(|tx| tx.accounts())?)
}

/// The account with this id or name.
///
/// # Errors
/// [`AccountError`].
pub fn find(store: &Store, id_or_name: &str) -> Result<RootAccount, AccountError> {
    store.read(|tx| {
        let is_meant = |account: &AccountRecord| {
            account.id.to_string() == id_or_name || account.name.as_deref() == Some(id_or_name)
        };
        let record = tx.accounts()?.into_iter().find(is_meant);
        let record = record.ok_or_else(|| AccountError::Unknown(id_or_name.to_owned()))?;
        let keys = tx.access_keys(&record.id)?;
        match keys.into_iter().find(|key| key.user.is_none() && key.active) {
            Some(AccessKeyRecord { id, secret, .. }) => {
                Ok(RootAccount { record, key: AccessKey { id, secret } })
            }
            None => Err(AccountError::NoRootKey(record.id)),
        }
    })
}

fn put(tx: &Tx<'_>, account: &RootAccount) -> Result<(), AccountError> {
    tx.put_account(&account.record)?;
    for role in bootstrap::roles(&account.record.id, account.record.created_at)? {
        tx.put_role(&role)?;
    }
    put_key(tx, account)
}

fn put_key(tx: &Tx<'_>, account: &RootAccount) -> Result<(), AccountError> {
    let RootAccount { record, key } = account.clone();
    let (account, created_at) = (record.id, record.created_at);
    let key =
        AccessKeyRecord { id: key.id, secret: key.secret, account, user: None, active: true, created_at };
    Ok(tx.put_access_key(&key)?)
}

fn check_name(name: &str) -> Result<(), AccountError> {
    let legal = |c: char| c.is_ascii_alphanumeric() || "+=,.@_-".contains(c);
    let only_digits = name.bytes().all(|byte| byte.is_ascii_digit());
    if (1..=MAX_NAME_CHARS).contains(&name.len()) && name.chars().all(legal) && !only_digits {
        return Ok(());
    }
    Err(AccountError::BadName(name.to_owned()))
}
