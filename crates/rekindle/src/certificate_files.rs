//! Certificates in files of the operator's, read again when they change.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use arc_swap::ArcSwap;
use rustls::client::verify_server_name;
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use serde::Deserialize;
use x509_parser::parse_x509_certificate;
use x509_parser::time::ASN1Time;

use crate::acme::Validity;

/// A certificate and its key, in PEM.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct CertificateFiles {
    /// The certificate, and those that it is signed by.
    pub(crate) chain: PathBuf,
    /// Its private key.
    pub(crate) key: PathBuf,
}

/// Why files are no certificate to show.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FilesError {
    #[error(
        "cannot read the certificate {path}: {source}; check endpoint_certificate and domain_certificates in the settings"
    )]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot read the certificate {path}: {source}; give PEM")]
    Pem { path: PathBuf, source: pem::Error },
    #[error(
        "cannot use the certificate {chain} with the key {key}: {source}; give the two that belong together"
    )]
    Pair { chain: PathBuf, key: PathBuf, source: rustls::Error },
}

/// A certificate with its key, and since when it is what it is.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) certificate: Arc<CertifiedKey>,
    pub(crate) since: SystemTime,
}

impl Loaded {
    /// From when until when it is valid; `None` where it does not say so as it should.
    pub(crate) fn validity(&self) -> Option<Validity> {
        let leaf = self.certificate.end_entity_cert().ok()?;
        let (_, parsed) = parse_x509_certificate(leaf).ok()?;
        let moment = |time: ASN1Time| {
            let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
            UNIX_EPOCH + Duration::from_secs(seconds)
        };
        let validity = parsed.validity();
        Some(Validity { from: moment(validity.not_before), until: moment(validity.not_after) })
    }

    /// Whether clients of this host accept it, as far as names go.
    pub(crate) fn is_for(&self, host: &str) -> bool {
        let leaf = self.certificate.end_entity_cert().and_then(ParsedCertificate::try_from);
        let name = ServerName::try_from(host);
        leaf.is_ok_and(|leaf| name.is_ok_and(|name| verify_server_name(&leaf, &name).is_ok()))
    }
}

impl CertificateFiles {
    pub(crate) fn load(&self) -> Result<Loaded, FilesError> {
        // Looked at before they are read: what changes meanwhile is read again.
        let since = self.changed()?;
        Ok(Loaded { certificate: Arc::new(self.read()?), since })
    }

    fn changed(&self) -> Result<SystemTime, FilesError> {
        let of = |path: &Path| {
            let changed = fs::metadata(path).and_then(|file| file.modified());
            changed.map_err(|source| FilesError::Read { path: path.to_owned(), source })
        };
        Ok(of(&self.chain)?.max(of(&self.key)?))
    }

    fn read(&self) -> Result<CertifiedKey, FilesError> {
        let no_pem = |path: &Path| {
            let path = path.to_owned();
            move |source| FilesError::Pem { path, source }
        };
        let chain = CertificateDer::pem_file_iter(&self.chain).and_then(Iterator::collect);
        let chain: Vec<_> = chain.map_err(no_pem(&self.chain))?;
        let key = PrivateKeyDer::from_pem_file(&self.key).map_err(no_pem(&self.key))?;
        let pair = |source| FilesError::Pair { chain: self.chain.clone(), key: self.key.clone(), source };
        let certificate = CertifiedKey::new(chain, any_supported_type(&key).map_err(pair)?);
        certificate.keys_match().map_err(pair)?;
        let leaf = certificate.end_entity_cert().map_err(pair)?;
        ParsedCertificate::try_from(leaf).map_err(pair)?;
        Ok(certificate)
    }
}

/// What files held when they were last read.
#[derive(Debug)]
pub(crate) struct Kept {
    files: CertificateFiles,
    loaded: ArcSwap<Loaded>,
}

impl Kept {
    pub(crate) fn open(files: CertificateFiles) -> Result<Self, FilesError> {
        let loaded = ArcSwap::from_pointee(files.load()?);
        Ok(Self { files, loaded })
    }

    pub(crate) fn loaded(&self) -> Arc<Loaded> {
        self.loaded.load_full()
    }

    /// Reads them again if they have changed, or are to be in any case. What is no better is not taken.
    pub(crate) fn look(&self, in_any_case: bool) {
        // What cannot be looked at will not be read either.
        let stale = self.files.changed().is_ok_and(|changed| changed != self.loaded.load().since);
        if !stale && !in_any_case {
            return;
        }
        match self.files.load() {
            Ok(loaded) => {
                self.loaded.store(Arc::new(loaded));
                let chain = self.files.chain.display();
                tracing::info!(%chain, "new connections are shown a new certificate");
            }
            Err(error) => tracing::error!("{error}; clients are shown the certificate from before"),
        }
    }
}
