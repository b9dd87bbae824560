//! The artifact: a tenant's zip, unpacked with hard limits into a build context.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use zip::ZipArchive;
use zip::read::ZipFile;

/// Most entries of an artifact.
const MAX_ENTRIES: usize = 200_000;
/// Most bytes that an artifact may unpack to.
const MAX_UNPACKED: u64 = 8 * 1024 * 1024 * 1024;
const FILE_TYPE: u32 = 0o170_000;
const SYMLINK: u32 = 0o120_000;
const REGULAR: u32 = 0o100_000;

/// Why an artifact is refused.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArtifactError {
    #[error("the code artifact is not a readable zip file: {0}")]
    Zip(#[from] zip::result::ZipError),
    #[error("unpacking the code artifact: {0}")]
    Io(#[from] io::Error),
    #[error("the code artifact has {0} entries; at most {MAX_ENTRIES} are allowed")]
    TooMany(usize),
    #[error("the code artifact unpacks to more than {MAX_UNPACKED} bytes")]
    TooLarge,
    #[error("the code artifact's entry '{0}' leads outside the artifact or is no plain file or directory")]
    Entry(String),
    #[error("the code artifact has no Dockerfile at its root")]
    NoDockerfile,
}

/// Unpacks the zip into the empty directory `into`.
pub(crate) fn unpack(zip: File, into: &Path) -> Result<(), ArtifactError> {
    let mut archive = ZipArchive::new(zip)?;
    if archive.len() > MAX_ENTRIES {
        return Err(ArtifactError::TooMany(archive.len()));
    }
    let mut left = MAX_UNPACKED;
    for index in 0..archive.len() {
        left -= unpack_entry(archive.by_index(index)?, into, left)?;
    }
    let dockerfile = fs::symlink_metadata(into.join("Dockerfile"));
    if dockerfile.is_ok_and(|found| found.is_file()) { Ok(()) } else { Err(ArtifactError::NoDockerfile) }
}

/// Returns the bytes written, at most `left`.
fn unpack_entry<R: Read>(mut entry: ZipFile<'_, R>, into: &Path, left: u64) -> Result<u64, ArtifactError> {
    let refused = || ArtifactError::Entry(entry.name().escape_debug().to_string());
    let path = into.join(entry.enclosed_name().ok_or_else(refused)?);
    let mode = entry.unix_mode().unwrap_or(0);
    if entry.is_dir() {
        fs::create_dir_all(&path)?;
        return Ok(0);
    }
    // No link is ever made, so no later entry can be led out of the directory by an earlier one.
    if !matches!(mode & FILE_TYPE, 0 | REGULAR) || mode & FILE_TYPE == SYMLINK {
        return Err(refused());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    let mut file = File::create(&path)?;
    // What an entry says of its size is not believed: one byte over the limit is read, and is too many.
    let written = io::copy(&mut (&mut entry).take(left.saturating_add(1)), &mut file)?;
    if written > left {
        return Err(ArtifactError::TooLarge);
    }
    let permissions = if mode & 0o777 == 0 { 0o644 } else { mode & 0o777 };
    file.set_permissions(fs::Permissions::from_mode(permissions))?;
    Ok(written)
}
