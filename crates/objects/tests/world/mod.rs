//! A store behind a loopback listener, the people who use it, and the AWS CLI. Needs the clients that
//! `scripts/clients` installs.

use std::path::Path;
use std::process::{Command, Output};
use std::sync::Arc;

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use ids::AccountId;
use rekindle_objects::{Access, Caller, CredentialError, ObjectStore};
use tokio::net::TcpListener;

pub(crate) const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";

/// Somebody with an access key.
#[derive(Debug)]
pub(crate) struct Person {
    pub(crate) key: &'static str,
    pub(crate) account: AccountId,
    /// The token without which the key is worth nothing.
    pub(crate) token: Option<&'static str>,
    /// What they may do.
    pub(crate) may: &'static [Grant],
}

/// An action, a resource, and the context it takes. `*` at the end is anything.
pub(crate) type Grant = (&'static str, &'static str, &'static [(&'static str, &'static str)]);

pub(crate) const EVERYTHING: &[Grant] = &[("*", "*", &[])];

struct Known(Vec<Arc<Person>>);

impl Access for Known {
    fn secret(&self, access_key_id: &str) -> Option<String> {
        self.0.iter().any(|person| person.key == access_key_id).then(|| SECRET.to_owned())
    }

    fn caller(&self, access_key_id: &str, token: Option<&str>) -> Result<Arc<dyn Caller>, CredentialError> {
        let person = self.0.iter().find(|person| person.key == access_key_id);
        let person = person.ok_or(CredentialError::Unknown)?;
        match token {
            Some("old") => Err(CredentialError::Expired),
            token if token != person.token => Err(CredentialError::BadToken),
            _ => Ok(Arc::clone(person) as Arc<dyn Caller>),
        }
    }
}

impl Caller for Person {
    fn account(&self) -> &AccountId {
        &self.account
    }

    fn may(&self, action: &str, resource: &str, context: &[(&str, &str)]) -> Result<(), String> {
        let like = |pattern: &str, text: &str| match pattern.strip_suffix('*') {
            Some(start) => text.starts_with(start),
            None => text == pattern,
        };
        let mut allowed = self.may.iter();
        if allowed
            .any(|(a, r, c)| like(a, action) && like(r, resource) && c.iter().all(|c| context.contains(c)))
        {
            Ok(())
        } else {
            Err(format!("{} may not {action} on {resource}", self.key))
        }
    }
}

pub(crate) fn account(number: u64) -> AccountId {
    format!("{number:012}").parse().unwrap()
}

/// Serves the store to these people, and says where.
pub(crate) async fn serve(store: &ObjectStore, people: impl IntoIterator<Item = Person>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let service = store.service("us-east-1", Arc::new(Known(people.into_iter().map(Arc::new).collect())));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service.clone();
            tokio::spawn(async move {
                let builder = auto::Builder::new(TokioExecutor::new());
                let _ = builder.serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    url
}

/// What signs a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct As {
    pub(crate) key: &'static str,
    pub(crate) secret: &'static str,
    pub(crate) token: Option<&'static str>,
}

pub(crate) async fn aws(dir: &Path, url: &str, who: As, arguments: &str) -> Output {
    let assets = std::env::var_os("REKINDLE_ASSETS").unwrap_or_else(|| "/var/lib/rekindle/assets".into());
    let mut command = Command::new(Path::new(&assets).join("clients/bin/aws"));
    command
        .args(arguments.split(' '))
        .current_dir(dir)
        .env("AWS_ENDPOINT_URL", url)
        .env("AWS_ACCESS_KEY_ID", who.key)
        .env("AWS_SECRET_ACCESS_KEY", who.secret)
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_CONFIG_FILE", dir.join("config"))
        .env("NO_PROXY", "127.0.0.1")
        .env_remove("AWS_SESSION_TOKEN");
    if let Some(token) = who.token {
        command.env("AWS_SESSION_TOKEN", token);
    }
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}
