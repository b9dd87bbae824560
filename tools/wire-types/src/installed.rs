//! Where the models are, and where the generated code is.

use std::fs;
use std::path::{Path, PathBuf};

use crate::GenerateError;

const ASSETS: &str = "/var/lib/rekindle/assets";
const MODELS: &str = "site-packages/botocore/data";

/// The models of the clients that `scripts/clients` has installed.
///
/// # Errors
/// [`GenerateError::NotInstalled`].
pub fn installed_models() -> Result<PathBuf, GenerateError> {
    let assets = std::env::var_os("REKINDLE_ASSETS").map_or_else(|| ASSETS.into(), PathBuf::from);
    let lib = assets.join("clients/lib");
    let pythons = fs::read_dir(&lib).into_iter().flatten().flatten();
    let mut models = pythons.map(|python| python.path().join(MODELS));
    models.find(|models| models.is_dir()).ok_or(GenerateError::NotInstalled(lib))
}

/// Where the generated code is checked in.
#[must_use]
pub fn generated() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/api/src/generated")
}

/// Where Rekindle's own models are.
pub(crate) fn own_models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../crates/api/models")
}
