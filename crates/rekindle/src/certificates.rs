//! Which certificate a client is shown: the operator's own for that name, or else one that an ACME authority has issued, or
//! else one of the local authority's. They change under open connections, which go on with the one that they began with.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard};
use std::time::{Duration, SystemTime};

use ids::EndpointId;
use proxy::ca::{CaError, LocalCa};
use proxy::{ACME_TLS, Backend, EndpointHosts};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::signal::unix::Signal;
use tokio_util::sync::CancellationToken;

use crate::acme::Validity;
use crate::acme::proof::Challenges;
use crate::certificate_files::{CertificateFiles, FilesError, Kept, Loaded};

/// Between two looks whether there is a newer one.
const LOOK_EVERY: Duration = Duration::from_secs(60);
/// One of the local authority's is made anew in good time: it is valid for 820 days.
const RENEW_AFTER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Certificates of the local authority's that are kept; beyond it they are made again as they are asked for.
const MAX_MADE: usize = 4096;

/// Why there is no certificate to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CertificateError {
    #[error(transparent)]
    Ca(#[from] CaError),
    #[error(transparent)]
    Files(#[from] FilesError),
    #[error("the endpoints' certificate {path} is not for {wanted}; have one issued for that name")]
    Name { path: String, wanted: String },
}

/// The certificates shown now.
pub(crate) struct Certificates {
    authority: LocalCa,
    hosts: EndpointHosts,
    files: Vec<Kept>,
    issued: RwLock<HashMap<String, Arc<Loaded>>>,
    challenges: Arc<Challenges>,
    made: Mutex<HashMap<String, Arc<Loaded>>>,
}

impl std::fmt::Debug for Certificates {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Certificates").field("hosts", &self.hosts).finish_non_exhaustive()
    }
}

impl Certificates {
    /// Those of `authority`, where the operator has none: neither in `endpoints`, for the endpoints of `hosts`, nor in
    /// `domains`.
    pub(crate) fn open(
        authority: LocalCa,
        hosts: EndpointHosts,
        endpoints: Option<CertificateFiles>,
        domains: Vec<CertificateFiles>,
    ) -> Result<Self, CertificateError> {
        let certificates = Self {
            authority,
            hosts,
            files: Vec::new(),
            issued: RwLock::default(),
            challenges: Arc::default(),
            made: Mutex::default(),
        };
        let any = certificates.any_endpoint();
        let mut files = Vec::new();
        if let Some(endpoints) = endpoints {
            let path = endpoints.chain.display().to_string();
            let kept = Kept::open(endpoints)?;
            // A certificate for one endpoint alone would be refused by the clients of all others.
            if !kept.loaded().is_for(&any) {
                return Err(CertificateError::Name { path, wanted: certificates.hosts.wildcard() });
            }
            files.push(kept);
        }
        for domain in domains {
            files.push(Kept::open(domain)?);
        }
        let certificates = Self { files, ..certificates };
        certificates.shown(&any)?;
        Ok(certificates)
    }

    fn any_endpoint(&self) -> String {
        self.hosts.host(EndpointId::MIN)
    }

    /// Keeps them fresh until `stop`. A hang-up has the files read at once.
    pub(crate) async fn keep(&self, mut hang_up: Signal, stop: CancellationToken) {
        loop {
            let asked = tokio::select! {
                () = stop.cancelled() => return,
                _ = hang_up.recv() => true,
                () = tokio::time::sleep(LOOK_EVERY) => false,
            };
            self.files.iter().for_each(|files| files.look(asked));
        }
    }

    /// The name of the endpoints' certificate.
    pub(crate) fn endpoints(&self) -> String {
        self.hosts.wildcard()
    }

    /// Whether the operator has given one for a name.
    pub(crate) fn are_given_for(&self, host: &str) -> bool {
        self.given(host).is_some()
    }

    /// Whether the operator has given the endpoints'.
    pub(crate) fn are_given_for_endpoints(&self) -> bool {
        self.are_given_for(&self.any_endpoint())
    }

    /// What is shown to an ACME authority that looks.
    pub(crate) fn challenges(&self) -> &Arc<Challenges> {
        &self.challenges
    }

    /// Shows what an ACME authority has issued for a name, from now on.
    pub(crate) fn install(&self, name: &str, files: &CertificateFiles) -> Result<(), FilesError> {
        let loaded = files.load()?;
        self.issued_mut().insert(name.to_owned(), Arc::new(loaded));
        Ok(())
    }

    /// From when until when that is valid.
    pub(crate) fn issued_validity(&self, name: &str) -> Option<Validity> {
        self.issued(name)?.validity()
    }

    /// Shows what was issued for other names no more.
    pub(crate) fn keep_issued(&self, wanted: impl Fn(&str) -> bool) {
        self.issued_mut().retain(|name, _| wanted(name));
    }

    fn issued(&self, name: &str) -> Option<Arc<Loaded>> {
        self.issued.read().unwrap_or_else(PoisonError::into_inner).get(name).map(Arc::clone)
    }

    /// A panic while the lock was held left whole certificates.
    fn issued_mut(&self) -> RwLockWriteGuard<'_, HashMap<String, Arc<Loaded>>> {
        self.issued.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn given(&self, host: &str) -> Option<Arc<Loaded>> {
        self.files.iter().map(Kept::loaded).find(|loaded| loaded.is_for(host))
    }

