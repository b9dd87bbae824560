//! Build and execution roles, as builds and MicroVMs use them: the service takes a role on before it acts in its name.

use std::sync::Arc;

use iam::{Access, Context, RoleCredentials, RoleKeys, RoleSession, RoleUse, ServiceRoles};
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
        let caller = self.take_on(role_arn, account, source_arn)?;
        Ok(Arc::new(Session { identity: self.0.clone(), caller }))
    }
}

impl Roles {
    fn take_on(&self, role_arn: &str, account: &str, source_arn: &str) -> Result<Caller, String> {
        let context = Context::new().with("aws:SourceAccount", account).with("aws:SourceArn", source_arn);
        self.0.assume_for_service(role_arn, SERVICE, &context).map_err(|error| error.to_string())
    }
}

impl RoleCredentials for Roles {
    fn issue(&self, wanted: &RoleUse<'_>, issued_at: u64, expires_at: u64) -> Result<RoleKeys, String> {
        let caller = self.take_on(wanted.role_arn, wanted.account, wanted.source_arn)?;
        let caller = caller.with_session_name(wanted.session);
        let issued = self.0.issue_for(&caller, issued_at, expires_at);
        Ok(RoleKeys {
            access_key_id: issued.access_key_id,
            secret_access_key: issued.secret_access_key,
            session_token: issued.session_token,
        })
    }

    fn group_key(&self, group: &str) -> String {
        self.0.group_key(group)
    }
}

impl RoleSession for Session {
    fn may(&self, action: &str, resource: &str) -> Result<(), String> {
        let access = Access { action, resource, context: &Context::new() };
        self.identity.authorize(&self.caller, &access).map_err(|denied| denied.to_string())
    }
}
