//! One file of certificates for clients to trust: the system's, so that other hosts still verify, and the local
//! authority's, so that the endpoints do.

use std::fs;
use std::path::{Path, PathBuf};

use crate::files::{self, FileError, PUBLIC};

/// Where distributions keep the certificates they trust. Not what the environment names: that may be our own file.
const SYSTEM: [&str; 3] =
    ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt", "/etc/ssl/cert.pem"];

/// The system's certificates, where it has some.
pub(crate) fn system() -> Option<PathBuf> {
    SYSTEM.iter().map(PathBuf::from).find(|path| path.exists())
}

/// Writes the file anew, as the system's certificates may have changed since the last start.
pub(crate) fn write(path: &Path, local: &str) -> Result<(), FileError> {
    let system = system().and_then(|path| fs::read_to_string(path).ok());
    if system.is_none() {
        tracing::warn!(
            "the system has no certificates: clients set up with `rekindle env` trust this server only"
        );
    }
    files::write(path, join(&system.unwrap_or_default(), local).as_bytes(), PUBLIC)
}

fn join(system: &str, local: &str) -> String {
    let gap = if system.is_empty() || system.ends_with('\n') { "" } else { "\n" };
    format!("{system}{gap}{local}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_are_never_run_together() {
        assert_eq!(join("a\n", "b\n"), "a\nb\n");
        assert_eq!(join("a", "b\n"), "a\nb\n");
        assert_eq!(join("", "b\n"), "b\n");
    }
}
