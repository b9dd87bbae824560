//! Build and execution roles, as builds and MicroVMs use them: the service takes a role on before it acts in its name.

use std::sync::Arc;

use iam::{Access, Context, RoleSession, ServiceRoles};
use identity::{Caller, Identity};

/// Who the roles must trust.
const SERVICE: &str = "lambda.amazonaws.com";

/// The roles of this server's accounts.
#[derive(Debug)]
pub(crate) struct Roles(pub(crate) Identity);

#[derive(Debug)]
struct Session {
    identity: Identity,
    caller: Caller,
}

impl ServiceRoles for Roles {
    fn assume(
        &self,
        role_arn: &str,
        account: &str,
        source_arn: &str,
    ) -> Result<Arc<dyn RoleSession>, String> {
        let context = Context::new().with("aws:SourceAccount", account).with("aws:SourceArn", source_arn);
        let caller =
            self.0.assume_for_service(role_arn, SERVICE, &context).map_err(|error| error.to_string())?;
        Ok(Arc::new(Session { identity: self.0.clone(), caller }))
    }
}

impl RoleSession for Session {
    fn may(&self, action: &str, resource: &str) -> Result<(), String> {
        let access = Access { action, resource, context: &Context::new() };
        self.identity.authorize(&self.caller, &access).map_err(|denied| denied.to_string())
    }
}
