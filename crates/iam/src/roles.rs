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

/// A role that was taken on.
pub trait RoleSession: fmt::Debug + Send + Sync {
    /// Whether the role may do `action` to the ARN `resource`.
    ///
    /// # Errors
    /// If not: in AWS's words.
    fn may(&self, action: &str, resource: &str) -> Result<(), String>;
}
