//! A store with one account, and calls to it.

#![allow(clippy::unwrap_used, dead_code, reason = "a test; not every test needs all of it")]

use std::sync::Arc;

use auth::keys::AccessKey;
use rekindle_identity::accounts::{self, RootAccount};
use rekindle_identity::{Caller, Identity, QueryAnswer, Service};
use store::Store;

pub(crate) const SECRET: [u8; 32] = [7; 32];

pub(crate) struct World {
    pub(crate) store: Store,
    pub(crate) identity: Identity,
    pub(crate) account: RootAccount,
    pub(crate) dir: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("db")).unwrap();
        let account = accounts::create(&store, Some("first")).await.unwrap();
        let identity = Identity::open(store.clone(), SECRET).unwrap();
        Self { store, identity, account, dir }
    }

    pub(crate) fn id(&self) -> String {
        self.account.record.id.to_string()
    }

    pub(crate) fn root(&self) -> Arc<Caller> {
        self.caller(&self.account.key)
    }

    pub(crate) fn caller(&self, key: &AccessKey) -> Arc<Caller> {
        self.identity.credential(&key.id, None).unwrap().caller
    }

    pub(crate) async fn iam(&self, caller: &Caller, call: &str) -> QueryAnswer {
        iam(&self.identity, caller, call).await
    }

    pub(crate) async fn sts(&self, caller: &Caller, call: &str) -> QueryAnswer {
        send(&self.identity, caller, Service::Sts, "2011-06-15", call).await
    }

    /// By the root; must succeed.
    pub(crate) async fn done(&self, call: &str) -> String {
        let answer = self.iam(&self.root(), call).await;
        assert_eq!(answer.error, None, "{call}");
        answer.body
    }

    /// By the root; must fail. The status, the code and the message.
    pub(crate) async fn refused(&self, call: &str) -> (u16, String, String) {
        refusal(self.iam(&self.root(), call).await)
    }

    /// A new user with a key, who may do what the document says.
    pub(crate) async fn user(&self, name: &str, document: &str) -> AccessKey {
        self.done(&format!("CreateUser UserName={name}")).await;
        if !document.is_empty() {
            self.done(&format!("PutUserPolicy UserName={name} PolicyName=p PolicyDocument={document}")).await;
        }
        let key = self.done(&format!("CreateAccessKey UserName={name}")).await;
        AccessKey { id: element(&key, "AccessKeyId"), secret: element(&key, "SecretAccessKey") }
    }
}

/// `Action Name=value Name=value`.
pub(crate) async fn iam(identity: &Identity, caller: &Caller, call: &str) -> QueryAnswer {
    send(identity, caller, Service::Iam, "2010-05-08", call).await
}

async fn send(
    identity: &Identity,
    caller: &Caller,
    service: Service,
    version: &str,
    call: &str,
) -> QueryAnswer {
    let (action, fields) = call.split_once(' ').unwrap_or((call, ""));
    let mut form = vec![("Action".to_owned(), action.to_owned()), ("Version".into(), version.into())];
    let fields = fields.split(' ').filter_map(|field| field.split_once('='));
    form.extend(fields.map(|(name, value)| (name.to_owned(), value.to_owned())));
    identity.query(caller, service, &form).await
}

pub(crate) fn refusal(answer: QueryAnswer) -> (u16, String, String) {
    let (code, message) = answer.error.expect(&answer.body);
    (answer.status, code, message)
}

/// A document without a space: calls are cut at spaces.
pub(crate) fn document(effect: &str, action: &str, resource: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"{effect}","Action":"{action}","Resource":"{resource}"}}]}}"#
    )
}

pub(crate) fn trust(principal: &str) -> String {
    format!(
        r#"{{"Version":"2012-10-17","Statement":[{{"Effect":"Allow","Principal":{principal},"Action":["sts:AssumeRole","sts:TagSession"]}}]}}"#
    )
}

/// The text of the first element with this tag.
pub(crate) fn element(xml: &str, tag: &str) -> String {
    let rest = xml.split_once(&format!("<{tag}>")).expect(xml).1;
    rest.split_once('<').unwrap().0.to_owned()
}