    /// What a client of this host is shown.
    fn shown(&self, host: &str) -> Result<Arc<CertifiedKey>, CaError> {
        let wildcard = self.hosts.wildcard();
        let name = if self.hosts.endpoint(host).is_some() { &wildcard } else { host };
        match self.given(host).or_else(|| self.issued(name)) {
            Some(loaded) => Ok(Arc::clone(&loaded.certificate)),
            None => self.made(name, SystemTime::now()),
        }
    }

    /// The local authority's, made where there is no fresh one.
    fn made(&self, name: &str, now: SystemTime) -> Result<Arc<CertifiedKey>, CaError> {
        // A panic while the lock was held left whole certificates.
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        let fresh =
            |loaded: &&Arc<Loaded>| !now.duration_since(loaded.since).is_ok_and(|age| age > RENEW_AFTER);
        if let Some(loaded) = made.get(name).filter(fresh) {
            return Ok(Arc::clone(&loaded.certificate));
        }
        if made.len() >= MAX_MADE {
            made.clear();
        }
        let certificate = self.authority.certificate(&[name])?;
        let loaded = Loaded { certificate: Arc::clone(&certificate), since: now };
        made.insert(name.to_owned(), Arc::new(loaded));
        Ok(certificate)
    }
}

/// The certificates, for clients of the endpoints and of the names of the operator's own.
#[derive(Debug)]
pub(crate) struct Shown {
    certificates: Arc<Certificates>,
    backend: Known,
}

struct Known(Arc<dyn Backend>);

impl std::fmt::Debug for Known {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Backend").finish_non_exhaustive()
    }
}

impl Shown {
    pub(crate) fn new(certificates: Arc<Certificates>, backend: Arc<dyn Backend>) -> Self {
        Self { certificates, backend: Known(backend) }
    }

    /// Whatever name nobody has is shown the endpoints' certificate.
    fn host(&self, name: Option<&str>) -> String {
        let name = name.map(str::to_ascii_lowercase).filter(|name| self.backend.0.is_domain(name));
        name.unwrap_or_else(|| self.certificates.any_endpoint())
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        if hello.alpn().is_some_and(|mut protocols| protocols.any(|name| name == ACME_TLS)) {
            return self.certificates.challenges.shown(hello.server_name()?);
        }
        let host = self.host(hello.server_name());
        let shown = self.certificates.shown(&host);
        shown.inspect_err(|error| tracing::error!(host, "no certificate to show: {error}")).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

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

    fn open(
        dir: &Path,
        endpoints: Option<CertificateFiles>,
        domains: Vec<CertificateFiles>,
    ) -> Result<Certificates, CertificateError> {
        Certificates::open(LocalCa::open(&dir.join("ca")).unwrap(), hosts(), endpoints, domains)
    }

    fn endpoint() -> String {
        hosts().host(EndpointId::random())
    }

    fn shown(certificates: &Certificates, host: &str) -> Vec<u8> {
        certificates.shown(host).unwrap().end_entity_cert().unwrap().to_vec()
    }

    fn is_for(certificates: &Certificates, shown_to: &str, host: &str) -> bool {
        let certificate = certificates.shown(shown_to).unwrap();
        Loaded { certificate, since: SystemTime::now() }.is_for(host)
    }

    #[test]
    fn a_new_certificate_is_shown_and_a_broken_one_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let files = issue(dir.path(), &hosts().wildcard());
        let certificates = open(dir.path(), Some(files.clone()), vec![]).unwrap();
        let look = || certificates.files[0].look(false);
        let first = shown(&certificates, &endpoint());
        look();
        assert_eq!(shown(&certificates, &endpoint()), first);

        issue(dir.path(), &hosts().wildcard());
        let later = SystemTime::now() + Duration::from_secs(5);
        fs::File::open(&files.chain).unwrap().set_modified(later).unwrap();
        look();
        let second = shown(&certificates, &endpoint());
        assert_ne!(second, first);

        fs::write(&files.key, "no key").unwrap();
        certificates.files[0].look(true);
        assert_eq!(shown(&certificates, &endpoint()), second);
    }

    #[test]
    fn what_no_client_would_accept_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let refused =
            |files: &CertificateFiles| open(dir.path(), Some(files.clone()), vec![]).unwrap_err().to_string();
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
    fn the_authoritys_is_made_once_and_anew_in_good_time() {
        let dir = tempfile::tempdir().unwrap();
        let certificates = open(dir.path(), None, vec![]).unwrap();
        let made = |after: u64| {
            let certificate = certificates.made("a.test", SystemTime::now() + Duration::from_secs(after));
            certificate.unwrap().end_entity_cert().unwrap().to_vec()
        };
        let first = made(0);
        assert_eq!(made(60), first);
        assert_ne!(made(RENEW_AFTER.as_secs() + 60), first);
    }

    #[test]
    fn each_name_is_shown_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let files = issue(dir.path(), "*.apps.test");
        let certificates = open(dir.path(), None, vec![files.clone()]).unwrap();
        let own = fs::read(&files.chain).unwrap();
        let own = rustls::pki_types::pem::PemObject::from_pem_slice(&own)
            .map(|der: rustls::pki_types::CertificateDer<'_>| der.to_vec())
            .unwrap();
        assert_eq!(shown(&certificates, "a.apps.test"), own);
        assert!(is_for(&certificates, "b.other.test", "b.other.test"), "the authority's");
        let host = endpoint();
        assert!(is_for(&certificates, &host, &host) && !is_for(&certificates, &host, "b.other.test"));
    }
}
