//! Certificates from an authority that speaks ACME (RFC 8555): for the endpoints by DNS-01 with the operator's hook, for names
//! of the operator's own by TLS-ALPN-01 on the endpoints' listener (RFC 8737). Account and certificates are kept in the data
//! directory; a certificate is renewed once two thirds of its life are over.

mod account;
mod due;
mod forget;
mod order;
pub(crate) mod proof;

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use instant_acme::Account;
use serde::Deserialize;
use store::Store;
use tokio_util::sync::CancellationToken;

use crate::certificate_files::{CertificateFiles, FilesError};
use crate::certificates::Certificates;
use crate::data_dir::DataDir;
use crate::files::{self, FileError, SECRET};
use due::Attempts;
pub(crate) use due::Validity;
use forget::forget;
use proof::{HookError, Proof};

/// Between two looks for names without a certificate, and for those to be renewed.
const LOOK_EVERY: Duration = Duration::from_secs(5);
/// File of the endpoints' certificate: no name of a domain is one label alone.
const ENDPOINTS: &str = "endpoints";

/// Which authority, and how it is convinced.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Its directory.
    pub(crate) directory: String,
    /// Where it reaches the operator.
    #[serde(default)]
    pub(crate) contact: Vec<String>,
    /// Certificates to trust in place of the system's, in PEM.
    pub(crate) ca_bundle: Option<PathBuf>,
    /// Adds and removes records of DNS.
    pub(crate) dns_hook: Option<PathBuf>,
}

/// Why there is no certificate for a name.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcmeError {
    #[error("the ACME authority at {directory}: {source}")]
    Authority { directory: String, source: instant_acme::Error },
    #[error("cannot trust {path} for the ACME authority: {reason}; check acme.ca_bundle in the settings")]
    Bundle { path: PathBuf, reason: String },
    #[error("the ACME authority does not find that {name} is served from here: {reason}")]
    Refused { name: String, reason: String },
    #[error("the ACME authority offers no {kind} challenge for {name}")]
    Challenge { name: String, kind: &'static str },
    #[error("cannot make a key or a request for {0}: {1}")]
    Request(String, rcgen::Error),
    #[error(transparent)]
    Hook(#[from] HookError),
    #[error(transparent)]
    File(#[from] FileError),
    #[error("the certificate that the ACME authority issued cannot be used: {0}")]
    Issued(#[from] FilesError),
    #[error(
        "the certificate that the ACME authority issued for {0} does not say until when it is valid, or is to be renewed \
         already; check this machine's clock"
    )]
    Over(String),
    #[error("{path} is damaged ({reason}); remove it, and a new account is made")]
    Account { path: PathBuf, reason: String },
}

/// Has certificates issued and renewed.
pub(crate) struct Acme {
    settings: Settings,
    dir: PathBuf,
    certificates: Arc<Certificates>,
    store: Store,
    account: Option<Account>,
    attempts: HashMap<String, Attempts>,
}

impl Acme {
    /// With those that an earlier server had issued, which are shown at once.
    pub(crate) fn open(
        settings: Settings,
        data: &DataDir,
        certificates: Arc<Certificates>,
        store: Store,
    ) -> Result<Self, FileError> {
        let dir = data.acme();
        files::make_secret_dir(&dir)?;
        let acme = Self { settings, dir, certificates, store, account: None, attempts: HashMap::new() };
        if let Some(exposed) = acme.exposed() {
            acme.wanted(&exposed).iter().for_each(|name| acme.load(name));
        }
        Ok(acme)
    }

    /// Until `stop`.
    pub(crate) async fn keep(mut self, stop: CancellationToken) {
        stop.clone()
            .run_until_cancelled(async {
                loop {
                    self.look().await;
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            })
            .await;
    }

    /// One after the other: authorities limit how many are open at once.
    async fn look(&mut self) {
        // What cannot be read is no reason to forget anything.
        let Some(exposed) = self.exposed() else { return };
        if let Err(error) = forget(&self.dir, |name| exposed.contains(name)) {
            tracing::error!("{error}; it is tried again");
        }
        let wanted = self.wanted(&exposed);
        let names: HashSet<&str> = wanted.iter().map(String::as_str).collect();
        self.attempts.retain(|name, _| names.contains(name.as_str()));
        self.certificates.keep_issued(|name| names.contains(name));
        for name in &wanted {
            if self.certificates.issued_validity(name).is_none() && !self.attempts.contains_key(name) {
                self.load(name);
            }
            let validity = self.certificates.issued_validity(name);
            if !due::is_due(validity, self.attempts.get(name), SystemTime::now()) {
                continue;
            }
            match self.issue(name).await {
                Ok(()) => {
                    self.attempts.remove(name);
                    tracing::info!(name, "a certificate was issued by the ACME authority");
                }
                Err(error) => {
                    let attempts = self.attempts.entry(name.clone()).or_default();
                    let again = attempts.failed(SystemTime::now());
                    tracing::error!(name, ?again, "{error}; it is tried again");
                }
            }
        }
    }

    /// Names that lead to MicroVMs.
    fn exposed(&self) -> Option<HashSet<String>> {
        match self.store.exposure() {
            Ok(exposure) => Some(exposure.names().map(str::to_owned).collect()),
            Err(error) => {
                tracing::error!(%error, "cannot look for names without a certificate");
                None
            }
        }
    }

    /// Of those, and the endpoints', the names for which the operator has no certificate.
    fn wanted(&self, exposed: &HashSet<String>) -> Vec<String> {
        let mut names: Vec<String> =
            exposed.iter().filter(|name| !self.certificates.are_given_for(name)).cloned().collect();
        if self.settings.dns_hook.is_some() && !self.certificates.are_given_for_endpoints() {
            names.push(self.certificates.endpoints());
        }
        names
    }

    /// Shows what was issued for a name before, if there is anything.
    fn load(&self, name: &str) {
        let file = self.file(name);
        if file.exists()
            && let Err(error) = self.certificates.install(name, &one_file(file))
        {
            tracing::error!("{error}; another is asked for");
        }
    }

    fn file(&self, name: &str) -> PathBuf {
        let stem = if name == self.certificates.endpoints() { ENDPOINTS } else { name };
        self.dir.join(format!("{stem}.pem"))
    }

    async fn issue(&mut self, name: &str) -> Result<(), AcmeError> {
        let account = match &self.account {
            Some(account) => account.clone(),
            None => account::open(&self.settings, &self.dir).await?,
        };
        self.account = Some(account.clone());
        let proof = match (&self.settings.dns_hook, name.strip_prefix("*.")) {
            (Some(hook), Some(parent)) => Proof::Dns { hook: hook.clone(), parent: parent.to_owned() },
            _ => Proof::Tls(Arc::clone(self.certificates.challenges())),
        };
        let pem = order::issue(&account, &self.settings.directory, name, &proof).await?;
        let file = self.file(name);
        files::write(&file, pem.as_bytes(), SECRET)?;
        self.certificates.install(name, &one_file(file))?;
        // Otherwise it would be asked for again and again.
        let over = due::is_due(self.certificates.issued_validity(name), None, SystemTime::now());
        if over { Err(AcmeError::Over(name.to_owned())) } else { Ok(()) }
    }
}

/// Key and chain in one file, so that neither is ever there without the other.
fn one_file(path: PathBuf) -> CertificateFiles {
    CertificateFiles { chain: path.clone(), key: path }
}
