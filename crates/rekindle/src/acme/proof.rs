//! How an authority is shown that a name is ours: a record of DNS that the operator's hook adds (DNS-01), or a certificate
//! that only whoever serves the name can show (TLS-ALPN-01).

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use instant_acme::{ChallengeType, KeyAuthorization};
use rcgen::{CertificateParams, CustomExtension, KeyPair};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use tokio::process::Command;
use tokio::time::timeout;

use super::AcmeError;

/// For the hook to have its record seen everywhere.
const HOOK_TIMEOUT: Duration = Duration::from_secs(10 * 60);
/// Of what the hook complains of.
const MAX_COMPLAINT: usize = 500;
/// What is looked up for the names below one.
const RECORD: &str = "_acme-challenge";

/// Why the hook has not done its work.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HookError {
    #[error("cannot run {hook}: {source}; check acme.dns_hook in the settings")]
    Start { hook: PathBuf, source: io::Error },
    #[error("{hook} has not ended within {limit} s", limit = HOOK_TIMEOUT.as_secs())]
    Late { hook: PathBuf },
    #[error("{hook} {action} failed ({status}): {complaint}")]
    Failed { hook: PathBuf, action: &'static str, status: ExitStatus, complaint: String },
}

/// Certificates shown to an authority that looks, by name.
#[derive(Debug, Default)]
pub(crate) struct Challenges(Mutex<HashMap<String, Arc<CertifiedKey>>>);

impl Challenges {
    pub(crate) fn shown(&self, name: &str) -> Option<Arc<CertifiedKey>> {
        self.lock().get(name).map(Arc::clone)
    }

    /// A panic while the lock was held left it whole.
    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<CertifiedKey>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of the ways.
#[derive(Debug)]
pub(super) enum Proof {
    Dns { hook: PathBuf, parent: String },
    Tls(Arc<Challenges>),
}

/// What has been shown, to be taken back.
#[derive(Debug)]
pub(super) enum Published {
    Dns { hook: PathBuf, record: String, value: String },
    Tls { challenges: Arc<Challenges>, name: String },
}

impl Proof {
    pub(super) fn kind(&self) -> ChallengeType {
        match self {
            Self::Dns { .. } => ChallengeType::Dns01,
            Self::Tls(_) => ChallengeType::TlsAlpn01,
        }
    }

    pub(super) fn kind_name(&self) -> &'static str {
        match self {
            Self::Dns { .. } => "dns-01",
            Self::Tls(_) => "tls-alpn-01",
        }
    }

    pub(super) async fn publish(&self, name: &str, key: &KeyAuthorization) -> Result<Published, AcmeError> {
        match self {
            Self::Dns { hook, parent } => {
                let (record, value) = (format!("{RECORD}.{parent}"), key.dns_value());
                Ok(Published::Dns { hook: hook.clone(), record, value }.show().await?)
            }
            Self::Tls(challenges) => {
                let certificate = certificate(name, key.digest().as_ref());
                let certificate = certificate.map_err(|error| AcmeError::Request(name.to_owned(), error))?;
                challenges.lock().insert(name.to_owned(), certificate);
                Ok(Published::Tls { challenges: Arc::clone(challenges), name: name.to_owned() })
            }
        }
    }
}

impl Published {
    /// Shows it. What an attempt that fails may have left is taken back.
    async fn show(self) -> Result<Self, HookError> {
        let shown = self.run("add").await;
        match shown {
            Ok(()) => Ok(self),
            Err(error @ HookError::Start { .. }) => Err(error),
            Err(error) => {
                self.take_back().await;
                Err(error)
            }
        }
    }

    pub(super) async fn take_back(self) {
        if let Err(error) = self.run("remove").await {
            tracing::warn!("{error}; the record is of no more use and stays");
        }
        if let Self::Tls { challenges, name } = self {
            challenges.lock().remove(&name);
        }
    }

