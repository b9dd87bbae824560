//! The certificate that the endpoints show: one of the local authority's, or the operator's own. It changes under open
//! connections, which go on with the one that they began with.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use ids::EndpointId;
use proxy::EndpointHosts;
use proxy::ca::{CaError, LocalCa};
use rustls::client::verify_server_name;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::{ClientHello, ParsedCertificate, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

/// Between two looks whether there is a newer one.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// One of the local authority's is made anew in good time: it is valid for 820 days.
const RENEW_AFTER: Duration = Duration::from_secs(365 * 24 * 3600);

/// The operator's own, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateFiles {
    /// The certificate, and those that it is signed by.
    chain: PathBuf,
    /// Its private key.
    key: PathBuf,
}

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(
        "cannot read the endpoints' certificate {path}: {source}; check endpoint_certificate in the settings"
    )]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot read the endpoints' certificate {path}: {source}; give PEM")]
    Pem { path: PathBuf, source: pem::Error },
    #[error(
        "cannot use the endpoints' certificate {chain} with the key {key}: {source}; give the two that belong together"
    )]
    Pair { chain: PathBuf, key: PathBuf, source: rustls::Error },
    #[error("the endpoints' certificate {path} is not for {wanted}; have one issued for that name")]
    Name { path: PathBuf, wanted: String },
}

/// Where certificates come from.
pub(crate) enum Source {
    /// The local authority, which signs for whatever the endpoints are called.
    Authority(Box<LocalCa>),
    /// Files.
    Files(CertificateFiles),
}

/// The certificate shown now.
pub(crate) struct Certificates {
    source: Source,
    hosts: EndpointHosts,
    current: ArcSwap<Current>,
}

struct Current {
    certificate: Arc<CertifiedKey>,
    since: SystemTime,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Those of `source`, for the endpoints of `hosts`.
    pub(crate) fn open(source: Source, hosts: EndpointHosts) -> Result<Self, CertificateError> {
        let current = load(&source, &hosts)?;
        Ok(Self { source, hosts, current: ArcSwap::from_pointee(current) })
    }

    /// Keeps it fresh until `stop`. A hang-up has the files read at once.
    pub(crate) async fn keep(&self, mut hang_up: Signal, stop: CancellationToken) {
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                _ = hang_up.recv() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            if asked || self.is_stale(SystemTime::now()) {
                self.renew();
            }
        }
    }

    /// The old one remains where there is no better one.
    fn renew(&self) {
        match load(&self.source, &self.hosts) {
            Ok(current) => {
                self.current.store(Arc::new(current));
                tracing::info!("new connections to the endpoints are shown a new certificate");
            }
            Err(error) => tracing::error!("{error}; the endpoints keep the certificate that they have"),
        }
    }

    fn is_stale(&self, now: SystemTime) -> bool {
        let since = self.current.load().since;
        match &self.source {
            Source::Authority(_) => now.duration_since(since).is_ok_and(|age| age > RENEW_AFTER),
            // What cannot be looked at will not be read either.
            Source::Files(files) => changed(files).is_ok_and(|changed| changed != since),
        }
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.current.load().certificate))
    }
}

fn load(source: &Source, hosts: &EndpointHosts) -> Result<Current, CertificateError> {
    match source {
        Source::Authority(ca) => {
            Ok(Current { certificate: ca.endpoint_certificate(hosts)?, since: SystemTime::now() })
        }
        Source::Files(files) => {
            // Looked at before they are read: what changes meanwhile is read again.
            let since = changed(files)?;
            Ok(Current { certificate: Arc::new(read(files, hosts)?), since })
        }
    }
}

fn changed(files: &CertificateFiles) -> Result<SystemTime, CertificateError> {
    let of = |path: &Path| fs::metadata(path).and_then(|file| file.modified()).map_err(unreadable(path));
    Ok(of(&files.chain)?.max(of(&files.key)?))
}

fn unreadable(path: &Path) -> impl FnOnce(io::Error) -> CertificateError {
    let path = path.to_owned();
    move |source| CertificateError::Read { path, source }
}

