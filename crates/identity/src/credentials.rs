//! From an access key id, and a session token where there is one, to who it is.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use auth::keys::{self, TEMPORARY};
use auth::session::SessionKey;
use auth::sigv4::SigV4Error;
use iam::Policy;
use ids::AccountId;
use serde::{Deserialize, Serialize};

use crate::caller::{Caller, Principal, Session, SessionPolicy};
use crate::state::State;

/// Bytes of a session's claims, sealed; what is longer has too many policies and tags.
pub(crate) const MAX_CLAIMS: usize = 8 * 1024;

/// What an access key stands for.
#[derive(Clone)]
pub struct Credential {
    /// Whose it is.
    pub caller: Arc<Caller>,
    /// What signs.
    pub secret: String,
}

/// Why credentials are nobody's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// No such access key.
    #[error("The security token included in the request is invalid.")]
    Unknown,
    /// One that its owner has switched off.
    #[error("The security token included in the request is invalid.")]
    Inactive,
    /// Not a session token of this access key, or one of a user or role that is gone.
    #[error("The security token included in the request is invalid.")]
    BadToken,
    /// A session that is over.
    #[error("The security token included in the request is expired")]
    Expired,
}

impl From<CredentialError> for SigV4Error {
    fn from(error: CredentialError) -> Self {
        match error {
            CredentialError::Expired => Self::ExpiredToken,
            CredentialError::Unknown | CredentialError::Inactive | CredentialError::BadToken => {
                Self::UnknownKey
            }
        }
    }
}

/// Credentials for a while.
#[derive(Clone, PartialEq, Eq)]
pub struct TemporaryCredentials {
    /// `ASIA…`.
    pub access_key_id: String,
    /// What signs.
    pub secret_access_key: String,
    /// What every request carries.
    pub session_token: String,
    /// The first second, in Unix time, at which they are of no use.
    pub expires_at: u64,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential").field("caller", &self.caller).finish_non_exhaustive()
    }
}

impl fmt::Debug for TemporaryCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TemporaryCredentials")
            .field("access_key_id", &self.access_key_id)
            .field("expires_at", &self.expires_at)
            .finish_non_exhaustive()
    }
}

/// The sealed form: short names keep tokens short.
#[derive(Serialize, Deserialize)]
struct Claims {
    a: AccountId,
    p: Principal,
    i: u64,
    e: u64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    d: Vec<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    m: Vec<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    t: BTreeMap<String, String>,
}

/// The claims of a session, as they are sealed.
pub(crate) fn claims(caller: &Caller, now: u64, expires_at: u64) -> Vec<u8> {
    let (mut d, mut m, mut t) = (Vec::new(), Vec::new(), BTreeMap::new());
    if let Some(session) = &caller.session {
        for policy in &session.policies {
            match policy {
                SessionPolicy::Document { text, .. } => d.push(text.clone()),
                SessionPolicy::Managed(arn) => m.push(arn.clone()),
            }
        }
        t.clone_from(&session.tags);
    }
    let claims =
        Claims { a: caller.account.clone(), p: caller.principal.clone(), i: now, e: expires_at, d, m, t };
    serde_json::to_vec(&claims).expect("claims have text keys and no failing serializer")
}

/// Credentials with these claims.
pub(crate) fn seal(key: &SessionKey, claims: &[u8], expires_at: u64) -> TemporaryCredentials {
    let access_key_id = keys::temporary_id().expect("the system's random source works");
    TemporaryCredentials {
        secret_access_key: key.secret(&access_key_id),
        session_token: key.seal(&access_key_id, claims),
        access_key_id,
        expires_at,
    }
}

/// Whose session a token is of, if its user or role is still there.
pub(crate) fn open(
    state: &State,
    key: &SessionKey,
    access_key_id: &str,
    token: &str,
    now: u64,
) -> Result<Caller, CredentialError> {
    if !keys::is_id(access_key_id, TEMPORARY) {
        return Err(CredentialError::Unknown);
    }
    let text = key.open(access_key_id, token).ok_or(CredentialError::BadToken)?;
    // Authentic from here on: only a token of another release of ours can fail to parse.
    let claims: Claims = serde_json::from_slice(&text).map_err(|_| CredentialError::BadToken)?;
    if now >= claims.e {
        return Err(CredentialError::Expired);
    }
    let account = state.account(&claims.a).ok_or(CredentialError::BadToken)?;
    let lives = match &claims.p {
        Principal::Root => true,
        Principal::User { id, name, .. } => account.user(name).is_some_and(|user| user.record.id == *id),
        Principal::Role { id, role, .. } => account.role(role).is_some_and(|role| role.record.id == *id),
    };
    if !lives {
        return Err(CredentialError::BadToken);
    }
    let mut policies: Vec<SessionPolicy> = claims.m.into_iter().map(SessionPolicy::Managed).collect();
    for text in claims.d {
        let policy = Policy::parse(&text).map_err(|_| CredentialError::BadToken)?;
        policies.push(SessionPolicy::Document { text, policy });
    }
    let session = Session { issued_at: claims.i, policies, tags: claims.t };
    let access_key_id = access_key_id.to_owned();
    Ok(Caller { account: claims.a, principal: claims.p, access_key_id, session: Some(session) })
}