    async fn run(&self, action: &'static str) -> Result<(), HookError> {
        let Self::Dns { hook, record, value } = self else { return Ok(()) };
        let mut command = Command::new(hook);
        command.args([action, record, value]).stdin(Stdio::null()).kill_on_drop(true);
        let late = |_| HookError::Late { hook: hook.clone() };
        let output = timeout(HOOK_TIMEOUT, command.output()).await.map_err(late)?;
        let output = output.map_err(|source| HookError::Start { hook: hook.clone(), source })?;
        if output.status.success() {
            return Ok(());
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        let complaint = complaint.trim();
        let complaint = complaint[..complaint.floor_char_boundary(MAX_COMPLAINT)].to_owned();
        Err(HookError::Failed { hook: hook.clone(), action, status: output.status, complaint })
    }
}

/// Signed by itself, with the authority's question answered in an extension (RFC 8737 §3).
fn certificate(name: &str, digest: &[u8]) -> Result<Arc<CertifiedKey>, rcgen::Error> {
    let mut params = CertificateParams::new(vec![name.to_owned()])?;
    params.custom_extensions.push(CustomExtension::new_acme_identifier(digest));
    let key = KeyPair::generate()?;
    let certificate = params.self_signed(&key)?.der().clone();
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let key = any_supported_type(&key).expect("ring signs with the keys that it makes");
    Ok(Arc::new(CertifiedKey::new(vec![certificate], key)))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use x509_parser::oid_registry::asn1_rs::oid;
    use x509_parser::parse_x509_certificate;

    use super::*;

    fn hook(dir: &tempfile::TempDir, script: &str) -> PathBuf {
        let path = dir.path().join("hook");
        fs::write(&path, format!("#!/bin/sh\n{script}")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    fn record(hook: PathBuf) -> Published {
        Published::Dns { hook, record: "_acme-challenge.x.test".into(), value: "v".into() }
    }

    const ADDED_AND_REMOVED: &str = "add _acme-challenge.x.test v\nremove _acme-challenge.x.test v\n";

    #[tokio::test]
    async fn the_hook_is_told_what_to_add_and_what_to_remove() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("told");
        let published = record(hook(&dir, &format!("echo \"$*\" >>{}", told.display())));
        published.show().await.unwrap().take_back().await;
        assert_eq!(fs::read_to_string(told).unwrap(), ADDED_AND_REMOVED);
    }

    #[tokio::test]
    async fn what_a_hook_that_fails_may_have_added_is_removed() {
        let dir = tempfile::tempdir().unwrap();
        let told = dir.path().join("told");
        let script = format!("echo \"$*\" >>{}; [ $1 = remove ]", told.display());
        let failed = record(hook(&dir, &script)).show().await.unwrap_err();
        assert!(matches!(failed, HookError::Failed { action: "add", .. }), "{failed}");
        assert_eq!(fs::read_to_string(told).unwrap(), ADDED_AND_REMOVED);
    }

    #[tokio::test]
    async fn a_hook_that_fails_says_why() {
        let dir = tempfile::tempdir().unwrap();
        let error = record(hook(&dir, "echo no such zone >&2; exit 3")).show().await.unwrap_err().to_string();
        assert!(error.contains("no such zone") && error.contains('3'), "{error}");
        let error = record(dir.path().join("none")).show().await.unwrap_err().to_string();
        assert!(error.contains("acme.dns_hook"), "{error}");
    }

    #[test]
    fn the_certificate_answers_in_a_critical_extension() {
        let shown = certificate("a.example.com", &[7; 32]).unwrap();
        let (_, parsed) = parse_x509_certificate(shown.end_entity_cert().unwrap()).unwrap();
        let extension = parsed.get_extension_unique(&oid!(1.3.6.1.5.5.7.1.31)).unwrap().unwrap();
        assert!(extension.critical);
        assert_eq!(extension.value, [&[4, 32][..], &[7; 32]].concat(), "an octet string");
    }
}
