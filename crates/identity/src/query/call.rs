//! One call: who asks, for what, of which account as it is, and the answer as it grows.

use std::sync::Arc;

use iam::{Access, Context};

use crate::authorize::{AccessDenied, authorize};
use crate::caller::{Caller, Principal};
use crate::clock::now_ms;
use crate::draft::Draft;
use crate::identity::Identity;
use crate::query::Service;
use crate::query::error::Refusal;
use crate::query::fields::Fields;
use crate::query::xml::Xml;
use crate::state::State;

/// Carries out one operation.
pub(crate) type Handler = for<'c, 'a> fn(&'c mut Call<'a>) -> Result<(), Refusal>;

pub(crate) struct Call<'a> {
    pub(crate) identity: &'a Identity,
    pub(crate) caller: &'a Caller,
    pub(crate) now_ms: u64,
    pub(crate) fields: Fields<'a>,
    pub(crate) draft: Draft,
    pub(crate) answer: Xml,
    state: Arc<State>,
    action: String,
}

impl<'a> Call<'a> {
    pub(crate) fn new(
        identity: &'a Identity,
        caller: &'a Caller,
        service: Service,
        action: &str,
        form: &'a [(String, String)],
    ) -> Result<Self, Refusal> {
        // As on AWS: what GetSessionToken gives is not good for IAM.
        let is_session_token =
            caller.session.is_some() && !matches!(caller.principal, Principal::Role { .. });
        if service == Service::Iam && is_session_token {
            return Err(Refusal::invalid_token());
        }
        let state = identity.state();
        let account = state.account(&caller.account).cloned().ok_or_else(Refusal::invalid_token)?;
        Ok(Self {
            identity,
            caller,
            now_ms: now_ms(),
            fields: Fields::new(form, service == Service::Sts),
            draft: Draft::new(account),
            answer: Xml::default(),
            state,
            action: format!("{}:{action}", service.signing_name()),
        })
    }

    /// Whether the caller may do on `resource` what it calls for.
    pub(crate) fn authorize(&self, resource: &str, context: &Context) -> Result<(), Refusal> {
        Ok(self.check(&self.action, resource, context)?)
    }

    /// The same for another action.
    pub(crate) fn check(&self, action: &str, resource: &str, context: &Context) -> Result<(), AccessDenied> {
        authorize(&self.state, self.caller, &Access { action, resource, context }, self.now_ms)
    }

    pub(crate) fn into_parts(self) -> (Draft, Xml) {
        (self.draft, self.answer)
    }
}
