//! Roles as services use them: whoever acts for a customer takes on the customer's role first, and then may only what
//! the role may. Implemented where accounts are kept.

use std::fmt;
use std::sync::Arc;

/// Takes on roles for this service.
pub trait ServiceRoles: fmt::Debug + Send + Sync {
    /// A session of the role, for what is done for `source_arn`, a resource of `account`.
    ///
    /// # Errors
    /// If the role is not the account's, or does not trust the service: in words.
    fn assume(&self, role_arn: &str, account: &str, source_arn: &str)
    -> Result<Arc<dyn RoleSession>, String>;
}

/// Gives out credentials of roles, for what a customer's own programs do.
pub trait RoleCredentials: fmt::Debug + Send + Sync {
    /// Credentials for a session of the role from `issued_at` to `expires_at`, in seconds of Unix time.
    ///
    /// # Errors
    /// As [`ServiceRoles::assume`].
    fn issue(&self, wanted: &RoleUse<'_>, issued_at: u64, expires_at: u64) -> Result<RoleKeys, String>;

    /// A secret that all who know `group` by this name share and nobody else: 44 characters of base64.
    fn group_key(&self, group: &str) -> String;
}

/// Who is to act as a role.
#[derive(Debug, Clone, Copy)]
pub struct RoleUse<'a> {
    /// The role.
    pub role_arn: &'a str,
    /// The account that this is done for, which must be the role's.
    pub account: &'a str,
    /// The resource that it is done for.
    pub source_arn: &'a str,
    /// Name of the session.
    pub session: &'a str,
}

/// Temporary credentials.
#[derive(Clone, Default)]
pub struct RoleKeys {
    /// `ASIA…`.
    pub access_key_id: String,
    /// What signs.
    pub secret_access_key: String,
    /// What every request carries.
    pub session_token: String,
}

impl fmt::Debug for RoleKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RoleKeys").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

/// A role that was taken on.
pub trait RoleSession: fmt::Debug + Send + Sync {
    /// Whether the role may do `action` to the ARN `resource`.
    ///
    /// # Errors
    /// If not: in AWS's words.
    fn may(&self, action: &str, resource: &str) -> Result<(), String>;
}
