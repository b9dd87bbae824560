//! The account with the authority, and the way to it.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use hyper::body::Bytes;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use instant_acme::{Account, AccountBuilder, BodyWrapper, BytesResponse, Error, HttpClient, NewAccount};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use serde::{Deserialize, Serialize};

use super::{AcmeError, Settings};
use crate::files::{self, SECRET};
use crate::trust;

/// The account's file, in the directory for certificates.
const FILE: &str = "account.json";
/// For the authority to answer one request.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);

#[derive(Serialize, Deserialize)]
struct AccountFile {
    /// The authority's that it is with.
    directory: String,
    credentials: serde_json::Value,
}

/// The account kept in `dir`, made where there is none with this authority.
pub(super) async fn open(settings: &Settings, dir: &Path) -> Result<Account, AcmeError> {
    let path = dir.join(FILE);
    let builder = builder(settings)?;
    let authority = |source| AcmeError::Authority { directory: settings.directory.clone(), source };
    let damaged =
        |error: serde_json::Error| AcmeError::Account { path: path.clone(), reason: error.to_string() };
    if let Some(content) = files::read(&path)? {
        let file: AccountFile = serde_json::from_slice(&content).map_err(damaged)?;
        if file.directory == settings.directory {
            let credentials = serde_json::from_value(file.credentials).map_err(damaged)?;
            return builder.from_credentials(credentials).await.map_err(authority);
        }
    }
    let contact: Vec<&str> = settings.contact.iter().map(String::as_str).collect();
    let new = NewAccount { contact: &contact, terms_of_service_agreed: true, only_return_existing: false };
    let made = builder.create(&new, settings.directory.clone(), None).await;
    let (account, credentials) = made.map_err(authority)?;
    let credentials = serde_json::to_value(&credentials).map_err(damaged)?;
    let file = AccountFile { directory: settings.directory.clone(), credentials };
    files::write_json(&path, &file, SECRET)?;
    Ok(account)
}

fn builder(settings: &Settings) -> Result<AccountBuilder, AcmeError> {
    let path =
        settings.ca_bundle.clone().or_else(trust::system).unwrap_or_else(|| PathBuf::from("ca_bundle"));
    let failed = |reason: String| AcmeError::Bundle { path: path.clone(), reason };
    let certificates: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(&path)
        .and_then(Iterator::collect)
        .map_err(|error| failed(error.to_string()))?;
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        return Err(failed("it has no certificate".into()));
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| failed(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_only().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    Ok(Account::builder_with_http(Box::new(Http(client))))
}

struct Http(Client<HttpsConnector<HttpConnector>, BodyWrapper<Bytes>>);

type Answer = Pin<Box<dyn Future<Output = Result<BytesResponse, Error>> + Send>>;

impl HttpClient for Http {
    fn request(&self, request: Request<BodyWrapper<Bytes>>) -> Answer {
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, self.0.request(request));
        Box::pin(async move {
            let answer = answer.await.map_err(|late| Error::Other(Box::new(late)))?;
            answer.map(BytesResponse::from).map_err(|error| Error::Other(Box::new(error)))
        })
    }
}
