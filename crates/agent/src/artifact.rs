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

#[cfg(test)]
mod tests {
    use std::io::Write;

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    use super::*;

    /// A zip with these entries, each with its mode.
    fn zip_of(entries: &[(&str, u32, &[u8])]) -> File {
        let mut zip = ZipWriter::new(tempfile::tempfile().unwrap());
        for (name, mode, content) in entries {
            let options = SimpleFileOptions::default().unix_permissions(*mode);
            match name.strip_suffix('/') {
                Some(directory) => zip.add_directory(directory, options).unwrap(),
                None if mode & FILE_TYPE == SYMLINK => {
                    zip.add_symlink(*name, std::str::from_utf8(content).unwrap(), options).unwrap();
                }
                None => {
                    zip.start_file(*name, options).unwrap();
                    zip.write_all(content).unwrap();
                }
            }
        }
        zip.finish().unwrap()
    }

    fn unpacked(entries: &[(&str, u32, &[u8])]) -> (Result<(), ArtifactError>, tempfile::TempDir) {
        let dir = tempfile::tempdir().unwrap();
        (unpack(zip_of(entries), dir.path()), dir)
    }

    #[test]
    fn files_come_with_their_modes_but_for_those_that_raise_rights() {
        let (done, dir) = unpacked(&[
            ("bin/", 0o755, b""),
            ("bin/run", 0o4755, b"#!/bin/sh\n"),
            ("Dockerfile", 0o644, b"FROM scratch\n"),
        ]);
        done.unwrap();
        assert_eq!(fs::read(dir.path().join("bin/run")).unwrap(), b"#!/bin/sh\n");
        let mode = |name: &str| fs::metadata(dir.path().join(name)).unwrap().permissions().mode() & 0o7777;
        assert_eq!((mode("bin/run"), mode("Dockerfile")), (0o755, 0o644));
    }

    #[test]
    fn an_entry_leads_nowhere_else() {
        let outside = tempfile::tempdir().unwrap();
        let target = outside.path().to_str().unwrap();
        let link = ("link", SYMLINK | 0o777, target.as_bytes());
        let (done, _dir) = unpacked(&[link, ("link/file", 0o644, b"out of it"), ("Dockerfile", 0o644, b"")]);
        assert!(matches!(done, Err(ArtifactError::Entry(name)) if name == "link"));
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0);
        let (done, dir) = unpacked(&[("../file", 0o644, b"out of it"), ("Dockerfile", 0o644, b"")]);
        assert!(matches!(done, Err(ArtifactError::Entry(_))), "{done:?}");
        assert!(!dir.path().parent().unwrap().join("file").exists());
    }

    #[test]
    fn what_is_a_file_cannot_be_a_folder_too() {
        let (done, _dir) =
            unpacked(&[("a", 0o644, b"file"), ("a/b", 0o644, b""), ("Dockerfile", 0o644, b"")]);
        assert!(matches!(done, Err(ArtifactError::Io(_))), "{done:?}");
        let (done, _dir) = unpacked(&[("Dockerfile/", 0o755, b""), ("Dockerfile/a", 0o644, b"")]);
        assert!(matches!(done, Err(ArtifactError::NoDockerfile)), "{done:?}");
    }

    /// A thousand times the bytes that it takes, whatever it says of its size.
    #[test]
    fn a_bomb_is_not_unpacked_beyond_what_is_left() {
        const LEFT: u64 = 1000;
        let dir = tempfile::tempdir().unwrap();
        let mut archive = ZipArchive::new(zip_of(&[("bomb", 0o644, &vec![0; 1 << 20])])).unwrap();
        assert!(archive.by_index(0).unwrap().compressed_size() < 2000);
        let unpacked = unpack_entry(archive.by_index(0).unwrap(), dir.path(), LEFT);
        assert!(matches!(unpacked, Err(ArtifactError::TooLarge)), "{unpacked:?}");
        assert_eq!(fs::metadata(dir.path().join("bomb")).unwrap().len(), LEFT + 1);
    }
}
