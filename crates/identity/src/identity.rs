//! The whole: state in memory, the store behind it, and the key of sessions.

use std::sync::Arc;

use arc_swap::ArcSwap;
use auth::keys::{LONG_LIVED, TEMPORARY, is_id};
use auth::session::SessionKey;
use iam::{Access, Context};
use ids::AccountId;
use store::{Store, StoreError};
use tokio::sync::{Mutex, OwnedMutexGuard};

use crate::assume::{self, AssumeError};
use crate::authorize::{self, AccessDenied};
use crate::caller::Caller;
use crate::clock::now_ms;
use crate::credentials::{self, Credential, CredentialError, TemporaryCredentials};
use crate::draft::Draft;
use crate::query::{self, QueryAnswer, Service};
use crate::state::{Account, Key, LoadError, State};

/// Why there is no identity to serve.
#[derive(Debug, thiserror::Error)]
#[error("reading accounts, users and roles: {0}")]
pub struct OpenError(#[from] LoadError);

/// Accounts, users, roles and credentials. Clones share them.
#[derive(Debug, Clone)]
pub struct Identity(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    store: Store,
    sessions: SessionKey,
    state: ArcSwap<State>,
    /// Held from before a change is decided until it is in memory.
    changing: Arc<Mutex<()>>,
}

impl Identity {
    /// Everything that `store` has. `secret` is the installation's: temporary credentials follow from it.
    ///
    /// # Errors
    /// [`OpenError`] where the store fails, or a policy in it cannot be read.
    pub fn open(store: Store, secret: [u8; 32]) -> Result<Self, OpenError> {
        let state = store.read(State::load)?;
        let sessions = SessionKey::from_secret(secret);
        let (state, changing) = (ArcSwap::from_pointee(state), Arc::default());
        Ok(Self(Arc::new(Inner { store, sessions, state, changing })))
    }

    /// Whose an access key is, and its secret. The signature must be checked with it before the caller is believed.
    ///
    /// # Errors
    /// [`CredentialError`].
    pub fn credential(
        &self,
        access_key_id: &str,
        session_token: Option<&str>,
    ) -> Result<Credential, CredentialError> {
        let session_token = session_token.filter(|token| !token.is_empty());
        if is_id(access_key_id, TEMPORARY) {
            let token = session_token.ok_or(CredentialError::BadToken)?;
            let (state, now) = (self.state(), now_ms() / 1000);
            let caller = credentials::open(&state, &self.0.sessions, access_key_id, token, now)?;
            let secret = self.0.sessions.secret(access_key_id);
            return Ok(Credential { caller: Arc::new(caller), secret });
        }
        let key = self.key(access_key_id).ok_or(CredentialError::Unknown)?;
        match session_token {
            Some(_) => Err(CredentialError::BadToken),
            None if !key.record.active => Err(CredentialError::Inactive),
            None => Ok(Credential { caller: Arc::clone(&key.caller), secret: key.record.secret.clone() }),
        }
    }

    /// The secret of an access key, for whoever checks a signature before the session token is at hand. Only
    /// [`Identity::credential`] tells whether the key is good for anything.
    #[must_use]
    pub fn secret(&self, access_key_id: &str) -> Option<String> {
        if is_id(access_key_id, TEMPORARY) {
            return Some(self.0.sessions.secret(access_key_id));
        }
        self.key(access_key_id).filter(|key| key.record.active).map(|key| key.record.secret.clone())
    }

    /// Whether `caller` may do what it asks for. The keys that every request has are added to its context.
    ///
    /// # Errors
    /// [`AccessDenied`], whose text is the answer to the client.
    pub fn authorize(&self, caller: &Caller, access: &Access<'_>) -> Result<(), AccessDenied> {
        authorize::authorize(&self.state(), caller, access, now_ms())
    }

    /// A session of a role for a service. `context` must have `aws:SourceAccount`, the account that the service acts
    /// for: a role of any other is not found.
    ///
    /// # Errors
    /// [`AssumeError`].
    pub fn assume_for_service(
        &self,
        role_arn: &str,
        service: &str,
        context: &Context,
    ) -> Result<Caller, AssumeError> {
        assume::for_service(&self.state(), role_arn, service, context, now_ms())
    }

    /// Credentials for a session, or for whoever `caller` is, that end after so many seconds. Nothing is stored.
    ///
    /// # Panics
    /// If the system has no source of random numbers, without which no credentials would be safe.
    #[must_use]
    pub fn issue(&self, caller: &Caller, seconds: u64) -> TemporaryCredentials {
        let now = now_ms() / 1000;
        self.issue_for(caller, now, now.saturating_add(seconds))
    }

    /// The same, from one second of Unix time to another.
    ///
    /// # Panics
    /// As [`Identity::issue`].
    #[must_use]
    pub fn issue_for(&self, caller: &Caller, issued_at: u64, expires_at: u64) -> TemporaryCredentials {
        self.seal(&credentials::claims(caller, issued_at, expires_at), expires_at)
    }

    /// A secret of a group that is known by this name: 44 characters of base64.
    #[must_use]
    pub fn group_key(&self, group: &str) -> String {
        self.0.sessions.group_key(group)
    }

    /// Answers one call of IAM or STS. Every failure is an answer too.
    pub async fn query(&self, caller: &Caller, service: Service, form: &[(String, String)]) -> QueryAnswer {
        query::answer(self, caller, service, form).await
    }

    pub(crate) fn seal(&self, claims: &[u8], expires_at: u64) -> TemporaryCredentials {
        credentials::seal(&self.0.sessions, claims, expires_at)
    }

    /// The account of a long-lived access key.
    pub(crate) fn owner(&self, access_key_id: &str) -> Option<AccountId> {
        self.key(access_key_id).map(|key| key.record.account.clone())
    }

    pub(crate) fn state(&self) -> Arc<State> {
        self.0.state.load_full()
    }

    /// An account, also one that another process has made.
    pub(crate) fn account(&self, id: &AccountId) -> Option<Arc<Account>> {
        if let Some(account) = self.0.state.load().account(id) {
            return Some(Arc::clone(account));
        }
        self.adopt(id);
        self.0.state.load().account(id).map(Arc::clone)
    }

    /// Until it is dropped, nobody else changes anything.
    pub(crate) async fn changing(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.0.changing).lock_owned().await
    }

    /// Makes a draft durable, then true.
    pub(crate) async fn commit(&self, draft: Draft, changing: OwnedMutexGuard<()>) -> Result<(), StoreError> {
        let identity = self.clone();
        // In a task of its own: a client that hangs up must not leave memory behind what is written.
        let committed = tokio::spawn(async move {
            let (account, writes) = draft.into_parts();
            identity.0.store.write(move |tx| writes.iter().try_for_each(|write| write.apply(tx))).await?;
            identity.0.state.rcu(|state| State::clone(state).with(Arc::clone(&account)));
            drop(changing);
            Ok(())
        });
        committed.await.unwrap_or(Err(StoreError::Stopped))
    }

    fn key(&self, id: &str) -> Option<Arc<Key>> {
        if let Some(key) = self.0.state.load().key(id) {
            return Some(Arc::clone(key));
        }
        // A flood of made-up ids costs each a look at one row.
        if !is_id(id, LONG_LIVED) {
            return None;
        }
        let found = self.0.store.read::<_, StoreError>(|tx| tx.access_key(id));
        let owner = found.unwrap_or_else(|error| {
            tracing::warn!(%error, "cannot look for an access key");
            None
        })?;
        self.adopt(&owner.account);
        self.0.state.load().key(id).map(Arc::clone)
    }

    /// Takes an account from the store that is not in memory yet.
    fn adopt(&self, id: &AccountId) {
        if self.0.state.load().account(id).is_some() {
            return;
        }
        let load = self.0.store.read::<_, LoadError>(|tx| match tx.account(id)? {
            Some(record) => Account::load(tx, record).map(Some),
            None => Ok(None),
        });
        match load {
            Ok(None) => {}
            Ok(Some(account)) => {
                let account = Arc::new(account);
                // Whoever was faster may have changed it since.
                self.0.state.rcu(|state| match state.account(id) {
                    Some(_) => Arc::clone(state),
                    None => Arc::new(State::clone(state).with(Arc::clone(&account))),
                });
            }
            Err(error) => tracing::warn!(%error, account = %id, "an account is not taken up"),
        }
    }
}
