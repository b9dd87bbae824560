//! Removing what was issued for names that lead nowhere any more, with its keys.

use std::io;
use std::path::Path;

use super::ENDPOINTS;
use crate::files::{self, FileError};

const EXTENSION: &str = "pem";

/// Removes the certificates in `dir` but the endpoints' and those of the names that `leads_somewhere`.
pub(super) fn forget(dir: &Path, leads_somewhere: impl Fn(&str) -> bool) -> Result<(), FileError> {
    let entries = dir.read_dir().and_then(Iterator::collect::<io::Result<Vec<_>>>);
    for entry in entries.map_err(FileError::new("listing", dir))? {
        let path = entry.path();
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or(ENDPOINTS);
        let is_certificate = path.extension().is_some_and(|extension| extension == EXTENSION);
        if is_certificate && name != ENDPOINTS && !leads_somewhere(name) {
            files::remove(&path)?;
            tracing::info!(name, "removed the certificate of a name that leads nowhere any more");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn certificates_go_with_their_names() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["endpoints.pem", "kept.example.com.pem", "gone.example.com.pem", "account.json"];
        files.iter().for_each(|file| std::fs::write(dir.path().join(file), "").unwrap());
        forget(dir.path(), |name| name == "kept.example.com").unwrap();
        let left = files.map(|file| dir.path().join(file).exists());
        assert_eq!(left, [true, true, false, true]);
        assert!(forget(&dir.path().join("missing"), |_| true).is_err());
    }
}
