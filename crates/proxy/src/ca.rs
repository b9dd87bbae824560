//! The local certificate authority, made at first start, and the certificates of the endpoints that it signs.
//!
//! Only the authority is kept on disk. The endpoints' certificates are made anew at every start, so that they never outlive
//! a server's key on disk and follow a change of names by themselves.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose,
};
use rustls::crypto::ring::sign::any_supported_type;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::sign::CertifiedKey;
use time::{Duration, OffsetDateTime};

const KEY_FILE: &str = "ca.key";
/// The authority's certificate, in the directory given to [`LocalCa::open`].
pub const CERTIFICATE_FILE: &str = "ca.pem";
const CA_DAYS: i64 = 3650;
/// Some clients refuse certificates that are valid for longer than 825 days.
const ENDPOINT_DAYS: i64 = 820;
/// Certificates begin this long ago, for clients whose clocks are behind.
const BACKDATE: Duration = Duration::days(1);

/// Why the certificates are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum CaError {
    /// The directory, key or certificate cannot be read or written.
    #[error("cannot {action} {}: {source}; check the owner and mode of the directory", path.display())]
    File {
        /// What was attempted.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The key on disk is not one of ours, or a certificate cannot be made from it.
    #[error(
        "cannot make a certificate with the authority's key: {0}; if the key file is damaged, remove it and start again (clients must then trust the new authority)"
    )]
    Certificate(#[from] rcgen::Error),
    /// rustls does not take the key that was made.
    #[error("cannot use the endpoints' new key for TLS: {0}")]
    Key(#[from] rustls::Error),
}

/// The local certificate authority.
pub struct LocalCa {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl std::fmt::Debug for LocalCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("LocalCa").finish_non_exhaustive()
    }
}

impl LocalCa {
    /// Loads the authority kept in `dir`, making it if there is none.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn open(dir: &Path) -> Result<Self, CaError> {
        fs::create_dir_all(dir).map_err(file_error("create", dir))?;
        let key_path = dir.join(KEY_FILE);
        let pem_path = dir.join(CERTIFICATE_FILE);
        let (key, pem) = match (read(&key_path)?, read(&pem_path)?) {
            (Some(key), Some(pem)) => (KeyPair::from_pem(&key)?, pem),
            // A start was cut short between the two files: the certificate follows from the key.
            (Some(key), None) => certify(KeyPair::from_pem(&key)?, &pem_path)?,
            (None, _) => {
                let key = KeyPair::generate()?;
                // The old certificate goes first: beside a new key it would be taken for that key's.
                remove(&pem_path)?;
                write(&key_path, &key.serialize_pem(), 0o600)?;
                certify(key, &pem_path)?
            }
        };
        Ok(Self { issuer: Issuer::new(ca_params(), key), pem })
    }

    /// The authority's certificate in PEM: what clients add to the ones they trust.
    #[must_use]
    pub fn bundle_pem(&self) -> &str {
        &self.pem
    }

    /// A new certificate for hosts of these names, which may be wildcards.
    ///
    /// # Errors
    /// See [`CaError`].
    pub fn certificate(&self, names: &[&str]) -> Result<Arc<CertifiedKey>, CaError> {
        let key = KeyPair::generate()?;
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name = name("Rekindle endpoints");
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        validity(&mut params, ENDPOINT_DAYS);
        let certificate: CertificateDer<'static> = params.signed_by(&key, &self.issuer)?.der().clone();
        let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        Ok(Arc::new(CertifiedKey::new(vec![certificate], any_supported_type(&key)?)))
    }
}

fn certify(key: KeyPair, path: &Path) -> Result<(KeyPair, String), CaError> {
    let pem = ca_params().self_signed(&key)?.pem();
    write(path, &pem, 0o644)?;
    Ok((key, pem))
}

/// The name must stay as it is: certificates issued after a restart carry it as their issuer.
fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("Rekindle local CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    validity(&mut params, CA_DAYS);
    params
}

fn name(common: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common);
    name
}

fn validity(params: &mut CertificateParams, days: i64) {
    let start = OffsetDateTime::now_utc() - BACKDATE;
    params.not_before = start;
    params.not_after = start + Duration::days(days);
}

fn read(path: &Path) -> Result<Option<String>, CaError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(file_error("read", path)(error)),
    }
}

fn remove(path: &Path) -> Result<(), CaError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file_error("remove", path)(error)),
        _ => Ok(()),
    }
}

/// Writes a whole file or nothing, durably.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    let fresh = path.with_extension("new");
    let done = (|| {
        remove_stale(&fresh)?;
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&fresh, path)?;
        path.parent().map_or(Ok(()), |dir| fs::File::open(dir)?.sync_all())
    })();
    done.map_err(file_error("write", path))
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn file_error(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> CaError {
    let path = path.to_owned();
    move |source| CaError::File { action, path, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_authority_is_made_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = LocalCa::open(dir.path()).unwrap();
        let second = LocalCa::open(dir.path()).unwrap();
        assert_eq!(first.bundle_pem(), second.bundle_pem());
        let mode = fs::metadata(dir.path().join(KEY_FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }

    #[test]
    fn a_missing_certificate_follows_from_the_key() {
        let dir = tempfile::tempdir().unwrap();
        LocalCa::open(dir.path()).unwrap();
        let key = fs::read(dir.path().join(KEY_FILE)).unwrap();
        fs::remove_file(dir.path().join(CERTIFICATE_FILE)).unwrap();
        LocalCa::open(dir.path()).unwrap();
        assert_eq!(fs::read(dir.path().join(KEY_FILE)).unwrap(), key);
    }

    #[test]
    fn a_damaged_key_is_an_error_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        LocalCa::open(dir.path()).unwrap();
        fs::write(dir.path().join(KEY_FILE), "no key").unwrap();
        let error = LocalCa::open(dir.path()).unwrap_err().to_string();
        assert!(error.contains("remove it and start again"), "{error}");
    }
}