fn read(files: &CertificateFiles, hosts: &EndpointHosts) -> Result<CertifiedKey, CertificateError> {
    let no_pem = |path: &Path| {
        let path = path.to_owned();
        move |source| CertificateError::Pem { path, source }
    };
    let chain = CertificateDer::pem_file_iter(&files.chain).and_then(Iterator::collect);
    let chain: Vec<_> = chain.map_err(no_pem(&files.chain))?;
    let key = PrivateKeyDer::from_pem_file(&files.key).map_err(no_pem(&files.key))?;
    let pair = |source| CertificateError::Pair { chain: files.chain.clone(), key: files.key.clone(), source };
    let certificate = CertifiedKey::new(chain, any_supported_type(&key).map_err(pair)?);
    certificate.keys_match().map_err(pair)?;
    let leaf = ParsedCertificate::try_from(certificate.end_entity_cert().map_err(pair)?).map_err(pair)?;
    // Whichever endpoint: a certificate for one of them alone would be refused by the clients of all others.
    let host = hosts.host(EndpointId::random());
    let covered = ServerName::try_from(host).is_ok_and(|name| verify_server_name(&leaf, &name).is_ok());
    let wanted = hosts.wildcard();
    covered.then_some(certificate).ok_or_else(|| CertificateError::Name { path: files.chain.clone(), wanted })
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn hosts() -> EndpointHosts {
        EndpointHosts::new("us-east-1", "example.test")
    }

    fn issue(dir: &Path, name: &str) -> CertificateFiles {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().self_signed(&key).unwrap();
        let files = CertificateFiles { chain: dir.join("chain.pem"), key: dir.join("key.pem") };
        fs::write(&files.chain, certificate.pem()).unwrap();
        fs::write(&files.key, key.serialize_pem()).unwrap();
        files
    }

    fn shown(certificates: &Certificates) -> Vec<u8> {
        certificates.current.load().certificate.end_entity_cert().unwrap().to_vec()
    }

    #[test]
    fn a_new_certificate_is_shown_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let files = issue(dir.path(), &hosts().wildcard());
        let certificates = Certificates::open(Source::Files(files.clone()), hosts()).unwrap();
        assert!(!certificates.is_stale(SystemTime::now()));
        let first = shown(&certificates);

        issue(dir.path(), &hosts().wildcard());
        let later = SystemTime::now() + Duration::from_secs(5);
        fs::File::open(&files.chain).unwrap().set_modified(later).unwrap();
        assert!(certificates.is_stale(SystemTime::now()));
        certificates.renew();
        let second = shown(&certificates);
        assert_ne!(second, first);
        assert!(!certificates.is_stale(SystemTime::now()));

        fs::write(&files.key, "no key").unwrap();
        certificates.renew();
        assert_eq!(shown(&certificates), second);
    }

    #[test]
    fn what_no_client_would_accept_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused = |files: &CertificateFiles| {
            Certificates::open(Source::Files(files.clone()), hosts()).unwrap_err().to_string()
        };
        let files = issue(dir.path(), "*.example.test");
        let error = refused(&files);
        assert!(error.contains("is not for *.lambda-microvm.us-east-1.example.test"), "{error}");

        let chain = fs::read(&files.chain).unwrap();
        issue(dir.path(), &hosts().wildcard());
        fs::write(&files.chain, chain).unwrap();
        let error = refused(&files);
        assert!(error.contains("belong together"), "{error}");

        fs::write(&files.chain, "").unwrap();
        let error = refused(&files);
        assert!(error.contains("chain.pem"), "{error}");
        fs::remove_file(&files.key).unwrap();
        assert!(refused(&files).contains("endpoint_certificate"));
    }

    #[test]
    fn the_authoritys_is_made_anew_in_good_time() {
        let dir = tempfile::tempdir().unwrap();
        let source = Source::Authority(Box::new(LocalCa::open(dir.path()).unwrap()));
        let certificates = Certificates::open(source, hosts()).unwrap();
        assert!(!certificates.is_stale(SystemTime::now()));
        assert!(certificates.is_stale(SystemTime::now() + RENEW_AFTER + Duration::from_secs(60)));
        let first = shown(&certificates);
        certificates.renew();
        assert_ne!(shown(&certificates), first);
    }
}
