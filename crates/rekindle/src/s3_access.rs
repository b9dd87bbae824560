//! The object store's callers: the accounts, users and roles of this server.

use std::sync::Arc;

use iam::Context;
use identity::{CredentialError, Identity};
use ids::AccountId;

/// The identities as the object store asks for them.
pub(crate) struct S3Access(pub(crate) Identity);

#[derive(Debug)]
struct Caller {
    identity: Identity,
    caller: Arc<identity::Caller>,
}

impl objects::Access for S3Access {
    fn secret(&self, access_key_id: &str) -> Option<String> {
        self.0.secret(access_key_id)
    }

    fn caller(
        &self,
        access_key_id: &str,
        token: Option<&str>,
    ) -> Result<Arc<dyn objects::Caller>, objects::CredentialError> {
        match self.0.credential(access_key_id, token) {
            Ok(known) => Ok(Arc::new(Caller { identity: self.0.clone(), caller: known.caller })),
            Err(CredentialError::Unknown | CredentialError::Inactive) => {
                Err(objects::CredentialError::Unknown)
            }
            Err(CredentialError::BadToken) => Err(objects::CredentialError::BadToken),
            Err(CredentialError::Expired) => Err(objects::CredentialError::Expired),
        }
    }
}

impl objects::Caller for Caller {
    fn account(&self) -> &AccountId {
        &self.caller.account
    }

    fn may(&self, action: &str, resource: &str, context: &[(&str, &str)]) -> Result<(), String> {
        let mut known = Context::new();
        for (key, value) in context {
            known.set(key, *value);
        }
        let access = iam::Access { action, resource, context: &known };
        self.identity.authorize(&self.caller, &access).map_err(|denied| in_s3s_words(&denied))
    }
}

/// Unlike other services, S3 puts the resource in quotes.
fn in_s3s_words(denied: &identity::AccessDenied) -> String {
    let identity::AccessDenied { caller, action, resource, reason } = denied;
    format!("User: {caller} is not authorized to perform: {action} on resource: \"{resource}\" {reason}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_reads_as_s3_says_it() {
        let denied = identity::AccessDenied {
            caller: "arn:aws:iam::123456789012:user/ada".into(),
            action: "s3:GetObject".into(),
            resource: "arn:aws:s3:::b/k".into(),
            reason: identity::Reason::NoIdentityPolicy("s3:GetObject".into()),
        };
        assert_eq!(
            in_s3s_words(&denied),
            "User: arn:aws:iam::123456789012:user/ada is not authorized to perform: s3:GetObject on resource: \
             \"arn:aws:s3:::b/k\" because no identity-based policy allows the s3:GetObject action"
        );
    }
}
